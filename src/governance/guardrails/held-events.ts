// A stream that must be judged as a whole: nothing of it is seen before the verdict. When the output is let
// through as it was, its events come as they came.
import type { ChatOutput, CompletionOutput, Output, StreamEvent, Task } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { ToolCalls } from './guarded-events.ts';

export class HeldEvents implements AsyncIterableIterator<StreamEvent> {
  readonly #source: AsyncIterator<StreamEvent>;
  readonly #task: Task;
  readonly #judge: (output: Output) => Promise<Output | ServingError>;
  readonly #held: StreamEvent[] = [];
  #isJudged = false;
  #isOver = false;

  constructor(
    events: AsyncIterable<StreamEvent>,
    task: Task,
    judge: (output: Output) => Promise<Output | ServingError>,
  ) {
    this.#source = events[Symbol.asyncIterator]();
    this.#task = task;
    this.#judge = judge;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<StreamEvent, undefined>> {
    if (!this.#isJudged && !this.#isOver) await this.#hold();
    const event = this.#isOver ? undefined : this.#held.shift();
    return event ? { done: false, value: event } : { done: true, value: undefined };
  }

  async return(): Promise<IteratorResult<StreamEvent, undefined>> {
    this.#isOver = true;
    this.#held.length = 0;
    await this.#source.return?.();
    return { done: true, value: undefined };
  }

  async #hold(): Promise<void> {
    for (;;) {
      const { done, value } = await this.#source.next();
      // A broken stream is not judged and not shown.
      if (done || this.#isOver) {
        this.#isOver = true;
        return;
      }
      this.#held.push(value);
      if (value.type !== 'end') continue;
      this.#isJudged = true;
      const output = outputOf(this.#held, this.#task);
      const judged = await this.#judge(output);
      if (judged instanceof ServingError) {
        await this.return();
        throw judged;
      }
      if (judged !== output) this.#held.splice(0, this.#held.length, ...eventsOf(judged, value));
      return;
    }
  }
}

function outputOf(events: readonly StreamEvent[], task: Task): ChatOutput | CompletionOutput {
  let text = '';
  let finishReason: ChatOutput['finishReason'] = 'stop';
  const pieces = new ToolCalls();
  for (const event of events) {
    if (event.type === 'delta') text += event.text;
    else if (event.type === 'tool_call') pieces.add(event);
    else finishReason = event.finishReason;
  }
  if (task === 'llm/v1/completions') return { text, finishReason };
  const toolCalls = pieces.complete().map(({ call }) => call);
  const content = text === '' && toolCalls.length > 0 ? null : text;
  return { content, ...(toolCalls.length > 0 && { toolCalls }), finishReason };
}

function* eventsOf(output: Output, end: StreamEvent): Generator<StreamEvent> {
  const text = 'text' in output ? output.text : 'content' in output ? (output.content ?? '') : '';
  if (text !== '') yield { type: 'delta', text };
  const toolCalls = 'toolCalls' in output ? (output.toolCalls ?? []) : [];
  for (const [index, call] of toolCalls.entries()) yield { type: 'tool_call', index, ...call };
  yield end;
}
