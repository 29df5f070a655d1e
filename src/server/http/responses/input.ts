// The request of the Responses API as messages and parameters of a chat. Not here: answers and streams.
import { z } from 'zod';
import type { ChatMessage, ContentPart, Parameters, ResponseFormat, Tool, ToolCall } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { agentFields, toAgentParameters } from '../agent-fields.ts';
import { showValue } from '../errors.ts';
import { withoutUndefined } from '../parameters.ts';
import { sharedFields } from '../request.ts';

const jsonObject = z.record(z.string(), z.json());

const part = z.discriminatedUnion(
  'type',
  [
    z.object({ type: z.enum(['input_text', 'output_text', 'text']), text: z.string() }),
    z.object({ type: z.literal('refusal'), refusal: z.string() }),
    z.object({ type: z.literal('input_image'), image_url: z.string() }),
  ],
  { error: 'a part is input_text, output_text, refusal or input_image' },
);
const content = z.union([z.string(), z.array(part)]);

const item = z.union([
  z.object({
    type: z.literal('message').optional(),
    role: z.enum(['user', 'assistant', 'system', 'developer']),
    content,
  }),
  z.object({
    type: z.literal('function_call'),
    call_id: z.string(),
    name: z.string().min(1),
    arguments: z.string(),
  }),
  z.object({ type: z.literal('function_call_output'), call_id: z.string(), output: content }),
  /** Thoughts sent back by clients that repeat all items; models are not shown them again. */
  z.object({ type: z.literal('reasoning') }),
]);
type Item = z.output<typeof item>;

const tool = z.object({
  type: z.literal('function'),
  name: z.string().min(1),
  description: z.string().nullish(),
  parameters: jsonObject.nullish(),
  strict: z.boolean().nullish(),
});

const format = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text') }),
  z.object({ type: z.literal('json_object') }),
  z.object({
    type: z.literal('json_schema'),
    name: z.string().min(1).default('answer'),
    schema: jsonObject,
    strict: z.boolean().nullish(),
  }),
]);

export const responsesBody = z.object({
  model: z.string().optional(),
  input: z.union([z.string(), z.array(item).min(1)]),
  instructions: z.string().nullish(),
  max_output_tokens: z.int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.json().optional(),
  tools: z.array(tool).nullish(),
  tool_choice: z
    .union([
      z.enum(['auto', 'required', 'none']),
      z.object({ type: z.literal('function'), name: z.string() }),
      z.object({
        type: z.literal('allowed_tools'),
        mode: z.enum(['auto', 'required']),
        tools: z.array(z.object({ name: z.string() })),
      }),
    ])
    .nullish(),
  text: z.object({ format: format.nullish(), verbosity: z.string().nullish() }).nullish(),
  reasoning: z.object({ effort: z.string().nullish(), summary: z.string().nullish() }).nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  truncation: z.enum(['auto', 'disabled']).nullish(),
  user: z.string().nullish(),
  ...agentFields,
  ...sharedFields,
});
export type ResponsesBody = z.output<typeof responsesBody>;

const ITEM_TYPES = ['message', 'function_call', 'function_call_output', 'reasoning'];

/** What the interface has and duckserve does not keep or run: refused by name, before the shape of the rest. */
export function refuseNotOffered(body: JsonObject): void {
  const refuse = (field: string, reason: string) => {
    throw new ServingError('INVALID_PARAMETER', `'${field}' is ${showValue(body[field])}, and ${reason}.`, {
      details: { field },
    });
  };
  if (body.background) refuse('background', 'responses are answered while the caller waits: leave it out');
  if (body.store) refuse('store', 'responses are not kept: leave it out or send false');
  if (body.conversation) refuse('conversation', 'conversations are not kept: send all items in input');
  if (body.previous_response_id) {
    refuse('previous_response_id', 'responses are not kept: send all items of the conversation in input');
  }
  if (body.prompt) refuse('prompt', 'prompt templates are not kept: send the text in instructions and input');
  if (body.service_tier && body.service_tier !== 'auto' && body.service_tier !== 'default') {
    refuse('service_tier', 'there is one tier: leave it out');
  }
  refuseTypes(body.input, 'input', ITEM_TYPES, 'an item is one of');
  refuseTypes(body.tools, 'tools', ['function'], 'tools are run by the caller, so a tool is a');
}

function refuseTypes(list: unknown, field: string, known: readonly string[], rule: string): void {
  if (!Array.isArray(list)) return;
  for (const [index, entry] of list.entries()) {
    const type: unknown = (entry as { type?: unknown } | null)?.type;
    if (typeof type !== 'string' || known.includes(type)) continue;
    throw new ServingError(
      'INVALID_PARAMETER',
      `'${field}[${index}].type' is ${showValue(type)}, and ${rule} ${known.join(', ')}.`,
      { details: { field } },
    );
  }
}

export function toMessages({ input, instructions }: ResponsesBody): readonly ChatMessage[] {
  const messages: ChatMessage[] = [];
  if (instructions) messages.push({ role: 'system', content: instructions });
  if (typeof input === 'string') return [...messages, { role: 'user', content: input }];
  for (const entry of input) addItem(messages, entry);
  if (messages.length > 0) return messages;
  throw new ServingError('INVALID_PARAMETER', "'input' holds only reasoning: send at least one message.");
}

function addItem(messages: ChatMessage[], entry: Item): void {
  if (entry.type === 'reasoning') return;
  if (entry.type === 'function_call_output') {
    messages.push({ role: 'tool', toolCallId: entry.call_id, content: toContent(entry.output) });
  } else if (entry.type === 'function_call') {
    const call: ToolCall = { id: entry.call_id, name: entry.name, arguments: entry.arguments };
    const last = messages.at(-1);
    // What a model says and the tools it calls in one turn are one message.
    if (last?.role === 'assistant')
      messages[messages.length - 1] = { ...last, toolCalls: [...(last.toolCalls ?? []), call] };
    else messages.push({ role: 'assistant', content: null, toolCalls: [call] });
  } else {
    const role = entry.role === 'developer' ? 'system' : entry.role;
    messages.push({ role, content: toContent(entry.content) });
  }
}

function toContent(wire: z.output<typeof content>): string | readonly ContentPart[] {
  if (typeof wire === 'string') return wire;
  const parts = wire.map((one): ContentPart => {
    if (one.type === 'input_image') return { type: 'image_url', url: one.image_url };
    return { type: 'text', text: one.type === 'refusal' ? one.refusal : one.text };
  });
  const [only] = parts;
  // Servers that know no parts are asked with a plain text where that says the same.
  return parts.length === 1 && only?.type === 'text' ? only.text : parts;
}

export function toParameters(fields: ResponsesBody, extra: JsonObject | undefined): Parameters {
  const passedOn = withoutUndefined({
    ...extra,
    parallel_tool_calls: fields.parallel_tool_calls ?? undefined,
    reasoning_effort: fields.reasoning?.effort ?? undefined,
    verbosity: fields.text?.verbosity ?? undefined,
    user: fields.user ?? undefined,
  }) as JsonObject;
  return withoutUndefined({
    maxTokens: fields.max_output_tokens ?? undefined,
    temperature: fields.temperature ?? undefined,
    topP: fields.top_p ?? undefined,
    responseFormat: toResponseFormat(fields.text?.format),
    ...toTools(fields),
    ...toAgentParameters(fields),
    extra: Object.keys(passedOn).length === 0 ? undefined : passedOn,
  });
}

function toTools({ tools, tool_choice: choice }: ResponsesBody): Pick<Parameters, 'tools' | 'toolChoice'> {
  if (!tools?.length) return {};
  let offered = tools.map(
    (wire): Tool =>
      withoutUndefined({
        name: wire.name,
        description: wire.description ?? undefined,
        parameters: wire.parameters ?? undefined,
      }),
  );
  if (choice === undefined || choice === null) return { tools: offered };
  if (typeof choice === 'string') return { tools: offered, toolChoice: choice };
  if (choice.type === 'function') return { tools: offered, toolChoice: { name: choice.name } };
  offered = offered.filter(({ name }) => choice.tools.some((allowed) => allowed.name === name));
  return { tools: offered, toolChoice: choice.mode };
}

function toResponseFormat(wire: z.output<typeof format> | null | undefined): ResponseFormat | undefined {
  if (wire === undefined || wire === null || wire.type === 'text') return undefined;
  if (wire.type === 'json_object') return wire;
  const { name, schema, strict } = wire;
  return withoutUndefined({ type: 'json_schema' as const, name, schema, strict: strict ?? undefined });
}
