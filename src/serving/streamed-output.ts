// A streamed answer put together, and a whole answer taken apart into events.
import type { FinishReason, Output, StreamEvent, Task, TokenUsage, ToolCall } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';

/** The events of an answer that is there already. */
export async function* eventsOf(output: Output, usage: TokenUsage): AsyncGenerator<StreamEvent> {
  if (!('finishReason' in output)) {
    throw new ServingError('WRONG_TASK', 'Only chat and completions can be streamed.');
  }
  const text = 'text' in output ? output.text : (output.content ?? '');
  if (text !== '') yield { type: 'delta', text };
  const toolCalls = 'toolCalls' in output ? (output.toolCalls ?? []) : [];
  for (const [index, toolCall] of toolCalls.entries()) yield { type: 'tool_call', index, ...toolCall };
  const customOutputs = 'customOutputs' in output ? output.customOutputs : undefined;
  yield { type: 'end', finishReason: output.finishReason, usage, ...(customOutputs && { customOutputs }) };
}

export class StreamedOutput {
  readonly #task: Task;
  readonly #pieces: string[] = [];
  readonly #toolCalls: { id: string; name: string; arguments: string }[] = [];
  #characters = 0;
  #customOutputs: JsonObject | undefined;

  constructor(task: Task) {
    this.#task = task;
  }

  /** Characters written so far, those of tool calls included. */
  get characters(): number {
    return this.#characters;
  }

  take(event: StreamEvent): void {
    if (event.type === 'delta') {
      this.#pieces.push(event.text);
      this.#characters += event.text.length;
    } else if (event.type === 'tool_call') this.#takeToolCall(event);
    else this.#customOutputs = event.customOutputs;
  }

  #takeToolCall(event: Extract<StreamEvent, { type: 'tool_call' }>): void {
    const call = (this.#toolCalls[event.index] ??= { id: '', name: '', arguments: '' });
    if (event.id !== undefined) call.id = event.id;
    if (event.name !== undefined) call.name = event.name;
    if (event.arguments === undefined) return;
    call.arguments += event.arguments;
    this.#characters += event.arguments.length;
  }

  output(finishReason: FinishReason): Output {
    const text = this.#pieces.join('');
    if (this.#task === 'llm/v1/completions') return { text, finishReason };
    const toolCalls: readonly ToolCall[] = this.#toolCalls.filter((call) => call !== undefined);
    return {
      content: text === '' && toolCalls.length > 0 ? null : text,
      ...(toolCalls.length > 0 && { toolCalls }),
      finishReason,
      ...(this.#customOutputs && { customOutputs: this.#customOutputs }),
    };
  }
}
