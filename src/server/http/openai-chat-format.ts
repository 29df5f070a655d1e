// Chat answers in OpenAI's shape, whole and as chunks of a stream. Not here: the request (openai-chat.ts).
import type { Answer, ChatOutput, StreamEvent, TokenUsage, ToolCall } from '#core/call.ts';
import type { JsonObject } from '#core/json.ts';
import type { Asked } from './request.ts';
import { DONE, openaiEnds, type StreamFormat, toFrame } from './sse.ts';

export const nowSeconds = (): number => Math.floor(Date.now() / 1000);

export function formatUsage(usage: TokenUsage): JsonObject {
  return {
    prompt_tokens: usage.inputTokens,
    completion_tokens: usage.outputTokens,
    total_tokens: usage.inputTokens + usage.outputTokens,
  };
}

/** What several answers to one request cost together: the question was paid for each of them. */
export function sumUsage(usages: readonly TokenUsage[]): TokenUsage {
  return {
    inputTokens: usages.reduce((sum, { inputTokens }) => sum + inputTokens, 0),
    outputTokens: usages.reduce((sum, { outputTokens }) => sum + outputTokens, 0),
  };
}

export function formatChat(
  callId: string,
  answers: readonly Answer[],
  outputs: readonly ChatOutput[],
): JsonObject {
  return {
    id: `chatcmpl-${callId}`,
    object: 'chat.completion',
    created: nowSeconds(),
    model: answers[0]?.model ?? '',
    choices: outputs.map((output, index) => ({
      index,
      message: {
        role: 'assistant',
        content: output.content,
        refusal: null,
        ...(output.toolCalls?.length ? { tool_calls: output.toolCalls.map(formatToolCall) } : {}),
      },
      logprobs: null,
      finish_reason: output.finishReason,
    })),
    usage: formatUsage(sumUsage(answers.map(({ usage }) => usage))),
    ...customOf(outputs[0]?.customOutputs),
  };
}

/** Of agents, where Databricks has them. */
const customOf = (custom: JsonObject | undefined): JsonObject =>
  custom === undefined ? {} : { custom_outputs: custom };

function formatToolCall(call: ToolCall): JsonObject {
  return { id: call.id, type: 'function', function: { name: call.name, arguments: call.arguments } };
}

export function createChatChunks(
  asked: Asked,
  callId: string,
  choiceCount: number,
  includesUsage: boolean,
): StreamFormat {
  const created = nowSeconds();
  const usages: TokenUsage[] = [];
  let model = '';
  const chunk = (choices: readonly JsonObject[], usage: JsonObject | null = null, custom = {}): string =>
    toFrame({
      id: `chatcmpl-${callId}`,
      object: 'chat.completion.chunk',
      created,
      model,
      choices,
      ...(includesUsage ? { usage } : {}),
      ...custom,
    });
  const choice = (
    index: number,
    delta: JsonObject,
    finishReason: string | null = null,
    custom?: JsonObject,
  ): string => chunk([{ index, delta, finish_reason: finishReason }], null, customOf(custom));
  return {
    ...openaiEnds(asked),
    open(target) {
      model = target.model;
      const opening = Array.from({ length: choiceCount }, (_, index) =>
        choice(index, { role: 'assistant', content: '' }),
      );
      return opening.join('');
    },
    next(event, index) {
      if (event.type === 'delta') return event.text === '' ? '' : choice(index, { content: event.text });
      if (event.type === 'tool_call') return choice(index, { tool_calls: [formatToolCallDelta(event)] });
      usages.push(event.usage);
      return choice(index, {}, event.finishReason, event.customOutputs);
    },
    close: () => (includesUsage ? chunk([], formatUsage(sumUsage(usages))) : '') + DONE,
  };
}

function formatToolCallDelta(event: Extract<StreamEvent, { type: 'tool_call' }>): JsonObject {
  return {
    index: event.index,
    ...(event.id === undefined ? {} : { id: event.id, type: 'function' }),
    function: {
      ...(event.name === undefined ? {} : { name: event.name }),
      ...(event.arguments === undefined ? {} : { arguments: event.arguments }),
    },
  };
}
