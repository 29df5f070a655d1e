// Chat completions on the wire: the request body as a chat call, the answer and the stream in OpenAI's shape.
// The same body is what chat endpoints take under /serving-endpoints/{name}/invocations.
import { z } from 'zod';
import type {
  ChatMessage,
  ChatOutput,
  ContentPart,
  Parameters,
  ResponseFormat,
  StreamEvent,
  TokenUsage,
  ToolCall,
  ToolChoice,
} from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { HttpDeps } from './deps.ts';
import { parseWith } from './errors.ts';
import {
  ignoredHeaders,
  samplingFields,
  splitProviderFields,
  toParameters,
  withoutUndefined,
} from './parameters.ts';
import { answerHeaders, type HttpContext, outputsOf, sharedFields, toCall } from './request.ts';
import { sendJson } from './send.ts';
import { answerStream, type ChunkFormat } from './sse.ts';

const jsonObject = z.record(z.string(), z.json());

const contentPart = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text'), text: z.string() }),
  z.object({ type: z.literal('image_url'), image_url: z.union([z.string(), z.object({ url: z.string() })]) }),
  z.object({ type: z.literal('refusal'), refusal: z.string() }),
  /** Thoughts of a model, sent back by clients that repeat its messages; models are not shown them again. */
  z.object({ type: z.literal('reasoning') }),
]);

const message = z.object({
  role: z.enum(['system', 'developer', 'user', 'assistant', 'tool']),
  content: z.union([z.string(), z.array(contentPart)]).nullish(),
  name: z.string().nullish(),
  tool_call_id: z.string().nullish(),
  tool_calls: z
    .array(
      z.object({
        id: z.string(),
        type: z.literal('function').optional(),
        function: z.object({ name: z.string(), arguments: z.string() }),
      }),
    )
    .nullish(),
});

const tool = z.object({
  type: z.literal('function'),
  function: z.object({
    name: z.string().min(1),
    description: z.string().nullish(),
    parameters: jsonObject.nullish(),
    strict: z.boolean().nullish(),
  }),
});

const responseFormat = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text') }),
  z.object({ type: z.literal('json_object') }),
  z.object({
    type: z.literal('json_schema'),
    json_schema: z.object({ name: z.string().min(1), schema: jsonObject, strict: z.boolean().nullish() }),
  }),
]);

export const chatBody = z.object({
  model: z.string().optional(),
  messages: z.array(message).min(1),
  ...samplingFields,
  tools: z.array(tool).nullish(),
  tool_choice: z
    .union([
      z.enum(['auto', 'required', 'none']),
      z.object({ type: z.literal('function'), function: z.object({ name: z.string() }) }),
    ])
    .nullish(),
  response_format: responseFormat.nullish(),
  ...sharedFields,
});
type ChatBody = z.output<typeof chatBody>;

export async function answerChat(
  c: HttpContext,
  deps: HttpDeps,
  endpoint: string,
  body: JsonObject,
  servedEntity?: string,
): Promise<Response> {
  if (body.functions !== undefined || body.function_call !== undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      "'functions' and 'function_call' were replaced by 'tools' and 'tool_choice': send these.",
    );
  }
  const fields = parseWith(chatBody, body);
  const { extra, ignored } = splitProviderFields(body, chatBody.shape, fields.extra_params);
  const messages = fields.messages.map(toMessage);
  const parameters = toChatParameters(fields, extra);
  const call = toCall(
    c,
    { endpoint, task: 'llm/v1/chat', inputs: [{ messages }], parameters, servedEntity },
    fields,
  );
  const headers = ignoredHeaders(ignored);
  if (fields.stream) {
    const format = createChatChunks(call.id, fields.stream_options?.include_usage === true);
    return answerStream(c, deps, call, format, headers);
  }
  const answer = await deps.serving.invoke(call);
  const [output] = outputsOf(answer);
  return sendJson(c, formatChat(call.id, answer.model, output as ChatOutput, answer.usage), {
    ...answerHeaders(answer),
    ...headers,
  });
}

function toMessage(wire: ChatBody['messages'][number]): ChatMessage {
  return withoutUndefined({
    role: wire.role === 'developer' ? ('system' as const) : wire.role,
    content: toContent(wire.content),
    name: wire.name ?? undefined,
    toolCallId: wire.tool_call_id ?? undefined,
    toolCalls: wire.tool_calls?.map(({ id, function: called }) => ({
      id,
      name: called.name,
      arguments: called.arguments,
    })),
  });
}

function toContent(wire: ChatBody['messages'][number]['content']): ChatMessage['content'] {
  if (wire === undefined || wire === null || typeof wire === 'string') return wire ?? null;
  return wire.flatMap((part): ContentPart[] => {
    if (part.type === 'text') return [part];
    if (part.type === 'refusal') return [{ type: 'text', text: part.refusal }];
    if (part.type === 'reasoning') return [];
    return [
      { type: 'image_url', url: typeof part.image_url === 'string' ? part.image_url : part.image_url.url },
    ];
  });
}

function toChatParameters(fields: ChatBody, extra: JsonObject | undefined): Parameters {
  return {
    ...toParameters(fields, extra),
    ...withoutUndefined({
      tools: fields.tools?.map(({ function: offered }) =>
        withoutUndefined({
          name: offered.name,
          description: offered.description ?? undefined,
          parameters: offered.parameters ?? undefined,
        }),
      ),
      toolChoice: toToolChoice(fields.tool_choice),
      responseFormat: toResponseFormat(fields.response_format),
    }),
  };
}

function toToolChoice(wire: ChatBody['tool_choice']): ToolChoice | undefined {
  if (wire === undefined || wire === null) return undefined;
  return typeof wire === 'string' ? wire : { name: wire.function.name };
}

function toResponseFormat(wire: ChatBody['response_format']): ResponseFormat | undefined {
  if (wire === undefined || wire === null) return undefined;
  if (wire.type !== 'json_schema') return wire;
  const { name, schema, strict } = wire.json_schema;
  return withoutUndefined({ type: 'json_schema' as const, name, schema, strict: strict ?? undefined });
}

export function formatUsage(usage: TokenUsage): JsonObject {
  return {
    prompt_tokens: usage.inputTokens,
    completion_tokens: usage.outputTokens,
    total_tokens: usage.inputTokens + usage.outputTokens,
  };
}

function formatToolCall(call: ToolCall): JsonObject {
  return { id: call.id, type: 'function', function: { name: call.name, arguments: call.arguments } };
}

function formatChat(callId: string, model: string, output: ChatOutput, usage: TokenUsage): JsonObject {
  return {
    id: `chatcmpl-${callId}`,
    object: 'chat.completion',
    created: Math.floor(Date.now() / 1000),
    model,
    choices: [
      {
        index: 0,
        message: {
          role: 'assistant',
          content: output.content,
          refusal: null,
          ...(output.toolCalls?.length ? { tool_calls: output.toolCalls.map(formatToolCall) } : {}),
        },
        logprobs: null,
        finish_reason: output.finishReason,
      },
    ],
    usage: formatUsage(usage),
  };
}

function createChatChunks(callId: string, includesUsage: boolean): ChunkFormat {
  const created = Math.floor(Date.now() / 1000);
  let model = '';
  const chunk = (choices: readonly JsonObject[], usage: JsonObject | null = null): JsonObject => ({
    id: `chatcmpl-${callId}`,
    object: 'chat.completion.chunk',
    created,
    model,
    choices,
    ...(includesUsage ? { usage } : {}),
  });
  const choice = (delta: JsonObject, finishReason: string | null = null): JsonObject =>
    chunk([{ index: 0, delta, finish_reason: finishReason }]);
  return {
    open(targetModel) {
      model = targetModel;
      return [choice({ role: 'assistant', content: '' })];
    },
    next(event) {
      if (event.type === 'delta') return event.text === '' ? [] : [choice({ content: event.text })];
      if (event.type === 'tool_call') return [choice({ tool_calls: [formatToolCallDelta(event)] })];
      const last = choice({}, event.finishReason);
      return includesUsage ? [last, chunk([], formatUsage(event.usage))] : [last];
    },
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
