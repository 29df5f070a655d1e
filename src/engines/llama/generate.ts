// One generation: a prompt rendered with the model's own template or taken as it is, sampled under the
// parameters of the call, text handed out as it comes. Who may run when is decided by sequences.ts.
import type { ChatHistoryItem, ChatWrapper, LlamaGrammar, Token } from 'node-llama-cpp';
import type { FinishReason, Input, Parameters, TokenUsage, ToolCall } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { toHistory } from './history.ts';
import type { LoadedLlama } from './runtime.ts';
import type { Lease } from './sequences.ts';
import { type OfferedTools, toToolCalls } from './tools.ts';

const DEFAULT_MAX_TOKENS = 256;
/** The library wants two tokens beyond the prompt before it starts to shift the context. */
const SPARE_TOKENS = 2;

export interface Prompt {
  readonly tokens: readonly Token[];
  /** Null for a completion. */
  readonly history: readonly ChatHistoryItem[] | null;
  readonly tools?: OfferedTools | undefined;
}
export interface Generation {
  readonly finishReason: FinishReason;
  readonly usage: TokenUsage;
  readonly toolCalls: readonly ToolCall[];
  /** Tokens of the prompt that were still in memory. */
  readonly keptTokens: number;
}

/** Throws BAD_REQUEST when the prompt leaves no room for an answer. */
export function renderPrompt(
  loaded: LoadedLlama,
  wrapper: ChatWrapper,
  input: Input,
  tools?: OfferedTools,
): Prompt {
  const { model } = loaded;
  if ('prompt' in input) {
    const tokens = model.tokenize(input.prompt);
    const { bos, shouldPrependBosToken } = model.tokens;
    return { tokens: shouldPrependBosToken && bos !== null ? [bos, ...tokens] : tokens, history: null };
  }
  if (!('messages' in input))
    throw new ServingError('BAD_REQUEST', 'The input is neither a chat nor a prompt.');
  const history = toHistory(input, loaded.hasTools);
  const { contextText } = wrapper.generateContextState({
    chatHistory: history,
    ...(tools ? { availableFunctions: tools.functions, documentFunctionParams: true } : {}),
  });
  return { tokens: contextText.tokenize(model.tokenizer), history, tools };
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
  const keptTokens = await lease.prepare();
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
    signal,
    onTextChunk: onText,
  };
  let stopReason: string;
  let toolCalls: readonly ToolCall[] = [];
  if (prompt.history === null) {
    const completion = new LlamaCompletion({ contextSequence: sequence });
    const answer = await completion.generateCompletionWithMeta([...prompt.tokens], {
      ...options,
      ...(grammar ? { grammar, repeatPenalty: false } : {}),
      disableContextShift: true,
    });
    stopReason = answer.metadata.stopReason;
    completion.dispose();
  } else {
    const { tools } = prompt;
    const chat = new LlamaChat({ contextSequence: sequence, chatWrapper: tools?.wrapper ?? wrapper });
    const history = [...prompt.history];
    if (tools === undefined) {
      const answer = await chat.generateResponse(history, {
        ...options,
        // A penalty for repeating would work against the quotes and commas of JSON.
        ...(grammar ? { grammar, repeatPenalty: false } : {}),
      });
      stopReason = answer.metadata.stopReason;
    } else {
      const { functions, maxCalls } = tools;
      const answer = await chat.generateResponse(history, {
        ...options,
        functions,
        documentFunctionParams: true,
        ...(maxCalls === undefined ? {} : { maxParallelFunctionCalls: maxCalls }),
      });
      stopReason = answer.metadata.stopReason;
      toolCalls = toToolCalls(answer.functionCalls ?? []);
    }
    chat.dispose();
  }
  const { usedOutputTokens } = sequence.tokenMeter.diff(before);
  return {
    finishReason: stopReason === 'maxTokens' ? 'length' : toolCalls.length > 0 ? 'tool_calls' : 'stop',
    usage: { inputTokens: prompt.tokens.length, outputTokens: usedOutputTokens },
    toolCalls,
    keptTokens,
  };
}

/** What can be said before a sequence is taken: parameters that cannot be served, prompts that do not fit. */
export function refuseUnfit(prompt: Prompt, parameters: Parameters, contextSize: number): void {
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
