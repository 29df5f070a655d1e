// A response object of the Responses API and the items in it. Not here: the events of a stream (stream.ts).
import type { Answer, ChatOutput, FinishReason, TokenUsage, ToolCall } from '#core/call.ts';
import type { Json, JsonObject } from '#core/json.ts';
import type { ResponsesBody } from './input.ts';

/** What every object of one request repeats of it. Members that nothing is known of are null, as OpenAI has them. */
export interface Frame {
  readonly callId: string;
  readonly createdAt: number;
  readonly fields: ResponsesBody;
}

export interface Ending {
  readonly finishReason: FinishReason;
  readonly usage: TokenUsage;
  readonly customOutputs?: JsonObject | undefined;
}

export function formatResponse(
  { callId, createdAt, fields }: Frame,
  model: string,
  output: readonly JsonObject[],
  ending?: Ending,
  error?: JsonObject,
): JsonObject {
  const reason = ending ? incompleteReason(ending.finishReason) : undefined;
  const status = error ? 'failed' : ending ? (reason ? 'incomplete' : 'completed') : 'in_progress';
  return {
    id: `resp_${callId}`,
    object: 'response',
    created_at: createdAt,
    status,
    background: false,
    error: error ?? null,
    incomplete_details: reason ? { reason } : null,
    instructions: fields.instructions ?? null,
    max_output_tokens: fields.max_output_tokens ?? null,
    model,
    output,
    parallel_tool_calls: fields.parallel_tool_calls ?? true,
    previous_response_id: null,
    reasoning: { effort: fields.reasoning?.effort ?? null, summary: fields.reasoning?.summary ?? null },
    store: false,
    temperature: fields.temperature ?? null,
    text: { format: (fields.text?.format ?? { type: 'text' }) as JsonObject },
    tool_choice: fields.tool_choice ?? 'auto',
    tools: (fields.tools ?? []) as unknown as Json,
    top_p: fields.top_p ?? null,
    truncation: fields.truncation ?? 'disabled',
    usage: ending ? formatUsage(ending.usage) : null,
    user: fields.user ?? null,
    metadata: fields.metadata ?? {},
    ...(ending?.customOutputs && { custom_outputs: ending.customOutputs }),
  };
}

export function formatAnswer(frame: Frame, answer: Answer, output: ChatOutput): JsonObject {
  const items: JsonObject[] = [];
  const toolCalls = output.toolCalls ?? [];
  const text = output.content ?? '';
  if (text !== '' || toolCalls.length === 0) items.push(formatMessage(frame, text, output.finishReason));
  for (const [index, call] of toolCalls.entries()) items.push(formatToolCall(frame, index, call));
  return formatResponse(frame, answer.model, items, {
    finishReason: output.finishReason,
    usage: answer.usage,
    customOutputs: output.customOutputs,
  });
}

export const messageId = ({ callId }: Frame, index = 0): string =>
  `msg_${callId}${index === 0 ? '' : `_${index}`}`;

export function formatMessage(
  frame: Frame,
  text: string,
  finishReason: FinishReason,
  id = messageId(frame),
): JsonObject {
  return {
    id,
    type: 'message',
    status: incompleteReason(finishReason) ? 'incomplete' : 'completed',
    role: 'assistant',
    content: [formatText(text)],
  };
}

export function formatText(text: string): JsonObject {
  return { type: 'output_text', text, annotations: [], logprobs: [] };
}

export function formatToolCall(
  { callId }: Frame,
  index: number,
  call: ToolCall,
  status = 'completed',
): JsonObject {
  return {
    id: `fc_${callId}_${index}`,
    type: 'function_call',
    status,
    call_id: call.id,
    name: call.name,
    arguments: call.arguments,
  };
}

function formatUsage({ inputTokens, outputTokens }: TokenUsage): JsonObject {
  return {
    input_tokens: inputTokens,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: outputTokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: inputTokens + outputTokens,
  };
}

function incompleteReason(reason: FinishReason): string | undefined {
  if (reason === 'length') return 'max_output_tokens';
  return reason === 'content_filter' ? 'content_filter' : undefined;
}
