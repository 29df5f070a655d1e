// The pace of one target: how many requests it bears at once, when it wants to be left alone, and whether it is
// failing so steadily that nobody else should be made to wait for it. Judges outcomes; starts nothing.
import type { Clock } from '#core/clock.ts';
import type { ServingError } from '#core/errors.ts';
import type { RunnerLimits } from '#engines/engine.ts';
import { ConcurrencyLimit } from './concurrency.ts';
import { isRefusalForLong, isTargetFailure, type RetryPolicy, withJitter } from './retry.ts';

export class Pace {
  readonly #limit: ConcurrencyLimit;
  readonly #policy: RetryPolicy;
  readonly #clock: Clock;
  #failuresInRow = 0;
  #lastTriedMs = Number.NEGATIVE_INFINITY;

  constructor(limits: RunnerLimits, policy: RetryPolicy, clock: Clock) {
    this.#limit = new ConcurrencyLimit(limits);
    this.#policy = policy;
    this.#clock = clock;
  }

  get limit(): number {
    return this.#limit.value;
  }

  capAt(places: number): void {
    this.#limit.capAt(places);
  }

  resize(places: number): void {
    this.#limit.resize(places);
  }

  get inFlight(): number {
    return this.#limit.inFlight;
  }

  get pausedUntilMs(): number {
    return this.#limit.pausedUntilMs;
  }

  get failuresInRow(): number {
    return this.#failuresInRow;
  }

  /** The next success ends it. Until then each request is tried once only. */
  get isSick(): boolean {
    return this.#failuresInRow >= this.#policy.sickAfterFailures;
  }

  /** Of a sick target: whether it was left alone long enough to be tried by one who could go elsewhere. */
  mayProbe(): boolean {
    return this.inFlight === 0 && this.#clock.now() - this.#lastTriedMs >= this.#policy.probeEveryMs;
  }

  /** It was not told to pause, or the pause is over. */
  canResume(): boolean {
    return this.#clock.now() >= this.#limit.pausedUntilMs;
  }

  canStart(): boolean {
    return this.#limit.canStart(this.#clock.now());
  }

  /** Takes a place; gives the ticket that `failed` wants to see. */
  start(): number {
    return this.#limit.start();
  }

  /** Before `ended`, as are `failed` and a request that was cancelled and says nothing about the target. */
  succeeded(): void {
    this.#failuresInRow = 0;
    this.#limit.succeeded();
  }

  /** True when the provider refused for its limit, so that new requests should wait for those refused. */
  failed(error: ServingError, ticket: number): boolean {
    if (isTargetFailure(error)) {
      this.#failuresInRow++;
      this.#lastTriedMs = this.#clock.now();
    }
    if (error.code !== 'RATE_LIMITED') return false;
    const { retryAfterMs } = error;
    const isPause = retryAfterMs !== undefined && !isRefusalForLong(error, this.#policy);
    return this.#limit.rateLimited(
      ticket,
      isPause ? this.#clock.now() + withJitter(retryAfterMs, this.#clock) : undefined,
    );
  }

  ended(): void {
    this.#limit.ended();
  }
}
