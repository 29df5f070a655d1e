// Reading streamed answers of Cohere's chat. A stream without `message-end` was cut.
import type { ChatInput, FinishReason, StreamEvent } from '#core/call.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import type { Connection, Post } from '../http/connection.ts';
import { failureOfEvent, failureOfName } from '../http/failures.ts';
import { lengthOfInput } from '../text-input.ts';
import { failureOfReason, readUsage, toFinishReason } from './answer.ts';

export async function* readStream(
  connection: Connection,
  post: Post,
  input: ChatInput,
): AsyncGenerator<StreamEvent> {
  const asked = connection.asked(post.secret);
  const calls = new Map<unknown, number>();
  let written = 0;
  let end: JsonObject | undefined;
  const messages = connection.postEvents(post, ({ event }) => event === 'message-end');
  for await (const { data } of messages) {
    // Some gateways before it add OpenAI's last word.
    if (data === '[DONE]') continue;
    const event = connection.parse(data);
    const failure = failureOfEvent(asked, event);
    if (failure) throw failure;
    if (!isJsonObject(event)) throw connection.invalid('an event that is no object');
    const delta: JsonObject = isJsonObject(event.delta) ? event.delta : {};
    const message: JsonObject = isJsonObject(delta.message) ? delta.message : {};
    if (event.type === 'message-end') end = delta;
    const text = textOf(event.type, message);
    if (text !== '') {
      written += text.length;
      yield { type: 'delta', text };
    }
    const call = toolCallOf(message);
    if (call === undefined) continue;
    const called: JsonObject = isJsonObject(call.function) ? call.function : {};
    const isNew = !calls.has(event.index);
    const index = calls.get(event.index) ?? calls.size;
    calls.set(event.index, index);
    const piece = typeof called.arguments === 'string' ? called.arguments : '';
    written += piece.length;
    const id = typeof call.id === 'string' ? call.id : `call_${index}`;
    const name = typeof called.name === 'string' ? { name: called.name } : {};
    yield { type: 'tool_call', index, ...(isNew ? { id, ...name } : {}), arguments: piece };
  }
  if (end === undefined) throw connection.cut();
  const reason = failureOfReason(end.finish_reason);
  if (reason !== undefined) {
    const said = typeof end.error === 'string' ? end.error : 'The model failed in the middle of its answer.';
    throw failureOfName(asked, reason, said);
  }
  const finishReason: FinishReason = toFinishReason(end.finish_reason, calls.size > 0);
  yield { type: 'end', finishReason, usage: readUsage(end.usage, lengthOfInput(input), written) };
}

/** Text and the plan of a call; thoughts are neither. */
function textOf(type: unknown, { content, tool_plan: plan }: JsonObject): string {
  if (type === 'tool-plan-delta') return typeof plan === 'string' ? plan : '';
  if (type !== 'content-start' && type !== 'content-delta') return '';
  return isJsonObject(content) && typeof content.text === 'string' ? content.text : '';
}

/** One call an event; older servers put it into a list. */
function toolCallOf({ tool_calls: calls }: JsonObject): JsonObject | undefined {
  const call: unknown = Array.isArray(calls) ? calls[0] : calls;
  return isJsonObject(call) ? call : undefined;
}
