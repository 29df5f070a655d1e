// A streamed answer on its way to the caller: events passed on as they come, at one place of its target. Whatever
// ends the stream, its place, reservation and usage row are settled exactly once.
import type { AnswerItem, FinishReason, Output, StreamEvent, TokenUsage } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError, throwIfAborted, toServingError } from '#core/errors.ts';
import type { CallRun } from './call-run.ts';
import type { StreamAttempt } from './stream-attempt.ts';
import { StreamedOutput } from './streamed-output.ts';

export interface OpenedStream {
  readonly run: CallRun;
  readonly target: Target;
  readonly attempt: StreamAttempt;
  readonly first: StreamEvent;
  /** Writes the usage row and forgets the stream. */
  readonly onEnd: (usage: TokenUsage, error: ServingError | undefined) => void;
  /** The whole answer, when it was complete and fits what was asked for. */
  readonly onAnswer: (output: Output, usage: TokenUsage) => void;
  /** In durable mode: the last event, or the error, is given only after this. */
  readonly settled: () => Promise<void> | undefined;
}

export class EventStream implements AsyncIterableIterator<StreamEvent> {
  readonly #opened: OpenedStream;
  readonly #streamed: StreamedOutput;
  #first: StreamEvent | undefined;
  #isEnded = false;
  #error: ServingError | undefined;
  readonly #onAbort: () => void;

  constructor(opened: OpenedStream) {
    this.#opened = opened;
    this.#first = opened.first;
    const { call } = opened.run;
    this.#streamed = new StreamedOutput(call.task);
    // Nobody may be reading when the caller goes away, so this does not wait for the next `next`.
    this.#onAbort = () => this.cancel();
    call.signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<StreamEvent, undefined>> {
    if (this.#error) throw this.#error;
    if (this.#isEnded) return { done: true, value: undefined };
    try {
      throwIfAborted(this.#opened.run.call.signal);
      const event = this.#first ?? (await this.#pull());
      this.#first = undefined;
      this.#streamed.take(event);
      if (event.type === 'end') this.#complete(event);
      if (this.#isEnded) await this.#opened.settled();
      return { done: false, value: event };
    } catch (thrown) {
      const error = toServingError(thrown);
      this.#finish(error);
      throw this.#error ?? error;
    }
  }

  /** Characters that were passed on. */
  get characters(): number {
    return this.#streamed.characters;
  }

  async return(): Promise<IteratorResult<StreamEvent, undefined>> {
    this.cancel();
    return { done: true, value: undefined };
  }

  /** Ends it from outside; what was generated so far is recorded. */
  cancel(): void {
    if (this.#isEnded) return;
    this.#finish(new ServingError('CANCELLED', 'The stream was cancelled before its end.'));
  }

  async #pull(): Promise<StreamEvent> {
    const { done, value } = await this.#opened.attempt.events.next();
    if (this.#error) throw this.#error;
    if (!done) return value;
    throw new ServingError('INTERNAL', 'The guard of the endpoint ended a stream without its last event.');
  }

  #complete({ finishReason, usage }: { finishReason: FinishReason; usage: TokenUsage }): void {
    const output = this.#streamed.output(finishReason);
    this.#opened.onAnswer(output, usage);
    this.#finish(undefined, { ok: true, output, usage, cached: false });
  }

  #finish(error: ServingError | undefined, item?: Extract<AnswerItem, { ok: true }>): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#error = error;
    const { run, target, attempt, onEnd } = this.#opened;
    run.call.signal?.removeEventListener('abort', this.#onAbort);
    // The provider bills what it generated, and one that was cut off cannot say any more how much that was.
    const usage = attempt.usage ?? attempt.usageSoFar();
    if (item) run.settle(0, item, target);
    else if (error) {
      if (this.#streamed.characters > 0) run.partial = this.#streamed.output('length');
      run.fail(error);
    }
    attempt.end(usage, error);
    onEnd(usage, error);
  }
}
