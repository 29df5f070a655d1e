// The queue of one target: cuts engine-sized batches out of what waits, keeps as many in flight as the target
// bears, retries, halves and gives up. It knows no answers store and no usage rows; the sink does.
import type { TokenUsage } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import type { LocalRunner, Runner, RunnerLimits } from '#engines/engine.ts';
import { Aftermath } from './aftermath.ts';
import { Batch } from './batch.ts';
import type { CallRun } from './call-run.ts';
import { guardOutcomes } from './guarding.ts';
import { Hedging } from './hedging.ts';
import { deliver, type Outcome, type QueueSink, siftItems } from './outcomes.ts';
import { Pace } from './pace.ts';
import { Parking } from './parking.ts';
import { actualSpend } from './price.ts';
import { inAskingOrder } from './prompt-order.ts';
import type { Question } from './question.ts';
import type { ReplicaSet } from './replicas.ts';
import { oneMore, type RetryPolicy } from './retry.ts';
import { Sender } from './sender.ts';
import { Speed } from './speed.ts';
import { type Grant, Lane, WaitingLine } from './waiting-line.ts';

export interface QueueOptions {
  readonly target: Target;
  readonly runner: Runner;
  /** The same as `runner`, where it is made of replicas. */
  readonly replicas?: ReplicaSet | undefined;
  readonly policy: RetryPolicy;
  readonly clock: Clock;
  readonly log: Log;
  readonly sink: QueueSink;
}

/** Gives a place back, once: with the error if the request has failed; `unknown`: it says nothing of the target. */
export type Release = (outcome?: ServingError | 'unknown') => void;

/** Batches started in a row before others of this process get a turn; engines without I/O never wait. */
const STARTS_PER_TURN = 256;

export class TargetQueue {
  readonly target: Target;
  readonly runner: Runner;
  readonly replicas: ReplicaSet | undefined;
  readonly speed = new Speed();
  readonly hedging = new Hedging();
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #sink: QueueSink;
  readonly #pace: Pace;
  readonly #sender: Sender;
  readonly #line = new WaitingLine();
  /** Batches that wait for their budget, without a place. */
  readonly #parking: Parking;
  readonly #aftermath: Aftermath;
  #maxInputs: number;
  #startsThisTurn = 0;
  #isPumping = false;
  #isPumpDue = false;
  #isResting = false;
  #isWakeDue = false;
  #streams = 0;
  #holds = 0;
  #isRetired = false;
  #onLack: (() => void) | undefined;
  readonly #closing = new AbortController();

  constructor({ target, runner, replicas, policy, clock, log, sink }: QueueOptions) {
    this.target = target;
    this.runner = runner;
    this.replicas = replicas;
    this.#clock = clock;
    this.#log = log;
    this.#sink = sink;
    this.#pace = new Pace(runner.limits, policy, clock);
    // Each of a batch would have to be asked in the name of somebody else.
    this.#maxInputs = target.isPersonal ? 1 : runner.limits.maxInputs;
    const hasSpare = () => this.#hasSpare();
    this.#sender = new Sender({ runner, pace: this.#pace, hedging: this.hedging, clock, hasSpare });
    this.#aftermath = new Aftermath({
      ...{ target, policy, clock, log, sink, pace: this.#pace, line: this.#line },
      onReady: () => this.#pump(),
      onTooLarge: (count) => {
        this.#maxInputs = Math.max(1, Math.min(this.#maxInputs, count >> 1));
      },
    });
    this.#parking = new Parking(this.#line, {
      onHeld: (batch) => {
        this.#aftermath.push(batch);
        this.#pump();
      },
      onRefused: (batch, error) => {
        this.#aftermath.refused(batch, error);
        this.#pump();
      },
    });
    if (!replicas) return;
    this.#pace.resize(replicas.places);
    replicas.attach({
      waiting: () => this.#line.length + this.#aftermath.ready,
      onPlaces: () => {
        this.#pace.resize(replicas.places);
        this.#pumpLater();
      },
      onFailing: (error) => this.#refuseWaiting(error),
    });
  }

  get depth(): { readonly waiting: number; readonly inFlight: number; readonly limit: number } {
    const again = this.#aftermath.ready + this.#aftermath.refusedSleeping;
    const waiting = this.#line.length + this.#parking.count + again;
    return { waiting, inFlight: this.#pace.inFlight, limit: this.#pace.limit };
  }

  get pace(): Pick<Pace, 'limit' | 'pausedUntilMs' | 'failuresInRow' | 'isSick' | 'mayProbe'> {
    return this.#pace;
  }

  get isSick(): boolean {
    return this.#pace.isSick;
  }

  /** Questions and streams of impatient callers that wait, and how many of all stand before a new one. */
  get crowd(): { readonly urgent: number; readonly ahead: number } {
    return this.#line;
  }

  /** Of the places of a provider this many are for this process. `onLack` is told who finds none without waiting. */
  capAt(places: number, onLack?: () => void): void {
    if (this.replicas) return;
    this.#pace.capAt(places);
    this.#onLack = onLack;
    this.#pumpLater();
  }

  /** What answers inside a DuckDB callback; undefined where the engine does not, or its model is not open. */
  get local(): LocalRunner | undefined {
    return this.replicas ? this.replicas.localNow : this.runner.local;
  }

  /** The model stays open until the function it gives is called: its local runner is being asked. */
  hold(): () => void {
    this.#holds++;
    const release = this.replicas?.hold();
    let held = 1;
    return () => {
      this.#holds -= held;
      held = 0;
      release?.();
      this.#closeWhenIdle();
    };
  }

  /** A closed queue takes no questions. */
  get isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  get limits(): RunnerLimits {
    return { ...this.runner.limits, maxInputs: this.#maxInputs };
  }

  enqueue(run: CallRun, questions: readonly Question[]): void {
    const { limits } = this.runner;
    if (limits.maxInputs > 1) for (const each of questions) each.tokens = this.runner.countTokens(each.input);
    const ordered = inAskingOrder(questions, limits);
    const lane = new Lane(run, run.terms, ordered, (own) => this.#line.withdraw(own));
    run.lanes.push(lane);
    this.#line.add(lane);
    // Not at once: what is asked in the same turn of the event loop may travel together.
    this.#pumpLater();
  }

  /** A place for one stream. Rejects when the call is over, or when a pause begins and another target may answer. */
  acquire({ signal, isPatient }: CallRun, hasFallback: boolean): Promise<Release> {
    return new Promise((resolve, reject) => {
      const cancel = () => {
        this.#line.leave(grant);
        reject(toServingError(signal.reason, 'CANCELLED'));
      };
      const grant: Grant = {
        isPatient,
        hasFallback,
        give: () => {
          signal.removeEventListener('abort', cancel);
          resolve(this.#occupy(true));
        },
        refuse: (error) => {
          signal.removeEventListener('abort', cancel);
          reject(error);
        },
      };
      if (this.isClosed) return reject(toServingError(this.#closing.signal.reason, 'CANCELLED'));
      if (signal.aborted) return cancel();
      signal.addEventListener('abort', cancel, { once: true });
      this.#line.addGrant(grant);
      this.#pumpLater();
    });
  }

  /** A place without waiting; undefined while there is none, others wait for one, or the target is failing. */
  tryAcquire(isStream = false): Release | undefined {
    if (!this.isClosed && !this.isSick && this.#hasSpare()) return this.#occupy(isStream);
    this.#onLack?.();
    return undefined;
  }

  /** A place in its turn, for who waits without a promise. The function it gives leaves the line. */
  await(
    isStream: boolean,
    hasFallback: boolean,
    give: (release: Release) => void,
    refuse: (error: ServingError) => void,
  ): () => void {
    const grant: Grant = { isPatient: false, hasFallback, give: () => give(this.#occupy(isStream)), refuse };
    this.#line.addGrant(grant);
    this.#pumpLater();
    return () => this.#line.leave(grant);
  }

  /** No new questions come; the runner is closed when the last is done. */
  retire(): void {
    this.#isRetired = true;
    this.#closeWhenIdle();
  }

  async close(): Promise<void> {
    const reason = new ServingError('CANCELLED', 'The server is shutting down.');
    this.#closing.abort(reason);
    this.#refuseWaiting(reason);
    this.#aftermath.close(reason);
    this.#isRetired = true;
    await this.runner.close();
  }

  #hasSpare(): boolean {
    return !this.#line.hasTurns && this.#aftermath.ready === 0 && this.#pace.canStart() && this.#hasRoom();
  }

  /** Batches that sleep after a refusal keep their places: new ones would meet the same. */
  #hasRoom(): boolean {
    return this.#pace.inFlight + this.#aftermath.refusedSleeping < this.#pace.limit;
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
    this.replicas?.noteDemand(this.#pace.inFlight >= this.#pace.limit);
    this.#closeWhenIdle();
  }

  #refuseWaiting(reason: ServingError): void {
    this.#sink.failed(this.#line.drain(), reason);
    for (const grant of this.#line.drainGrants()) grant.refuse(reason);
    this.#aftermath.giveUpReady(reason);
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
    const again = this.#aftermath.next();
    if (again) {
      this.#holdAndAsk(again);
      return true;
    }
    if (!this.#hasRoom()) return false;
    const turn = this.#line.next(this.limits);
    if (!turn) return false;
    if ('grant' in turn) turn.grant.give();
    else this.#holdAndAsk(this.#aftermath.begin(new Batch(turn.terms, turn.questions, this.#clock.now())));
    return true;
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
    if (this.#aftermath.unfinished > 0 || this.#streams > 0 || this.#line.length > 0 || this.#holds > 0)
      return;
    this.#closing.abort();
    this.runner.close().catch((cause) => this.#log.warn({ err: cause }, 'A model could not be closed.'));
  }

  #occupy(isStream: boolean): Release {
    const ticket = this.#pace.start();
    const startedAtMs = this.#clock.now();
    this.#streams++;
    let isReleased = false;
    return (outcome) => {
      if (isReleased) return;
      isReleased = true;
      this.#streams--;
      const durationMs = this.#clock.now() - startedAtMs;
      if (outcome instanceof ServingError) this.#failedWith(outcome, ticket);
      else if (outcome === 'unknown') this.speed.noteAtLeast(durationMs);
      else {
        this.#pace.succeeded();
        this.#noteTime(1, durationMs, isStream);
      }
      this.#pace.ended();
      if (this.#line.length > 0 || this.depth.waiting > 0 || this.#isRetired) this.#pumpLater();
    };
  }

  /** The times of streams are noted at their first event, by who opens them. */
  #noteTime(inputs: number, durationMs: number, isStream: boolean): void {
    this.speed.note(inputs, durationMs);
    if (!isStream) this.hedging.note(durationMs, false);
  }

  /** With its budget held it is sent; without, it waits for it beside the line, and takes no place meanwhile. */
  #holdAndAsk(batch: Batch): void {
    const verdict = this.#parking.hold(batch);
    if (verdict === 'held') void this.#ask(batch);
    else if (verdict !== 'parked') this.#aftermath.refused(batch, verdict);
  }

  async #ask(batch: Batch): Promise<void> {
    const { terms, signal, target } = batch;
    const ticket = this.#pace.start();
    const startedAtMs = this.#clock.now();
    const before: TokenUsage = { ...batch.billed };
    const reservation = batch.takeReservation();
    let outcomes: readonly Outcome[] = [];
    let error: ServingError | undefined;
    let isHeld = false;
    let hasLost = false;
    try {
      const sent = await this.#sender.send(batch, ticket);
      ({ hasLost } = sent);
      outcomes = siftItems(batch, sent.items);
    } catch (thrown) {
      error = toServingError(thrown);
    }
    batch.tries = oneMore(batch.tries, error);
    // From here nothing is awaited, but for a guard: answers, usage row and the next request follow in one turn.
    const inputTokens = batch.billed.inputTokens - before.inputTokens;
    const outputTokens = batch.billed.outputTokens - before.outputTokens;
    reservation?.settle(actualSpend(target, batch.questions.length, { inputTokens, outputTokens }));
    if (hasLost) this.#sender.billLost(batch);
    if (!error) {
      this.#noteTime(batch.questions.length, this.#clock.now() - startedAtMs, false);
      this.#pace.succeeded();
    } else if (signal.aborted) {
      // A target that answers too late for anybody must not be taken for as quick as it was.
      this.speed.noteAtLeast(this.#clock.now() - startedAtMs);
    } else {
      isHeld = this.#failedWith(error, ticket);
      for (const { run } of batch.tallies) run.trail.failed(target, error);
    }
    this.#pace.ended();
    if (error) this.#aftermath.failed(batch, error, isHeld);
    else {
      if (terms.guard?.output) {
        // The place is free again while the guard thinks.
        this.#pump();
        outcomes = await guardOutcomes(terms.guard, outcomes, signal);
      }
      this.#aftermath.finish(batch, deliver(batch, outcomes, this.#sink));
    }
    this.#pump();
  }

  #failedWith(error: ServingError, ticket: number): boolean {
    const isHeld = this.#pace.failed(error, ticket);
    if (error.code === 'RATE_LIMITED' && !this.#pace.canResume()) this.#aftermath.moveImpatient(error);
    return isHeld;
  }
}
