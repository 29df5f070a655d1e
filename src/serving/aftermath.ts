// What becomes of the questions of a batch after its request, or after it was refused one: answered, asked again
// now or later, in halves, sent elsewhere, given up. Keeps the batches that are to be asked again.
import type { Clock } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import { Batch, type SplitHistory } from './batch.ts';
import { Fifo } from './fifo.ts';
import type { Failure, QueueSink } from './outcomes.ts';
import type { Pace } from './pace.ts';
import type { Question } from './question.ts';
import {
  allowsFallback,
  isInputFailure,
  isRefusalForLong,
  isWorthRetry,
  type RetryPolicy,
  retryDelayMs,
} from './retry.ts';
import type { WaitingLine } from './waiting-line.ts';

export interface AftermathOptions {
  readonly target: Target;
  readonly policy: RetryPolicy;
  readonly clock: Clock;
  readonly log: Log;
  readonly sink: QueueSink;
  readonly pace: Pace;
  readonly line: WaitingLine;
  /** Something may be asked now that could not before. */
  readonly onReady: () => void;
  /** An input was found too large beside so many others. */
  readonly onTooLarge: (count: number) => void;
}

/** Rejections of single inputs, with no answer beside them, after which the rest of a split batch is not tried. */
const HOPELESS_AFTER = 8;

export class Aftermath {
  readonly #options: AftermathOptions;
  /** To be tried again, before anything new. Halves are a stack: single inputs are reached, and settled, soonest. */
  readonly #halves: Batch[] = [];
  readonly #again = new Fifo<Batch>();
  readonly #unfinished = new Set<Batch>();
  /** Rate-limited batches that sleep: new ones would only meet the same refusal. */
  #refusedSleeping = 0;

  constructor(options: AftermathOptions) {
    this.#options = options;
  }

  get refusedSleeping(): number {
    return this.#refusedSleeping;
  }

  /** Batches that could be asked again now. */
  get ready(): number {
    return this.#again.length + this.#halves.length;
  }

  /** Batches that have begun and are not over. */
  get unfinished(): number {
    return this.#unfinished.size;
  }

  begin(batch: Batch): Batch {
    this.#unfinished.add(batch);
    return batch;
  }

  /** To be asked as soon as there is a place. */
  push(batch: Batch): void {
    this.#again.push(batch);
  }

  next(): Batch | undefined {
    for (;;) {
      const batch = this.#halves.pop() ?? this.#again.shift();
      if (!batch) return undefined;
      batch.questions = batch.questions.filter(({ waiters }) => waiters.length > 0);
      if (batch.questions.length > 0 && !batch.signal.aborted) return batch;
      this.#giveUp(batch, toServingError(batch.signal.reason, 'CANCELLED'));
    }
  }

  /** The engine has answered; some inputs may have failed all the same. */
  finish(batch: Batch, failures: readonly Failure[]): void {
    const { policy, sink, clock } = this.#options;
    const again: Failure[] = [];
    for (const failure of failures) {
      const { question, error, isFinal } = failure;
      const isRetried =
        !isFinal && isWorthRetry(error, batch.tries, policy) && !movesOn(batch, [question], error);
      if (isRetried && question.waiters.length > 0) again.push(failure);
      else sink.failed([question], error, batch, isFinal);
    }
    const [first] = again;
    if (first && again.length === batch.questions.length) {
      this.#sleepThenRetry(batch, first.error);
      return;
    }
    const { tries, history, terms } = batch;
    this.#end(batch);
    if (!first) return;
    const questions = again.map(({ question }) => question);
    this.#sleepThenRetry(
      this.begin(new Batch(terms, questions, clock.now(), { tries, history })),
      first.error,
    );
  }

  /** The request as a whole has failed. `isHeld`: others wait for it too, as the provider refused for its limit. */
  failed(batch: Batch, error: ServingError, isHeld: boolean): void {
    const { policy, pace } = this.#options;
    const { history, questions, signal, tries } = batch;
    if (signal.aborted) {
      this.#giveUp(batch, toServingError(signal.reason, 'CANCELLED'));
    } else if (isInputFailure(error) && questions.length > 1 && !isHopeless(history)) {
      this.#split(batch, error);
    } else if (pace.isSick || isRefusalForLong(error, policy)) {
      this.#giveUp(batch, error);
      this.#failWaiting(error);
    } else if (isWorthRetry(error, tries, policy) && !movesOn(batch, questions, error)) {
      this.#sleepThenRetry(batch, error, isHeld);
    } else {
      if (history && isInputFailure(error)) history.rejectedAlone++;
      this.#giveUp(batch, error);
    }
  }

  /** A budget or meter has refused the batch before it was sent. */
  refused(batch: Batch, error: ServingError): void {
    const { line, sink } = this.#options;
    const { questions, signal, terms, tries, history } = batch;
    if (signal.aborted) {
      this.#giveUp(batch, toServingError(signal.reason, 'CANCELLED'));
    } else if (error.code === 'BUDGET_EXCEEDED' && questions[0]?.payer.call.budget) {
      // What waits for the budget of the same statement is not sent either, even where it would be small enough.
      this.#giveUp(batch, error);
      const waiting = line.drain((lane) => lane.terms.budget === terms.budget);
      sink.failed(waiting, error);
    } else if (questions.length > 1) {
      // Several callers of one principal: some may fit where all together do not.
      this.#end(batch, error);
      this.#pushHalves(batch, { tries, history });
    } else this.#giveUp(batch, error);
  }

  /** A pause has begun. Who waits on a connection and could be answered elsewhere does not wait for its end. */
  moveImpatient(error: ServingError): void {
    const { line, sink } = this.#options;
    const moved = line.drain(
      ({ terms, run }) => !terms.isPatient && run.questions.some(({ fallback }) => fallback !== undefined),
    );
    if (moved.length > 0) sink.failed(moved, error);
    for (const grant of line.drainGrants(({ isPatient, hasFallback }) => !isPatient && hasFallback)) {
      grant.refuse(error);
    }
  }

  close(reason: ServingError): void {
    for (const batch of [...this.#unfinished]) batch.abort(reason);
    this.giveUpReady(reason);
  }

  /** There is nobody to ask them again. */
  giveUpReady(reason: ServingError): void {
    for (const batch of [...this.#halves.splice(0), ...this.#again.clear()]) this.#giveUp(batch, reason);
  }

  #end(batch: Batch, error?: ServingError): void {
    this.#unfinished.delete(batch);
    this.#options.sink.ended(batch, error);
  }

  #giveUp(batch: Batch, error: ServingError): void {
    batch.releaseReservation();
    this.#options.sink.failed(batch.questions, error, batch);
    this.#end(batch, error);
  }

  /** One bad input must not fail the others: each half is asked by itself. */
  #split(batch: Batch, error: ServingError): void {
    if (error.code === 'PAYLOAD_TOO_LARGE' && !batch.history) {
      this.#options.onTooLarge(batch.questions.length);
    }
    const history: SplitHistory = batch.history ?? { rejectedAlone: 0, hasAnswer: false };
    this.#end(batch, error);
    this.#pushHalves(batch, { history });
  }

  #pushHalves({ terms, questions }: Batch, past: ConstructorParameters<typeof Batch>[3]): void {
    const middle = questions.length >> 1;
    for (const half of [questions.slice(middle), questions.slice(0, middle)]) {
      const awaited = half.filter(({ waiters }) => waiters.length > 0);
      if (awaited.length === 0) continue;
      this.#halves.push(this.begin(new Batch(terms, awaited, this.#options.clock.now(), past)));
    }
  }

  #sleepThenRetry(batch: Batch, error: ServingError, isHeld = false): void {
    const { policy, clock, log, pace, target, onReady } = this.#options;
    const { endpoint, model } = target;
    const delayMs = retryDelayMs(error, batch.tries, policy, clock);
    log.debug({ endpoint, model, code: error.code, tries: batch.tries, delayMs }, 'A request is retried.');
    if (delayMs <= 0) {
      this.#again.push(batch);
      return;
    }
    const wakesAtMs = clock.now() + delayMs;
    if (batch.questions.every(({ deadlineMs }) => deadlineMs <= wakesAtMs)) {
      // Nobody would be there any more.
      this.#giveUp(batch, error);
      return;
    }
    if (isHeld) this.#refusedSleeping++;
    const wake = () => {
      if (isHeld) this.#refusedSleeping--;
      if (batch.signal.aborted) this.#giveUp(batch, toServingError(batch.signal.reason, 'CANCELLED'));
      else if (pace.isSick) this.#giveUp(batch, error);
      else this.#again.push(batch);
      onReady();
    };
    clock.sleep(delayMs, batch.signal).then(wake, wake);
  }

  #failWaiting(error: ServingError): void {
    const { pace, line, log, sink, target } = this.#options;
    const because = pace.isSick
      ? `The model failed ${pace.failuresInRow} times in a row`
      : 'The provider refuses for long';
    const { details, retryAfterMs } = error;
    const told = new ServingError(
      error.code,
      `${error.message} (${because}; this input was not sent again.)`,
      { details, retryAfterMs, cause: error },
    );
    const waiting = line.drain();
    if (waiting.length === 0 && this.#again.length === 0) return;
    const { endpoint, model } = target;
    log.warn({ endpoint, model, code: error.code, failed: waiting.length }, `${because}.`);
    sink.failed(waiting, told);
    for (let batch = this.#again.shift(); batch; batch = this.#again.shift()) this.#giveUp(batch, told);
  }
}

function isHopeless(history: SplitHistory | undefined): boolean {
  return history !== undefined && !history.hasAnswer && history.rejectedAlone >= HOPELESS_AFTER;
}

/**
 * A caller on a connection does not pay for all tries here when another target may answer at once. Rows of
 * statements stay: their refusals are what the pace is found by, and a stand-in would be flooded by a lone 429.
 */
function movesOn({ terms }: Batch, questions: readonly Question[], error: ServingError): boolean {
  return (
    !terms.isPatient && allowsFallback(error) && questions.every(({ fallback }) => fallback !== undefined)
  );
}
