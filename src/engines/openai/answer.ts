// Reading whole answers of the OpenAI API: choices, vectors, usage. Distrustful, for many servers only resemble it.
// Not here: streams (stream.ts) and statuses (http/failures.ts).
import type { ChatOutput, FinishReason, Input, TokenUsage, ToolCall } from '#core/call.ts';
import { isJsonObject } from '#core/json.ts';
import type { RunItem } from '../engine.ts';
import { estimateTokens, lengthOfInput } from '../text-input.ts';
import { type Invalid, readVector, toEmbeddingItems } from '../vectors.ts';

type Members = Readonly<Record<string, unknown>>;

export function readChat(body: unknown, input: Input, invalid: Invalid): RunItem {
  const choice = firstChoice(body, invalid);
  const { message } = choice;
  if (!isJsonObject(message)) throw invalid('a choice without `message`');
  const toolCalls = readToolCalls(message.tool_calls, invalid);
  const refusal = typeof message.refusal === 'string' ? message.refusal : undefined;
  const content = readContent(message.content);
  if (content === undefined && toolCalls.length === 0 && refusal === undefined) {
    throw invalid('a message without `content`');
  }
  const text = content ?? refusal ?? null;
  const output: ChatOutput = {
    content: text,
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
    finishReason:
      refusal === undefined ? toFinishReason(choice.finish_reason, toolCalls.length > 0) : 'content_filter',
  };
  const written = (text ?? '').length + toolCalls.reduce((sum, call) => sum + call.arguments.length, 0);
  return { ok: true, output, usage: readUsage(body, lengthOfInput(input), written) };
}

export function readCompletion(body: unknown, input: Input, invalid: Invalid): RunItem {
  const choice = firstChoice(body, invalid);
  const { text } = choice;
  if (typeof text !== 'string') throw invalid('a choice without `text`');
  return {
    ok: true,
    output: { text, finishReason: toFinishReason(choice.finish_reason, false) },
    usage: readUsage(body, lengthOfInput(input), text.length),
  };
}

/** One item an input, ordered by `index`; the tokens of the request are shared out by length and add up to it. */
export function readEmbeddings(
  body: unknown,
  inputs: readonly Input[],
  invalid: Invalid,
): readonly RunItem[] {
  const data = isJsonObject(body) ? body.data : undefined;
  if (!Array.isArray(data)) throw invalid('no `data` list');
  if (data.length !== inputs.length) throw invalid(`${data.length} embeddings for ${inputs.length} inputs`);
  const vectors: (Float32Array | undefined)[] = Array.from({ length: inputs.length });
  for (const [position, entry] of data.entries()) {
    if (!isJsonObject(entry)) throw invalid('an embedding that is no object');
    const index = typeof entry.index === 'number' ? entry.index : position;
    if (!(index in inputs) || vectors[index]) throw invalid(`a wrong or repeated embedding index ${index}`);
    vectors[index] = readVector(entry.embedding, invalid);
  }
  const total = countIn(body, 'prompt_tokens') ?? countIn(body, 'total_tokens');
  const inOrder = vectors.map((vector, index) => {
    if (vector === undefined) throw invalid(`no embedding for input ${index}`);
    return vector;
  });
  return toEmbeddingItems(inOrder, inputs, total, invalid);
}

function firstChoice(body: unknown, invalid: Invalid): Members {
  const choices = isJsonObject(body) ? body.choices : undefined;
  const choice: unknown = Array.isArray(choices) ? choices[0] : undefined;
  if (!isJsonObject(choice)) throw invalid('no `choices`');
  return choice;
}

/** Null for null; the texts of a list of parts joined, reasoning left out; undefined for what is neither. */
export function readContent(content: unknown): string | null | undefined {
  if (typeof content === 'string' || content === null) return content;
  if (!Array.isArray(content)) return undefined;
  return content
    .map((part) =>
      isJsonObject(part) && part.type === 'text' && typeof part.text === 'string' ? part.text : '',
    )
    .join('');
}

function readToolCalls(calls: unknown, invalid: Invalid): readonly ToolCall[] {
  if (!Array.isArray(calls)) return [];
  return calls.map((call: unknown, index) => {
    const called = isJsonObject(call) ? call.function : undefined;
    if (!isJsonObject(call) || !isJsonObject(called) || typeof called.name !== 'string') {
      throw invalid('a tool call without a function name');
    }
    const written = called.arguments ?? '{}';
    return {
      id: typeof call.id === 'string' ? call.id : `call_${index}`,
      name: called.name,
      // Some servers send the arguments as an object.
      arguments: typeof written === 'string' ? written : JSON.stringify(written),
    };
  });
}

export function toFinishReason(reason: unknown, hasToolCalls: boolean): FinishReason {
  switch (reason) {
    case 'length':
    case 'content_filter':
    case 'tool_calls':
      return reason;
    case 'function_call':
      return 'tool_calls';
    default:
      return hasToolCalls ? 'tool_calls' : 'stop';
  }
}

/** What the provider counted, or an estimate from lengths where it did not. */
export function readUsage(body: unknown, inputLength: number, outputLength: number): TokenUsage {
  return {
    inputTokens: countIn(body, 'prompt_tokens') ?? estimateTokens(inputLength),
    outputTokens: countIn(body, 'completion_tokens') ?? estimateTokens(outputLength),
  };
}

function countIn(body: unknown, member: string): number | undefined {
  const usage = isJsonObject(body) && isJsonObject(body.usage) ? body.usage : undefined;
  const count = usage?.[member];
  return typeof count === 'number' && Number.isSafeInteger(count) && count >= 0 ? count : undefined;
}
