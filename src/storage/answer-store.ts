// Answers already paid for: an LMDB file behind an in-memory LRU. Several processes may have the file open.
// A read error is a miss and a failed write is forgotten: what is lost here is asked again, never answered wrongly.
import type { Database as LmdbDatabase, RootDatabase } from 'lmdb';
import { LRUCache } from 'lru-cache';
import type { Clock } from '#core/clock.ts';
import type { Log } from '#core/log.ts';
import type { AnswerStore, StoredAnswer } from '#core/stores.ts';
import { createdAtOf, decodeAnswer, encodeAnswer } from './answer-encoding.ts';
import { openLmdbFile } from './lmdb-file.ts';
import { MemoryAnswerStore } from './memory-answer-store.ts';

export interface AnswerStoreOptions {
  /** The LMDB file; null keeps answers in memory only. */
  readonly path: string | null;
  readonly maxEntries: number;
  /** Bound of the bytes of the answers, estimated from a sample; the file itself is larger and never shrinks. */
  readonly maxBytes?: number;
  /** Older answers are misses. Infinity: they never age. */
  readonly ttlMs: number;
  /** Decoded answers held in memory. */
  readonly memoryEntries: number;
  readonly clock: Clock;
  readonly log: Log;
}

export interface OpenedAnswerStore extends AnswerStore {
  /** Drops what is too old or too much; gives the number dropped. Runs by itself after writes. */
  sweep(): Promise<number>;
  /** Writes what is queued and releases the file. */
  close(): Promise<void>;
}

export async function openAnswerStore(options: AnswerStoreOptions): Promise<OpenedAnswerStore> {
  if (options.path === null) return new MemoryAnswerStore(options);
  return openLmdbFile(options.path, options.log, (root) => new LmdbAnswerStore(root, options));
}

const WRITE_DELAY_MS = 3;
/** Puts in one LMDB transaction: long enough to be cheap, short enough not to hold up the event loop. */
const WRITE_BATCH = 2_000;
const SWEEP_BATCH = 2_000;
const EXPIRY_CHECK_MS = 60_000;
/** How soon a `clear` of another process reaches the memory of this one. */
const EPOCH_CHECK_MS = 1_000;
const SAMPLE_RUNS = 32;
const SAMPLE_RUN_LENGTH = 8;
const EPOCH_KEY = 'epoch';
const EMPTY = Buffer.alloc(0);

export class LmdbAnswerStore implements OpenedAnswerStore {
  readonly #root: RootDatabase<Buffer>;
  readonly #answers: LmdbDatabase<Buffer, string>;
  /** `[createdAtMs, key]`: which answers are oldest. Entries of answers since replaced are skipped by the sweep. */
  readonly #byTime: LmdbDatabase<Buffer, [number, string]>;
  readonly #facts: LmdbDatabase<Buffer, string>;
  readonly #memory: LRUCache<string, StoredAnswer>;
  readonly #options: AnswerStoreOptions;
  // What was put and is not on disk yet: LMDB shows a put only after its commit.
  #queued = new Map<string, StoredAnswer>();
  #inFlight: ReadonlyMap<string, StoredAnswer> = new Map();
  #writing: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #sweeping: Promise<number> | undefined;
  #nextExpiryCheckMs = 0;
  #nextEpochCheckMs = 0;
  #epoch: string;
  #failures = 0;
  #isClosed = false;

  constructor(root: RootDatabase<Buffer>, options: AnswerStoreOptions) {
    this.#root = root;
    this.#options = options;
    this.#answers = root.openDB<Buffer, string>({ name: 'answers', encoding: 'binary' });
    this.#byTime = root.openDB<Buffer, [number, string]>({ name: 'by_time', encoding: 'binary' });
    this.#facts = root.openDB<Buffer, string>({ name: 'facts', encoding: 'binary' });
    this.#memory = new LRUCache({ max: Math.max(1, options.memoryEntries) });
    this.#epoch = this.#readEpoch();
    // Touches every tree once, so that a damaged file is found now and not by a user's query.
    this.#storedCount();
    for (const { value } of this.#answers.getRange({ limit: 4 })) decodeAnswer(value);
    for (const _ of this.#byTime.getKeys({ limit: 4 }));
  }

  get(key: string): StoredAnswer | undefined {
    const nowMs = this.#options.clock.now();
    if (!this.#isClosed) this.#checkEpoch(nowMs);
    const known = this.#memory.get(key) ?? this.#queued.get(key) ?? this.#inFlight.get(key);
    if (known !== undefined) return this.#isFresh(known.createdAtMs, nowMs) ? known : undefined;
    if (this.#isClosed) return undefined;
    try {
      const bytes = this.#answers.getBinaryFast(key);
      if (bytes === undefined || !this.#isFresh(createdAtOf(bytes), nowMs)) return undefined;
      const answer = decodeAnswer(bytes);
      if (answer !== undefined) this.#memory.set(key, answer);
      return answer;
    } catch (error) {
      this.#noteFailure('read', error);
      return undefined;
    }
  }

  put(key: string, answer: StoredAnswer): void {
    this.#memory.set(key, answer);
    if (this.#isClosed) return;
    this.#queued.set(key, answer);
    if (this.#writing === undefined && this.#timer === undefined) {
      this.#timer = setTimeout(() => void this.#startWriting(), WRITE_DELAY_MS);
    }
  }

  async flush(): Promise<void> {
    // The writing under way may have begun before the last put; the one after it holds all of them.
    await this.#writing;
    await this.#startWriting();
  }

  *entries(): IterableIterator<readonly [key: string, answer: StoredAnswer]> {
    if (this.#isClosed) return;
    const nowMs = this.#options.clock.now();
    for (const { key, value } of this.#answers.getRange()) {
      const answer = this.#decodeOrSkip(value);
      if (answer !== undefined && this.#isFresh(answer.createdAtMs, nowMs)) yield [key, answer];
    }
  }

  async clear(filter: { readonly endpoint?: string; readonly model?: string } = {}): Promise<number> {
    await this.flush();
    await this.#sweeping;
    this.#memory.clear();
    this.#epoch = `${this.#options.clock.now()}-${this.#options.clock.random()}`;
    await this.#facts.put(EPOCH_KEY, Buffer.from(this.#epoch));
    if (filter.endpoint === undefined && filter.model === undefined) {
      const count = this.#storedCount();
      await Promise.all([this.#answers.clearAsync(), this.#byTime.clearAsync()]);
      return count;
    }
    let cleared = 0;
    for (let after: string | undefined; ; ) {
      const { doomed, last } = this.#matching(filter, after);
      await this.#remove(doomed);
      cleared += doomed.length;
      if (last === undefined) return cleared;
      after = last;
    }
  }

  get count(): number {
    let unwritten = 0;
    for (const key of this.#queued.keys()) if (!this.#answers.doesExist(key)) unwritten += 1;
    for (const key of this.#inFlight.keys()) {
      if (!this.#queued.has(key) && !this.#answers.doesExist(key)) unwritten += 1;
    }
    return this.#storedCount() + unwritten;
  }

  sweep(): Promise<number> {
    this.#sweeping ??= this.#sweepAll().finally(() => {
      this.#sweeping = undefined;
    });
    return this.#sweeping;
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    await this.flush();
    this.#isClosed = true;
    await this.#sweeping;
    await this.#root.flushed;
    await this.#root.close();
  }

  #startWriting(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#writing === undefined && this.#queued.size > 0) {
      this.#writing = this.#writeQueued().finally(() => {
        this.#writing = undefined;
        if (this.#queued.size > 0) void this.#startWriting();
        else this.#sweepIfDue();
      });
    }
    return this.#writing ?? Promise.resolve();
  }

  async #writeQueued(): Promise<void> {
    this.#inFlight = this.#queued;
    this.#queued = new Map();
    const rest = [...this.#inFlight];
    try {
      for (let start = 0; start < rest.length; start += WRITE_BATCH) {
        await this.#root.batch(() => {
          for (const [key, answer] of rest.slice(start, start + WRITE_BATCH)) {
            const bytes = encodeAnswer(answer);
            void this.#answers.put(key, bytes);
            void this.#byTime.put([createdAtOf(bytes), key], EMPTY);
          }
        });
      }
    } catch (error) {
      this.#noteFailure('write', error);
    }
    this.#inFlight = new Map();
  }

  #sweepIfDue(): void {
    if (this.#isClosed) return;
    const nowMs = this.#options.clock.now();
    const isExpiryDue = nowMs >= this.#nextExpiryCheckMs;
    if (isExpiryDue) this.#nextExpiryCheckMs = nowMs + EXPIRY_CHECK_MS;
    if (isExpiryDue || this.#excess() > 0) void this.sweep();
  }

  async #sweepAll(): Promise<number> {
    let dropped = 0;
    try {
      for (;;) {
        const nowMs = this.#options.clock.now();
        let excess = this.#excess();
        const doomed: { key: string; createdAtMs: number }[] = [];
        const stale: [number, string][] = [];
        for (const [createdAtMs, key] of this.#byTime.getKeys({ limit: SWEEP_BATCH })) {
          if (excess <= 0 && this.#isFresh(createdAtMs, nowMs)) break;
          const bytes = this.#answers.getBinaryFast(key);
          if (bytes === undefined || createdAtOf(bytes) !== createdAtMs) {
            stale.push([createdAtMs, key]);
            continue;
          }
          doomed.push({ key, createdAtMs });
          excess -= 1;
        }
        if (doomed.length === 0 && stale.length === 0) return dropped;
        await this.#remove(doomed, stale);
        dropped += doomed.length;
      }
    } catch (error) {
      this.#noteFailure('write', error);
      return dropped;
    }
  }

  async #remove(
    doomed: readonly { readonly key: string; readonly createdAtMs: number }[],
    stale: readonly [number, string][] = [],
  ): Promise<void> {
    if (doomed.length + stale.length === 0) return;
    await this.#root.batch(() => {
      for (const { key, createdAtMs } of doomed) {
        void this.#answers.remove(key);
        void this.#byTime.remove([createdAtMs, key]);
      }
      for (const entry of stale) void this.#byTime.remove(entry);
    });
    for (const { key, createdAtMs } of doomed) {
      if (this.#memory.peek(key)?.createdAtMs === createdAtMs) this.#memory.delete(key);
    }
  }

  /** One slice of a walk over all answers, short enough to be interrupted by others' work. */
  #matching(filter: { readonly endpoint?: string; readonly model?: string }, after: string | undefined) {
    const doomed: { key: string; createdAtMs: number }[] = [];
    let seen = 0;
    let last: string | undefined;
    const range = after === undefined ? {} : { start: after, exclusiveStart: true };
    for (const { key, value } of this.#answers.getRange({ ...range, limit: SWEEP_BATCH })) {
      seen += 1;
      last = key;
      const answer = this.#decodeOrSkip(value);
      if (answer === undefined) continue;
      if (filter.endpoint !== undefined && answer.endpoint !== filter.endpoint) continue;
      if (filter.model !== undefined && answer.model !== filter.model) continue;
      doomed.push({ key, createdAtMs: createdAtOf(value) });
    }
    return { doomed, last: seen < SWEEP_BATCH ? undefined : last };
  }

  #storedCount(): number {
    return (this.#answers.getStats() as { readonly entryCount: number }).entryCount;
  }

  /** How many answers are too many, by number or by estimated bytes. */
  #excess(): number {
    const { maxEntries, maxBytes } = this.#options;
    const count = this.#storedCount();
    const byCount = count - maxEntries;
    if (maxBytes === undefined || count === 0) return byCount;
    return Math.max(byCount, Math.ceil(count - maxBytes / this.#meanBytes()));
  }

  /** Keys are hashes, so runs that start at random keys are a fair sample. */
  #meanBytes(): number {
    const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    let bytes = 0;
    let seen = 0;
    for (let run = 0; run < SAMPLE_RUNS; run += 1) {
      const at = Math.floor(this.#options.clock.random() * 4096);
      const start = run === 0 ? '' : `${letters[at >> 6] ?? ''}${letters[at & 63] ?? ''}`;
      for (const { key, value } of this.#answers.getRange({ start, limit: SAMPLE_RUN_LENGTH })) {
        bytes += key.length + value.length;
        seen += 1;
      }
    }
    return seen === 0 ? 1 : bytes / seen;
  }

  #isFresh(createdAtMs: number, nowMs: number): boolean {
    return nowMs - createdAtMs < this.#options.ttlMs;
  }

  #readEpoch(): string {
    return this.#facts.getBinary(EPOCH_KEY)?.toString() ?? '';
  }

  #checkEpoch(nowMs: number): void {
    if (nowMs < this.#nextEpochCheckMs) return;
    this.#nextEpochCheckMs = nowMs + EPOCH_CHECK_MS;
    try {
      const epoch = this.#readEpoch();
      if (epoch !== this.#epoch) this.#memory.clear();
      this.#epoch = epoch;
    } catch (error) {
      this.#noteFailure('read', error);
    }
  }

  #decodeOrSkip(bytes: Buffer): StoredAnswer | undefined {
    try {
      return decodeAnswer(bytes);
    } catch (error) {
      this.#noteFailure('read', error);
      return undefined;
    }
  }

  /** The first of each thousand is logged: a damaged file fails millions of times. */
  #noteFailure(what: 'read' | 'write', error: unknown): void {
    this.#failures += 1;
    if (this.#failures % 1_000 !== 1) return;
    const effect = what === 'read' ? 'the answers are asked again' : 'the answers are kept in memory only';
    this.#options.log.warn(
      { path: this.#options.path, err: error, failures: this.#failures },
      `answer store ${what} failed; ${effect}`,
    );
  }
}
