// What an agent asks another endpoint, as its author writes it, and what it is answered. The same for agents in
// JavaScript and in Python. In whose name it asks is not the agent's to say.
import {
  type AnswerItem,
  CACHE_MODES,
  type ChatMessage,
  type ContentPart,
  type Input,
  type Parameters,
  type ResponseFormat,
  type StreamEvent,
  type Task,
  type TokenUsage,
  type Tool,
  type ToolCall,
} from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import type { AskedByModel, Caller } from '../engine.ts';

export type AskedOfEndpoint = Omit<AskedByModel, 'caller' | 'signal'>;

/** Exactly one of these says what is asked. */
const SUBJECTS: Readonly<Record<string, Task>> = {
  messages: 'llm/v1/chat',
  prompt: 'llm/v1/completions',
  input: 'llm/v1/embeddings',
  features: 'predict',
};
const MEMBERS: readonly string[] = ['endpoint', 'parameters', 'cache', 'stream', ...Object.keys(SUBJECTS)];

/** Throws INVALID_PARAMETER that names the member. */
export function readQuestion(question: Json | undefined): AskedOfEndpoint {
  if (!isJsonObject(question)) throw refused('what is asked', question, 'an object with "endpoint"');
  const { endpoint, parameters, cache } = question;
  const unknown = Object.keys(question).find((name) => !MEMBERS.includes(name));
  if (unknown !== undefined) {
    throw refused(
      `'${unknown}'`,
      question[unknown],
      `left out, or one of parameters; known are ${MEMBERS.join(', ')}`,
    );
  }
  if (typeof endpoint !== 'string' || endpoint === '') throw refused("'endpoint'", endpoint, 'a name');
  const subjects = Object.keys(SUBJECTS).filter((name) => question[name] !== undefined);
  const [subject] = subjects;
  if (subject === undefined || subjects.length > 1) {
    const found = subjects.length === 0 ? 'none' : subjects.join(' and ');
    throw refused(
      'what is asked of the endpoint',
      found,
      `exactly one of ${Object.keys(SUBJECTS).join(', ')}`,
    );
  }
  const mode = CACHE_MODES.find((known) => known === cache);
  if (cache !== undefined && cache !== null && mode === undefined) {
    throw refused("'cache'", cache, `one of ${CACHE_MODES.join(', ')}`);
  }
  return {
    endpoint,
    task: SUBJECTS[subject] as Task,
    input: readInput(subject, question[subject]),
    parameters: readParameters(parameters),
    ...(mode !== undefined && { cache: mode }),
  };
}

export const withCaller = (asked: AskedOfEndpoint, caller: Caller, signal: AbortSignal): AskedByModel => ({
  ...asked,
  caller,
  signal,
});

function readInput(subject: string, value: Json | undefined): Input {
  if (subject === 'messages') return { messages: readMessages(value) };
  if (subject === 'features') {
    if (isJsonObject(value)) return { features: value };
    if (Array.isArray(value)) return { features: value as readonly Json[] };
    throw refused("'features'", value, 'one row: an object by column, or a list');
  }
  if (typeof value !== 'string') throw refused(`'${subject}'`, value, 'a text');
  return subject === 'prompt' ? { prompt: value } : { text: value };
}

function readMessages(value: Json | undefined): readonly ChatMessage[] {
  if (typeof value === 'string') return [{ role: 'user', content: value }];
  if (!Array.isArray(value) || value.length === 0) {
    throw refused("'messages'", value, 'a text or a list of at least one message');
  }
  return value.map((message: Json, at) => readMessage(message, `'messages[${at}]'`));
}

function readMessage(message: Json, place: string): ChatMessage {
  if (!isJsonObject(message)) throw refused(place, message, '{"role", "content"}');
  const { role: given, content, name, tool_calls: calls, tool_call_id: answered } = message;
  const role = given === 'developer' ? 'system' : given;
  if (role !== 'system' && role !== 'user' && role !== 'assistant' && role !== 'tool') {
    throw refused(`the role of ${place}`, role, 'system, user, assistant or tool');
  }
  return {
    role,
    content: readContent(content, place),
    ...(typeof name === 'string' && { name }),
    ...(Array.isArray(calls) &&
      calls.length > 0 && { toolCalls: calls.map((call: Json) => readCall(call, place)) }),
    ...(typeof answered === 'string' && { toolCallId: answered }),
  };
}

function readContent(content: Json | undefined, place: string): ChatMessage['content'] {
  if (content === undefined || content === null) return null;
  if (typeof content === 'string') return content;
  const wanted = 'a text or a list of {"type": "text", "text"} and {"type": "image_url", "image_url"}';
  if (!Array.isArray(content)) throw refused(`the content of ${place}`, content, wanted);
  return content.map((part: Json): ContentPart => {
    if (isJsonObject(part)) {
      const { text, image_url: image } = part;
      if (typeof text === 'string') return { type: 'text', text };
      const url = isJsonObject(image) ? image.url : image;
      if (typeof url === 'string') return { type: 'image_url', url };
    }
    throw refused(`a part of ${place}`, part, wanted);
  });
}

function readCall(call: Json, place: string): ToolCall {
  const called = isJsonObject(call) ? call.function : undefined;
  if (isJsonObject(call) && typeof call.id === 'string' && isJsonObject(called)) {
    const { name, arguments: written } = called;
    if (typeof name === 'string' && typeof written === 'string')
      return { id: call.id, name, arguments: written };
  }
  throw refused(
    `a tool call of ${place}`,
    call,
    '{"id", "type": "function", "function": {"name", "arguments"}}',
  );
}

const NUMBERS: Readonly<
  Record<string, 'maxTokens' | 'temperature' | 'topP' | 'topK' | 'seed' | 'dimensions'>
> = {
  max_tokens: 'maxTokens',
  max_completion_tokens: 'maxTokens',
  temperature: 'temperature',
  top_p: 'topP',
  top_k: 'topK',
  seed: 'seed',
  dimensions: 'dimensions',
};

/** As the OpenAI API spells them; what is not known goes to the provider as it is. */
export function readParameters(value: Json | undefined): Parameters {
  if (value === undefined || value === null) return {};
  if (!isJsonObject(value)) throw refused("'parameters'", value, 'an object such as {"temperature": 0}');
  const parameters: { -readonly [K in keyof Parameters]: Parameters[K] } = {};
  const extra: Record<string, Json> = {};
  for (const [name, setting] of Object.entries(value)) {
    if (setting === null) continue;
    const number = Object.hasOwn(NUMBERS, name) ? NUMBERS[name] : undefined;
    if (number !== undefined) {
      if (typeof setting !== 'number') throw refused(`parameters.${name}`, setting, 'a number');
      parameters[number] = setting;
    } else if (name === 'stop') parameters.stop = readStop(setting);
    else if (name === 'response_format') parameters.responseFormat = readFormat(setting);
    else if (name === 'tools') parameters.tools = readTools(setting);
    else if (name === 'tool_choice') parameters.toolChoice = readChoice(setting);
    else if (name === 'custom_inputs' && isJsonObject(setting)) parameters.customInputs = setting;
    else if (name === 'stream' || name === 'n')
      throw refused(`parameters.${name}`, setting, 'left out: askStream streams');
    else extra[name] = setting;
  }
  if (Object.keys(extra).length > 0) parameters.extra = extra;
  return parameters;
}

function readStop(value: Json): readonly string[] {
  const stops: readonly Json[] = Array.isArray(value) ? value : [value];
  if (stops.every((stop): stop is string => typeof stop === 'string')) return stops;
  throw refused('parameters.stop', value, 'a text or a list of texts');
}

function readFormat(value: Json): ResponseFormat {
  const inner = isJsonObject(value) ? value.json_schema : undefined;
  if (isJsonObject(value) && (value.type === 'text' || value.type === 'json_object'))
    return { type: value.type };
  if (
    isJsonObject(value) &&
    value.type === 'json_schema' &&
    isJsonObject(inner) &&
    isJsonObject(inner.schema)
  ) {
    const { name, schema, strict } = inner;
    const format = { type: 'json_schema' as const, name: typeof name === 'string' ? name : 'answer', schema };
    return typeof strict === 'boolean' ? { ...format, strict } : format;
  }
  throw refused(
    'parameters.response_format',
    value,
    '{"type": "json_schema", "json_schema": {"name", "schema"}}',
  );
}

function readTools(value: Json): readonly Tool[] {
  const wanted = 'a list of {"type": "function", "function": {"name", "parameters"}}';
  if (!Array.isArray(value)) throw refused('parameters.tools', value, wanted);
  return value.map((tool: Json): Tool => {
    const offered = isJsonObject(tool) ? tool.function : undefined;
    if (!isJsonObject(offered) || typeof offered.name !== 'string') throw refused('a tool', tool, wanted);
    const { name, description, parameters } = offered;
    return {
      name,
      ...(typeof description === 'string' && { description }),
      ...(isJsonObject(parameters) && { parameters }),
    };
  });
}

function readChoice(value: Json): NonNullable<Parameters['toolChoice']> {
  if (value === 'auto' || value === 'required' || value === 'none') return value;
  const named = isJsonObject(value) && isJsonObject(value.function) ? value.function.name : undefined;
  if (typeof named === 'string') return { name: named };
  throw refused(
    'parameters.tool_choice',
    value,
    'auto, required, none or {"type": "function", "function": {"name"}}',
  );
}

/** The answer to `ask`, or its failure as it is thrown. */
export function formatAnswer(item: AnswerItem): JsonObject {
  if (!item.ok) throw item.error;
  const { output, usage, cached } = item;
  const shared = { usage: formatUsage(usage), cached };
  if ('embedding' in output) return { embedding: Array.from(output.embedding), ...shared };
  if ('prediction' in output) return { prediction: output.prediction, ...shared };
  if ('text' in output) return { text: output.text, finish_reason: output.finishReason, ...shared };
  const { content, toolCalls, finishReason, customOutputs } = output;
  return {
    content,
    ...(toolCalls && { tool_calls: toolCalls.map(formatCall) }),
    finish_reason: finishReason,
    ...(customOutputs && { custom_outputs: customOutputs }),
    ...shared,
  };
}

/** An event of `askStream`. */
export function formatEvent(event: StreamEvent): JsonObject {
  if (event.type !== 'end') return { ...event };
  const { finishReason, usage, customOutputs } = event;
  return {
    type: 'end',
    finish_reason: finishReason,
    usage: formatUsage(usage),
    ...(customOutputs && { custom_outputs: customOutputs }),
  };
}

const formatCall = ({ id, name, arguments: written }: ToolCall): JsonObject => ({
  id,
  type: 'function',
  function: { name, arguments: written },
});

const formatUsage = ({ inputTokens, outputTokens }: TokenUsage): JsonObject => ({
  input_tokens: inputTokens,
  output_tokens: outputTokens,
});

function refused(what: string, value: Json | undefined, wanted: string): ServingError {
  const shown = value === undefined ? 'missing' : (JSON.stringify(value) ?? 'missing').slice(0, 120);
  return new ServingError(
    'INVALID_PARAMETER',
    `An agent asks wrongly: ${what} is ${shown}; it must be ${wanted}.`,
  );
}
