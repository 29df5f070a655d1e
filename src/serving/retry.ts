// When a failed request is worth another try, how long to wait before it, and when to give up on a target.
// Pure rules; the target's queue applies them.
import type { Clock } from '#core/clock.ts';
import type { ErrorCode, ServingError } from '#core/errors.ts';

export interface RetryPolicy {
  /** Times one request may be refused for the rate limit. */
  readonly maxTriesRateLimited: number;
  /** Times one request may fail otherwise. */
  readonly maxTries: number;
  readonly baseDelayMs: number;
  readonly maxDelayMs: number;
  /** A provider that asks for more patience than this is taken as refusing. */
  readonly maxRetryAfterMs: number;
  /** Failures in a row, with no success between, after which waiting inputs are failed without being sent. */
  readonly sickAfterFailures: number;
  /** While a target is that sick, a caller who could be answered elsewhere tries it once in so long. */
  readonly probeEveryMs: number;
  /** Questions of callers on connections that may wait for one target; more are refused with OVERLOADED. */
  readonly maxQueue: number;
  /** Estimated wait beyond which such a caller is refused, however late its deadline. */
  readonly maxQueueMs: number;
}

export const DEFAULT_RETRY: RetryPolicy = {
  maxTriesRateLimited: 8,
  maxTries: 4,
  baseDelayMs: 500,
  maxDelayMs: 20_000,
  maxRetryAfterMs: 120_000,
  sickAfterFailures: 20,
  probeEveryMs: 5_000,
  maxQueue: 1_000,
  maxQueueMs: 30_000,
};

/** Failures of a target as a whole, whatever it was asked. */
const TARGET_FAILURES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'UPSTREAM_ERROR',
  'UPSTREAM_AUTH',
  'TIMEOUT',
  'MODEL_NOT_AVAILABLE',
  'SECRET_NOT_FOUND',
  'INTERNAL',
]);
/** Failures that may come from one input among several, so that halves of the batch may fare better. */
const INPUT_FAILURES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'UPSTREAM_REJECTED',
  'PAYLOAD_TOO_LARGE',
  'INVALID_RESPONSE',
]);
/** 429 and 5xx, also where the status was 200 and the body was not an answer: another target may do better. */
const FALLBACK_FAILURES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'RATE_LIMITED',
  'UPSTREAM_ERROR',
  'INVALID_RESPONSE',
  'TIMEOUT',
  'OVERLOADED',
  'QUEUE_FULL',
]);
/** Refusals of a budget or a meter of ours: the provider was not asked, and asking elsewhere costs the same. */
const METER_REFUSALS: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['BUDGET_EXCEEDED', 'RATE_LIMIT_EXCEEDED']);

export const isTargetFailure = (error: ServingError): boolean => TARGET_FAILURES.has(error.code);
export const isInputFailure = (error: ServingError): boolean => INPUT_FAILURES.has(error.code);
export const isMeterRefusal = (error: ServingError): boolean => METER_REFUSALS.has(error.code);
export const allowsFallback = (error: ServingError): boolean => FALLBACK_FAILURES.has(error.code);

/** Whether the provider asks to wait longer than anyone would. */
export function isRefusalForLong(error: ServingError, policy: RetryPolicy): boolean {
  return (error.retryAfterMs ?? 0) > policy.maxRetryAfterMs;
}

/** How often a request was asked so far, and how many of these tries the provider refused for its rate limit. */
export interface Tries {
  readonly all: number;
  readonly refused: number;
}

export const NO_TRIES: Tries = { all: 0, refused: 0 };

/** Counts the try that ended in `error`, or in an answer. */
export function oneMore({ all, refused }: Tries, error: ServingError | undefined): Tries {
  return { all: all + 1, refused: refused + (error?.code === 'RATE_LIMITED' ? 1 : 0) };
}

/** Refusals and failures have bounds of their own: a provider that is busy is not one that is broken. */
export function isWorthRetry(error: ServingError, tries: Tries, policy: RetryPolicy): boolean {
  if (!error.row.isRetryable || isMeterRefusal(error) || isRefusalForLong(error, policy)) return false;
  if (error.code === 'RATE_LIMITED') return tries.refused < policy.maxTriesRateLimited;
  return tries.all - tries.refused < policy.maxTries;
}

/** Exponential with full jitter; never earlier than the provider asked. A bad answer is asked again at once. */
export function retryDelayMs(error: ServingError, tries: Tries, policy: RetryPolicy, clock: Clock): number {
  if (error.retryAfterMs !== undefined) return withJitter(error.retryAfterMs, clock);
  if (error.code === 'INVALID_RESPONSE') return 0;
  const sameKind = error.code === 'RATE_LIMITED' ? tries.refused : tries.all - tries.refused;
  const ceilingMs = Math.min(policy.maxDelayMs, policy.baseDelayMs * 2 ** (sameKind - 1));
  return clock.random() * ceilingMs;
}

/** A little later than asked, so that not everybody comes back in the same instant. */
export function withJitter(retryAfterMs: number, clock: Clock): number {
  return retryAfterMs + clock.random() * Math.min(500, retryAfterMs * 0.1);
}
