// Reading whole answers of the OpenAI API: choices, vectors, usage. Distrustful, for many servers only resemble it.
// Not here: streams (stream.ts) and statuses (http/failures.ts).
import type { ChatOutput, FinishReason, Input, TokenUsage, ToolCall } from '#core/call.ts';
import { isJsonObject } from '#core/json.ts';
import type { RunItem } from '../engine.ts';
import { estimateTokens, lengthOfInput } from '../text-input.ts';

/** Makes the error for an answer that has `what`. */
export type Invalid = (what: string) => Error;
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
  const lengths = inputs.map((input) => estimateTokens(lengthOfInput(input)));
  const estimate = lengths.reduce((sum, length) => sum + length, 0);
  const total = countIn(body, 'prompt_tokens') ?? countIn(body, 'total_tokens') ?? estimate;
  let seen = 0;
  let given = 0;
  return vectors.map((embedding, index) => {
    if (embedding === undefined) throw invalid(`no embedding for input ${index}`);
    if (embedding.length !== vectors[0]?.length) throw invalid('embeddings of different dimensions');
    seen += lengths[index] ?? 0;
    const upTo = Math.round((total * seen) / estimate);
    const inputTokens = upTo - given;
    given = upTo;
    return { ok: true, output: { embedding }, usage: { inputTokens, outputTokens: 0 } };
  });
}

/** Base64 of little-endian 32-bit floats, or a list of numbers. */
function readVector(embedding: unknown, invalid: Invalid): Float32Array {
  if (typeof embedding === 'string') {
    const byteLength = Buffer.byteLength(embedding, 'base64');
    const vector = new Float32Array(byteLength >>> 2);
    const written = Buffer.from(vector.buffer).write(embedding, 'base64');
    if (byteLength === 0 || byteLength % 4 !== 0 || written !== byteLength || !isAllFinite(vector)) {
      throw invalid('an embedding that is not base64 of 32-bit floats');
    }
    return vector;
  }
  if (!Array.isArray(embedding) || embedding.length === 0 || !embedding.every(Number.isFinite)) {
    throw invalid('an embedding that is no list of numbers');
  }
  return Float32Array.from(embedding);
}

/** One addition a number: NaN and infinity survive it, and 32-bit floats do not overflow it. */
function isAllFinite(vector: Float32Array): boolean {
  let sum = 0;
  for (let index = 0; index < vector.length; index++) sum += vector[index] ?? 0;
  return Number.isFinite(sum);
}

function firstChoice(body: unknown, invalid: Invalid): Members {
  const choices = isJsonObject(body) ? body.choices : undefined;
  const choice: unknown = Array.isArray(choices) ? choices[0] : undefined;
  if (!isJsonObject(choice)) throw invalid('no `choices`');
  return choice;
}

/** Null for null; the texts of a list of parts joined, reasoning left out; undefined for what is neither. */
function readContent(content: unknown): string | null | undefined {
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
  return typeof count === 'number' && Number.isInteger(count) && count >= 0 ? count : undefined;
}
