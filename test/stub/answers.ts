// What the stub provider says: pure functions of the request, so that a test knows every answer beforehand.
// Not here: HTTP, misbehaviour, the ledger (provider.ts).
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { embedWords } from '#engines/echo.ts';
import { fillSchema, hashText } from '#engines/echo-schema.ts';

/** The answer to a chat whose last user message is `prompt`. */
export function stubChatText(prompt: string): string {
  return `You asked "${prompt.slice(0, 60)}" and that is question ${hashText(prompt).toString(16)}.`;
}

/** The continuation of a completions prompt. */
export function stubCompletionText(prompt: string): string {
  return ` and so it went on ${hashText(prompt).toString(16)}.`;
}

/** A chat answer under `response_format` json_schema, as JSON text. */
export function stubJsonText(schema: JsonObject, prompt: string): string {
  return JSON.stringify(fillSchema(schema, prompt));
}

/** Unit vector. */
export function stubEmbedding(text: string, dimensions = 64): Float32Array {
  return embedWords(text, dimensions);
}

/** Words and one more: unlike any estimate from length, so a test sees where a number came from. */
export function stubTokens(text: string): number {
  let words = 1;
  let inWord = false;
  for (let index = 0; index < text.length; index++) {
    const isSpace = text.charCodeAt(index) <= 32;
    if (!isSpace && !inWord) words++;
    inWord = !isSpace;
  }
  return words;
}

export interface TextAnswer {
  readonly text: string;
  readonly toolCall?: { readonly id: string; readonly name: string; readonly arguments: string };
  readonly finish: 'stop' | 'length' | 'tool_calls';
  readonly promptTokens: number;
  readonly completionTokens: number;
}

/** The inputs of a request as texts, for the ledger: last user message, prompt, or each embedding input. */
export function textsOf(body: JsonObject): readonly string[] {
  if (Array.isArray(body.messages)) return [lastUserText(body.messages)];
  if (typeof body.prompt === 'string') return [body.prompt];
  if (typeof body.input === 'string') return [body.input];
  return Array.isArray(body.input) ? body.input.map(String) : [];
}

/** Answers OpenAI chat and completions bodies. */
export function answerOpenai(body: JsonObject): TextAnswer {
  const prompt = textsOf(body)[0] ?? '';
  if (!Array.isArray(body.messages)) {
    return finish(stubCompletionText(prompt), stubTokens(prompt), body.max_tokens, body.stop);
  }
  const promptTokens = tokensOfMessages(body.messages);
  const forced = forcedTool(body.tools, body.tool_choice);
  if (forced) return callTool(forced.name, forced.parameters, prompt, promptTokens);
  const format = isJsonObject(body.response_format) ? body.response_format : {};
  if (format.type === 'json_schema' && isJsonObject(format.json_schema)) {
    const schema = isJsonObject(format.json_schema.schema) ? format.json_schema.schema : {};
    return finish(stubJsonText(schema, prompt), promptTokens, body.max_tokens, undefined);
  }
  if (format.type === 'json_object') {
    return finish(JSON.stringify({ answer: stubChatText(prompt) }), promptTokens, body.max_tokens, undefined);
  }
  return finish(stubChatText(prompt), promptTokens, body.max_tokens ?? body.max_completion_tokens, body.stop);
}

/** Answers Anthropic message bodies. */
export function answerAnthropic(body: JsonObject): TextAnswer {
  const messages = Array.isArray(body.messages) ? body.messages : [];
  const prompt = lastUserText(messages);
  const promptTokens =
    tokensOfMessages(messages) + (typeof body.system === 'string' ? stubTokens(body.system) : 0);
  const choice = isJsonObject(body.tool_choice) ? body.tool_choice : {};
  if (choice.type === 'tool' || choice.type === 'any') {
    const tools = (Array.isArray(body.tools) ? body.tools : []).filter(isJsonObject);
    const tool = tools.find(({ name }) => choice.type === 'any' || name === choice.name);
    const schema = tool && isJsonObject(tool.input_schema) ? tool.input_schema : {};
    return callTool(String(tool?.name), schema, prompt, promptTokens);
  }
  return finish(stubChatText(prompt), promptTokens, body.max_tokens, body.stop_sequences);
}

function forcedTool(tools: Json | undefined, choice: Json | undefined) {
  if (choice !== 'required' && !isJsonObject(choice)) return undefined;
  const wanted = isJsonObject(choice) && isJsonObject(choice.function) ? choice.function.name : undefined;
  for (const tool of Array.isArray(tools) ? tools : []) {
    const definition = isJsonObject(tool) && isJsonObject(tool.function) ? tool.function : {};
    if (wanted !== undefined && definition.name !== wanted) continue;
    return {
      name: String(definition.name),
      parameters: isJsonObject(definition.parameters) ? definition.parameters : {},
    };
  }
  return undefined;
}

/** What a dialect found in a request, in no provider's spelling. */
export interface PlainQuestion {
  readonly prompt: string;
  readonly promptTokens: number;
  readonly maxTokens?: Json | undefined;
  readonly stop?: Json | undefined;
  readonly forcedTool?: { readonly name: string; readonly schema: JsonObject } | undefined;
  readonly schema?: JsonObject | undefined;
}

export function answerPlain(question: PlainQuestion): TextAnswer {
  const { prompt, promptTokens, maxTokens, stop, forcedTool, schema } = question;
  if (forcedTool) return callTool(forcedTool.name, forcedTool.schema, prompt, promptTokens);
  const text = schema ? stubJsonText(schema, prompt) : stubChatText(prompt);
  return finish(text, promptTokens, maxTokens, stop);
}

function callTool(name: string, schema: JsonObject, prompt: string, promptTokens: number): TextAnswer {
  const filled = JSON.stringify(fillSchema({ type: 'object', ...schema }, prompt));
  const toolCall = { id: `call_${hashText(prompt).toString(16)}`, name, arguments: filled };
  return { text: '', toolCall, finish: 'tool_calls', promptTokens, completionTokens: stubTokens(filled) };
}

/** A token is a word here; `max_tokens` counts them. */
function finish(
  whole: string,
  promptTokens: number,
  maxTokens: Json | undefined,
  stop: Json | undefined,
): TextAnswer {
  let text = whole;
  for (const mark of Array.isArray(stop) ? stop : [stop]) {
    if (typeof mark === 'string' && mark !== '' && text.includes(mark))
      text = text.slice(0, text.indexOf(mark));
  }
  const words = wordsOf(text);
  const isCut = typeof maxTokens === 'number' && words.length > maxTokens;
  if (isCut) text = words.slice(0, maxTokens).join('');
  return { text, finish: isCut ? 'length' : 'stop', promptTokens, completionTokens: stubTokens(text) };
}

/** Words with the space before them; together they are the text. */
export function wordsOf(text: string): readonly string[] {
  return text.match(/\s*\S+\s*$|\s*\S+|\s+/g) ?? [];
}

export function lastUserText(messages: readonly Json[]): string {
  for (let index = messages.length - 1; index >= 0; index--) {
    const message = messages[index];
    if (isJsonObject(message) && message.role === 'user') return textOf(message.content);
  }
  return '';
}

export function tokensOfMessages(messages: readonly Json[]): number {
  let tokens = 0;
  for (const message of messages) tokens += isJsonObject(message) ? stubTokens(textOf(message.content)) : 0;
  return tokens;
}

export function textOf(content: Json | undefined): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  return content
    .map((part) => (isJsonObject(part) && typeof part.text === 'string' ? part.text : ''))
    .join('');
}
