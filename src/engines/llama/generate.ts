// One generation: a prompt rendered with the model's own template or taken as it is, sampled under the
// parameters of the call, text handed out as it comes. Who may run when is decided by sequences.ts.
import type { ChatHistoryItem, ChatWrapper, LlamaGrammar, Token } from 'node-llama-cpp';
import type { FinishReason, Input, Parameters, TokenUsage } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { refuseTools, toHistory } from './history.ts';
import type { LoadedLlama } from './runtime.ts';
import type { Lease } from './sequences.ts';

const DEFAULT_MAX_TOKENS = 256;
/** The library wants two tokens beyond the prompt before it starts to shift the context. */
const SPARE_TOKENS = 2;

export interface Prompt {
  readonly tokens: readonly Token[];
  /** Null for a completion. */
  readonly history: readonly ChatHistoryItem[] | null;
}
export interface Generation {
  readonly finishReason: FinishReason;
  readonly usage: TokenUsage;
}

/** Throws BAD_REQUEST when the prompt leaves no room for an answer. */
export function renderPrompt(loaded: LoadedLlama, wrapper: ChatWrapper, input: Input): Prompt {
  const { model } = loaded;
  if ('prompt' in input) {
    const tokens = model.tokenize(input.prompt);
    const { bos, shouldPrependBosToken } = model.tokens;
    return { tokens: shouldPrependBosToken && bos !== null ? [bos, ...tokens] : tokens, history: null };
  }
  if (!('messages' in input))
    throw new ServingError('BAD_REQUEST', 'The input is neither a chat nor a prompt.');
  const history = toHistory(input);
  const { contextText } = wrapper.generateContextState({ chatHistory: history });
  return { tokens: contextText.tokenize(model.tokenizer), history };
}

/** Generates the answer; `onText` hears it piece by piece. The signal's abort is thrown as CANCELLED. */
export async function generate(
  loaded: LoadedLlama,
  wrapper: ChatWrapper,
  lease: Lease,
  prompt: Prompt,
  parameters: Parameters,
  grammar: LlamaGrammar | undefined,
  signal: AbortSignal,
  onText: (text: string) => void,
): Promise<Generation> {
  const { LlamaChat, LlamaCompletion } = loaded.library;
  const { sequence } = lease;
  await lease.prepare(prompt.tokens);
  const before = sequence.tokenMeter.getState();
  const temperature = parameters.temperature ?? 0;
  const room = sequence.contextSize - prompt.tokens.length - 1;
  const options = {
    maxTokens: Math.min(parameters.maxTokens ?? DEFAULT_MAX_TOKENS, room),
    temperature,
    ...(parameters.topP === undefined ? {} : { topP: parameters.topP }),
    ...(parameters.topK === undefined ? {} : { topK: parameters.topK }),
    ...(parameters.seed === undefined ? {} : { seed: parameters.seed }),
    ...(parameters.stop?.length ? { customStopTriggers: parameters.stop.filter((text) => text !== '') } : {}),
    // A penalty for repeating would work against the quotes and commas of JSON.
    ...(grammar ? { grammar, repeatPenalty: false as const } : {}),
    signal,
    onTextChunk: onText,
  };
  let stopReason: string;
  if (prompt.history === null) {
    const completion = new LlamaCompletion({ contextSequence: sequence });
    const answer = await completion.generateCompletionWithMeta([...prompt.tokens], {
      ...options,
      disableContextShift: true,
    });
    stopReason = answer.metadata.stopReason;
    completion.dispose();
  } else {
    const chat = new LlamaChat({ contextSequence: sequence, chatWrapper: wrapper });
    const answer = await chat.generateResponse([...prompt.history], options);
    stopReason = answer.metadata.stopReason;
    chat.dispose();
  }
  const { usedOutputTokens } = sequence.tokenMeter.diff(before);
  return {
    finishReason: stopReason === 'maxTokens' ? 'length' : 'stop',
    usage: { inputTokens: prompt.tokens.length, outputTokens: usedOutputTokens },
  };
}

/** What can be said before a sequence is taken: parameters that cannot be served, prompts that do not fit. */
export function refuseUnfit(prompt: Prompt, parameters: Parameters, contextSize: number): void {
  refuseTools(parameters);
  const { maxTokens } = parameters;
  if (maxTokens !== undefined && !(Number.isInteger(maxTokens) && maxTokens > 0)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `maxTokens is ${maxTokens}; it must be a whole number above 0.`,
    );
  }
  if (prompt.tokens.length === 0) throw new ServingError('BAD_REQUEST', 'The prompt is empty.');
  if (prompt.tokens.length + SPARE_TOKENS > contextSize) {
    throw new ServingError(
      'BAD_REQUEST',
      `The prompt has ${prompt.tokens.length} tokens, and the model reads at most ${contextSize - SPARE_TOKENS} ` +
        `(${contextSize} with its answer). Shorten the text, or ask a model with a larger context.`,
      { details: { promptTokens: prompt.tokens.length, contextSize } },
    );
  }
}
