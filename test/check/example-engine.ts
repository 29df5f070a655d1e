// The upper engine: a chat model that answers in capital letters. The example of docs/engines.md.
import type { ChatOutput } from '#core/call.ts';
import type { EngineKind } from '#core/endpoint.ts';
import { throwIfAborted } from '#core/errors.ts';
import type { Batch, BatchAnswer, Engine, Runner, RunnerLimits } from '#engines/engine.ts';
import {
  estimateTokens,
  lengthOfInput,
  requireChat,
  requireTask,
  textOfContent,
} from '#engines/text-input.ts';

// In duckserve itself 'upper' stands in EngineKind, and the assertion goes.
const kind = 'upper' as string as EngineKind;

const limits: RunnerLimits = {
  maxInputs: 1, // chats in one invoke
  maxTokens: 8_192,
  maxConcurrency: 4, // invokes at once; exact, as isAdaptive is false
  isAdaptive: false,
  isPadded: false,
};

export const upperEngine: Engine = {
  kind,
  async open(target): Promise<Runner> {
    // Load weights or open a connection here; throw MODEL_NOT_AVAILABLE with the ways out.
    return {
      limits,
      countTokens: (input) => estimateTokens(lengthOfInput(input)),
      async invoke({ task, inputs, parameters, signal }: Batch): Promise<BatchAnswer> {
        requireTask(target, task);
        throwIfAborted(signal);
        const items = inputs.map((input) => {
          const asked = textOfContent(requireChat(input).messages.at(-1)?.content ?? null);
          const content = asked.toUpperCase().slice(0, (parameters.maxTokens ?? 1_024) * 4);
          const output: ChatOutput = {
            content,
            finishReason: content.length < asked.length ? 'length' : 'stop',
          };
          const usage = {
            inputTokens: estimateTokens(asked.length),
            outputTokens: estimateTokens(content.length),
          };
          return { ok: true as const, output, usage };
        });
        return { items };
      },
      close: async () => {},
    };
  },
};
