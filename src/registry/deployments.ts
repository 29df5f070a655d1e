// What is being made ready: new endpoints whose models load, and configurations that wait to replace the active
// one. In memory only: after a restart what is stored is what is served.
import type { Endpoint } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';

export type UpdateState = 'NOT_UPDATING' | 'IN_PROGRESS' | 'UPDATE_FAILED' | 'UPDATE_CANCELED';

export interface EndpointState {
  /** The active configuration can be asked. Stays true while another one is being made ready. */
  readonly isReady: boolean;
  readonly update: UpdateState;
  /** Why a creation or an update failed; else empty. */
  readonly message: string;
  readonly failure?: ServingError;
  /** The endpoint as it would be after the update that is under way, or that failed last. */
  readonly pending?: Endpoint;
  /** Epoch milliseconds at which that update began. */
  readonly pendingSinceMs?: number;
}

/** One attempt to make an endpoint ready. */
export interface Deployment {
  readonly signal: AbortSignal;
  /** Absent: the active configuration itself is made ready (after creating and starting). */
  readonly pending?: Endpoint;
  /** Resolves when the attempt is over, however it ended. */
  readonly settled: Promise<void>;
}

interface Entry {
  isReady: boolean;
  update: UpdateState;
  failure?: ServingError;
  pending?: Endpoint;
  sinceMs: number;
  controller: AbortController;
  settled: Promise<void>;
  settle: () => void;
}

const SETTLED: EndpointState = { isReady: true, update: 'NOT_UPDATING', message: '' };

export class Deployments {
  /** By id of the endpoint, so that a deleted one has no say over the next of its name. */
  readonly #entries = new Map<string, Entry>();

  stateOf(endpoint: Endpoint): EndpointState {
    const entry = this.#entries.get(endpoint.id);
    const isStopped = endpoint.isStopped === true;
    if (entry === undefined) return isStopped ? { ...SETTLED, isReady: false } : SETTLED;
    return {
      isReady: entry.isReady && !isStopped,
      update: entry.update,
      message: entry.failure === undefined ? '' : `${entry.failure.message} [${entry.failure.code}]`,
      ...(entry.failure === undefined ? {} : { failure: entry.failure }),
      ...(entry.pending === undefined ? {} : { pending: entry.pending, pendingSinceMs: entry.sinceMs }),
    };
  }

  isUpdating(endpointId: string): boolean {
    return this.#entries.get(endpointId)?.update === 'IN_PROGRESS';
  }

  begin(endpoint: Endpoint, nowMs: number, pending?: Endpoint): Deployment {
    const before = this.#entries.get(endpoint.id);
    let settle = () => {};
    const settled = new Promise<void>((resolve) => {
      settle = resolve;
    });
    const entry: Entry = {
      isReady: pending === undefined ? false : (before?.isReady ?? true),
      update: 'IN_PROGRESS',
      ...(pending === undefined ? {} : { pending }),
      sinceMs: nowMs,
      controller: new AbortController(),
      settled,
      settle,
    };
    this.#entries.set(endpoint.id, entry);
    return { signal: entry.controller.signal, settled, ...(pending === undefined ? {} : { pending }) };
  }

  /** Ready: nothing is left to remember. */
  succeed(endpointId: string, deployment: Deployment): void {
    const entry = this.#current(endpointId, deployment);
    if (entry === undefined) return;
    this.#entries.delete(endpointId);
    entry.settle();
  }

  fail(endpointId: string, deployment: Deployment, failure: ServingError): void {
    const entry = this.#current(endpointId, deployment);
    if (entry === undefined) return;
    entry.update = 'UPDATE_FAILED';
    entry.failure = failure;
    entry.settle();
  }

  /** The attempt under way, if any, comes to nothing; what it was to replace stays. */
  cancel(endpointId: string): Endpoint | undefined {
    const entry = this.#entries.get(endpointId);
    if (entry?.update !== 'IN_PROGRESS') return undefined;
    entry.controller.abort();
    entry.update = 'UPDATE_CANCELED';
    const { pending } = entry;
    delete entry.pending;
    entry.settle();
    return pending;
  }

  /** For a configuration that became active without an attempt, and for what was deleted. */
  forget(endpointId: string): void {
    this.cancel(endpointId);
    this.#entries.delete(endpointId);
  }

  async settled(endpointId: string): Promise<void> {
    await this.#entries.get(endpointId)?.settled;
  }

  #current(endpointId: string, deployment: Deployment): Entry | undefined {
    const entry = this.#entries.get(endpointId);
    return entry !== undefined && entry.settled === deployment.settled && entry.update === 'IN_PROGRESS'
      ? entry
      : undefined;
  }
}
