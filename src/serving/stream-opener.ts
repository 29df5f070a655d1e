// Opens a stream: waits for a place at the target, asks, and tries again or elsewhere until the first event is
// there. After it nothing is tried again, as part of an answer has been seen.
import type { Output, Reservation, StreamEvent, TokenUsage } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError, throwIfAborted, toServingError } from '#core/errors.ts';
import type { AnswerStore } from '#core/stores.ts';
import type { CallRun } from './call-run.ts';
import type { Ledger } from './ledger.ts';
import { keyOf, readsStore, scopeOf, writesStore } from './look-up.ts';
import type { OpenTargets } from './open-targets.ts';
import { actualSpend, maxSpend, requirePrice } from './price.ts';
import { NO_USAGE } from './question.ts';
import { allowsFallback, isWorthRetry, NO_TRIES, oneMore, type RetryPolicy, retryDelayMs } from './retry.ts';
import { EventStream, eventsFrom, eventsOf } from './stream.ts';
import type { TargetQueue } from './target-queue.ts';

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

export class StreamOpener {
  readonly #options: StreamOpenerOptions;
  readonly #open = new Set<EventStream>();

  constructor(options: StreamOpenerOptions) {
    this.#options = options;
  }

  close(): void {
    for (const stream of [...this.#open]) stream.cancel();
  }

  async open(run: CallRun): Promise<TargetEvents> {
    const { target, fallbacks } = run.resolution;
    const stored = this.#stored(run, target);
    if (stored) return stored;
    const [last, ...before] = [target, ...fallbacks].reverse();
    for (const candidate of before.reverse()) {
      try {
        return await this.#openAt(run, candidate, false);
      } catch (thrown) {
        if (!allowsFallback(toServingError(thrown))) throw thrown;
      }
    }
    return this.#openAt(run, last ?? target, true);
  }

  #stored(run: CallRun, target: Target): TargetEvents | undefined {
    const key = this.#keyOf(run, target);
    const stored =
      key !== undefined && readsStore(run.call.cache) ? this.#options.answers.get(key) : undefined;
    if (!stored) return undefined;
    const { output, usage } = stored;
    run.settle(0, { ok: true, output, usage, cached: true });
    this.#options.onEnd(run);
    return { target, events: eventsOf(output, usage) };
  }

  #keyOf({ call }: CallRun, target: Target): string | undefined {
    const [input] = call.inputs;
    return input && keyOf(scopeOf(target, call.task, call.parameters), input);
  }

  /** Asks one target until it answers. One usage row for all tries. */
  async #openAt(run: CallRun, target: Target, isLast: boolean): Promise<TargetEvents> {
    const { ledger, policy, clock, targets } = this.#options;
    const signal = run.call.signal ?? new AbortController().signal;
    const startedAtMs = clock.now();
    let attempts = 0;
    try {
      requirePrice(target, run.terms.budget);
      const queue = await targets.open(target);
      let tries = NO_TRIES;
      for (;;) {
        const release = await queue.acquire(signal);
        try {
          return await this.#ask(run, target, queue, release, () => ++attempts, startedAtMs);
        } catch (thrown) {
          const error = toServingError(thrown);
          release(error);
          tries = oneMore(tries, error);
          if (queue.isSick || !isWorthRetry(error, tries, policy)) throw error;
          await clock.sleep(retryDelayMs(error, tries, policy, clock), signal);
        }
      }
    } catch (thrown) {
      const error = toServingError(thrown);
      if (isLast || !allowsFallback(error)) run.fail(error);
      if (attempts > 0) ledger.streamEnded(run, target, { startedAtMs, attempts, usage: NO_USAGE, error });
      throw error;
    }
  }

  async #ask(
    run: CallRun,
    target: Target,
    { runner }: TargetQueue,
    release: (error?: ServingError) => void,
    count: () => number,
    startedAtMs: number,
  ): Promise<TargetEvents> {
    const { call, terms } = run;
    const { ledger } = this.#options;
    const controller = new AbortController();
    const abort = () => controller.abort(call.signal?.reason);
    call.signal?.addEventListener('abort', abort, { once: true });
    const { signal } = controller;
    let reservation: Reservation | undefined;
    try {
      throwIfAborted(call.signal);
      reservation = await terms.budget?.reserve(maxSpend(target, call.inputs, terms), signal);
      const attempts = count();
      const batch = { task: call.task, inputs: call.inputs, parameters: terms.parameters, signal };
      const source = eventsFrom(runner, batch, terms);
      const { done, value: first } = await source.next();
      if (done)
        throw new ServingError('INVALID_RESPONSE', 'The model ended its stream before the first event.');
      const stream: EventStream = new EventStream({
        ...{ run, target, runner, source, first, startedAtMs, attempts, controller, reservation, release },
        onAnswer: (output, usage) => this.#store(run, target, output, usage),
        onEnd: (usage, error) => {
          call.signal?.removeEventListener('abort', abort);
          this.#open.delete(stream);
          ledger.streamEnded(run, target, { startedAtMs, attempts, usage, error });
          this.#options.onEnd(run);
        },
      });
      this.#open.add(stream);
      return { target, events: stream };
    } catch (thrown) {
      call.signal?.removeEventListener('abort', abort);
      reservation?.settle(actualSpend(target, 1, NO_USAGE));
      throw thrown;
    }
  }

  /** A streamed answer has been seen already; it is stored only when it is what was asked for. */
  #store(run: CallRun, target: Target, output: Output, usage: TokenUsage): void {
    const { call, terms } = run;
    const isCutByUs = terms.isCapped && 'finishReason' in output && output.finishReason === 'length';
    if (!writesStore(call.cache) || isCutByUs) return;
    const checked = terms.check(output);
    const key = this.#keyOf(run, target);
    if (!checked.ok || key === undefined) return;
    const { endpoint, model, task } = target;
    const createdAtMs = this.#options.clock.now();
    this.#options.answers.put(key, { output: checked.output, usage, endpoint, model, task, createdAtMs });
  }
}
