// Reading whole answers of Cohere's API. Not here: streams (stream.ts) and statuses (http/failures.ts).
import type { ChatInput, ChatOutput, FinishReason, Input, TokenUsage, ToolCall } from '#core/call.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import type { RunItem } from '../engine.ts';
import { estimateTokens, lengthOfInput } from '../text-input.ts';
import { type Invalid, readVectors, toEmbeddingItems } from '../vectors.ts';

export function readChat(body: unknown, input: ChatInput, invalid: Invalid): RunItem {
  const message = isJsonObject(body) ? body.message : undefined;
  if (!isJsonObject(body) || !isJsonObject(message)) throw invalid('no `message`');
  const parts: readonly unknown[] = Array.isArray(message.content) ? message.content : [];
  const toolCalls = readToolCalls(message.tool_calls, invalid);
  const text = typeof message.content === 'string' ? message.content : parts.map(textOf).join('');
  const plan = typeof message.tool_plan === 'string' ? message.tool_plan : '';
  // In the order in which a stream says them.
  const said = plan + text;
  const output: ChatOutput = {
    content: said === '' && toolCalls.length > 0 ? null : said,
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
    finishReason: toFinishReason(body.finish_reason, toolCalls.length > 0),
  };
  const written = said.length + toolCalls.reduce((sum, call) => sum + call.arguments.length, 0);
  return { ok: true, output, usage: readUsage(body.usage, lengthOfInput(input), written) };
}

export function readEmbeddings(
  body: unknown,
  inputs: readonly Input[],
  invalid: Invalid,
): readonly RunItem[] {
  const embeddings = isJsonObject(body) ? body.embeddings : undefined;
  const vectors = readVectors(isJsonObject(embeddings) ? embeddings.float : embeddings, inputs, invalid);
  const meta = isJsonObject(body) ? body.meta : undefined;
  return toEmbeddingItems(vectors, inputs, countIn(meta, 'input_tokens'), invalid);
}

function textOf(part: unknown): string {
  return isJsonObject(part) && part.type === 'text' && typeof part.text === 'string' ? part.text : '';
}

function readToolCalls(calls: unknown, invalid: Invalid): readonly ToolCall[] {
  if (!Array.isArray(calls)) return [];
  return calls.map((call: unknown, index) => {
    const called = isJsonObject(call) ? call.function : undefined;
    if (!isJsonObject(call) || !isJsonObject(called) || typeof called.name !== 'string') {
      throw invalid('a tool call without a function name');
    }
    return {
      id: typeof call.id === 'string' ? call.id : `call_${index}`,
      name: called.name,
      arguments: typeof called.arguments === 'string' ? called.arguments : '{}',
    };
  });
}

/** Reasons that say the model failed: the answer is none. */
export function failureOfReason(reason: unknown): string | undefined {
  return typeof reason === 'string' && /^(ERROR|ERROR_LIMIT|TIMEOUT|USER_CANCEL)$/.test(reason)
    ? reason
    : undefined;
}

export function toFinishReason(reason: unknown, hasToolCalls: boolean): FinishReason {
  switch (reason) {
    case 'MAX_TOKENS':
      return 'length';
    case 'ERROR_TOXIC':
      return 'content_filter';
    case 'TOOL_CALL':
      return 'tool_calls';
    default:
      return hasToolCalls ? 'tool_calls' : 'stop';
  }
}

/** What is billed, else the tokens counted, else an estimate. */
export function readUsage(usage: unknown, inputLength: number, outputLength: number): TokenUsage {
  return {
    inputTokens: countIn(usage, 'input_tokens') ?? estimateTokens(inputLength),
    outputTokens: countIn(usage, 'output_tokens') ?? estimateTokens(outputLength),
  };
}

function countIn(usage: unknown, member: string): number | undefined {
  const { billed_units: billed, tokens }: JsonObject = isJsonObject(usage) ? usage : {};
  for (const units of [billed, tokens]) {
    const count: unknown = isJsonObject(units) ? units[member] : undefined;
    // Billed units are written as decimal numbers.
    if (typeof count === 'number' && count >= 0 && count < Number.MAX_SAFE_INTEGER) return Math.round(count);
  }
  return undefined;
}
