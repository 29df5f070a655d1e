// Reading answers of Gemini on Vertex AI, whole and as a stream of the same shape, and vectors of `predict`.
// Not here: statuses (http/failures.ts).
import { createHash } from 'node:crypto';
import type { ChatInput, FinishReason, Input, StreamEvent, TokenUsage, ToolCall } from '#core/call.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import type { RunItem } from '../engine.ts';
import type { Connection, Post } from '../http/connection.ts';
import { failureOfEvent } from '../http/failures.ts';
import { estimateTokens, lengthOfInput } from '../text-input.ts';
import { type Invalid, readVector, toEmbeddingItems } from '../vectors.ts';

/** Reasons why an answer was withheld, in whole or from here on. */
const WITHHELD: ReadonlySet<unknown> = new Set([
  'SAFETY',
  'RECITATION',
  'LANGUAGE',
  'BLOCKLIST',
  'PROHIBITED_CONTENT',
  'SPII',
  'MODEL_ARMOR',
  'IMAGE_SAFETY',
]);
/** The model wrote a call that is none: nothing of it can be used. */
const MALFORMED: ReadonlySet<unknown> = new Set(['MALFORMED_FUNCTION_CALL', 'UNEXPECTED_TOOL_CALL']);

export function readGenerated(body: unknown, input: ChatInput, invalid: Invalid): RunItem {
  const growing = new Growing(invalid);
  let text = '';
  const toolCalls: ToolCall[] = [];
  for (const event of growing.add(body)) {
    if (event.type === 'delta') text += event.text;
    if (event.type !== 'tool_call') continue;
    const { id = '', name = '', arguments: written = '{}' } = event;
    toolCalls.push({ id, name, arguments: written });
  }
  const end = growing.end(input);
  if (end === undefined) throw invalid('neither candidates nor a reason why there are none');
  const output = {
    content: text === '' && toolCalls.length > 0 ? null : text,
    ...(toolCalls.length === 0 ? {} : { toolCalls }),
    finishReason: end.finishReason,
  };
  return { ok: true, output, usage: end.usage };
}

/** A stream that ends without a reason was cut. */
export async function* readStream(
  connection: Connection,
  post: Post,
  input: ChatInput,
): AsyncGenerator<StreamEvent> {
  const asked = connection.asked(post.secret);
  const growing = new Growing((what) => connection.invalid(what));
  for await (const { data } of connection.postEvents(post, () => false)) {
    const chunk = connection.parse(data);
    const failure = failureOfEvent(asked, chunk);
    if (failure) throw failure;
    yield* growing.add(chunk);
  }
  const end = growing.end(input);
  if (end === undefined) throw connection.cut();
  yield { type: 'end', ...end };
}

export function readPredictions(
  body: unknown,
  inputs: readonly Input[],
  invalid: Invalid,
): readonly RunItem[] {
  const predictions = isJsonObject(body) ? body.predictions : undefined;
  if (!Array.isArray(predictions)) throw invalid('no `predictions` list');
  if (predictions.length !== inputs.length) {
    throw invalid(`${predictions.length} embeddings for ${inputs.length} inputs`);
  }
  let total: number | undefined = 0;
  const vectors = predictions.map((prediction: unknown) => {
    const embeddings = isJsonObject(prediction) ? prediction.embeddings : undefined;
    if (!isJsonObject(embeddings)) throw invalid('a prediction without `embeddings`');
    const { statistics } = embeddings;
    const count: unknown = isJsonObject(statistics) ? statistics.token_count : undefined;
    total = typeof count === 'number' && total !== undefined ? total + count : undefined;
    return readVector(embeddings.values, invalid);
  });
  return toEmbeddingItems(vectors, inputs, total, invalid);
}

/** An answer in one or many pieces; each has the same shape. */
class Growing {
  readonly #invalid: Invalid;
  #callCount = 0;
  #written = 0;
  #reason: unknown;
  #usage: unknown;

  constructor(invalid: Invalid) {
    this.#invalid = invalid;
  }

  *add(piece: unknown): Generator<StreamEvent> {
    if (!isJsonObject(piece)) throw this.#invalid('an answer that is no object');
    if (piece.usageMetadata !== undefined) this.#usage = piece.usageMetadata;
    const { promptFeedback: feedback } = piece;
    // A prompt that is blocked has no candidates.
    if (isJsonObject(feedback) && typeof feedback.blockReason === 'string') this.#reason = 'SAFETY';
    const candidate: unknown = Array.isArray(piece.candidates) ? piece.candidates[0] : undefined;
    if (!isJsonObject(candidate)) return;
    const { finishReason, content } = candidate;
    if (MALFORMED.has(finishReason)) throw this.#invalid(`a function call that is none (${finishReason})`);
    const parts: readonly unknown[] =
      isJsonObject(content) && Array.isArray(content.parts) ? content.parts : [];
    for (const part of parts) if (isJsonObject(part)) yield* this.#part(part);
    if (typeof finishReason === 'string') this.#reason = finishReason;
  }

  /** Undefined where no reason was given for the end. */
  end(input: ChatInput): { readonly finishReason: FinishReason; readonly usage: TokenUsage } | undefined {
    if (this.#reason === undefined) return undefined;
    return {
      finishReason: toFinishReason(this.#reason, this.#callCount > 0),
      usage: readUsage(this.#usage, lengthOfInput(input), this.#written),
    };
  }

  /** Thoughts are neither text nor call. */
  *#part({ text, thought, functionCall }: JsonObject): Generator<StreamEvent> {
    if (typeof text === 'string' && text !== '' && thought !== true) {
      this.#written += text.length;
      yield { type: 'delta', text };
    }
    if (!isJsonObject(functionCall)) return;
    const { name, args = {}, id } = functionCall;
    if (typeof name !== 'string') throw this.#invalid('a function call without a name');
    const written = JSON.stringify(args);
    this.#written += written.length;
    const index = this.#callCount++;
    yield {
      type: 'tool_call',
      index,
      id: typeof id === 'string' && id !== '' ? id : makeId(index, name, written),
      name,
      arguments: written,
    };
  }
}

/** Gemini knows calls by their names; others want an id. The same call gets the same one. */
function makeId(index: number, name: string, written: string): string {
  return `call_${index}_${createHash('sha256').update(`${name}\n${written}`).digest('hex').slice(0, 16)}`;
}

function toFinishReason(reason: unknown, hasToolCalls: boolean): FinishReason {
  if (reason === 'MAX_TOKENS') return 'length';
  if (WITHHELD.has(reason)) return 'content_filter';
  return hasToolCalls ? 'tool_calls' : 'stop';
}

/** Thoughts are paid as output. */
function readUsage(usage: unknown, inputLength: number, outputLength: number): TokenUsage {
  const count = (member: string) => {
    const value: unknown = isJsonObject(usage) ? usage[member] : undefined;
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
  };
  const input = count('promptTokenCount');
  const output = count('candidatesTokenCount');
  const thoughts = count('thoughtsTokenCount') ?? 0;
  const isCounted = isJsonObject(usage) && input !== undefined;
  return {
    inputTokens: isCounted ? input + (count('toolUsePromptTokenCount') ?? 0) : estimateTokens(inputLength),
    // A withheld answer has no candidates, and nothing was written.
    outputTokens: isCounted ? (output ?? 0) + thoughts : estimateTokens(outputLength),
  };
}
