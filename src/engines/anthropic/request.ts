// Calls in the spelling of Anthropic's Messages API. Structured output is a tool that must be called.
// Not here: headers, addresses and answers.
import type { ChatInput, ChatMessage, ContentPart, Parameters, ToolChoice } from '#core/call.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import { ANSWER_TOOL_DESCRIPTION, type AnswerTool, createAnswerTool } from '../answer-tool.ts';
import { inlineImage, parseArguments, splitSystem, toJsonInstruction } from '../chat-parts.ts';
import { fieldsFor } from '../extra.ts';
import { textOfContent } from '../text-input.ts';

/** The API demands a limit; this is what Databricks sends too. */
const DEFAULT_MAX_TOKENS = 1024;
/** What it knows of the fields that clients of OpenAI send. */
const KNOWN: ReadonlySet<string> = new Set(['thinking', 'cache_control']);
const SERVICE_TIERS: readonly unknown[] = ['auto', 'standard_only'];

export interface AnthropicRequest {
  readonly body: Record<string, unknown>;
  readonly answerTool: AnswerTool | undefined;
}

export function toRequest(model: string, input: ChatInput, parameters: Parameters): AnthropicRequest {
  const { maxTokens, temperature, topP, topK, stop, responseFormat, extra } = parameters;
  const { turns, system } = splitSystem(input.messages);
  const instruction = responseFormat?.type === 'json_object' ? toJsonInstruction(responseFormat) : undefined;
  const thinking = toThinking(extra);
  const body: Record<string, unknown> = {
    ...toFields(extra),
    model,
    messages: toTurns(turns),
    // Thinking counts as output, so the default has to leave room for the answer.
    max_tokens: maxTokens ?? DEFAULT_MAX_TOKENS + (thinking?.budgetTokens ?? 0),
  };
  const hoisted = [...system, ...(instruction === undefined ? [] : [instruction])];
  if (hoisted.length > 0) body.system = hoisted.join('\n\n');
  if (temperature !== undefined) body.temperature = temperature;
  if (topP !== undefined) body.top_p = topP;
  if (topK !== undefined) body.top_k = topK;
  if (stop !== undefined && stop.length > 0) body.stop_sequences = stop;
  const answerTool = responseFormat?.type === 'json_schema' ? createAnswerTool(responseFormat) : undefined;
  return { body: { ...body, ...toTools(parameters, answerTool, thinking !== undefined) }, answerTool };
}

/** Offered tools and which may be called; the answer tool is one of them. */
function toTools(
  { tools = [], toolChoice, extra }: Parameters,
  answerTool: AnswerTool | undefined,
  isThinking: boolean,
): Record<string, unknown> {
  const offered = tools.map((tool) => ({
    name: tool.name,
    ...(tool.description === undefined ? {} : { description: tool.description }),
    input_schema: { type: 'object', ...tool.parameters },
  }));
  if (offered.length === 0 && answerTool === undefined) return {};
  const alone = extra?.parallel_tool_calls === false ? { disable_parallel_tool_use: true } : {};
  if (answerTool === undefined) {
    if (toolChoice === undefined && extra?.parallel_tool_calls !== false) return { tools: offered };
    const choice = toToolChoice(toolChoice ?? 'auto');
    return { tools: offered, tool_choice: toolChoice === 'none' ? choice : { ...choice, ...alone } };
  }
  const { name, schema } = answerTool;
  const answer = { name, description: ANSWER_TOOL_DESCRIPTION, input_schema: schema };
  // With other tools beside it the model may call one of those first; without, the answer is all there is to call.
  const mayUseOthers = offered.length > 0 && toolChoice !== 'none';
  const forced = mayUseOthers
    ? toToolChoice(typeof toolChoice === 'object' ? toolChoice : 'required')
    : { type: 'tool', name };
  // A model that thinks refuses to be forced.
  return {
    tools: [...offered, answer],
    tool_choice: isThinking ? { type: 'auto' } : { ...forced, ...alone },
  };
}

function toThinking(extra: JsonObject | undefined): { readonly budgetTokens: number } | undefined {
  const thinking = extra?.thinking;
  if (!isJsonObject(thinking) || thinking.type === 'disabled') return undefined;
  return { budgetTokens: typeof thinking.budget_tokens === 'number' ? thinking.budget_tokens : 0 };
}

/** OpenAI's `user` is `metadata.user_id` here; tiers by OpenAI's names mean nothing. */
function toFields(extra: JsonObject | undefined): Record<string, unknown> {
  const fields: Record<string, unknown> = fieldsFor(extra, KNOWN);
  if (typeof extra?.user === 'string') fields.metadata = { user_id: extra.user };
  if (isJsonObject(extra?.metadata) && Object.keys(extra.metadata).join() === 'user_id') {
    fields.metadata = extra.metadata;
  }
  if (SERVICE_TIERS.includes(extra?.service_tier)) fields.service_tier = extra?.service_tier;
  return fields;
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
  const inline = inlineImage(part.url);
  const source = inline
    ? { type: 'base64', media_type: inline.mediaType, data: inline.data }
    : { type: 'url', url: part.url };
  return { type: 'image', source };
}

function toToolChoice(choice: ToolChoice): object {
  if (typeof choice === 'object') return { type: 'tool', name: choice.name };
  return { type: choice === 'required' ? 'any' : choice };
}
