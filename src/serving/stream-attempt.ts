// One try to stream an answer: a place at the target, a reservation, the request, and what came of it so far.
// Settled exactly once, however it ends. It passes nothing on; that is the stream's (stream.ts).
import type { Reservation, StreamEvent, TokenUsage } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Batch, Runner } from '#engines/engine.ts';
import type { CallRun } from './call-run.ts';
import { callerOf } from './caller.ts';
import { guardEvents } from './guarding.ts';
import { emptyAnswer } from './outcomes.ts';
import { actualSpend } from './price.ts';
import { NO_USAGE } from './question.ts';
import { eventsOf } from './streamed-output.ts';
import type { Release, TargetQueue } from './target-queue.ts';
import type { Terms } from './terms.ts';

export class StreamAttempt {
  /** As they may be seen: what comes out of the guard. */
  readonly events: AsyncIterator<StreamEvent>;
  readonly #run: CallRun;
  readonly #target: Target;
  readonly #queue: TargetQueue;
  readonly #release: Release;
  readonly #reservation: Reservation | undefined;
  readonly #controller = new AbortController();
  readonly #onOver: () => void;
  #source: AsyncIterator<StreamEvent> | undefined;
  #written = 0;
  #hasWritten = false;
  #usage: TokenUsage | undefined;
  #hasFailed = false;
  #isEnded = false;

  constructor(
    run: CallRun,
    target: Target,
    queue: TargetQueue,
    release: Release,
    reservation: Reservation | undefined,
  ) {
    const { call, terms, signal } = run;
    this.#run = run;
    this.#target = target;
    this.#queue = queue;
    this.#release = release;
    this.#reservation = reservation;
    this.#onOver = () => this.#controller.abort(signal.reason);
    signal.addEventListener('abort', this.#onOver, { once: true });
    const guarded = { ...call, signal: this.#controller.signal };
    this.events = guardEvents(terms.guard, guarded, this.#watched());
  }

  /** What the provider said it used; undefined until its own end was seen, shown or not. */
  get usage(): TokenUsage | undefined {
    return this.#usage;
  }

  /** It was the request that failed, and not a guard that withheld the answer. */
  get hasFailed(): boolean {
    return this.#hasFailed;
  }

  /** The first event that may be seen, or why there is none. */
  async first(): Promise<StreamEvent> {
    const { done, value } = await this.events.next();
    if (!done) return value;
    throw new ServingError('INTERNAL', 'The guard of the endpoint gave no event at all.');
  }

  usageSoFar(): TokenUsage {
    const [input] = this.#run.call.inputs;
    return {
      inputTokens: input ? this.#queue.runner.countTokens(input) : 0,
      outputTokens: Math.ceil(this.#written / 4),
    };
  }

  /** Once. With an error the request is aborted; `CANCELLED` says nothing about the target. */
  end(usage: TokenUsage, error?: ServingError): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#run.signal.removeEventListener('abort', this.#onOver);
    this.#reservation?.settle(actualSpend(this.#target, 1, usage));
    if (!error) {
      this.#release();
      return;
    }
    // A caller who went away and a guard that withholds say nothing about the target.
    this.#release(this.#hasFailed && error.code !== 'CANCELLED' ? error : 'unknown');
    this.#controller.abort(error);
    // A generator that is still waiting for its next event rejects here or there; both are this same ending.
    this.#source?.return?.().catch(() => {});
    this.events.return?.().catch(() => {});
  }

  /** Nothing of it was shown. What a guard has seen of it is paid for; a request that failed is not. Gives that. */
  fail(error: ServingError): TokenUsage {
    const usage = this.#usage ?? (this.#hasWritten ? this.usageSoFar() : NO_USAGE);
    this.end(usage, error);
    return usage;
  }

  /** The events of the engine, counted before a guard holds any of them back. */
  async *#watched(): AsyncGenerator<StreamEvent> {
    const { call, terms } = this.#run;
    const { runner } = this.#queue;
    const { model, externalModel } = this.#target;
    const caller = callerOf(this.#target, call);
    const batch: Batch = {
      task: call.task,
      inputs: call.inputs,
      parameters: terms.parameters,
      signal: this.#controller.signal,
      ...(caller && { caller }),
    };
    try {
      this.#source = eventsFrom(runner, batch, terms);
      for (;;) {
        const { done, value: event } = await this.#source.next();
        if (done) throw endedEarly(this.#hasWritten);
        if (event.type === 'end') {
          this.#usage = event.usage;
          const isEmpty = !this.#hasWritten && event.usage.outputTokens === 0;
          if (isEmpty && event.finishReason === 'stop' && externalModel) throw emptyAnswer(model);
          // Guards read text; what an agent gives beside it would pass unread.
          const isGuarded = terms.guard?.output !== undefined || terms.guard?.stream !== undefined;
          const { type, finishReason, usage } = event;
          yield isGuarded ? { type, finishReason, usage } : event;
          return;
        }
        this.#hasWritten = true;
        this.#written += event.type === 'delta' ? event.text.length : (event.arguments?.length ?? 0);
        yield event;
      }
    } catch (thrown) {
      this.#hasFailed = true;
      throw thrown;
    }
  }
}

function endedEarly(hasWritten: boolean): ServingError {
  if (!hasWritten)
    return new ServingError('INVALID_RESPONSE', 'The model ended its stream before the first event.');
  return new ServingError(
    'UPSTREAM_ERROR',
    'The model ended its stream without saying so; the answer may be cut.',
  );
}

/** Events of a runner; one that cannot stream gives its whole answer as one delta, checked like any other. */
function eventsFrom(runner: Runner, batch: Batch, { check }: Terms): AsyncIterator<StreamEvent> {
  if (runner.stream) return runner.stream(batch)[Symbol.asyncIterator]();
  return invokeAsStream(runner, batch, check);
}

async function* invokeAsStream(
  runner: Runner,
  batch: Batch,
  check: Terms['check'],
): AsyncGenerator<StreamEvent> {
  const [item] = (await runner.invoke(batch)).items;
  if (!item) throw new ServingError('INVALID_RESPONSE', 'The model was sent one input and gave no answer.');
  if (!item.ok) throw item.error;
  const checked = check(item.output);
  if (!checked.ok) throw checked.error;
  yield* eventsOf(checked.output, item.usage);
}
