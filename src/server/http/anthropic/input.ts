// The request of Anthropic's Messages API as messages and parameters of a chat. Not here: answers and streams.
import { z } from 'zod';
import type {
  ChatMessage,
  ContentPart,
  Parameters,
  ResponseFormat,
  ToolCall,
  ToolChoice,
} from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { showValue } from '../errors.ts';
import { withoutUndefined } from '../parameters.ts';
import { sharedFields } from '../request.ts';

const jsonObject = z.record(z.string(), z.json());

const text = z.object({ type: z.literal('text'), text: z.string() });
const image = z.object({
  type: z.literal('image'),
  source: z.discriminatedUnion('type', [
    z.object({ type: z.literal('base64'), media_type: z.string(), data: z.string() }),
    z.object({ type: z.literal('url'), url: z.string() }),
  ]),
});
const document = z.object({
  type: z.literal('document'),
  source: z.object({ type: z.literal('text'), data: z.string() }),
});
/** Thoughts sent back by clients that repeat all blocks; models are not shown them again. */
const thoughts = z.object({ type: z.enum(['thinking', 'redacted_thinking']) });
const toolUse = z.object({
  type: z.literal('tool_use'),
  id: z.string(),
  name: z.string().min(1),
  input: jsonObject,
});
const resultPart = z.discriminatedUnion('type', [text, image, document], {
  error: 'a block of a tool result is text, image or document (with a text source)',
});
const toolResult = z.object({
  type: z.literal('tool_result'),
  tool_use_id: z.string(),
  content: z.union([z.string(), z.array(resultPart)]).nullish(),
  is_error: z.boolean().nullish(),
});
const block = z.discriminatedUnion('type', [text, image, document, thoughts, toolUse, toolResult], {
  error: 'a block is text, image, document (with a text source), tool_use, tool_result or thinking',
});
type Block = z.output<typeof block>;

const message = z.object({
  role: z.enum(['user', 'assistant', 'system']),
  content: z.union([z.string(), z.array(block)]),
});

const tool = z.object({
  type: z.literal('custom').nullish(),
  name: z.string().min(1),
  description: z.string().nullish(),
  input_schema: jsonObject,
});

const jsonFormat = z.object({ type: z.literal('json_schema'), schema: jsonObject }).nullish();

export const messagesBody = z.object({
  model: z.string().optional(),
  messages: z.array(message).min(1),
  system: z.union([z.string(), z.array(text)]).nullish(),
  max_tokens: z.int().min(1).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  top_k: z.int().min(0).nullish(),
  stop_sequences: z.array(z.string()).nullish(),
  stream: z.boolean().nullish(),
  tools: z.array(tool).nullish(),
  tool_choice: z
    .discriminatedUnion('type', [
      z.object({ type: z.enum(['auto', 'any', 'none']) }),
      z.object({ type: z.literal('tool'), name: z.string() }),
    ])
    .nullish(),
  thinking: z.looseObject({ type: z.string() }).nullish(),
  metadata: z.object({ user_id: z.string().nullish() }).nullish(),
  output_format: jsonFormat,
  output_config: z.looseObject({ format: jsonFormat }).nullish(),
  ...sharedFields,
});
export type MessagesBody = z.output<typeof messagesBody>;

/** Tools that Anthropic's servers run (web search, code execution, ...) are nobody's here. */
export function refuseServerTools(body: JsonObject): void {
  if (!Array.isArray(body.tools)) return;
  for (const [index, offered] of body.tools.entries()) {
    const type: unknown = (offered as { type?: unknown } | null)?.type;
    if (type === undefined || type === null || type === 'custom') continue;
    throw new ServingError(
      'INVALID_PARAMETER',
      `'tools[${index}].type' is ${showValue(type)}, and tools are run by the caller: send a tool with name and input_schema, without a type.`,
      { details: { field: 'tools' } },
    );
  }
}

export function toMessages({ system, messages }: MessagesBody): readonly ChatMessage[] {
  const instructions = typeof system === 'string' ? system : system?.map((part) => part.text).join('\n\n');
  const turns = messages.flatMap(({ role, content }): ChatMessage[] => {
    if (typeof content === 'string') return [{ role, content }];
    if (role === 'assistant') return [toAssistant(content)];
    // Results come first: the message before them has called the tools.
    const results = content.flatMap((part) => (part.type === 'tool_result' ? [toToolMessage(part)] : []));
    const parts = content.flatMap(toPart);
    return parts.length === 0 && results.length > 0
      ? results
      : [...results, { role, content: simplify(parts) }];
  });
  return instructions ? [{ role: 'system', content: instructions }, ...turns] : turns;
}

function toAssistant(blocks: readonly Block[]): ChatMessage {
  const toolCalls = blocks.flatMap((part): ToolCall[] =>
    part.type === 'tool_use' ? [{ id: part.id, name: part.name, arguments: JSON.stringify(part.input) }] : [],
  );
  const parts = blocks.flatMap(toPart);
  const content = parts.length === 0 && toolCalls.length > 0 ? null : simplify(parts);
  return { role: 'assistant', content, ...(toolCalls.length === 0 ? {} : { toolCalls }) };
}

function toToolMessage(result: z.output<typeof toolResult>): ChatMessage {
  const { content, tool_use_id: toolCallId } = result;
  const said =
    content === undefined || content === null || typeof content === 'string'
      ? (content ?? '')
      : simplify(content.flatMap(toPart));
  // A failure is a mark of its own here and in no other dialect; only where nothing else tells of it, words do.
  return { role: 'tool', toolCallId, content: said === '' && result.is_error ? 'The tool failed.' : said };
}

function toPart(part: Block): ContentPart[] {
  if (part.type === 'text') return [{ type: 'text', text: part.text }];
  if (part.type === 'document') return [{ type: 'text', text: part.source.data }];
  if (part.type !== 'image') return [];
  const { source } = part;
  const url = source.type === 'url' ? source.url : `data:${source.media_type};base64,${source.data}`;
  return [{ type: 'image_url', url }];
}

/** Servers that know no parts are asked with a plain text where that says the same. */
function simplify(parts: readonly ContentPart[]): string | readonly ContentPart[] {
  const [only] = parts;
  if (only === undefined) return '';
  return parts.length === 1 && only.type === 'text' ? only.text : parts;
}

export function toParameters(fields: MessagesBody, extra: JsonObject | undefined): Parameters {
  const thinking = fields.thinking && fields.thinking.type !== 'disabled' ? fields.thinking : undefined;
  const passedOn = withoutUndefined({ ...extra, thinking }) as JsonObject;
  const tools = fields.tools?.map((wire) =>
    withoutUndefined({
      name: wire.name,
      description: wire.description ?? undefined,
      parameters: wire.input_schema,
    }),
  );
  return withoutUndefined({
    maxTokens: fields.max_tokens ?? undefined,
    temperature: fields.temperature ?? undefined,
    topP: fields.top_p ?? undefined,
    topK: fields.top_k || undefined,
    stop: fields.stop_sequences?.length ? fields.stop_sequences : undefined,
    tools: tools?.length ? tools : undefined,
    toolChoice: tools?.length ? toToolChoice(fields.tool_choice) : undefined,
    responseFormat: toResponseFormat(fields),
    extra: Object.keys(passedOn).length === 0 ? undefined : passedOn,
  });
}

function toToolChoice(wire: MessagesBody['tool_choice']): ToolChoice | undefined {
  if (wire === undefined || wire === null) return undefined;
  if (wire.type === 'tool') return { name: wire.name };
  return wire.type === 'any' ? 'required' : wire.type;
}

function toResponseFormat(fields: MessagesBody): ResponseFormat | undefined {
  const wire = fields.output_config?.format ?? fields.output_format;
  return wire ? { type: 'json_schema', name: 'answer', schema: wire.schema } : undefined;
}
