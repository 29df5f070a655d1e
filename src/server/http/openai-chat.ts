// Chat completions on the wire: the request body as a chat call. The same body is what chat endpoints take under
// /serving-endpoints/{name}/invocations. Not here: answers and streams (openai-chat-format.ts).
import { z } from 'zod';
import type {
  ChatMessage,
  ChatOutput,
  ContentPart,
  Parameters,
  ResponseFormat,
  ToolChoice,
} from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { agentFields, toAgentParameters } from './agent-fields.ts';
import { invokeAll, repeatCall } from './choices.ts';
import type { HttpDeps } from './deps.ts';
import { createChatChunks, formatChat } from './openai-chat-format.ts';
import { parseBody, samplingFields, toParameters, withoutUndefined } from './parameters.ts';
import { type Asked, answerHeaders, type HttpContext, outputsOf, sharedFields, toCall } from './request.ts';
import { sendJson } from './send.ts';
import { answerStream } from './sse.ts';

const jsonObject = z.record(z.string(), z.json());

const contentPart = z.discriminatedUnion(
  'type',
  [
    z.object({ type: z.literal('text'), text: z.string() }),
    z.object({
      type: z.literal('image_url'),
      image_url: z.union([z.string(), z.object({ url: z.string() })]),
    }),
    z.object({ type: z.literal('refusal'), refusal: z.string() }),
    /** Thoughts of a model, sent back by clients that repeat its messages; models are not shown them again. */
    z.object({ type: z.enum(['reasoning', 'thinking', 'redacted_thinking']) }),
  ],
  { error: 'a part is text, image_url, refusal or reasoning' },
);

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
    json_schema: z.object({
      // OpenAI wants a name and helpers of some clients forget it; it says nothing to a model.
      name: z.string().min(1).default('answer'),
      schema: jsonObject,
      strict: z.boolean().nullish(),
    }),
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
  ...agentFields,
  ...sharedFields,
});
type ChatBody = z.output<typeof chatBody>;

export async function answerChat(
  c: HttpContext,
  deps: HttpDeps,
  asked: Asked,
  body: JsonObject,
): Promise<Response> {
  if (isGiven(body.functions) || isGiven(body.function_call)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      "'functions' and 'function_call' were replaced by 'tools' and 'tool_choice': send these.",
    );
  }
  const { fields, extra, headers } = parseBody(chatBody, body);
  const messages = fields.messages.map(toMessage);
  const parameters = toChatParameters(fields, extra);
  const call = toCall(c, asked, { task: 'llm/v1/chat', inputs: [{ messages }], parameters }, fields);
  const calls = repeatCall(call, fields.n);
  if (fields.stream) {
    const includesUsage = fields.stream_options?.include_usage === true;
    const format = createChatChunks(asked, call.id, calls.length, includesUsage);
    return answerStream(c, deps, calls, format, headers);
  }
  const answers = await invokeAll(deps.serving, calls);
  const outputs = answers.flatMap(outputsOf) as ChatOutput[];
  return sendJson(c, formatChat(call.id, answers, outputs), { ...answerHeaders(answers), ...headers });
}

const isGiven = (value: unknown): boolean => value !== undefined && value !== null;

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
    if (part.type !== 'image_url') return [];
    return [
      { type: 'image_url', url: typeof part.image_url === 'string' ? part.image_url : part.image_url.url },
    ];
  });
}

function toChatParameters(fields: ChatBody, extra: JsonObject | undefined): Parameters {
  return {
    ...toParameters(fields, extra),
    ...toAgentParameters(fields),
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
