// Whether somebody who waits on a connection is let into the queue of a target. What cannot be answered in time is
// refused at once, so that those who are let in are answered and nobody pays for answers that nobody awaits.
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { CallRun } from './call-run.ts';
import type { RetryPolicy } from './retry.ts';
import type { TargetQueue } from './target-queue.ts';

/** The least that a refused caller is told to stay away: at once again is what made the crowd. */
const MIN_RETRY_AFTER_MS = 100;
/** Estimates are means. */
const WAIT_MARGIN = 1.25;

/** Undefined: come in. Rows of statements always may. */
export function refusalOf(
  queue: TargetQueue,
  { isPatient, deadlineMs = Number.POSITIVE_INFINITY }: Pick<CallRun, 'isPatient' | 'deadlineMs'>,
  hasFallback: boolean,
  policy: RetryPolicy,
  nowMs: number,
): ServingError | undefined {
  if (isPatient) return undefined;
  const failure = queue.replicas?.failure;
  if (failure) return failure;
  const pauseMs = queue.pace.pausedUntilMs - nowMs;
  if (pauseMs > 0 && (hasFallback || pauseMs > policy.maxQueueMs || nowMs + pauseMs >= deadlineMs)) {
    return pausedError(queue, pauseMs);
  }
  if (hasFallback && queue.isSick && !queue.pace.mayProbe()) return restingError(queue);
  return fullError(queue) ?? crowdError(queue, deadlineMs, policy, nowMs);
}

/** More than the served entity lets wait. Those whose place is free do not wait. */
function fullError({ crowd, depth, limits, replicas, speed, target }: TargetQueue): ServingError | undefined {
  const most = replicas?.plan.maxQueue;
  if (most === undefined || !replicas) return undefined;
  const free = Math.max(0, depth.limit - depth.inFlight) * limits.maxInputs;
  if (crowd.urgent < most + free) return undefined;
  const waitMs = speed.waitMs(crowd.ahead, depth.limit, limits.maxInputs) + replicas.startLeftMs;
  return queueFullError(target, crowd.urgent, most, waitMs);
}

/** `waitMs`: until those who wait are likely to be answered. */
export function queueFullError(
  { endpoint, servedEntity }: Target,
  waiting: number,
  most: number,
  waitMs: number,
): ServingError {
  const retryAfterMs = Math.max(MIN_RETRY_AFTER_MS, Math.ceil(waitMs));
  return new ServingError(
    'QUEUE_FULL',
    `'${servedEntity}' of endpoint '${endpoint}' has ${waiting} inputs waiting, and at most ${most} may. Try again in ${retryAfterMs} ms, or raise its max_queue or max_replicas.`,
    { retryAfterMs, details: { waiting, max_queue: most } },
  );
}

function crowdError(
  { crowd, speed, depth, limits, target }: TargetQueue,
  deadlineMs: number,
  policy: RetryPolicy,
  nowMs: number,
): ServingError | undefined {
  if (crowd.urgent === 0) return undefined;
  const waitMs = speed.waitMs(crowd.ahead, depth.limit, limits.maxInputs);
  // With a margin: a queue as long as the deadline answers everybody a moment too late.
  const isTooLate = nowMs + WAIT_MARGIN * waitMs + 2 * (speed.requestMs ?? 0) > deadlineMs;
  // Rows that travel together are one request: a table of a thousand is no crowd.
  const waiting = Math.ceil(crowd.urgent / limits.maxInputs);
  if (waiting < policy.maxQueue && waitMs <= policy.maxQueueMs && !isTooLate) return undefined;
  const retryAfterMs = Math.max(MIN_RETRY_AFTER_MS, Math.ceil(Math.min(waitMs, policy.maxQueueMs)));
  return new ServingError(
    'OVERLOADED',
    `'${target.servedEntity}' of endpoint '${target.endpoint}' has ${waiting} requests waiting, more than it can answer in time. Try again in ${retryAfterMs} ms, or ask less at once.`,
    { retryAfterMs, details: { waiting, wait_ms: Math.round(waitMs) } },
  );
}

/** The provider asked to be left alone. */
function pausedError({ target }: TargetQueue, pauseMs: number): ServingError {
  const retryAfterMs = Math.ceil(pauseMs);
  return new ServingError(
    'RATE_LIMITED',
    `The provider of '${target.servedEntity}' of endpoint '${target.endpoint}' refuses requests for another ${retryAfterMs} ms. Try again then.`,
    { retryAfterMs },
  );
}

/** The target has failed steadily, and the next try is left to one caller at a time. */
function restingError({ target, pace }: TargetQueue): ServingError {
  return new ServingError(
    'UPSTREAM_ERROR',
    `'${target.servedEntity}' of endpoint '${target.endpoint}' failed ${pace.failuresInRow} times in a row and is tried again in a moment.`,
  );
}
