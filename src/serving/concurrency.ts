// How many requests one target may have in flight. Exact for local engines; found by trying for providers:
// slow start, then additive increase and multiplicative decrease, as TCP does it. Counts only; it never waits.
import type { RunnerLimits } from '#engines/engine.ts';

const START = 32;
/** What one round trip can take away at most. */
const DECREASE = 0.7;
/** What each refusal takes away. A few in a large round are noise of the provider, not its limit. */
const STEP_DOWN = 0.5;
/** Outcomes that are judged together, at least. */
const WINDOW = 20;
/** Refusals that did not become rarer when the limit came down this far are not about the limit. */
const TRIED_LOWER = 0.6;
const STILL_AS_MANY = 0.6;
/** Above this share of refusals the provider is heeded whatever their reason. */
const MAX_NOISE = 0.5;

export class ConcurrencyLimit {
  #max: number;
  readonly #isAdaptive: boolean;
  #cap = Number.POSITIVE_INFINITY;
  #limit: number;
  #isSlowStart: boolean;
  #inFlight = 0;
  #lastTicket = 0;
  /** Requests up to this ticket began in the round trip that is being counted, and its refusals end at the floor. */
  #roundEndsAtTicket = 0;
  #roundFloor = 1;
  #pausedUntilMs = Number.NEGATIVE_INFINITY;
  #windowOutcomes = 0;
  #windowRefusals = 0;
  /** Where the limit stood, and how many were refused, when it began to come down. */
  #before: { readonly limit: number; readonly share: number } | undefined;
  /** Share of refusals that comes at any limit; 0 while refusals are taken to be about the limit. */
  #noise = 0;

  constructor({ maxConcurrency, isAdaptive }: Pick<RunnerLimits, 'maxConcurrency' | 'isAdaptive'>) {
    this.#max = Math.max(1, Math.floor(maxConcurrency));
    this.#isAdaptive = isAdaptive;
    this.#isSlowStart = isAdaptive;
    this.#limit = isAdaptive ? Math.min(this.#max, START) : this.#max;
  }

  get value(): number {
    return Math.min(this.#cap, Math.floor(this.#limit));
  }

  /** At most this many from now on, whatever was found out: the rest is lent to other processes. */
  capAt(places: number): void {
    this.#cap = places;
  }

  /** An exact limit that has changed, as there are more or fewer replicas; 0: none. */
  resize(places: number): void {
    this.#max = places;
    this.#limit = places;
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
    this.#observe(false);
    // A limit that is not used proves nothing about a higher one.
    if (!this.#isAdaptive || this.#inFlight * 2 < this.value) return;
    this.#limit = Math.min(this.#max, this.#limit + (this.#isSlowStart ? 1 : 1 / this.#limit));
  }

  /**
   * The provider said 429; nobody is started before `resumeAtMs`, when it said how long. False: it says so at any
   * limit, so only the refused request has to wait and the others go on.
   */
  rateLimited(ticket: number, resumeAtMs?: number): boolean {
    this.#observe(true);
    if (this.#noise > 0) return false;
    this.#lower(ticket, resumeAtMs);
    return true;
  }

  #lower(ticket: number, resumeAtMs: number | undefined): void {
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

  #observe(isRefused: boolean): void {
    this.#windowOutcomes++;
    if (isRefused) this.#windowRefusals++;
    if (!this.#isAdaptive || this.#windowOutcomes < Math.max(WINDOW, this.value)) return;
    this.#judge(this.#windowRefusals / this.#windowOutcomes);
    this.#windowOutcomes = 0;
    this.#windowRefusals = 0;
  }

  /** Load sheds when the limit comes down; refusals by chance do not, and crawling would not make them fewer. */
  #judge(share: number): void {
    if (this.#noise > 0) {
      const isMore = share > Math.min(MAX_NOISE, this.#noise * 1.5 + 0.05);
      this.#noise = isMore || share === 0 ? 0 : (this.#noise + share) / 2;
      if (isMore) this.#isSlowStart = false;
      this.#before = undefined;
    } else if (share === 0) {
      this.#before = undefined;
    } else if (this.#before === undefined) {
      this.#before = { limit: this.#limit, share };
    } else if (this.#limit <= this.#before.limit * TRIED_LOWER) {
      if (share >= this.#before.share * STILL_AS_MANY && share <= MAX_NOISE) {
        this.#noise = share;
        this.#isSlowStart = true;
      }
      this.#before = undefined;
    }
  }
}
