// Answers kept in memory only, for a data directory that is not on disk. Forgotten when the process ends.
import { LRUCache } from 'lru-cache';
import type { Clock } from '#core/clock.ts';
import type { StoredAnswer } from '#core/stores.ts';
import type { OpenedAnswerStore } from './answer-store.ts';

export class MemoryAnswerStore implements OpenedAnswerStore {
  readonly #answers: LRUCache<string, StoredAnswer>;
  readonly #ttlMs: number;
  readonly #clock: Clock;

  constructor(options: {
    readonly maxEntries: number;
    readonly memoryEntries: number;
    readonly ttlMs: number;
    readonly clock: Clock;
  }) {
    this.#answers = new LRUCache({ max: Math.max(1, Math.min(options.maxEntries, options.memoryEntries)) });
    this.#ttlMs = options.ttlMs;
    this.#clock = options.clock;
  }

  get(key: string): StoredAnswer | undefined {
    const answer = this.#answers.get(key);
    return answer !== undefined && this.#isFresh(answer) ? answer : undefined;
  }

  put(key: string, answer: StoredAnswer): void {
    this.#answers.set(key, answer);
  }

  async flush(): Promise<void> {}

  *entries(): IterableIterator<readonly [key: string, answer: StoredAnswer]> {
    const fresh = [...this.#answers.entries()].filter(([, answer]) => this.#isFresh(answer));
    yield* fresh.sort(([left], [right]) => (left < right ? -1 : 1));
  }

  async clear(filter: { readonly endpoint?: string; readonly model?: string } = {}): Promise<number> {
    return this.#deleteWhere(
      (answer) =>
        (filter.endpoint === undefined || answer.endpoint === filter.endpoint) &&
        (filter.model === undefined || answer.model === filter.model),
    );
  }

  get count(): number {
    return this.#answers.size;
  }

  async sweep(): Promise<number> {
    return this.#deleteWhere((answer) => !this.#isFresh(answer));
  }

  async close(): Promise<void> {
    this.#answers.clear();
  }

  #isFresh(answer: StoredAnswer): boolean {
    return this.#clock.now() - answer.createdAtMs < this.#ttlMs;
  }

  #deleteWhere(isDoomed: (answer: StoredAnswer) => boolean): number {
    const doomed = [...this.#answers.entries()].filter(([, answer]) => isDoomed(answer));
    for (const [key] of doomed) this.#answers.delete(key);
    return doomed.length;
  }
}
