// A streamed answer: one input, one place at its target, events passed on as they come. Retries and fallbacks end
// with the first event; whatever ends the stream, its place, reservation and usage row are settled exactly once.
import type { AnswerItem, Output, Reservation, StreamEvent, TokenUsage, ToolCall } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError, throwIfAborted, toServingError } from '#core/errors.ts';
import type { Batch, Runner } from '#engines/engine.ts';
import type { CallRun } from './call-run.ts';
import { actualSpend } from './price.ts';
import type { Terms } from './terms.ts';

/** The events of an answer that is there already. */
export async function* eventsOf(output: Output, usage: TokenUsage): AsyncGenerator<StreamEvent> {
  if (!('finishReason' in output)) {
    throw new ServingError('WRONG_TASK', 'Only chat and completions can be streamed.');
  }
  const text = 'text' in output ? output.text : (output.content ?? '');
  if (text !== '') yield { type: 'delta', text };
  const toolCalls = 'toolCalls' in output ? (output.toolCalls ?? []) : [];
  for (const [index, toolCall] of toolCalls.entries()) yield { type: 'tool_call', index, ...toolCall };
  yield { type: 'end', finishReason: output.finishReason, usage };
}

/** Events of a runner; one that cannot stream gives its whole answer as one delta, checked like any other. */
export function eventsFrom(runner: Runner, batch: Batch, { check }: Terms): AsyncIterator<StreamEvent> {
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

export interface OpenedStream {
  readonly run: CallRun;
  readonly target: Target;
  readonly runner: Runner;
  readonly source: AsyncIterator<StreamEvent>;
  readonly first: StreamEvent;
  readonly startedAtMs: number;
  readonly attempts: number;
  readonly controller: AbortController;
  readonly reservation: Reservation | undefined;
  readonly release: (error?: ServingError) => void;
  /** Writes the usage row and forgets the stream. */
  readonly onEnd: (usage: TokenUsage, error: ServingError | undefined) => void;
  /** The whole answer, when it was complete and fits what was asked for. */
  readonly onAnswer: (output: Output, usage: TokenUsage) => void;
}

export class EventStream implements AsyncIterableIterator<StreamEvent> {
  readonly #opened: OpenedStream;
  #first: StreamEvent | undefined;
  #text = '';
  readonly #toolCalls: { id: string; name: string; arguments: string }[] = [];
  #isEnded = false;
  #error: ServingError | undefined;
  readonly #onAbort: () => void;

  constructor(opened: OpenedStream) {
    this.#opened = opened;
    this.#first = opened.first;
    const { signal } = opened.run.call;
    // Nobody may be reading when the caller goes away, so this does not wait for the next `next`.
    this.#onAbort = () => this.cancel();
    signal?.addEventListener('abort', this.#onAbort, { once: true });
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
      this.#take(event);
      return { done: false, value: event };
    } catch (thrown) {
      this.#finish(toServingError(thrown));
      throw this.#error ?? thrown;
    }
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
    const { done, value } = await this.#opened.source.next();
    if (this.#error) throw this.#error;
    if (!done) return value;
    throw new ServingError(
      'UPSTREAM_ERROR',
      'The model ended its stream without saying so; the answer may be cut.',
    );
  }

  #take(event: StreamEvent): void {
    if (event.type === 'delta') this.#text += event.text;
    else if (event.type === 'tool_call') this.#takeToolCall(event);
    else this.#complete(event);
  }

  #takeToolCall(event: Extract<StreamEvent, { type: 'tool_call' }>): void {
    const call = (this.#toolCalls[event.index] ??= { id: '', name: '', arguments: '' });
    if (event.id !== undefined) call.id = event.id;
    if (event.name !== undefined) call.name = event.name;
    if (event.arguments !== undefined) call.arguments += event.arguments;
  }

  #complete({ finishReason, usage }: Extract<StreamEvent, { type: 'end' }>): void {
    const { run, onAnswer } = this.#opened;
    const toolCalls: readonly ToolCall[] = this.#toolCalls.filter((call) => call !== undefined);
    const output: Output =
      run.call.task === 'llm/v1/completions'
        ? { text: this.#text, finishReason }
        : {
            content: this.#text === '' && toolCalls.length > 0 ? null : this.#text,
            ...(toolCalls.length > 0 && { toolCalls }),
            finishReason,
          };
    onAnswer(output, usage);
    this.#finish(undefined, { ok: true, output, usage, cached: false });
  }

  #finish(error: ServingError | undefined, item?: Extract<AnswerItem, { ok: true }>): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#error = error;
    const { run, target, reservation, release, controller, source, onEnd } = this.#opened;
    run.call.signal?.removeEventListener('abort', this.#onAbort);
    const usage = item?.usage ?? this.#usageSoFar();
    if (item) run.settle(0, item, target);
    else if (error) run.fail(error);
    reservation?.settle(actualSpend(target, 1, usage));
    release(error?.code === 'CANCELLED' ? undefined : error);
    onEnd(usage, error);
    if (!error) return;
    controller.abort(error);
    // A generator that is still waiting for its next event rejects here or there; both are this same ending.
    source.return?.().catch(() => {});
  }

  /** The provider bills what it generated, and it cannot say any more how much that was. */
  #usageSoFar(): TokenUsage {
    const { run, runner } = this.#opened;
    const [input] = run.call.inputs;
    const written = this.#toolCalls.reduce(
      (sum, call) => sum + (call?.arguments.length ?? 0),
      this.#text.length,
    );
    return { inputTokens: input ? runner.countTokens(input) : 0, outputTokens: Math.ceil(written / 4) };
  }
}
