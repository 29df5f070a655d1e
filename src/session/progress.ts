// How far a statement has come, for a person who waits. Counts; the doors draw.
import type { AnswerItem, TokenUsage } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Price } from '#core/endpoint.ts';

export interface Progress {
  /** Inputs answered (also from the store) or failed, of all passes so far. */
  readonly answered: number;
  readonly total: number;
  readonly pass: number;
  readonly cached: number;
  readonly failed: number;
  readonly tokens: number;
  /** US dollars so far; null when a price is not known. */
  readonly cost: number | null;
  readonly elapsedMs: number;
  readonly isFinal: boolean;
}

const INTERVAL_MS = 50;

export class ProgressMeter {
  readonly #clock: Clock;
  readonly #listener: ((progress: Progress) => void) | undefined;
  readonly #startedAtMs: number;
  #answered = 0;
  #total = 0;
  #pass = 0;
  #cached = 0;
  #failed = 0;
  #tokens = 0;
  #cost: number | null = 0;
  #lastMs = 0;

  constructor(clock: Clock, listener: ((progress: Progress) => void) | undefined) {
    this.#clock = clock;
    this.#listener = listener;
    this.#startedAtMs = clock.now();
  }

  get asked(): number {
    return this.#answered - this.#cached;
  }

  get cached(): number {
    return this.#cached;
  }

  beginPass(pass: number, questions: number): void {
    this.#pass = pass;
    this.#total += questions;
    this.#tell(true, false);
  }

  /** `price` is that of the model that answered; null when it is not known. */
  count(item: AnswerItem, price: Price | null): void {
    this.#answered++;
    if (!item.ok) this.#failed++;
    else {
      if (item.cached) this.#cached++;
      else this.#spend(item.usage, price);
    }
    this.#tell(false, false);
  }

  #spend(usage: TokenUsage, price: Price | null): void {
    this.#tokens += usage.inputTokens + usage.outputTokens;
    if (price === null) this.#cost = null;
    else if (this.#cost !== null) {
      this.#cost +=
        (usage.inputTokens * price.inputPerMillion + usage.outputTokens * price.outputPerMillion) / 1e6;
    }
  }

  end(): void {
    if (this.#total > 0) this.#tell(true, true);
  }

  #tell(isDue: boolean, isFinal: boolean): void {
    if (!this.#listener) return;
    const now = this.#clock.now();
    if (!isDue && now - this.#lastMs < INTERVAL_MS) return;
    this.#lastMs = now;
    this.#listener({
      answered: this.#answered,
      total: this.#total,
      pass: this.#pass,
      cached: this.#cached,
      failed: this.#failed,
      tokens: this.#tokens,
      cost: this.#cost,
      elapsedMs: now - this.#startedAtMs,
      isFinal,
    });
  }
}
