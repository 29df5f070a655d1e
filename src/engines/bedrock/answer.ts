// Reading whole answers of Bedrock: messages of Converse, vectors of Titan and Cohere.
// Not here: streams (stream.ts) and statuses (http/failures.ts).
import type { ChatInput, ChatOutput, FinishReason, Input, TokenUsage, ToolCall } from '#core/call.ts';
import { isJsonObject } from '#core/json.ts';
import { type AnswerTool, unwrapAnswer } from '../answer-tool.ts';
import type { RunItem } from '../engine.ts';
import type { Response } from '../http/connection.ts';
import { estimateTokens, lengthOfInput } from '../text-input.ts';
import { type Invalid, readVector, readVectors, toEmbeddingItems } from '../vectors.ts';
import type { Family } from './family.ts';

export function readConverse(
  body: unknown,
  input: ChatInput,
  answerTool: AnswerTool | undefined,
  invalid: Invalid,
): RunItem {
  const output = isJsonObject(body) && isJsonObject(body.output) ? body.output : {};
  const blocks: unknown = isJsonObject(output.message) ? output.message.content : undefined;
  if (!isJsonObject(body) || !Array.isArray(blocks)) throw invalid('no `output.message.content` list');
  let text = '';
  let structured: string | undefined;
  const toolCalls: ToolCall[] = [];
  for (const [index, block] of blocks.entries()) {
    if (!isJsonObject(block)) throw invalid('a content block that is no object');
    if (typeof block.text === 'string') text += block.text;
    if (!isJsonObject(block.toolUse)) continue;
    const { name, toolUseId, input: given = {} } = block.toolUse;
    if (typeof name !== 'string') throw invalid('a tool use without a name');
    if (answerTool !== undefined && name === answerTool.name) {
      structured = unwrapAnswer(answerTool, given);
      if (structured === undefined) throw invalid('a tool use without the input asked for');
    } else {
      const id = typeof toolUseId === 'string' ? toolUseId : `tooluse_${index}`;
      toolCalls.push({ id, name, arguments: JSON.stringify(given) });
    }
  }
  const content = structured ?? (text === '' && toolCalls.length > 0 ? null : text);
  const chat: ChatOutput = {
    content,
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
    finishReason: toFinishReason(body.stopReason, toolCalls.length > 0),
  };
  const written = (content?.length ?? 0) + toolCalls.reduce((sum, call) => sum + call.arguments.length, 0);
  return { ok: true, output: chat, usage: readUsage(body.usage, lengthOfInput(input), written) };
}

export function readEmbeddings(
  family: Family,
  { headers, body }: Response,
  inputs: readonly Input[],
  invalid: Invalid,
): readonly RunItem[] {
  if (!isJsonObject(body)) throw invalid('a body that is no object');
  const counted = Number(headers['x-amzn-bedrock-input-token-count'] ?? body.inputTextTokenCount);
  const total = Number.isSafeInteger(counted) && counted >= 0 ? counted : undefined;
  if (family.embeddings === 'titan') {
    return toEmbeddingItems([readVector(body.embedding, invalid)], inputs, total, invalid);
  }
  const { embeddings } = body;
  const list = isJsonObject(embeddings) ? embeddings.float : embeddings;
  return toEmbeddingItems(readVectors(list, inputs, invalid), inputs, total, invalid);
}

export function toFinishReason(reason: unknown, hasToolCalls: boolean): FinishReason {
  switch (reason) {
    case 'max_tokens':
    case 'model_context_window_exceeded':
      return 'length';
    case 'guardrail_intervened':
    case 'content_filtered':
      return 'content_filter';
    default:
      // The answer tool alone is a finished answer.
      return hasToolCalls ? 'tool_calls' : 'stop';
  }
}

/** What was counted, tokens written to and read from a prompt cache among the input; else an estimate. */
export function readUsage(usage: unknown, inputLength: number, outputLength: number): TokenUsage {
  const count = (member: string) => {
    const value: unknown = isJsonObject(usage) ? usage[member] : undefined;
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  };
  const input = count('inputTokens');
  const cached = (count('cacheReadInputTokens') ?? 0) + (count('cacheWriteInputTokens') ?? 0);
  return {
    inputTokens: input === undefined ? estimateTokens(inputLength) : input + cached,
    outputTokens: count('outputTokens') ?? estimateTokens(outputLength),
  };
}
