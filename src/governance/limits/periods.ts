// Time as limits see it: one that never goes back for rates, UTC days and calendar months for money.
// Not here: sleeping.
import type { Clock } from '#core/clock.ts';
import type { MoneyBudget } from '#core/endpoint.ts';

/**
 * Milliseconds that never go back. A clock that is set back stands still for the moment in which it happens and
 * then goes on from there, so that nobody waits until it has caught up. A jump forward looks like time that passed.
 */
export class SteadyTime {
  readonly #clock: Clock;
  #behindMs = 0;
  #last = Number.NEGATIVE_INFINITY;
  #wallMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Epoch milliseconds as of the last `now()`. */
  get wallMs(): number {
    return this.#wallMs;
  }

  now(): number {
    const wall = this.#clock.now();
    this.#wallMs = wall;
    let now = wall + this.#behindMs;
    if (now < this.#last) {
      this.#behindMs = this.#last - wall;
      now = this.#last;
    }
    this.#last = now;
    return now;
  }
}

export interface Period {
  readonly startMs: number;
  readonly endMs: number;
}

/** The UTC day or calendar month that a moment is in. */
export function periodOf(atMs: number, renewal: MoneyBudget['renewalPeriod']): Period {
  const at = new Date(atMs);
  const [year, month, day] = [at.getUTCFullYear(), at.getUTCMonth(), at.getUTCDate()];
  if (renewal === 'month') return { startMs: Date.UTC(year, month), endMs: Date.UTC(year, month + 1) };
  return { startMs: Date.UTC(year, month, day), endMs: Date.UTC(year, month, day + 1) };
}
