// Calls in the spelling of Gemini on Vertex AI, and of the embedding models beside it.
// Not here: headers, addresses and answers.
import type { ChatInput, ChatMessage, ContentPart, Input, Parameters } from '#core/call.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import { inlineImage, parseArguments, splitSystem, toJsonInstruction, toolNamesOf } from '../chat-parts.ts';
import { fieldsFor } from '../extra.ts';
import { requireText, textOfContent } from '../text-input.ts';
import { toGeminiSchema } from './schema.ts';

/** Gemini 3 refuses its own calls without the signature it gave them, except with this one for calls from elsewhere. */
const NEEDS_SIGNATURE = /gemini-(?:[3-9]|\d\d)/;
const FOREIGN_SIGNATURE = 'skip_thought_signature_validator';
const IMAGE_TYPES: Readonly<Record<string, string>> = {
  png: 'image/png',
  webp: 'image/webp',
  gif: 'image/gif',
  heic: 'image/heic',
};

export function toGenerateRequest(
  model: string,
  input: ChatInput,
  parameters: Parameters,
): Record<string, unknown> {
  const { turns, system } = splitSystem(input.messages);
  const { generationConfig: given, ...fields } = fieldsFor(parameters.extra, new Set());
  const { config, instruction } = toConfig(parameters);
  const texts = instruction === undefined ? system : [...system, instruction];
  const generationConfig = { ...(isJsonObject(given) ? given : {}), ...config };
  return {
    ...fields,
    contents: toContents(turns, input.messages, NEEDS_SIGNATURE.test(model)),
    ...(texts.length === 0 ? {} : { systemInstruction: { parts: texts.map((text) => ({ text })) } }),
    ...(Object.keys(generationConfig).length === 0 ? {} : { generationConfig }),
    ...toTools(parameters),
  };
}

/** `extra`: `task_type` and `title` belong to each text, the rest to the parameters of the request. */
export function toPredictRequest(
  inputs: readonly Input[],
  { dimensions, extra }: Parameters,
): Record<string, unknown> {
  const { task_type: taskType, title, ...rest } = fieldsFor(extra, new Set());
  const shared = {
    ...(taskType === undefined ? {} : { task_type: taskType }),
    ...(title === undefined ? {} : { title }),
  };
  const parameters = {
    ...rest,
    ...(dimensions === undefined ? {} : { outputDimensionality: dimensions }),
  };
  return {
    instances: inputs.map((input) => ({ content: requireText(input), ...shared })),
    ...(Object.keys(parameters).length === 0 ? {} : { parameters }),
  };
}

function toConfig(parameters: Parameters): {
  readonly config: Record<string, unknown>;
  readonly instruction: string | undefined;
} {
  const { maxTokens, temperature, topP, topK, stop, seed, responseFormat, tools = [], extra } = parameters;
  const config: Record<string, unknown> = {};
  if (maxTokens !== undefined) config.maxOutputTokens = maxTokens;
  if (temperature !== undefined) config.temperature = temperature;
  if (topP !== undefined) config.topP = topP;
  if (topK !== undefined) config.topK = topK;
  if (stop !== undefined && stop.length > 0) config.stopSequences = stop;
  if (seed !== undefined) config.seed = seed;
  if (typeof extra?.frequency_penalty === 'number') config.frequencyPenalty = extra.frequency_penalty;
  if (typeof extra?.presence_penalty === 'number') config.presencePenalty = extra.presence_penalty;
  if (responseFormat === undefined || responseFormat.type === 'text') {
    return { config, instruction: undefined };
  }
  // Functions and a MIME type of the answer are refused together.
  if (tools.length > 0) return { config, instruction: toJsonInstruction(responseFormat) };
  config.responseMimeType = 'application/json';
  if (responseFormat.type === 'json_schema') config.responseSchema = toGeminiSchema(responseFormat.schema);
  return { config, instruction: undefined };
}

function toTools({ tools = [], toolChoice }: Parameters): object {
  if (tools.length === 0) return {};
  const functionDeclarations = tools.map(({ name, description, parameters }) => ({
    name,
    ...(description === undefined ? {} : { description }),
    ...toParameters(parameters),
  }));
  const modes = { auto: 'AUTO', required: 'ANY', none: 'NONE' } as const;
  const functionCallingConfig =
    typeof toolChoice === 'object'
      ? { mode: 'ANY', allowedFunctionNames: [toolChoice.name] }
      : { mode: modes[toolChoice ?? 'auto'] };
  return {
    tools: [{ functionDeclarations }],
    ...(toolChoice === undefined ? {} : { toolConfig: { functionCallingConfig } }),
  };
}

/** An object without properties is refused, so a function without arguments has no parameters at all. */
function toParameters(parameters: JsonObject | undefined): object {
  const schema = parameters === undefined ? {} : toGeminiSchema(parameters);
  if (!isJsonObject(schema.properties) || Object.keys(schema.properties).length === 0) return {};
  return { parameters: { ...schema, type: 'object' } };
}

interface Content {
  readonly role: 'user' | 'model';
  readonly parts: object[];
}

/** Neighbours of one role become one turn: the results of parallel calls must stand together. */
function toContents(
  turns: readonly ChatMessage[],
  all: readonly ChatMessage[],
  needsSignature: boolean,
): readonly Content[] {
  const nameOf = toolNamesOf(all);
  const contents: Content[] = [];
  for (const message of turns) {
    const role = message.role === 'assistant' ? 'model' : 'user';
    const parts = toParts(message, nameOf, needsSignature);
    const last = contents.at(-1);
    if (last?.role === role) last.parts.push(...parts);
    else contents.push({ role, parts });
  }
  return contents;
}

function toParts(
  { role, content, toolCalls = [], toolCallId, name }: ChatMessage,
  nameOf: ReadonlyMap<string, string>,
  needsSignature: boolean,
): object[] {
  if (role === 'tool') {
    const called = nameOf.get(toolCallId ?? '') ?? name ?? '';
    return [{ functionResponse: { name: called, response: toResult(textOfContent(content)) } }];
  }
  const given: readonly ContentPart[] =
    typeof content === 'string' ? [{ type: 'text', text: content }] : (content ?? []);
  return [
    // The text before calls may be empty; that of a turn of its own may not be left out.
    ...given.filter((part) => part.type !== 'text' || part.text !== '' || toolCalls.length === 0).map(toPart),
    ...toolCalls.map((call, index) => ({
      functionCall: { name: call.name, args: parseArguments(call.arguments, call.name) },
      ...(needsSignature && index === 0 ? { thoughtSignature: FOREIGN_SIGNATURE } : {}),
    })),
  ];
}

function toPart(part: ContentPart): object {
  if (part.type === 'text') return { text: part.text };
  const image = inlineImage(part.url);
  if (image !== undefined) return { inlineData: { mimeType: image.mediaType, data: image.data } };
  const ending = /\.(\w+)(?:[?#].*)?$/.exec(part.url)?.[1]?.toLowerCase() ?? '';
  return { fileData: { mimeType: IMAGE_TYPES[ending] ?? 'image/jpeg', fileUri: part.url } };
}

/** The result of a function is an object; any other text is its output. */
function toResult(text: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    if (isJsonObject(value)) return value;
  } catch {
    // A plain text is a result too.
  }
  return { output: text };
}
