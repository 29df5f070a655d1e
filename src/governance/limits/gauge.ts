// Gauges: how much of one limit is used, for everybody who shares it. A rate gauge counts the last 60 seconds, a
// money gauge the current day or month. They do not know who waits for them; the waiting line does.
import type { MoneyBudget, RateLimit } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import { type Period, periodOf } from './periods.ts';
import { RateWindow } from './rate-window.ts';

/** Which limit it is, for messages, and for finding it again. */
export interface GaugeFacts {
  /** Equal for equal limits, whatever their size: a limit that is changed goes on with what is used. */
  readonly id: string;
  readonly type: 'calls_per_minute' | 'tokens_per_minute' | 'cost_per_day' | 'cost_per_month';
  /** Null: the whole workspace. */
  readonly endpoint: string | null;
  readonly key: RateLimit['key'];
  /** Who is counted; null: everybody together. */
  readonly principal: string | null;
}

/** State that the waiting line keeps on a gauge. */
class Waitable {
  /** Somebody waits for room here: nobody who comes later may have it. */
  isLacking = false;
  /** Room that the first of those who wait elsewhere will need here, and when (steady milliseconds). */
  claim: { readonly atMs: number; readonly amount: number } | undefined;
  /** Somebody who does not wait took room here while others waited; the next turn is theirs. */
  isOvertaken = false;
  /** Reservations and leases that are not settled: the gauge is not forgotten before they are. */
  open = 0;
  readonly facts: GaugeFacts;

  constructor(facts: GaugeFacts) {
    this.facts = facts;
  }
}

export class RateGauge extends Waitable {
  readonly window: RateWindow;
  readonly counts: 'calls' | 'tokens';

  constructor(facts: GaugeFacts, limit: number) {
    super(facts);
    this.counts = facts.type === 'calls_per_minute' ? 'calls' : 'tokens';
    this.window = new RateWindow(limit);
  }

  isIdle(now: number): boolean {
    return this.open === 0 && !this.isLacking && this.window.isIdle(now);
  }
}

/** Whole nanodollars: sums of fractions would drift past the limit or short of it. */
export class MoneyGauge extends Waitable {
  limit: number;
  /** The rule it was last looked up for. */
  rule: MoneyBudget | undefined;
  readonly renewal: MoneyBudget['renewalPeriod'];
  /** False until what was spent before this gauge existed is known: nothing is admitted before. */
  isRead = false;
  /** Why it could not be read; told to the next who asks, and then tried again. */
  failure: ServingError | undefined;
  #period: Period;
  #settled = 0;
  #held = 0;

  constructor(facts: GaugeFacts, limit: number, renewal: MoneyBudget['renewalPeriod'], wallMs: number) {
    super(facts);
    this.limit = limit;
    this.renewal = renewal;
    this.#period = periodOf(wallMs, renewal);
  }

  get settled(): number {
    return this.#settled;
  }

  get held(): number {
    return this.#held;
  }

  get period(): Period {
    return this.#period;
  }

  /** A clock that is set back never renews anything: the period goes on until its own end. */
  roll(wallMs: number): void {
    if (wallMs < this.#period.endMs) return;
    this.#period = periodOf(wallMs, this.renewal);
    this.#settled = 0;
    this.#held = 0;
    // What was spent before is of a period that is over.
    this.isRead = true;
  }

  read(spent: number): void {
    this.#settled += spent;
    this.isRead = true;
  }

  fits(amount: number): boolean {
    return this.isRead && this.#settled + this.#held + amount <= this.limit;
  }

  /** Could it fit when all that is held were given back? */
  couldFit(amount: number): boolean {
    return !this.isRead || this.#settled + amount <= this.limit;
  }

  get room(): number {
    return this.isRead ? Math.max(0, this.limit - this.#settled - this.#held) : 0;
  }

  /** Gives the start of the period that pays, for `settle`. */
  hold(amount: number): number {
    this.#held += amount;
    return this.#period.startMs;
  }

  /** Replaces `held` by `actual` in the period that it was held in; one that is over has been closed. */
  settle(periodStartMs: number, held: number, actual: number): void {
    if (periodStartMs !== this.#period.startMs) return;
    this.#held -= held;
    this.#settled += actual;
  }

  /** Its rule was away for a while, and what was spent meanwhile is not in it. */
  forget(): void {
    this.#settled = 0;
    this.isRead = false;
  }

  isIdle(wallMs: number): boolean {
    this.roll(wallMs);
    return this.open === 0 && !this.isLacking && this.isRead && this.#settled === 0 && this.#held === 0;
  }
}

export type Gauge = RateGauge | MoneyGauge;

export const NANO = 1_000_000_000;

/** Rounded up, but not for what floats add to a whole number. */
export function toNanodollars(dollars: number): number {
  return Math.ceil(dollars * NANO - 1e-3);
}
