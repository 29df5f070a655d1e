// What engines of chat APIs share: completions asked as a chat, structured output asked in words, inline images,
// arguments of tool calls. Not here: any provider's spelling of them.
import type { ChatInput, ChatMessage, Input, ResponseFormat, Task } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import type { RunItem } from './engine.ts';
import { requireChat, requirePrompt, textOfContent } from './text-input.ts';

const JSON_ONLY = 'Answer with one JSON object and nothing else.';

/** The input of a chat, or the prompt of a completion as one. */
export function toChatInput(task: Task, input: Input | undefined): ChatInput {
  if (task !== 'llm/v1/completions') return requireChat(input);
  return { messages: [{ role: 'user', content: requirePrompt(input) }] };
}

/** The item of a chat in the shape of the task that was asked. */
export function toTaskItem(task: Task, item: RunItem): RunItem {
  if (task !== 'llm/v1/completions' || !item.ok || !('content' in item.output)) return item;
  const { content, finishReason } = item.output;
  return { ...item, output: { text: content ?? '', finishReason } };
}

/** What a model is told where its provider has no structured output; serving checks what comes of it. */
export function toJsonInstruction(format: ResponseFormat | undefined): string | undefined {
  if (format === undefined || format.type === 'text') return undefined;
  if (format.type === 'json_object') return JSON_ONLY;
  return `Answer with JSON that is valid against this JSON schema, and nothing else, without a code fence: ${JSON.stringify(format.schema)}`;
}

/** Texts of system messages, and the turns. A conversation cannot be system text alone. */
export function splitSystem(messages: readonly ChatMessage[]): {
  readonly turns: readonly ChatMessage[];
  readonly system: readonly string[];
} {
  const turns = messages.filter(({ role }) => role !== 'system');
  const system = messages
    .filter(({ role }) => role === 'system')
    .map(({ content }) => textOfContent(content))
    .filter((text) => text !== '');
  if (turns.length > 0) return { turns, system };
  return { turns: [{ role: 'user', content: system.join('\n\n') }], system: [] };
}

/** Type and base64 of an image in a `data:` URL. */
export function inlineImage(url: string): { readonly mediaType: string; readonly data: string } | undefined {
  const [, mediaType, data] = /^data:([^;,]+);base64,(.*)$/s.exec(url) ?? [];
  return mediaType === undefined || data === undefined ? undefined : { mediaType, data };
}

/** The arguments of a tool call that is sent back, as an object. */
export function parseArguments(text: string, name: string): JsonObject {
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

/** The name of the tool that each result in a conversation belongs to. */
export function toolNamesOf(messages: readonly ChatMessage[]): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  for (const { toolCalls = [] } of messages) for (const { id, name } of toolCalls) names.set(id, name);
  return names;
}
