// Calls in the spelling of Anthropic's Messages API. Structured output is a tool that must be called.
// Not here: headers, addresses and answers.
import type { ChatInput, ChatMessage, ContentPart, Parameters, ToolChoice } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import { textOfContent } from '../text-input.ts';

/** The API demands a limit; this is what Databricks sends too. */
const DEFAULT_MAX_TOKENS = 1024;
const JSON_ONLY = 'Answer with one JSON object and nothing else.';

/** A tool whose input is the answer. `isWrapped`: the schema is not of an object, so it sits under `value`. */
export interface AnswerTool {
  readonly name: string;
  readonly isWrapped: boolean;
}

export interface AnthropicRequest {
  readonly body: Record<string, unknown>;
  readonly answerTool?: AnswerTool;
}

export function toRequest(model: string, input: ChatInput, parameters: Parameters): AnthropicRequest {
  const {
    maxTokens,
    temperature,
    topP,
    topK,
    stop,
    tools = [],
    toolChoice,
    responseFormat,
    extra,
  } = parameters;
  const { messages, system } = splitSystem(input.messages);
  if (responseFormat?.type === 'json_object') system.push(JSON_ONLY);
  const body: Record<string, unknown> = {
    ...extra,
    model,
    messages: toTurns(messages),
    max_tokens: maxTokens ?? DEFAULT_MAX_TOKENS,
  };
  if (system.length > 0) body.system = system.join('\n\n');
  if (temperature !== undefined) body.temperature = temperature;
  if (topP !== undefined) body.top_p = topP;
  if (topK !== undefined) body.top_k = topK;
  if (stop !== undefined && stop.length > 0) body.stop_sequences = stop;

  const offered = tools.map((tool) => ({
    name: tool.name,
    ...(tool.description === undefined ? {} : { description: tool.description }),
    input_schema: { type: 'object', ...tool.parameters },
  }));
  if (responseFormat?.type !== 'json_schema') {
    if (offered.length > 0) {
      body.tools = offered;
      if (toolChoice !== undefined) body.tool_choice = toToolChoice(toolChoice);
    }
    return { body };
  }
  const isWrapped = responseFormat.schema.type !== 'object';
  const answerTool: AnswerTool = { name: toToolName(responseFormat.name), isWrapped };
  body.tools = [
    ...offered,
    {
      name: answerTool.name,
      description: 'Gives the answer.',
      input_schema: toInputSchema(responseFormat.schema),
    },
  ];
  // With other tools beside it the model may call one of those first; without, the answer is all there is to call.
  const mayUseOthers = offered.length > 0 && toolChoice !== 'none';
  if (!mayUseOthers) body.tool_choice = { type: 'tool', name: answerTool.name };
  else body.tool_choice = typeof toolChoice === 'object' ? toToolChoice(toolChoice) : { type: 'any' };
  return { body, answerTool };
}

/** The API takes system text apart from the turns, and a conversation cannot be system text alone. */
function splitSystem(messages: readonly ChatMessage[]): {
  messages: readonly ChatMessage[];
  system: string[];
} {
  const turns = messages.filter(({ role }) => role !== 'system');
  const system = messages
    .filter(({ role }) => role === 'system')
    .map(({ content }) => textOfContent(content));
  if (turns.length > 0) return { messages: turns, system: system.filter((text) => text !== '') };
  return { messages: [{ role: 'user', content: system.join('\n\n') }], system: [] };
}

interface Turn {
  readonly role: 'user' | 'assistant';
  readonly content: object[];
}

/** Turns of blocks. Neighbours of one role become one turn: all results of parallel tool calls must stand together. */
function toTurns(messages: readonly ChatMessage[]): readonly object[] {
  const turns: Turn[] = [];
  for (const message of messages) {
    const role = message.role === 'assistant' ? 'assistant' : 'user';
    const last = turns.at(-1);
    if (last?.role === role) last.content.push(...toBlocks(message));
    else turns.push({ role, content: toBlocks(message) });
  }
  return turns.map(({ role, content }) => ({ role, content: isPlain(content) ? content[0].text : content }));
}

function isPlain(content: readonly object[]): content is readonly [{ readonly text: string }] {
  const [only] = content;
  return content.length === 1 && only !== undefined && 'text' in only;
}

function toBlocks(message: ChatMessage): object[] {
  const { role, content, toolCalls = [], toolCallId } = message;
  if (role === 'tool') {
    return [{ type: 'tool_result', tool_use_id: toolCallId ?? '', content: textOfContent(content) }];
  }
  const parts: readonly ContentPart[] =
    typeof content === 'string' ? [{ type: 'text', text: content }] : (content ?? []);
  return [
    // Blocks of empty text are refused.
    ...parts.filter((part) => part.type !== 'text' || part.text !== '').map(toBlock),
    ...toolCalls.map((call) => ({
      type: 'tool_use',
      id: call.id,
      name: call.name,
      input: parseArguments(call.arguments, call.name),
    })),
  ];
}

function toBlock(part: ContentPart): object {
  if (part.type === 'text') return { type: 'text', text: part.text };
  const inline = /^data:([^;,]+);base64,(.*)$/s.exec(part.url);
  const source = inline
    ? { type: 'base64', media_type: inline[1], data: inline[2] }
    : { type: 'url', url: part.url };
  return { type: 'image', source };
}

function parseArguments(text: string, name: string): JsonObject {
  if (text.trim() === '') return {};
  try {
    const value: unknown = JSON.parse(text);
    if (isJsonObject(value)) return value;
  } catch {
    // Said below, with what was given.
  }
  throw new ServingError(
    'BAD_REQUEST',
    `The arguments of tool call "${name}" are not a JSON object: ${JSON.stringify(text.slice(0, 80))}. Send them back as the model wrote them.`,
  );
}

function toToolChoice(choice: ToolChoice): object {
  if (typeof choice === 'object') return { type: 'tool', name: choice.name };
  return { type: choice === 'required' ? 'any' : choice };
}

/** References point from the root of a schema, so definitions stay there when the rest moves under `value`. */
function toInputSchema(schema: JsonObject): JsonObject {
  if (schema.type === 'object') return schema;
  const { $defs, definitions, ...value } = schema;
  return {
    type: 'object',
    properties: { value },
    required: ['value'],
    ...($defs === undefined ? {} : { $defs }),
    ...(definitions === undefined ? {} : { definitions }),
  };
}

function toToolName(name: string): string {
  return name.replace(/[^\w-]/g, '_').slice(0, 64) || 'answer';
}
