// What was lost lately: how long to wait before the next replica is opened, and whether the model is failing, so that
// nobody should wait for it. Judges; opens nothing.
import type { Clock } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

const WINDOW_MS = 60_000;
/** Replicas in a row that were lost, or could not be opened, before any of them had answered. */
const FAILING_AFTER = 5;
const FIRST_DELAY_MS = 100;
/** One that answers between its losses is worth having back soon. */
const LONGEST_DELAY_MS = 2_000;
const FIRST_FAILING_DELAY_MS = 1_000;
const LONGEST_FAILING_DELAY_MS = 30_000;

export class Losses {
  readonly #clock: Clock;
  #atMs: number[] = [];
  #barrenInRow = 0;
  #last: ServingError | undefined;
  #isUnopened = false;
  #retryAtMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Lost, or not opened at all. `hasAnswered`: it had answered something before. */
  note(error: ServingError, hasAnswered: boolean, wasOpen: boolean): void {
    const nowMs = this.#clock.now();
    this.#last = error;
    this.#isUnopened = !wasOpen;
    this.#atMs = [...this.#atMs.filter((atMs) => atMs > nowMs - WINDOW_MS), nowMs];
    this.#barrenInRow = hasAnswered ? 0 : this.#barrenInRow + 1;
    this.#retryAtMs = nowMs + this.#delayMs();
  }

  answered(): void {
    this.#barrenInRow = 0;
  }

  /** Before that no other is to be opened; 0: now. */
  get pauseMs(): number {
    return Math.max(0, Math.ceil(this.#retryAtMs - this.#clock.now()));
  }

  /** What is said to those who would wait for the next try; undefined: let them wait. */
  failureOf({ endpoint, servedEntity }: Target): ServingError | undefined {
    const last = this.#last;
    const retryAfterMs = this.pauseMs;
    if (!last || retryAfterMs === 0) return undefined;
    // What is not on this machine will not be a moment later; but once is no proof.
    const isHopeless = this.#isUnopened && !last.row.isRetryable && this.#barrenInRow > 1;
    if (!this.#isFailing) return isHopeless ? last : undefined;
    const reason = last.message.replace(/[.\s]+$/, '');
    return new ServingError(
      last.code,
      `'${servedEntity}' of endpoint '${endpoint}' was lost or could not be opened ${this.#barrenInRow} times in a row, and is tried again in ${retryAfterMs} ms. The last time: ${reason}.`,
      { details: last.details, cause: last, retryAfterMs },
    );
  }

  get #isFailing(): boolean {
    return this.#barrenInRow >= FAILING_AFTER;
  }

  /** Exponential, with jitter, so that models that died together do not all come back together. */
  #delayMs(): number {
    const ceilingMs = this.#isFailing
      ? Math.min(LONGEST_FAILING_DELAY_MS, FIRST_FAILING_DELAY_MS * 2 ** (this.#barrenInRow - FAILING_AFTER))
      : Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.max(0, this.#atMs.length - 1));
    return ceilingMs * (0.5 + this.#clock.random() / 2);
  }
}
