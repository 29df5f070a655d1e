// Limits for tests: a clock that is moved by hand and wakes sleepers in order, callers, endpoints with rules.
import type { Origin, Principal, Spend } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { AiGateway, Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import { type Limits, openLimits } from '#governance/limits/limits.ts';
import type { SpentRow } from '#governance/limits/past-spend.ts';
import type { RegistryStore, StoredDocument } from '#storage/registry-store.ts';

export const START_MS = Date.UTC(2026, 4, 17, 12, 0, 0);

interface Sleeper {
  readonly atMs: number;
  readonly wake: () => void;
}

export class HandClock implements Clock {
  #nowMs: number;
  /** Time that has passed, whatever was done to the clock. */
  #passedMs = 0;
  #sleepers: Sleeper[] = [];

  constructor(nowMs = START_MS) {
    this.#nowMs = nowMs;
  }

  get sleepers(): number {
    return this.#sleepers.length;
  }

  now(): number {
    return this.#nowMs;
  }

  random(): number {
    return 0.5;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
        reject(signal?.reason);
      };
      const wake = () => {
        signal?.removeEventListener('abort', abort);
        resolve();
      };
      const sleeper = { atMs: this.#passedMs + ms, wake };
      this.#sleepers.push(sleeper);
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  /** Lets time pass, waking one sleeper after another. */
  async pass(ms: number): Promise<void> {
    const endMs = this.#passedMs + ms;
    await settled();
    for (;;) {
      const next = this.#sleepers.toSorted((left, right) => left.atMs - right.atMs)[0];
      if (next === undefined || next.atMs > endMs) break;
      this.#move(Math.max(0, next.atMs - this.#passedMs));
      this.#sleepers = this.#sleepers.filter((other) => other !== next);
      next.wake();
      await settled();
    }
    this.#move(endMs - this.#passedMs);
    await settled();
  }

  /** Somebody sets the clock; no time passes. */
  set(nowMs: number): void {
    this.#nowMs = nowMs;
  }

  #move(ms: number): void {
    this.#passedMs += ms;
    this.#nowMs += ms;
  }
}

/** Everything that was due has run. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export function memoryStore(
  documents: StoredDocument[] = [],
): RegistryStore & { documents: StoredDocument[] } {
  const store = {
    documents,
    loadAll: async () => store.documents,
    put: async (kind: string, key: string, document: StoredDocument['document']) => {
      await store.delete(kind, key);
      store.documents.push({ kind, key, document, updatedAtMs: 0 });
    },
    delete: async (kind: string, key: string) => {
      store.documents = store.documents.filter((each) => each.kind !== kind || each.key !== key);
    },
    transact: async () => {
      throw new Error('not used here');
    },
  };
  return store;
}

export interface World {
  readonly clock: HandClock;
  readonly limits: Limits;
  readonly store: ReturnType<typeof memoryStore>;
}

export async function openWorld({
  clock = new HandClock(),
  store = memoryStore(),
  spentSince = async () => [],
}: {
  readonly clock?: HandClock;
  readonly store?: ReturnType<typeof memoryStore>;
  readonly spentSince?: (fromMs: number) => Promise<readonly SpentRow[]>;
} = {}): Promise<World> {
  return { clock, store, limits: await openLimits({ store, clock, log: SILENT_LOG, spentSince }) };
}

export function endpointWith(aiGateway: AiGateway | undefined, name = 'llm'): Endpoint {
  return {
    id: `id-${name}`,
    name,
    task: 'llm/v1/chat',
    servedEntities: [],
    routes: [],
    configVersion: 1,
    description: '',
    tags: [],
    creator: 'owner',
    createdAtMs: 0,
    updatedAtMs: 0,
    isEmbedded: false,
    ...(aiGateway === undefined ? {} : { aiGateway }),
  };
}

export function user(name: string, ...groups: string[]): Principal {
  return { id: `user-${name}`, name, kind: 'user', isAdmin: false, groups };
}

export function servicePrincipal(name: string): Principal {
  return { id: `sp-${name}`, name, kind: 'service_principal', isAdmin: false };
}

export function call(principal: Principal, origin: Origin = 'http') {
  return { principal, origin };
}

export const spend = (calls: number, tokens = 0, cost = 0): Spend => ({ calls, tokens, cost });

export async function refusal(asked: () => unknown): Promise<ServingError> {
  try {
    await asked();
  } catch (error) {
    if (error instanceof ServingError) return error;
    throw error;
  }
  throw new Error('expected a refusal');
}
