// Calls in the spelling of Cohere's API, version 2: chat (completions too) and embed.
// Not here: headers, addresses and answers.
import type { ChatInput, ChatMessage, Input, Parameters } from '#core/call.ts';
import { toJsonInstruction } from '../chat-parts.ts';
import { fieldsFor } from '../extra.ts';
import { requireText } from '../text-input.ts';

const KNOWN_IN_CHAT: ReadonlySet<string> = new Set(['frequency_penalty', 'presence_penalty', 'thinking']);
const KNOWN_IN_EMBED: ReadonlySet<string> = new Set(['input_type', 'truncate']);
/** The bounds of `p`; 1 is refused. */
const P_MIN = 0.01;
const P_MAX = 0.99;

export function toChatRequest(
  model: string,
  input: ChatInput,
  parameters: Parameters,
): Record<string, unknown> {
  const { maxTokens, temperature, topP, topK, stop, seed, extra } = parameters;
  const { responseFormat, instruction } = toFormat(parameters);
  const messages = toTurns(input.messages);
  if (instruction !== undefined) messages.unshift({ role: 'system', content: instruction });
  const body: Record<string, unknown> = { ...fieldsFor(extra, KNOWN_IN_CHAT), model, messages };
  if (maxTokens !== undefined) body.max_tokens = maxTokens;
  if (temperature !== undefined) body.temperature = temperature;
  if (topP !== undefined) body.p = Math.min(P_MAX, Math.max(P_MIN, topP));
  if (topK !== undefined) body.k = topK;
  if (stop !== undefined && stop.length > 0) body.stop_sequences = stop;
  if (seed !== undefined) body.seed = seed;
  if (responseFormat !== undefined) body.response_format = responseFormat;
  return { ...body, ...toTools(parameters) };
}

/** Kinds of embeddings are another for texts to search in and for questions; `extra.input_type` says which. */
export function toEmbedRequest(
  model: string,
  inputs: readonly Input[],
  { dimensions, extra }: Parameters,
): Record<string, unknown> {
  return {
    input_type: 'search_document',
    ...fieldsFor(extra, KNOWN_IN_EMBED),
    model,
    texts: inputs.map(requireText),
    embedding_types: ['float'],
    ...(dimensions === undefined ? {} : { output_dimension: dimensions }),
  };
}

/** A format stands alone: beside tools, and for schemas that are not of an object, words must do. */
function toFormat({ responseFormat: format, tools = [] }: Parameters): {
  readonly responseFormat?: object;
  readonly instruction?: string | undefined;
} {
  const instruction = toJsonInstruction(format);
  if (format === undefined || format.type === 'text' || tools.length > 0) return { instruction };
  // Without a schema the API wants the request to say that JSON is expected.
  if (format.type === 'json_object') return { responseFormat: { type: 'json_object' }, instruction };
  if (format.schema.type !== 'object') return { instruction };
  return { responseFormat: { type: 'json_object', json_schema: format.schema } };
}

/** One tool cannot be asked for by name, so it is the only one offered. */
function toTools({ tools = [], toolChoice }: Parameters): object {
  const offered =
    typeof toolChoice === 'object' ? tools.filter(({ name }) => name === toolChoice.name) : tools;
  if (offered.length === 0) return {};
  const choice = toolChoice === 'none' ? 'NONE' : 'REQUIRED';
  return {
    tools: offered.map(({ name, description, parameters = { type: 'object', properties: {} } }) => ({
      type: 'function',
      function: { name, ...(description === undefined ? {} : { description }), parameters },
    })),
    ...(toolChoice === undefined || toolChoice === 'auto' ? {} : { tool_choice: choice }),
  };
}

/** A conversation cannot be system text alone. */
function toTurns(messages: readonly ChatMessage[]): object[] {
  const isSystemAlone = messages.every(({ role }) => role === 'system');
  return messages.map((message) => toTurn(isSystemAlone ? { ...message, role: 'user' } : message));
}

function toTurn({ role, content, toolCalls = [], toolCallId }: ChatMessage): object {
  const given = typeof content === 'string' || content === null ? content : content.map(toPart);
  if (role === 'tool') return { role, tool_call_id: toolCallId ?? '', content: given ?? '' };
  if (toolCalls.length === 0) return { role, content: given ?? '' };
  const calls = toolCalls.map((call) => ({
    id: call.id,
    type: 'function',
    function: { name: call.name, arguments: call.arguments },
  }));
  // What is said before a call is the plan of it.
  return { role, ...(given === null || given === '' ? {} : { tool_plan: textOf(given) }), tool_calls: calls };
}

function textOf(content: string | readonly object[]): string {
  if (typeof content === 'string') return content;
  return content.map((part) => ('text' in part ? String(part.text) : '')).join('');
}

function toPart(part: Exclude<ChatMessage['content'], string | null>[number]): object {
  return part.type === 'text' ? part : { type: 'image_url', image_url: { url: part.url } };
}
