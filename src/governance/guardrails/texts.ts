// Every text of an input or output that a guardrail reads, and the same input or output with other texts in their
// places. Objects without a change come back as the same objects.
import type { ChatMessage, ChatOutput, ContentPart, Input, Output, ToolCall } from '#core/call.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';

/** Gives what stands in the place of `text`. `before`: the name of the field it is in; context, not text. */
export type Rewrite = (text: string, before: string) => string;

export function rewriteInput(input: Input, rewrite: Rewrite): Input {
  if ('messages' in input) {
    const messages = mapSame(input.messages, (message) => rewriteMessage(message, rewrite));
    return messages === input.messages ? input : { messages };
  }
  if ('prompt' in input) {
    const prompt = rewrite(input.prompt, '');
    return prompt === input.prompt ? input : { prompt };
  }
  if ('text' in input) {
    const text = rewrite(input.text, '');
    return text === input.text ? input : { text };
  }
  const features = rewriteJson(input.features, '', rewrite) as JsonObject | readonly Json[];
  return features === input.features ? input : { features };
}

/** Chat and completions; other outputs hold no text that is read. */
export function rewriteOutput(output: Output, rewrite: Rewrite): Output {
  if ('text' in output) {
    const text = rewrite(output.text, '');
    return text === output.text ? output : { ...output, text };
  }
  return 'content' in output ? rewriteAnswer(output, rewrite) : output;
}

function rewriteToolCall(toolCall: ToolCall, rewrite: Rewrite): ToolCall {
  const written = rewriteJsonText(toolCall.arguments, rewrite);
  return written === toolCall.arguments ? toolCall : { ...toolCall, arguments: written };
}

function rewriteAnswer(output: ChatOutput, rewrite: Rewrite): ChatOutput {
  const content = output.content === null ? null : rewrite(output.content, '');
  const toolCalls = output.toolCalls && mapSame(output.toolCalls, (each) => rewriteToolCall(each, rewrite));
  if (content === output.content && toolCalls === output.toolCalls) return output;
  return { ...output, content, ...(toolCalls && { toolCalls }) };
}

function rewriteMessage(message: ChatMessage, rewrite: Rewrite): ChatMessage {
  const content =
    typeof message.content === 'string'
      ? message.role === 'tool'
        ? rewriteJsonText(message.content, rewrite)
        : rewrite(message.content, '')
      : message.content && mapSame(message.content, (part) => rewritePart(part, rewrite));
  const toolCalls = message.toolCalls && mapSame(message.toolCalls, (each) => rewriteToolCall(each, rewrite));
  if (content === message.content && toolCalls === message.toolCalls) return message;
  return { ...message, content, ...(toolCalls && { toolCalls }) };
}

/** The bytes of an image are not read, its address is. */
function rewritePart(part: ContentPart, rewrite: Rewrite): ContentPart {
  if (part.type === 'text') {
    const text = rewrite(part.text, '');
    return text === part.text ? part : { ...part, text };
  }
  if (part.url.startsWith('data:')) return part;
  const url = rewrite(part.url, '');
  return url === part.url ? part : { ...part, url };
}

/** Strings at any depth; keys are context for what they name. Numbers stay: the model was made for numbers. */
function rewriteJson(value: Json, key: string, rewrite: Rewrite): Json {
  if (typeof value === 'string') return rewrite(value, key === '' ? '' : `${key}: `);
  if (Array.isArray(value))
    return mapSame(value as readonly Json[], (item) => rewriteJson(item, key, rewrite));
  if (!isJsonObject(value)) return value;
  const entries = Object.entries(value);
  const written = mapSame(entries, (entry) => {
    const member = rewriteJson(entry[1], entry[0], rewrite);
    return member === entry[1] ? entry : ([entry[0], member] as [string, Json]);
  });
  return written === entries ? value : Object.fromEntries(written);
}

function mapSame<T>(items: readonly T[], map: (item: T) => T): readonly T[] {
  let isChanged = false;
  const mapped = items.map((item) => {
    const made = map(item);
    isChanged ||= made !== item;
    return made;
  });
  return isChanged ? mapped : items;
}

const STRING = 34;
const BACKSLASH = 92;
const NUMBER = /-?\d[\d.eE+-]*/y;

/**
 * JSON text with its strings rewritten as what they mean, escapes and all, and everything else byte for byte. A
 * number that is replaced becomes a string. What is not JSON is rewritten as plain text.
 */
function rewriteJsonText(text: string, rewrite: Rewrite): string {
  if (!isJsonText(text)) return rewrite(text, '');
  let written = '';
  let copied = 0;
  let key = '';
  for (let at = 0; at < text.length; ) {
    const code = text.charCodeAt(at);
    NUMBER.lastIndex = at;
    const end = code === STRING ? stringEnd(text, at) : at + (NUMBER.exec(text)?.[0].length ?? 0);
    if (end === at) {
      at++;
      continue;
    }
    const literal = text.slice(at, end);
    const value = code === STRING ? (JSON.parse(literal) as string) : literal;
    const isKey = code === STRING && /^\s*:/.test(text.slice(end, end + 20));
    const made = rewrite(value, isKey || key === '' ? '' : `${key}: `);
    if (isKey) key = value;
    if (made !== value) {
      written += text.slice(copied, at) + JSON.stringify(made);
      copied = end;
    }
    at = end;
  }
  return copied === 0 ? text : written + text.slice(copied);
}

function isJsonText(text: string): boolean {
  if (!/^\s{0,20}[[{]/.test(text)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Behind the closing quote of the string that opens at `start`. */
function stringEnd(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && text.charCodeAt(at) !== STRING) at += text.charCodeAt(at) === BACKSLASH ? 2 : 1;
  return at + 1;
}
