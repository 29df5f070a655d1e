// How long a call may take in all: queue, tries, pauses and fallbacks together. Programs that wait on a connection
// are answered in bounded time; rows of statements take the time they need, unless their call says otherwise.
import { setMaxListeners } from 'node:events';
import type { Call, Origin } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { CallRun } from './call-run.ts';

/** Databricks' limit on the execution time of a query. */
export const DEFAULT_TIMEOUT_MS = 297_000;
/** Timers of Node end early beyond this. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Whether nobody waits on a connection for just this answer: rows of statements, whichever door they came in by. */
export const isPatientOrigin = (origin: Origin): boolean => origin !== 'http';

/** Epoch milliseconds; undefined: as long as it takes. The earlier of what the caller and the endpoint allow. */
export function deadlineOf(
  { origin, deadlineMs }: Pick<Call, 'origin' | 'deadlineMs'>,
  { aiGateway }: Endpoint,
  startedAtMs: number,
): number | undefined {
  if (isPatientOrigin(origin)) return deadlineMs;
  const ownMs = startedAtMs + (aiGateway?.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  return deadlineMs === undefined ? ownMs : Math.min(ownMs, deadlineMs);
}

/** Waits with a call for what may end it from outside: its caller goes away, or its time is over. */
export class CallWatch {
  readonly #run: CallRun;
  readonly #clock: Clock;
  readonly #onOver: (error: ServingError) => void;
  readonly #signal: AbortSignal | undefined;
  #timer: AbortController | undefined;

  constructor(run: CallRun, clock: Clock, onOver: (error: ServingError) => void) {
    this.#run = run;
    this.#clock = clock;
    this.#onOver = onOver;
    this.#signal = run.call.signal;
    if (!this.#signal) return;
    // Any number of calls of one statement may listen to its signal; Node would warn of a leak at eleven.
    setMaxListeners(0, this.#signal);
    this.#signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** From here on the deadline holds: it is known now what the endpoint allows. */
  startClock(endpoint: Endpoint): void {
    const { call, startedAtMs } = this.#run;
    const deadlineMs = deadlineOf(call, endpoint, startedAtMs);
    this.#run.deadlineMs = deadlineMs;
    if (deadlineMs === undefined) return;
    this.#timer = new AbortController();
    this.#look(deadlineMs, this.#timer.signal);
  }

  stop(): void {
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#timer?.abort();
  }

  /** The timer fires a little early, or was as long as a timer can be; then it looks again. */
  #look(deadlineMs: number, signal: AbortSignal): void {
    const leftMs = deadlineMs - this.#clock.now();
    if (leftMs <= 0) {
      this.#onOver(timeoutOf(this.#run));
      return;
    }
    const look = () => this.#look(deadlineMs, signal);
    this.#clock.sleep(Math.min(leftMs, MAX_TIMER_MS), signal).then(look, () => {});
  }

  readonly #onAbort = (): void => {
    this.#onOver(new ServingError('CANCELLED', 'The call was cancelled.', { cause: this.#signal?.reason }));
  };
}

export function timeoutOf({
  call,
  startedAtMs,
  deadlineMs = 0,
  trail,
}: Pick<CallRun, 'startedAtMs' | 'deadlineMs' | 'trail'> & {
  readonly call: { readonly endpoint: string };
}): ServingError {
  const seconds = Math.max(0, (deadlineMs - startedAtMs) / 1000);
  return new ServingError(
    'TIMEOUT',
    `Endpoint '${call.endpoint}' gave no answer within ${Number(seconds.toFixed(3))} seconds: ${trail.describe()}. Raise the deadline of the call or the timeout of the endpoint, or ask less at once.`,
  );
}
