// The echo engine: answers offline and always the same, so that SQL, limits and budgets can be tried without a
// model. The rule: text comes back as it was asked, structure is filled from the schema, vectors come from words.
import { setMaxListeners } from 'node:events';
import type {
  ChatInput,
  FinishReason,
  Output,
  Parameters,
  StreamEvent,
  TokenUsage,
  ToolCall,
} from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { throwIfAborted } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { fillSchema, hashText, mixBits } from './echo-schema.ts';
import type { Batch, BatchAnswer, Engine, RunItem, Runner, RunnerLimits } from './engine.ts';
import {
  lengthOfInput,
  requireChat,
  requirePrompt,
  requireTask,
  requireText,
  textOfContent,
} from './text-input.ts';

const DIMENSIONS = 64;
/** A token is four characters, rounded up. */
const CHARACTERS_PER_TOKEN = 4;

export const echoEngine: Engine = {
  kind: 'echo',
  open: async (target) => new EchoRunner(target),
};

class EchoRunner implements Runner {
  readonly limits: RunnerLimits;
  readonly #target: Target;
  readonly #latencyMs: number;

  constructor(target: Target) {
    this.#target = target;
    const { latencyMs } = target.modelVersion?.options ?? {};
    this.#latencyMs = typeof latencyMs === 'number' ? latencyMs : 0;
    const isGenerating = target.task === 'llm/v1/chat' || target.task === 'llm/v1/completions';
    this.limits = {
      maxInputs: isGenerating ? 1 : 256,
      maxTokens: 1_000_000,
      maxConcurrency: 64,
      isAdaptive: false,
      isPadded: false,
    };
  }

  countTokens(input: Batch['inputs'][number]): number {
    return countTokens(lengthOfInput(input));
  }

  async invoke(batch: Batch): Promise<BatchAnswer> {
    requireTask(this.#target, batch.task);
    await this.#wait(batch.signal);
    return { items: batch.inputs.map((input) => this.#answer(input, batch)) };
  }

  async *stream(batch: Batch): AsyncGenerator<StreamEvent> {
    requireTask(this.#target, batch.task);
    await this.#wait(batch.signal);
    const [input] = batch.inputs;
    if (batch.task === 'llm/v1/completions') {
      yield* streamText(echoPrompt(requirePrompt(input), batch.parameters), batch.signal);
    } else {
      yield* streamText(echoChat(requireChat(input), batch.parameters), batch.signal);
    }
  }

  async close(): Promise<void> {}

  async #wait(signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    if (this.#latencyMs === 0) return;
    // One signal may stand over many calls at once; that is no leak.
    setMaxListeners(0, signal);
    await SYSTEM_CLOCK.sleep(this.#latencyMs, signal).catch(() => throwIfAborted(signal));
  }

  #answer(input: Batch['inputs'][number], { task, parameters }: Batch): RunItem {
    const inputTokens = this.countTokens(input);
    switch (task) {
      case 'llm/v1/chat': {
        const { text, toolCalls, finishReason, usage } = echoChat(requireChat(input), parameters);
        const output: Output = toolCalls
          ? { content: null, toolCalls, finishReason }
          : { content: text, finishReason };
        return { ok: true, output, usage };
      }
      case 'llm/v1/completions': {
        const { text, finishReason, usage } = echoPrompt(requirePrompt(input), parameters);
        return { ok: true, output: { text, finishReason }, usage };
      }
      case 'llm/v1/embeddings': {
        const dimensions = parameters.dimensions ?? this.#target.modelVersion?.dimensions ?? DIMENSIONS;
        const embedding = embedWords(requireText(input), dimensions);
        return { ok: true, output: { embedding }, usage: { inputTokens, outputTokens: 0 } };
      }
      case 'predict': {
        const prediction: Json = 'features' in input ? onlyValue(input.features) : null;
        return { ok: true, output: { prediction }, usage: { inputTokens: 0, outputTokens: 0 } };
      }
    }
  }
}

interface EchoText {
  readonly text: string;
  readonly toolCalls?: readonly ToolCall[];
  readonly finishReason: FinishReason;
  readonly usage: TokenUsage;
}

/** Rule: the last user message (else the last message); JSON when a format is asked; a tool call when one is forced. */
function echoChat(input: ChatInput, parameters: Parameters): EchoText {
  const asked = input.messages.findLast(({ role }) => role === 'user') ?? input.messages.at(-1);
  const text = textOfContent(asked?.content ?? null);
  const inputTokens = countTokens(lengthOfInput(input));
  const { responseFormat, toolChoice } = parameters;
  if (toolChoice === 'required' || typeof toolChoice === 'object') {
    const tool = parameters.tools?.find(({ name }) => toolChoice === 'required' || name === toolChoice.name);
    if (tool) {
      const filled = JSON.stringify(fillSchema({ type: 'object', ...tool.parameters }, text));
      const id = `call_${hashText(text).toString(16)}`;
      return {
        text: '',
        toolCalls: [{ id, name: tool.name, arguments: filled }],
        finishReason: 'tool_calls',
        usage: { inputTokens, outputTokens: countTokens(filled.length) },
      };
    }
  }
  if (responseFormat?.type === 'json_schema') {
    return finish(JSON.stringify(fillSchema(responseFormat.schema, text)), inputTokens, parameters);
  }
  if (responseFormat?.type === 'json_object') {
    return finish(JSON.stringify({ content: text }), inputTokens, parameters);
  }
  return finish(text, inputTokens, parameters);
}

function echoPrompt(prompt: string, parameters: Parameters): EchoText {
  return finish(prompt, countTokens(prompt.length), parameters);
}

/** Applies `stop`, then `maxTokens`, as a model would: whichever comes first in the text wins. */
function finish(whole: string, inputTokens: number, { stop = [], maxTokens }: Parameters): EchoText {
  const stopAt = stop.map((mark) => (mark === '' ? -1 : whole.indexOf(mark))).filter((at) => at >= 0);
  let text = whole.slice(0, Math.min(whole.length, ...stopAt));
  let finishReason: FinishReason = 'stop';
  const most = (maxTokens ?? Number.POSITIVE_INFINITY) * CHARACTERS_PER_TOKEN;
  if (text.length > most) {
    // Not through the middle of a surrogate pair.
    text = text.slice(0, most).replace(/[\ud800-\udbff]$/, '');
    finishReason = 'length';
  }
  return { text, finishReason, usage: { inputTokens, outputTokens: countTokens(text.length) } };
}

async function* streamText(answer: EchoText, signal: AbortSignal): AsyncGenerator<StreamEvent> {
  for (const [index, toolCall] of (answer.toolCalls ?? []).entries())
    yield { type: 'tool_call', index, ...toolCall };
  for (const [word] of answer.text.matchAll(/\s*\S+\s*$|\s*\S+|\s+/g)) {
    throwIfAborted(signal);
    yield { type: 'delta', text: word };
    // Lets the consumer's own work and an abort in between words.
    await Promise.resolve();
  }
  yield { type: 'end', finishReason: answer.finishReason, usage: answer.usage };
}

function countTokens(length: number): number {
  return Math.max(1, Math.ceil(length / CHARACTERS_PER_TOKEN));
}

function onlyValue(features: Json): Json {
  if (typeof features !== 'object' || features === null) return features;
  const values = Object.values(features);
  return values.length === 1 ? (values[0] ?? null) : features;
}

/** Unit vector of a text: each word and each of its trigrams turns eight hashed coordinates, so shared words bring texts close. */
export function embedWords(text: string, dimensions: number): Float32Array {
  const vector = new Float32Array(dimensions);
  const turn = (feature: string, weight: number) => {
    let hash = hashText(feature);
    for (let turned = 0; turned < 8; turned++) {
      const at = (hash >>> 1) % dimensions;
      vector[at] = (vector[at] ?? 0) + (hash & 1 ? weight : -weight);
      hash = mixBits(hash + 0x9e3779b9);
    }
  };
  for (const [word] of text.toLowerCase().matchAll(/[\p{L}\p{N}]+/gu)) {
    turn(word, 1);
    for (let at = 0; at + 3 <= word.length; at++) turn(`#${word.slice(at, at + 3)}`, 0.3);
  }
  let squares = 0;
  for (const value of vector) squares += value * value;
  if (squares === 0) {
    vector[0] = 1;
    return vector;
  }
  const scale = 1 / Math.sqrt(squares);
  return vector.map((value) => value * scale);
}
