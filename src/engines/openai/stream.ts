// Reading streamed answers of the OpenAI API, chunk by chunk. A stream that stops before it says so was cut.
import type { FinishReason, Input, StreamEvent } from '#core/call.ts';
import { isJsonObject } from '#core/json.ts';
import type { Connection, Post } from '../http/connection.ts';
import { failureOfEvent } from '../http/failures.ts';
import { lengthOfInput } from '../text-input.ts';
import { readContent, readUsage, toFinishReason } from './answer.ts';

export async function* readStream(
  connection: Connection,
  post: Post,
  input: Input,
): AsyncGenerator<StreamEvent> {
  const asked = connection.asked(post.secret);
  let finishReason: FinishReason | undefined;
  let hasToolCalls = false;
  let isDone = false;
  let written = 0;
  let withUsage: unknown;
  for await (const { data } of connection.postEvents(post, ({ data }) => data === '[DONE]')) {
    if (data === '[DONE]') {
      isDone = true;
      continue;
    }
    const chunk = connection.parse(data);
    const failure = failureOfEvent(asked, chunk);
    if (failure) throw failure;
    if (!isJsonObject(chunk)) throw connection.invalid('an event that is no object');
    if (isJsonObject(chunk.usage)) withUsage = chunk;
    const choice: unknown = Array.isArray(chunk.choices) ? chunk.choices[0] : undefined;
    if (!isJsonObject(choice)) continue;
    for (const event of readChoice(choice)) {
      if (event.type === 'delta') written += event.text.length;
      if (event.type === 'tool_call') {
        hasToolCalls = true;
        written += event.arguments?.length ?? 0;
      }
      yield event;
    }
    if (typeof choice.finish_reason === 'string') {
      finishReason = toFinishReason(choice.finish_reason, hasToolCalls);
    }
  }
  // `[DONE]` alone will do, for some servers never give a reason; so will a reason, for some never say `[DONE]`.
  if (!isDone && finishReason === undefined) throw connection.cut();
  yield {
    type: 'end',
    finishReason: finishReason ?? toFinishReason(undefined, hasToolCalls),
    usage: readUsage(withUsage, lengthOfInput(input), written),
  };
}

function* readChoice(choice: Readonly<Record<string, unknown>>): Generator<StreamEvent> {
  if (typeof choice.text === 'string' && choice.text !== '') yield { type: 'delta', text: choice.text };
  const { delta } = choice;
  if (!isJsonObject(delta)) return;
  // Reasoning models of Databricks send a list of parts.
  const text = readContent(delta.content) ?? delta.refusal;
  if (typeof text === 'string' && text !== '') yield { type: 'delta', text };
  const calls: readonly unknown[] = Array.isArray(delta.tool_calls) ? delta.tool_calls : [];
  for (const [position, call] of calls.entries()) {
    if (!isJsonObject(call)) continue;
    const called = isJsonObject(call.function) ? call.function : {};
    yield {
      type: 'tool_call',
      index: typeof call.index === 'number' ? call.index : position,
      ...(typeof call.id === 'string' ? { id: call.id } : {}),
      ...(typeof called.name === 'string' ? { name: called.name } : {}),
      ...(typeof called.arguments === 'string' ? { arguments: called.arguments } : {}),
    };
  }
}
