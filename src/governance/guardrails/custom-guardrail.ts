// A guardrail of the user's own: a chat endpoint that is sent what is to be checked as JSON and answers with a
// decision. The fields of the answer are Databricks'; the request is ours, see docs/guardrails.md.
import type { ChatInput, ChatMessage, Input, Output } from '#core/call.ts';
import { isJsonObject, type Json } from '#core/json.ts';
import { parseJson, toConversation, withoutFence } from './judge.ts';
import type { Phase } from './refusal.ts';

export function customQuestion(phase: Phase, endpoint: string, content: Input | Output): ChatInput {
  const messages = toConversation(content).map((message) => ({
    role: message.role,
    content: message.content,
  }));
  return { messages: [{ role: 'user', content: JSON.stringify({ phase, endpoint, messages }) }] };
}

type Decision =
  | { readonly decision: 'proceed' }
  /** One text for each message that was sent, in order; or one, for the last message of the user or assistant. */
  | { readonly decision: 'sanitize'; readonly texts: readonly string[] }
  | { readonly decision: 'reject'; readonly message?: string; readonly response?: Json };

/** The problem in words where the text is no decision. */
export function parseDecision(text: string): Decision | { readonly problem: string } {
  const value = parseJson(withoutFence(text));
  if (!isJsonObject(value)) return { problem: 'it is not a JSON object' };
  const { decision, reject_message: message, guardrail_response: given } = value;
  if (given !== undefined && given !== null && !isJsonObject(given))
    return { problem: "'guardrail_response' is not an object" };
  const response = isJsonObject(given) ? given.response : undefined;
  if (decision === 'proceed') return { decision };
  if (decision === 'reject') {
    if (message !== undefined && message !== null && typeof message !== 'string')
      return { problem: "'reject_message' is not a text" };
    const isShown = isJsonObject(given) && given.include_in_response === true && response !== undefined;
    return {
      decision,
      ...(typeof message === 'string' && message !== '' && { message }),
      ...(isShown && { response }),
    };
  }
  if (decision !== 'sanitize') return { problem: "'decision' is not proceed, sanitize or reject" };
  const texts = textsOf(response);
  if (texts) return { decision, texts };
  return { problem: "it sanitizes, but 'guardrail_response.response' is no text, messages or choices" };
}

function textsOf(response: Json | undefined): readonly string[] | undefined {
  if (typeof response === 'string') return [response];
  if (!isJsonObject(response)) return undefined;
  const messages = Array.isArray(response.choices)
    ? (response.choices as readonly Json[]).map((choice) => (isJsonObject(choice) ? choice.message : null))
    : response.messages;
  if (!Array.isArray(messages) || messages.length === 0) return undefined;
  const texts = (messages as readonly Json[]).map((message) =>
    isJsonObject(message) ? message.content : null,
  );
  return texts.every((text) => typeof text === 'string') ? texts : undefined;
}

/** The input with the texts of a decision in the place of its own; undefined where they do not fit. */
export function sanitizeInput(input: Input, texts: readonly string[]): Input | undefined {
  if ('messages' in input) return sanitizeChat(input, texts);
  const text = texts[0];
  if (texts.length !== 1 || text === undefined) return undefined;
  if ('prompt' in input) return { prompt: text };
  return 'text' in input ? { text } : undefined;
}

function sanitizeChat({ messages }: ChatInput, texts: readonly string[]): ChatInput | undefined {
  const last = messages.findLastIndex(({ role }) => role === 'user');
  const textFor = (index: number): string | undefined =>
    texts.length === messages.length ? texts[index] : index === last ? texts[0] : undefined;
  if (texts.length !== messages.length && (texts.length !== 1 || last < 0)) return undefined;
  return {
    messages: messages.map((message, index): ChatMessage => {
      const text = textFor(index);
      // What the guardrail saw of tool calls was part of the text; a text that did not change leaves them alone.
      if (text === undefined || text === toConversation({ messages: [message] })[0]?.content) return message;
      return { ...message, content: text };
    }),
  };
}

export function sanitizeOutput(output: Output, texts: readonly string[]): Output | undefined {
  const text = texts[0];
  if (texts.length !== 1 || text === undefined) return undefined;
  if ('text' in output) return { ...output, text };
  return 'content' in output ? { ...output, content: text } : undefined;
}
