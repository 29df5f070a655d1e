// What serving needs from the floors beside it, as narrow shapes: names to targets, who may ask, how much.
// The registry is a Resolver; governance fills Authorize and Limits.
import type { Call, Principal, TokenUsage } from '#core/call.ts';
import type { Endpoint, Target } from '#core/endpoint.ts';
import type { Resolution, ResolveOptions } from '#registry/endpoints.ts';

export type { Resolution };

export interface Resolver {
  /** From memory, no I/O. Throws ENDPOINT_NOT_FOUND, WRONG_TASK. */
  resolve(name: string, options: ResolveOptions): Resolution;
  /** Heard after every change of endpoints or models. */
  onChange(listener: () => void): unknown;
}

/** Throws PERMISSION_DENIED. */
export type Authorize = (principal: Principal, endpoint: Endpoint, action: 'query') => void;

/** Rate limits of principals and endpoints: the request is counted before the engine is asked, tokens after it. */
export interface Limits {
  /** Throws RATE_LIMITED or BUDGET_EXCEEDED. */
  admit(call: Call, target: Target): Promise<void>;
  /** What the call has spent, also when it failed. Once per admitted call. */
  spend(call: Call, target: Target, usage: TokenUsage): void;
}

export const NO_LIMITS: Limits = { admit: async () => {}, spend() {} };
