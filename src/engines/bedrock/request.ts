// Calls in the spelling of Amazon Bedrock: Converse for chat, InvokeModel for embeddings of Titan and Cohere.
// Not here: signatures, addresses and answers.
import type { ChatInput, ChatMessage, ContentPart, Input, Parameters, ToolChoice } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import { ANSWER_TOOL_DESCRIPTION, type AnswerTool, createAnswerTool } from '../answer-tool.ts';
import { inlineImage, parseArguments, splitSystem, toJsonInstruction, toolNamesOf } from '../chat-parts.ts';
import { fieldsFor } from '../extra.ts';
import { requireText, textOfContent } from '../text-input.ts';
import type { Family } from './family.ts';

export interface ConverseRequest {
  readonly body: Record<string, unknown>;
  readonly answerTool: AnswerTool | undefined;
}

const KNOWN: ReadonlySet<string> = new Set(['thinking']);
/** Members of the request itself; every other field of `extra` is one of the model behind it. */
const CONVERSE_FIELDS: ReadonlySet<string> = new Set([
  'additionalModelRequestFields',
  'additionalModelResponseFieldPaths',
  'guardrailConfig',
  'outputConfig',
  'performanceConfig',
  'promptVariables',
  'requestMetadata',
  'serviceTier',
]);

export function toConverseRequest(family: Family, input: ChatInput, parameters: Parameters): ConverseRequest {
  const { maxTokens, temperature, topP, stop, responseFormat } = parameters;
  const { turns, system } = splitSystem(input.messages);
  const hasAnswerTool = responseFormat?.type === 'json_schema' && family.canForceTools;
  const answerTool = hasAnswerTool ? createAnswerTool(responseFormat) : undefined;
  const instruction = answerTool === undefined ? toJsonInstruction(responseFormat) : undefined;
  const texts = instruction === undefined ? system : [...system, instruction];
  const inferenceConfig = {
    ...(maxTokens === undefined ? {} : { maxTokens }),
    ...(temperature === undefined ? {} : { temperature }),
    ...(topP === undefined ? {} : { topP }),
    ...(stop === undefined || stop.length === 0 ? {} : { stopSequences: stop }),
  };
  const toolConfig = toToolConfig(parameters, answerTool, input.messages);
  const body = {
    ...toFields(family, parameters),
    messages: toTurns(turns),
    ...(texts.length === 0 ? {} : { system: texts.map((text) => ({ text })) }),
    ...(Object.keys(inferenceConfig).length === 0 ? {} : { inferenceConfig }),
    ...(toolConfig === undefined ? {} : { toolConfig }),
  };
  return { body, answerTool };
}

/** One text for Titan, all texts for Cohere. */
export function toEmbeddingRequest(
  family: Family,
  model: string,
  inputs: readonly Input[],
  { dimensions, extra }: Parameters,
): object {
  if (family.embeddings === 'cohere') {
    return {
      input_type: 'search_document',
      ...fieldsFor(extra, new Set(['input_type', 'truncate'])),
      texts: inputs.map(requireText),
      ...(dimensions === undefined ? {} : { output_dimension: dimensions }),
    };
  }
  const fields = { ...fieldsFor(extra, new Set()), inputText: requireText(inputs[0]) };
  if (dimensions === undefined) return fields;
  if (model.includes('titan-embed-image')) {
    return { ...fields, embeddingConfig: { outputEmbeddingLength: dimensions } };
  }
  if (model.includes('titan-embed-text-v1') || model.includes('titan-embed-g1')) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `Model "${model}" cannot shorten its vectors to ${dimensions} dimensions. Leave the dimensions out, or use titan-embed-text-v2.`,
    );
  }
  return { ...fields, dimensions };
}

/** `extra` sorted into members of Converse and fields of the model, where `top_k` is one too. */
function toFields(family: Family, { topK, extra }: Parameters): Record<string, unknown> {
  const own: Record<string, unknown> = {};
  const ofModel: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(fieldsFor(extra, KNOWN))) {
    (CONVERSE_FIELDS.has(name) ? own : ofModel)[name] = value;
  }
  if (topK !== undefined) Object.assign(ofModel, family.toTopK(topK));
  const given = isJsonObject(own.additionalModelRequestFields) ? own.additionalModelRequestFields : {};
  const fields = { ...given, ...ofModel };
  if (Object.keys(fields).length > 0) own.additionalModelRequestFields = fields;
  return own;
}

function toToolConfig(
  { tools = [], toolChoice, extra }: Parameters,
  answerTool: AnswerTool | undefined,
  messages: readonly ChatMessage[],
): object | undefined {
  const called = new Set(toolNamesOf(messages).values());
  // A conversation with calls in it is refused without their tools; and "none" cannot be said otherwise.
  const offered = toolChoice === 'none' && called.size === 0 ? [] : [...tools];
  if (offered.length === 0) for (const name of called) offered.push({ name });
  const specs = offered.map(({ name, description, parameters }) =>
    toSpec(name, description, { type: 'object', ...parameters }),
  );
  if (answerTool !== undefined) {
    specs.push(toSpec(answerTool.name, ANSWER_TOOL_DESCRIPTION, answerTool.schema));
    // A model that thinks refuses to be forced.
    if (isThinking(extra)) return { tools: specs };
    const mayUseOthers = tools.length > 0 && toolChoice !== 'none';
    const forced = mayUseOthers && typeof toolChoice === 'object' ? toolChoice.name : answerTool.name;
    const choice = mayUseOthers && typeof toolChoice !== 'object' ? { any: {} } : { tool: { name: forced } };
    return { tools: specs, toolChoice: choice };
  }
  if (specs.length === 0) return undefined;
  const choice = toToolChoice(toolChoice);
  return { tools: specs, ...(choice === undefined || tools.length === 0 ? {} : { toolChoice: choice }) };
}

function isThinking(extra: JsonObject | undefined): boolean {
  const {
    additionalModelRequestFields: fields,
    thinking = isJsonObject(fields) ? fields.thinking : undefined,
  } = extra ?? {};
  return isJsonObject(thinking) && thinking.type !== 'disabled';
}

function toSpec(name: string, description: string | undefined, json: JsonObject): object {
  return {
    toolSpec: { name, ...(description === undefined ? {} : { description }), inputSchema: { json } },
  };
}

function toToolChoice(choice: ToolChoice | undefined): object | undefined {
  if (typeof choice === 'object') return { tool: { name: choice.name } };
  return choice === 'required' ? { any: {} } : undefined;
}

interface Turn {
  readonly role: 'user' | 'assistant';
  readonly content: object[];
}

/** Roles alternate: neighbours of one role become one turn. */
function toTurns(messages: readonly ChatMessage[]): readonly Turn[] {
  const turns: Turn[] = [];
  for (const message of messages) {
    const role = message.role === 'assistant' ? 'assistant' : 'user';
    const last = turns.at(-1);
    if (last?.role === role) last.content.push(...toBlocks(message));
    else turns.push({ role, content: toBlocks(message) });
  }
  return turns;
}

function toBlocks({ role, content, toolCalls = [], toolCallId }: ChatMessage): object[] {
  if (role === 'tool') {
    return [{ toolResult: { toolUseId: toolCallId ?? '', content: [{ text: textOfContent(content) }] } }];
  }
  const parts: readonly ContentPart[] =
    typeof content === 'string' ? [{ type: 'text', text: content }] : (content ?? []);
  return [
    // Blocks of empty text are refused.
    ...parts.filter((part) => part.type !== 'text' || part.text !== '').map(toBlock),
    ...toolCalls.map(({ id, name, arguments: written }) => ({
      toolUse: { toolUseId: id, name, input: parseArguments(written, name) },
    })),
  ];
}

function toBlock(part: ContentPart): object {
  if (part.type === 'text') return { text: part.text };
  const image = inlineImage(part.url);
  const format = /^image\/(png|jpeg|gif|webp)$/.exec(image?.mediaType ?? '')?.[1];
  if (image === undefined || format === undefined) {
    throw new ServingError(
      'BAD_REQUEST',
      `Amazon Bedrock takes images as bytes of png, jpeg, gif or webp, not "${part.url.slice(0, 60)}". Send the image inline as "data:image/png;base64,...".`,
    );
  }
  return { image: { format, source: { bytes: image.data } } };
}
