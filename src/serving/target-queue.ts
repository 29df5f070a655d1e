// The queue of one target: cuts engine-sized batches out of what waits, keeps as many in flight as the target
// bears, retries, halves and gives up. It knows no answers store and no usage rows; the sink does.
import type { Reservation, TokenUsage } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import type { RunItem, Runner, RunnerLimits } from '#engines/engine.ts';
import { Batch, type SplitHistory } from './batch.ts';
import type { CallRun } from './call-run.ts';
import { Fifo } from './fifo.ts';
import { type Failure, type QueueSink, requireCount, siftItems } from './outcomes.ts';
import { Pace } from './pace.ts';
import { actualSpend, maxSpend } from './price.ts';
import type { Question } from './question.ts';
import {
  isInputFailure,
  isRefusalForLong,
  isWorthRetry,
  oneMore,
  type RetryPolicy,
  retryDelayMs,
} from './retry.ts';
import { Speed } from './speed.ts';
import { type Grant, Lane, WaitingLine } from './waiting-line.ts';

export interface QueueOptions {
  readonly target: Target;
  readonly runner: Runner;
  readonly policy: RetryPolicy;
  readonly clock: Clock;
  readonly log: Log;
  readonly sink: QueueSink;
}

/** Rejections of single inputs, with no answer beside them, after which the rest of a split batch is not tried. */
const HOPELESS_AFTER = 8;
/** Batches started in a row before others of this process get a turn; engines without I/O never wait. */
const STARTS_PER_TURN = 256;

export class TargetQueue {
  readonly target: Target;
  readonly runner: Runner;
  readonly speed = new Speed();
  readonly #policy: RetryPolicy;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #sink: QueueSink;
  readonly #pace: Pace;
  readonly #line = new WaitingLine();
  /** To be tried again, before anything new. Halves are a stack: single inputs are reached, and settled, soonest. */
  readonly #halves: Batch[] = [];
  readonly #retries = new Fifo<Batch>();
  readonly #unfinished = new Set<Batch>();
  /** Rate-limited batches that sleep: new ones would only meet the same refusal. */
  #refusedSleeping = 0;
  #maxInputs: number;
  #startsThisTurn = 0;
  #isPumping = false;
  #isPumpDue = false;
  #isResting = false;
  #isWakeDue = false;
  #streams = 0;
  #isRetired = false;
  readonly #closing = new AbortController();

  constructor({ target, runner, policy, clock, log, sink }: QueueOptions) {
    this.target = target;
    this.runner = runner;
    this.#policy = policy;
    this.#clock = clock;
    this.#log = log;
    this.#sink = sink;
    this.#pace = new Pace(runner.limits, policy, clock);
    this.#maxInputs = runner.limits.maxInputs;
  }

  get depth(): { readonly waiting: number; readonly inFlight: number; readonly limit: number } {
    const waiting = this.#line.length + this.#retries.length + this.#halves.length + this.#refusedSleeping;
    return { waiting, inFlight: this.#pace.inFlight, limit: this.#pace.limit };
  }

  get isSick(): boolean {
    return this.#pace.isSick;
  }

  /** A closed queue takes no questions. */
  get isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  get limits(): RunnerLimits {
    return { ...this.runner.limits, maxInputs: this.#maxInputs };
  }

  enqueue(run: CallRun, questions: readonly Question[]): void {
    const { maxInputs, isPadded } = this.runner.limits;
    if (maxInputs > 1) for (const each of questions) each.tokens = this.runner.countTokens(each.input);
    // Neighbours of about equal length waste little padding.
    const ordered = isPadded ? questions.toSorted((left, right) => right.tokens - left.tokens) : questions;
    const lane = new Lane(run, run.terms, ordered, (own) => this.#line.withdraw(own));
    run.lanes.push(lane);
    this.#line.add(lane);
    // Not at once: what is asked in the same turn of the event loop may travel together.
    this.#pumpLater();
  }

  /** A place for one stream; given back with `release`, with the error if it failed. */
  acquire(signal: AbortSignal): Promise<(error?: ServingError) => void> {
    return new Promise((resolve, reject) => {
      const either = AbortSignal.any([signal, this.#closing.signal]);
      const cancel = () => reject(toServingError(either.reason, 'CANCELLED'));
      if (either.aborted) return cancel();
      either.addEventListener('abort', cancel, { once: true });
      const grant: Grant = () => {
        either.removeEventListener('abort', cancel);
        if (!either.aborted) resolve(this.#occupy());
      };
      this.#line.addGrant(grant);
      this.#pumpLater();
    });
  }

  /** No new questions come; the runner is closed when the last is done. */
  retire(): void {
    this.#isRetired = true;
    this.#closeWhenIdle();
  }

  async close(): Promise<void> {
    const reason = new ServingError('CANCELLED', 'The server is shutting down.');
    this.#closing.abort(reason);
    this.#sink.failed(this.#line.drain(), reason);
    for (const batch of [...this.#unfinished]) batch.abort(reason);
    for (const batch of [...this.#halves.splice(0), ...this.#retries.clear()]) this.#giveUp(batch, reason);
    this.#isRetired = true;
    await this.runner.close();
  }

  #pumpLater(): void {
    if (this.#isPumpDue) return;
    this.#isPumpDue = true;
    queueMicrotask(() => this.#pump());
  }

  #pump(): void {
    this.#isPumpDue = false;
    if (this.#isPumping || this.#isResting) return;
    this.#isPumping = true;
    while (!this.#isResting && this.#pace.canStart() && this.#startNext()) {
      if (++this.#startsThisTurn >= STARTS_PER_TURN) this.#rest();
    }
    this.#isPumping = false;
    this.#wakeAfterPause();
    this.#closeWhenIdle();
  }

  #rest(): void {
    this.#isResting = true;
    setImmediate(() => {
      this.#isResting = false;
      this.#startsThisTurn = 0;
      this.#pump();
    });
  }

  #startNext(): boolean {
    const again = this.#nextAgain();
    if (again) {
      void this.#ask(again);
      return true;
    }
    if (this.#pace.inFlight + this.#refusedSleeping >= this.#pace.limit) return false;
    const turn = this.#line.next(this.limits);
    if (!turn) return false;
    if ('grant' in turn) turn.grant();
    else void this.#ask(this.#begin(new Batch(turn.terms, turn.questions, this.#clock.now())));
    return true;
  }

  #nextAgain(): Batch | undefined {
    for (;;) {
      const batch = this.#halves.pop() ?? this.#retries.shift();
      if (!batch) return undefined;
      batch.questions = batch.questions.filter(({ waiters }) => waiters.length > 0);
      if (batch.questions.length > 0 && !batch.signal.aborted) return batch;
      this.#giveUp(batch, toServingError(batch.signal.reason, 'CANCELLED'));
    }
  }

  #wakeAfterPause(): void {
    const pauseMs = this.#pace.pausedUntilMs - this.#clock.now();
    if (pauseMs <= 0 || this.#isWakeDue || this.depth.waiting === 0) return;
    this.#isWakeDue = true;
    const wake = () => {
      // The pause may have grown, or the timer fired a little early; the next look then sleeps for the rest.
      this.#isWakeDue = false;
      this.#pump();
    };
    this.#clock.sleep(pauseMs, this.#closing.signal).then(wake, () => {});
  }

  #closeWhenIdle(): void {
    if (!this.#isRetired || this.#closing.signal.aborted) return;
    if (this.#unfinished.size > 0 || this.#streams > 0 || this.#line.length > 0) return;
    this.#closing.abort();
    this.runner.close().catch((cause) => this.#log.warn({ err: cause }, 'A model could not be closed.'));
  }

  #begin(batch: Batch): Batch {
    this.#unfinished.add(batch);
    return batch;
  }

  #end(batch: Batch, error?: ServingError): void {
    this.#unfinished.delete(batch);
    this.#sink.ended(batch, error);
  }

  #occupy(): (error?: ServingError) => void {
    const ticket = this.#pace.start();
    this.#streams++;
    let isReleased = false;
    return (error) => {
      if (isReleased) return;
      isReleased = true;
      this.#streams--;
      if (error) this.#pace.failed(error, ticket);
      else this.#pace.succeeded();
      this.#pace.ended();
      this.#pumpLater();
    };
  }

  async #ask(batch: Batch): Promise<void> {
    const { terms, questions, signal } = batch;
    const ticket = this.#pace.start();
    const startedAtMs = this.#clock.now();
    const inputs = questions.map(({ input }) => input);
    const { target } = questions[0] ?? this;
    const before: TokenUsage = { ...batch.billed };
    let reservation: Reservation | undefined;
    let items: readonly RunItem[] | undefined;
    let error: ServingError | undefined;
    let isHeld = false;
    try {
      reservation = terms.budget && (await terms.budget.reserve(maxSpend(target, inputs, terms), signal));
      batch.attempts++;
      items = (await this.runner.invoke({ task: terms.task, inputs, parameters: terms.parameters, signal }))
        .items;
      requireCount(items, questions.length);
    } catch (thrown) {
      error = toServingError(thrown);
    }
    batch.tries = oneMore(batch.tries, error);
    // From here nothing is awaited: answers, budget, usage row and the next request follow in one turn.
    const failures = error ? [] : siftItems(batch, items ?? [], this.#sink);
    const inputTokens = batch.billed.inputTokens - before.inputTokens;
    const outputTokens = batch.billed.outputTokens - before.outputTokens;
    reservation?.settle(actualSpend(target, questions.length, { inputTokens, outputTokens }));
    if (!error) {
      this.speed.note(questions.length, this.#clock.now() - startedAtMs);
      this.#pace.succeeded();
    } else if (!signal.aborted) {
      isHeld = this.#pace.failed(error, ticket);
    }
    this.#pace.ended();
    if (error) this.#giveUpOrRetry(batch, error, isHeld);
    else this.#finish(batch, failures);
    this.#pump();
  }

  #finish(batch: Batch, failures: readonly Failure[]): void {
    const again: Failure[] = [];
    for (const failure of failures) {
      const isRetried = !failure.isFinal && isWorthRetry(failure.error, batch.tries, this.#policy);
      if (isRetried && failure.question.waiters.length > 0) again.push(failure);
      else this.#sink.failed([failure.question], failure.error, batch);
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
    const rest = new Batch(terms, questions, this.#clock.now(), { tries, history });
    this.#sleepThenRetry(this.#begin(rest), first.error);
  }

  /** `isHeld`: others wait for it too, as the provider refused for its limit. */
  #giveUpOrRetry(batch: Batch, error: ServingError, isHeld: boolean): void {
    const { terms, history, questions, signal, tries } = batch;
    if (signal.aborted) {
      this.#giveUp(batch, toServingError(signal.reason, 'CANCELLED'));
    } else if (terms.budget && error.code === 'BUDGET_EXCEEDED') {
      // What waits for the same budget is not sent either, even where it would be small enough.
      this.#giveUp(batch, error);
      this.#sink.failed(this.#line.drain(terms.budget), error);
    } else if (isInputFailure(error) && questions.length > 1 && !isHopeless(history)) {
      this.#split(batch, error);
    } else if (this.isSick || isRefusalForLong(error, this.#policy)) {
      this.#giveUp(batch, error);
      this.#failWaiting(error);
    } else if (isWorthRetry(error, tries, this.#policy)) {
      this.#sleepThenRetry(batch, error, isHeld);
    } else {
      if (history && isInputFailure(error)) history.rejectedAlone++;
      this.#giveUp(batch, error);
    }
  }

  #giveUp(batch: Batch, error: ServingError): void {
    this.#sink.failed(batch.questions, error, batch);
    this.#end(batch, error);
  }

  /** One bad input must not fail the others: each half is asked by itself. */
  #split(batch: Batch, error: ServingError): void {
    const { questions, terms } = batch;
    if (error.code === 'PAYLOAD_TOO_LARGE' && !batch.history) {
      this.#maxInputs = Math.max(1, Math.min(this.#maxInputs, questions.length >> 1));
    }
    const history: SplitHistory = batch.history ?? { rejectedAlone: 0, hasAnswer: false };
    this.#end(batch, error);
    const middle = questions.length >> 1;
    for (const half of [questions.slice(middle), questions.slice(0, middle)]) {
      const awaited = half.filter(({ waiters }) => waiters.length > 0);
      if (awaited.length === 0) continue;
      this.#halves.push(this.#begin(new Batch(terms, awaited, this.#clock.now(), { history })));
    }
  }

  #sleepThenRetry(batch: Batch, error: ServingError, isHeld = false): void {
    const delayMs = retryDelayMs(error, batch.tries, this.#policy, this.#clock);
    const { endpoint, model } = this.target;
    this.#log.debug(
      { endpoint, model, code: error.code, tries: batch.tries, delayMs },
      'A request is retried.',
    );
    if (delayMs <= 0) {
      this.#retries.push(batch);
      return;
    }
    if (isHeld) this.#refusedSleeping++;
    const wake = () => {
      if (isHeld) this.#refusedSleeping--;
      if (batch.signal.aborted) this.#giveUp(batch, toServingError(batch.signal.reason, 'CANCELLED'));
      else if (this.isSick) this.#giveUp(batch, error);
      else this.#retries.push(batch);
      this.#pump();
    };
    this.#clock.sleep(delayMs, batch.signal).then(wake, wake);
  }

  #failWaiting(error: ServingError): void {
    const times = this.#pace.failuresInRow;
    const because = this.isSick
      ? `The model failed ${times} times in a row`
      : 'The provider refuses for long';
    const told = new ServingError(
      error.code,
      `${error.message} (${because}; this input was not sent again.)`,
      {
        details: error.details,
        retryAfterMs: error.retryAfterMs,
        cause: error,
      },
    );
    const waiting = this.#line.drain();
    const { endpoint, model } = this.target;
    if (waiting.length === 0 && this.#retries.length === 0) return;
    this.#log.warn({ endpoint, model, code: error.code, failed: waiting.length }, `${because}.`);
    this.#sink.failed(waiting, told);
    for (let batch = this.#retries.shift(); batch; batch = this.#retries.shift()) this.#giveUp(batch, told);
  }
}

function isHopeless(history: SplitHistory | undefined): boolean {
  return history !== undefined && !history.hasAnswer && history.rejectedAlone >= HOPELESS_AFTER;
}
