// Opens a stream: waits for a place at the target, asks, and tries again or elsewhere until the first event is
// there. After it nothing is tried again, as part of an answer has been seen.
import type { Output, Reservation, StreamEvent, TokenUsage } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError, throwIfAborted, toServingError } from '#core/errors.ts';
import type { AnswerStore } from '#core/stores.ts';
import type { CallRun } from './call-run.ts';
import { NO_SPEND } from './combined-budget.ts';
import { refusalOf } from './door-keeper.ts';
import { BothFailed, raceHedged } from './hedging.ts';
import type { Ledger } from './ledger.ts';
import { cacheModeOf, keyOf, readsStore, scopeOf, writesStore } from './look-up.ts';
import type { OpenTargets } from './open-targets.ts';
import { maxSpend, requirePrice } from './price.ts';
import { NO_USAGE } from './question.ts';
import { allowsFallback, isWorthRetry, NO_TRIES, oneMore, type RetryPolicy, retryDelayMs } from './retry.ts';
import { EventStream } from './stream.ts';
import { StreamAttempt } from './stream-attempt.ts';
import { eventsOf } from './streamed-output.ts';
import type { Release, TargetQueue } from './target-queue.ts';

export interface TargetEvents {
  readonly target: Target;
  readonly events: AsyncIterable<StreamEvent>;
}

export interface StreamOpenerOptions {
  readonly targets: OpenTargets;
  readonly answers: AnswerStore;
  readonly ledger: Ledger;
  readonly policy: RetryPolicy;
  readonly clock: Clock;
  /** The call is over; heard once for each stream that was opened. */
  readonly onEnd: (run: CallRun) => void;
}

/** What the tries at one target have in common: one usage row. */
interface Tries {
  readonly run: CallRun;
  readonly target: Target;
  readonly queue: TargetQueue;
  readonly startedAtMs: number;
  readonly hasFallback: boolean;
  attempts: number;
  /** Tokens of requests that were not shown: withheld, or cancelled because another answered first. */
  lost: TokenUsage;
}

interface Begun {
  readonly attempt: StreamAttempt;
  readonly first: StreamEvent;
}

export class StreamOpener {
  readonly #options: StreamOpenerOptions;
  /** Before their first event, and after it. */
  readonly #opening = new Set<CallRun>();
  readonly #open = new Set<EventStream>();

  constructor(options: StreamOpenerOptions) {
    this.#options = options;
  }

  close(): void {
    const reason = new ServingError('CANCELLED', 'The server is shutting down.');
    for (const run of [...this.#opening]) run.fail(reason);
    for (const stream of [...this.#open]) stream.cancel();
  }

  async open(run: CallRun): Promise<TargetEvents> {
    const stored = await this.#stored(run, run.target);
    if (stored) return stored;
    this.#opening.add(run);
    try {
      return await this.#openSomewhere(run);
    } finally {
      this.#opening.delete(run);
    }
  }

  async #openSomewhere(run: CallRun): Promise<TargetEvents> {
    let failure: ServingError | undefined;
    for (const [at, target] of [run.target, ...run.fallbacks].entries()) {
      const hasFallback = at < run.fallbacks.length;
      try {
        return await this.#openAt(run, target, hasFallback, failure);
      } catch (thrown) {
        failure = toServingError(thrown);
        if (!hasFallback || run.error || !allowsFallback(failure)) throw failure;
      }
    }
    throw failure ?? new ServingError('INTERNAL', 'A call has no target. This is a defect of duckserve.');
  }

  async #stored(run: CallRun, target: Target): Promise<TargetEvents | undefined> {
    const key = this.#keyOf(run, target);
    const isRead = readsStore(cacheModeOf(run.call, run.isPersonal));
    const stored = key !== undefined && isRead ? this.#options.answers.get(key) : undefined;
    if (!stored) return undefined;
    const { output, usage } = stored;
    run.settle(0, { ok: true, output, usage, cached: true });
    this.#options.onEnd(run);
    await this.#options.ledger.settled();
    return { target, events: eventsOf(output, usage) };
  }

  #keyOf({ call, terms, isPersonal }: CallRun, target: Target): string | undefined {
    const [input] = call.inputs;
    return input && keyOf(scopeOf(target, call, terms.guard, isPersonal), input);
  }

  /** Asks one target until it answers. One usage row for all tries. `before`: why the one before it did not. */
  async #openAt(
    run: CallRun,
    target: Target,
    hasFallback: boolean,
    before: ServingError | undefined,
  ): Promise<TargetEvents> {
    const { ledger, clock } = this.#options;
    const startedAtMs = clock.now();
    let tries: Tries | undefined;
    try {
      const queue = await this.#queueOf(run, target, before);
      tries = { run, target, queue, startedAtMs, hasFallback, attempts: 0, lost: NO_USAGE };
      return this.#pass(tries, await this.#tryUntilFirst(tries));
    } catch (thrown) {
      const error = run.error ?? toServingError(thrown);
      if (!hasFallback || !allowsFallback(error)) run.fail(error);
      if (tries && tries.attempts > 0) {
        const { attempts, lost: usage } = tries;
        ledger.streamEnded(run, target, { startedAtMs, attempts, usage, error });
      }
      throw error;
    }
  }

  /** A stand-in that cannot be used says less than the failure that led to it. */
  async #queueOf(run: CallRun, target: Target, before: ServingError | undefined): Promise<TargetQueue> {
    try {
      requirePrice(target, run.terms.budget);
      return await run.whileLive(
        this.#options.targets.openFor(target, () => (run.isPatient || run.error ? 0 : 1)),
      );
    } catch (thrown) {
      throw run.error ?? before ?? thrown;
    }
  }

  async #tryUntilFirst(tries: Tries): Promise<Begun> {
    const { run, target, queue, hasFallback } = tries;
    const { policy, clock } = this.#options;
    let soFar = NO_TRIES;
    for (;;) {
      const refusal = refusalOf(queue, run, hasFallback, policy, clock.now());
      if (refusal) throw refusal;
      const attempt = await this.#attempt(tries);
      try {
        return await this.#firstOf(tries, attempt);
      } catch (thrown) {
        const error = run.error ?? toServingError(thrown);
        tries.lost = addUsage(tries.lost, attempt.fail(error));
        soFar = oneMore(soFar, error);
        if (!run.error) run.trail.failed(target, error);
        const movesOn = hasFallback && !run.isPatient && allowsFallback(error);
        // What a guard says is final: no other request would change it.
        if (!attempt.hasFailed) throw run.fail(error);
        // An agent may have acted before it failed, and is not made to act again.
        const isLast = movesOn || queue.isSick || target.isPersonal === true;
        if (isLast || !isWorthRetry(error, soFar, policy)) throw error;
        const delayMs = retryDelayMs(error, soFar, policy, clock);
        if (clock.now() + delayMs >= (run.deadlineMs ?? Number.POSITIVE_INFINITY)) throw error;
        await clock.sleep(delayMs, run.signal);
      }
    }
  }

  /** Holds the budget back before it takes a place: who waits for a budget holds up nobody else. */
  async #attempt(tries: Tries): Promise<StreamAttempt> {
    const { run, target, queue, hasFallback } = tries;
    const { terms, call, signal } = run;
    throwIfAborted(signal);
    const reservation = await terms.budget?.reserve(maxSpend(target, call.inputs, terms), signal);
    try {
      const release = await queue.acquire(run, hasFallback);
      return this.#begin(tries, release, reservation);
    } catch (thrown) {
      reservation?.settle(NO_SPEND);
      throw thrown;
    }
  }

  #begin(tries: Tries, release: Release, reservation: Reservation | undefined): StreamAttempt {
    tries.attempts++;
    tries.run.trail.asked(tries.target);
    return new StreamAttempt(tries.run, tries.target, tries.queue, release, reservation);
  }

  /** Of the attempt, or of a second one beside it when the first takes long. */
  async #firstOf(tries: Tries, attempt: StreamAttempt): Promise<Begun> {
    const { run, queue } = tries;
    const { clock } = this.#options;
    const askedAtMs = clock.now();
    const rules = run.terms.hedging;
    const delayMs = rules && queue.hedging.delayMs(rules, true);
    const begun =
      delayMs === undefined
        ? { attempt, first: await run.whileLive(attempt.first()) }
        : await this.#race(tries, attempt, delayMs);
    queue.hedging.note(clock.now() - askedAtMs, true);
    return begun;
  }

  async #race(tries: Tries, attempt: StreamAttempt, delayMs: number): Promise<Begun> {
    const { clock } = this.#options;
    let extra: StreamAttempt | undefined;
    const startSecond = () => {
      extra = this.#extra(tries);
      return extra && { answer: extra.first(), cancel: () => this.#cancel(tries, extra) };
    };
    const contender = { answer: attempt.first(), cancel: () => this.#cancel(tries, attempt) };
    try {
      const race = raceHedged(contender, startSecond, delayMs, clock);
      const { value, winner, loser } = await tries.run.whileLive(race);
      const failed = loser?.which === 'first' ? attempt : extra;
      if (loser?.error && failed) tries.lost = addUsage(tries.lost, failed.fail(loser.error));
      return { attempt: winner === 'second' && extra ? extra : attempt, first: value };
    } catch (thrown) {
      const areBoth = thrown instanceof BothFailed;
      const usage = extra?.fail(areBoth ? thrown.second : toServingError(thrown));
      if (usage) tries.lost = addUsage(tries.lost, usage);
      throw areBoth ? thrown.first : thrown;
    }
  }

  /** Only with a place to spare, a reservation of its own, and out of what was earned. */
  #extra(tries: Tries): StreamAttempt | undefined {
    const { run, target, queue } = tries;
    const { terms, call } = run;
    if (run.error || (terms.budget && !terms.budget.tryReserve)) return undefined;
    const release = queue.tryAcquire(true);
    if (!release) return undefined;
    let reservation: Reservation | undefined;
    try {
      reservation = terms.budget?.tryReserve?.(maxSpend(target, call.inputs, terms));
    } catch {
      // Not within the limits any more: the first goes on alone.
    }
    if ((terms.budget && !reservation) || !queue.hedging.take()) {
      reservation?.settle(NO_SPEND);
      release('unknown');
      return undefined;
    }
    return this.#begin(tries, release, reservation);
  }

  /** The other was first. What it has cost is what is known: its input was read. */
  #cancel(tries: Tries, attempt: StreamAttempt | undefined): void {
    if (!attempt) return;
    const usage = attempt.usage ?? attempt.usageSoFar();
    tries.lost = addUsage(tries.lost, usage);
    attempt.end(usage, new ServingError('CANCELLED', 'Another request was answered first.'));
  }

  #pass(tries: Tries, { attempt, first }: Begun): TargetEvents {
    const { run, target, startedAtMs, attempts, lost } = tries;
    const { ledger, clock, onEnd } = this.#options;
    const firstEventAtMs = clock.now();
    const stream: EventStream = new EventStream({
      ...{ run, target, attempt, first },
      settled: () => ledger.settled(),
      onAnswer: (output, usage) => this.#store(run, target, output, usage),
      onEnd: (used, error) => {
        this.#open.delete(stream);
        const usage = addUsage(used, lost);
        const outputCharacters = stream.characters;
        const facts = { startedAtMs, attempts, usage, error, firstEventAtMs, outputCharacters };
        ledger.streamEnded(run, target, facts);
        onEnd(run);
      },
    });
    this.#open.add(stream);
    return { target, events: stream };
  }

  /** A streamed answer has been seen already; it is stored only when it is what was asked for. */
  #store(run: CallRun, target: Target, output: Output, usage: TokenUsage): void {
    const { call, terms, isPersonal } = run;
    const isCutByUs = terms.isCapped && 'finishReason' in output && output.finishReason === 'length';
    if (!writesStore(cacheModeOf(call, isPersonal)) || isCutByUs) return;
    const checked = terms.check(output);
    const key = this.#keyOf(run, target);
    if (!checked.ok || key === undefined) return;
    const { endpoint, model, task } = target;
    const createdAtMs = this.#options.clock.now();
    this.#options.answers.put(key, { output: checked.output, usage, endpoint, model, task, createdAtMs });
  }
}

function addUsage(left: TokenUsage, right: TokenUsage): TokenUsage {
  return {
    inputTokens: left.inputTokens + right.inputTokens,
    outputTokens: left.outputTokens + right.outputTokens,
  };
}
