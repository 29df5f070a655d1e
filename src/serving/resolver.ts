// What serving needs from the registry, as a narrow shape: names to targets, and news of changes.
// The policies of governance are words of core (policies.ts).
import type { Resolution, ResolveOptions } from '#registry/endpoints.ts';

export type { Resolution };

export interface Resolver {
  /** From memory, no I/O. Throws ENDPOINT_NOT_FOUND, WRONG_TASK. */
  resolve(name: string, options: ResolveOptions): Resolution;
  /** Heard after every change of endpoints or models. */
  onChange(listener: () => void): unknown;
}
