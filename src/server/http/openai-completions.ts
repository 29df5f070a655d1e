// Text completions on the wire: one prompt or a list of prompts, whole or as a stream.
import { z } from 'zod';
import type { CompletionOutput } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { HttpDeps } from './deps.ts';
import { parseWith } from './errors.ts';
import { formatUsage } from './openai-chat.ts';
import { ignoredHeaders, samplingFields, splitProviderFields, toParameters } from './parameters.ts';
import {
  answerHeaders,
  type HttpContext,
  outputsOf,
  refuseTokenIds,
  sharedFields,
  toCall,
} from './request.ts';
import { sendJson } from './send.ts';
import { answerStream, type ChunkFormat } from './sse.ts';

export const completionsBody = z.object({
  model: z.string().optional(),
  prompt: z.union([z.string(), z.array(z.string()).min(1)]),
  ...samplingFields,
  ...sharedFields,
});

export async function answerCompletions(
  c: HttpContext,
  deps: HttpDeps,
  endpoint: string,
  body: JsonObject,
  servedEntity?: string,
): Promise<Response> {
  refuseTokenIds('prompt', body.prompt);
  const fields = parseWith(completionsBody, body);
  const { extra, ignored } = splitProviderFields(body, completionsBody.shape, fields.extra_params);
  const prompts = typeof fields.prompt === 'string' ? [fields.prompt] : fields.prompt;
  const inputs = prompts.map((prompt) => ({ prompt }));
  const parameters = toParameters(fields, extra);
  const call = toCall(c, { endpoint, task: 'llm/v1/completions', inputs, parameters, servedEntity }, fields);
  const headers = ignoredHeaders(ignored);
  if (fields.stream) {
    if (prompts.length > 1) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `A stream answers one prompt, got ${prompts.length}: send each prompt by itself, or without 'stream'.`,
      );
    }
    const format = createCompletionChunks(call.id, fields.stream_options?.include_usage === true);
    return answerStream(c, deps, call, format, headers);
  }
  const answer = await deps.serving.invoke(call);
  const outputs = outputsOf(answer) as CompletionOutput[];
  const completion = {
    ...envelope(call.id, answer.model),
    choices: outputs.map((output, index) => ({
      index,
      text: output.text,
      logprobs: null,
      finish_reason: output.finishReason,
    })),
    usage: formatUsage(answer.usage),
  };
  return sendJson(c, completion, { ...answerHeaders(answer), ...headers });
}

function envelope(callId: string, model: string): JsonObject {
  return { id: `cmpl-${callId}`, object: 'text_completion', created: Math.floor(Date.now() / 1000), model };
}

function createCompletionChunks(callId: string, includesUsage: boolean): ChunkFormat {
  let common = envelope(callId, '');
  const chunk = (choices: readonly JsonObject[], usage: JsonObject | null = null): JsonObject => ({
    ...common,
    choices,
    ...(includesUsage ? { usage } : {}),
  });
  const choice = (text: string, finishReason: string | null = null): JsonObject =>
    chunk([{ index: 0, text, logprobs: null, finish_reason: finishReason }]);
  return {
    open(model) {
      common = envelope(callId, model);
      return [];
    },
    next(event) {
      if (event.type === 'delta') return event.text === '' ? [] : [choice(event.text)];
      if (event.type === 'tool_call') return [];
      const last = choice('', event.finishReason);
      return includesUsage ? [last, chunk([], formatUsage(event.usage))] : [last];
    },
  };
}
