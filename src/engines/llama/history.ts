// Chat messages as llama.cpp's chat history. Refuses what a local text model cannot be given.
import type { ChatHistoryItem } from 'node-llama-cpp';
import type { ChatInput, ChatMessage, Parameters } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';

/** The history of a chat, ended by the empty turn that the model is to fill. */
export function toHistory({ messages }: ChatInput): ChatHistoryItem[] {
  const last = messages.at(-1);
  if (last === undefined)
    throw new ServingError('BAD_REQUEST', 'A chat needs at least one message; `messages` is empty.');
  if (last.role === 'assistant') {
    throw new ServingError(
      'BAD_REQUEST',
      'The last message has the role "assistant", so there is nothing to answer. End `messages` with a message of the role "user".',
    );
  }
  return [...messages.map(toItem), { type: 'model', response: [] }];
}

function toItem(message: ChatMessage): ChatHistoryItem {
  const text = textOf(message);
  if (message.role === 'system') return { type: 'system', text };
  if (message.role === 'user') return { type: 'user', text };
  if (message.role === 'assistant' && !message.toolCalls?.length) return { type: 'model', response: [text] };
  throw noTools();
}

function textOf({ content }: ChatMessage): string {
  if (content === null) return '';
  if (typeof content === 'string') return content;
  return content
    .map((part) => {
      if (part.type === 'text') return part.text;
      throw new ServingError(
        'NOT_OFFERED',
        'Models on llama.cpp read text only, and a message holds an image. Ask an endpoint of an external model instead.',
      );
    })
    .join('');
}

/** Throws NOT_OFFERED when tools would have to be called. */
export function refuseTools({ tools, toolChoice }: Parameters): void {
  if (tools?.length && toolChoice !== 'none') throw noTools();
}

function noTools(): ServingError {
  return new ServingError(
    'NOT_OFFERED',
    'Models on llama.cpp call no tools. Leave `tools` out, or ask an endpoint of an external model.',
  );
}
