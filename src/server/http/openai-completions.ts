// Text completions on the wire: one prompt or a list of prompts, whole or as a stream.
import { z } from 'zod';
import type { CompletionOutput, TokenUsage } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { invokeAll, repeatCall } from './choices.ts';
import type { HttpDeps } from './deps.ts';
import { formatUsage, nowSeconds, sumUsage } from './openai-chat-format.ts';
import { parseBody, samplingFields, toParameters } from './parameters.ts';
import {
  type Asked,
  answerHeaders,
  type HttpContext,
  outputsOf,
  refuseTokenIds,
  sharedFields,
  toCall,
} from './request.ts';
import { sendJson } from './send.ts';
import { answerStream, DONE, openaiEnds, type StreamFormat, toFrame } from './sse.ts';

export const completionsBody = z.object({
  model: z.string().optional(),
  prompt: z.union([z.string(), z.array(z.string()).min(1)]),
  ...samplingFields,
  /** The prompt before its completion. Done here, so that it does not depend on the engine. */
  echo: z.boolean().nullish(),
  ...sharedFields,
});

export async function answerCompletions(
  c: HttpContext,
  deps: HttpDeps,
  asked: Asked,
  body: JsonObject,
): Promise<Response> {
  refuseTokenIds('prompt', body.prompt);
  const { fields, extra, headers } = parseBody(completionsBody, body);
  const prompts = typeof fields.prompt === 'string' ? [fields.prompt] : fields.prompt;
  const inputs = prompts.map((prompt) => ({ prompt }));
  const parameters = toParameters(fields, extra);
  const call = toCall(c, asked, { task: 'llm/v1/completions', inputs, parameters }, fields);
  const calls = repeatCall(call, fields.n);
  const prefixOf = (prompt: string | undefined) => (fields.echo ? (prompt ?? '') : '');
  if (fields.stream) {
    if (prompts.length > 1) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `A stream answers one prompt, got ${prompts.length}: send each prompt by itself, or without 'stream'.`,
      );
    }
    const prefixes = calls.map(() => prefixOf(prompts[0]));
    const includesUsage = fields.stream_options?.include_usage === true;
    const format = createCompletionChunks(asked, call.id, prefixes, includesUsage);
    return answerStream(c, deps, calls, format, headers);
  }
  const answers = await invokeAll(deps.serving, calls);
  const outputs = answers.map((answer) => outputsOf(answer) as CompletionOutput[]);
  const completion = {
    ...envelope(call.id, answers[0]?.model ?? ''),
    // All choices of the first prompt, then all of the second.
    choices: prompts.flatMap((prompt, at) =>
      outputs.map((choices, choice) => ({
        index: at * outputs.length + choice,
        text: prefixOf(prompt) + (choices[at]?.text ?? ''),
        logprobs: null,
        finish_reason: choices[at]?.finishReason ?? 'stop',
      })),
    ),
    usage: formatUsage(sumUsage(answers.map(({ usage }) => usage))),
  };
  return sendJson(c, completion, { ...answerHeaders(answers), ...headers });
}

function envelope(callId: string, model: string): JsonObject {
  return { id: `cmpl-${callId}`, object: 'text_completion', created: nowSeconds(), model };
}

/** `prefixes`: a text for each choice that comes before it. */
function createCompletionChunks(
  asked: Asked,
  callId: string,
  prefixes: readonly string[],
  includesUsage: boolean,
): StreamFormat {
  let shared = envelope(callId, '');
  const usages: TokenUsage[] = [];
  const chunk = (choices: readonly JsonObject[], usage: JsonObject | null = null): string =>
    toFrame({ ...shared, choices, ...(includesUsage ? { usage } : {}) });
  const choice = (index: number, text: string, finishReason: string | null = null): string =>
    chunk([{ index, text, logprobs: null, finish_reason: finishReason }]);
  return {
    ...openaiEnds(asked),
    open(target) {
      shared = envelope(callId, target.model);
      return prefixes.map((prefix, index) => (prefix === '' ? '' : choice(index, prefix))).join('');
    },
    next(event, index) {
      if (event.type === 'delta') return event.text === '' ? '' : choice(index, event.text);
      if (event.type === 'tool_call') return '';
      usages.push(event.usage);
      return choice(index, '', event.finishReason);
    },
    close: () => (includesUsage ? chunk([], formatUsage(sumUsage(usages))) : '') + DONE,
  };
}
