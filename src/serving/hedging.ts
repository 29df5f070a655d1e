// Hedging: when a request takes longer than nearly all before it, the same is asked a second time, and the first
// good answer wins. What it knows of one target: past times, and how many extra requests have been earned.
import type { Clock } from '#core/clock.ts';
import type { AiGateway } from '#core/endpoint.ts';
import { type ServingError, toServingError } from '#core/errors.ts';
import { RequestTimes } from './request-times.ts';

export type HedgingRules = NonNullable<AiGateway['hedging']>;

/** Extra requests that may be saved up; a bad minute must not double the load. */
const MAX_SAVED = 10;

export class Hedging {
  /** Of whole answers, and until the first event of streams. */
  readonly #wholes = new RequestTimes();
  readonly #firstEvents = new RequestTimes();
  #extra = 0;

  note(durationMs: number, isStream: boolean): void {
    (isStream ? this.#firstEvents : this.#wholes).note(durationMs);
  }

  /** For each first request: how long to wait for it alone. Undefined while the past says too little. */
  delayMs({ quantile, maxExtraPercent }: HedgingRules, isStream: boolean): number | undefined {
    this.#extra = Math.min(MAX_SAVED, this.#extra + maxExtraPercent / 100);
    return (isStream ? this.#firstEvents : this.#wholes).quantile(quantile);
  }

  /** Takes one extra request out of what was earned. A sum of hundredths may be a hair short of one. */
  take(): boolean {
    if (this.#extra < 1 - 1e-9) return false;
    this.#extra = Math.max(0, this.#extra - 1);
    return true;
  }
}

export interface Contender<T> {
  readonly answer: Promise<T>;
  cancel(): void;
}

export type Which = 'first' | 'second';

export interface Race<T> {
  readonly value: T;
  readonly winner: Which;
  /** Present when two were asked. Without `error`: it was cancelled before it answered. */
  readonly loser?: { readonly which: Which; readonly error?: ServingError };
}

export class BothFailed extends Error {
  readonly first: ServingError;
  readonly second: ServingError;

  constructor(first: ServingError, second: ServingError) {
    super(first.message);
    this.first = first;
    this.second = second;
  }
}

type Outcome<T> = { readonly which: Which } & (
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: ServingError }
);

/** Throws the error of the first when it failed alone, BothFailed when both did. */
export async function raceHedged<T>(
  first: Contender<T>,
  startSecond: () => Contender<T> | undefined,
  delayMs: number,
  clock: Clock,
): Promise<Race<T>> {
  const firstOutcome = outcomeOf(first, 'first');
  const timer = new AbortController();
  const late = clock.sleep(delayMs, timer.signal).then(
    () => true,
    () => false,
  );
  const isLate = await Promise.race([firstOutcome.then(() => false), late]);
  timer.abort();
  const second = isLate ? startSecond() : undefined;
  if (!second) {
    const outcome = await firstOutcome;
    if (!outcome.ok) throw outcome.error;
    return { value: outcome.value, winner: 'first' };
  }
  const secondOutcome = outcomeOf(second, 'second');
  const earlier = await Promise.race([firstOutcome, secondOutcome]);
  const which: Which = earlier.which === 'first' ? 'second' : 'first';
  if (earlier.ok) {
    (which === 'first' ? first : second).cancel();
    return { value: earlier.value, winner: earlier.which, loser: { which } };
  }
  const later = await (which === 'first' ? firstOutcome : secondOutcome);
  if (later.ok) {
    return { value: later.value, winner: which, loser: { which: earlier.which, error: earlier.error } };
  }
  throw which === 'second'
    ? new BothFailed(earlier.error, later.error)
    : new BothFailed(later.error, earlier.error);
}

function outcomeOf<T>({ answer }: Contender<T>, which: Which): Promise<Outcome<T>> {
  return answer.then(
    (value) => ({ which, ok: true, value }),
    (thrown) => ({ which, ok: false, error: toServingError(thrown) }),
  );
}
