// How many requests one target may have in flight. Exact for local engines; found by trying for providers:
// slow start, then additive increase and multiplicative decrease, as TCP does it. Counts only; it never waits.
import type { RunnerLimits } from '#engines/engine.ts';

const START = 32;
/** What one round trip can take away at most. */
const DECREASE = 0.7;
/** What each refusal takes away. A few in a large round are noise of the provider, not its limit. */
const STEP_DOWN = 0.5;

export class ConcurrencyLimit {
  readonly #max: number;
  readonly #isAdaptive: boolean;
  #limit: number;
  #isSlowStart: boolean;
  #inFlight = 0;
  #lastTicket = 0;
  /** Requests up to this ticket began in the round trip that is being counted, and its refusals end at the floor. */
  #roundEndsAtTicket = 0;
  #roundFloor = 1;
  #pausedUntilMs = Number.NEGATIVE_INFINITY;

  constructor({ maxConcurrency, isAdaptive }: Pick<RunnerLimits, 'maxConcurrency' | 'isAdaptive'>) {
    this.#max = Math.max(1, Math.floor(maxConcurrency));
    this.#isAdaptive = isAdaptive;
    this.#isSlowStart = isAdaptive;
    this.#limit = isAdaptive ? Math.min(this.#max, START) : this.#max;
  }

  get value(): number {
    return Math.floor(this.#limit);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  get pausedUntilMs(): number {
    return this.#pausedUntilMs;
  }

  canStart(nowMs: number): boolean {
    return this.#inFlight < this.value && nowMs >= this.#pausedUntilMs;
  }

  /** Takes a place; the ticket goes to `succeeded` or `rateLimited`, and the place back with `ended`. */
  start(): number {
    this.#inFlight++;
    return ++this.#lastTicket;
  }

  /** Before `ended`. Grows by one a success (doubling a round) in slow start, later by one a round. */
  succeeded(): void {
    // A limit that is not used proves nothing about a higher one.
    if (!this.#isAdaptive || this.#inFlight * 2 < this.value) return;
    this.#limit = Math.min(this.#max, this.#limit + (this.#isSlowStart ? 1 : 1 / this.#limit));
  }

  /** The provider said 429; nobody is started before `resumeAtMs`, when it said how long. */
  rateLimited(ticket: number, resumeAtMs?: number): void {
    if (resumeAtMs !== undefined) this.#pausedUntilMs = Math.max(this.#pausedUntilMs, resumeAtMs);
    if (!this.#isAdaptive) return;
    this.#isSlowStart = false;
    if (ticket > this.#roundEndsAtTicket) {
      this.#roundEndsAtTicket = this.#lastTicket;
      this.#roundFloor = Math.max(1, this.#limit * DECREASE);
    }
    this.#limit = Math.max(Math.min(this.#limit, this.#roundFloor), this.#limit - STEP_DOWN);
  }

  ended(): void {
    this.#inFlight--;
  }
}
