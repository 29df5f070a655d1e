// Chat messages as llama.cpp's chat history. Refuses what a local text model cannot be given.
import type { ChatHistoryItem, ChatModelFunctionCall } from 'node-llama-cpp';
import type { ChatInput, ChatMessage, ToolCall } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { noTools } from './tools.ts';

type ModelTurn = { type: 'model'; response: (string | ChatModelFunctionCall)[] };
/** A call of a tool in the history, until its result has come. */
interface OpenCall {
  readonly turn: ModelTurn;
  readonly call: ToolCall;
}

/** The history of a chat, ended by the turn that the model is to fill. */
export function toHistory({ messages }: ChatInput, hasTools: boolean): ChatHistoryItem[] {
  const last = messages.at(-1);
  if (last === undefined)
    throw new ServingError('BAD_REQUEST', 'A chat needs at least one message; `messages` is empty.');
  if (last.role === 'assistant') {
    throw new ServingError(
      'BAD_REQUEST',
      'The last message has the role "assistant", so there is nothing to answer. End `messages` with a message of the role "user".',
    );
  }
  const history: ChatHistoryItem[] = [];
  const openCalls = new Map<string, OpenCall>();
  for (const message of messages) {
    const text = textOf(message);
    if (!hasTools && (message.role === 'tool' || message.toolCalls?.length)) throw noTools();
    if (message.role !== 'tool' && openCalls.size > 0) throw unanswered(openCalls);
    if (message.role === 'system') history.push({ type: 'system', text });
    else if (message.role === 'user') history.push({ type: 'user', text });
    else if (message.role === 'assistant') {
      const turn = modelTurn(history);
      if (text !== '' || !message.toolCalls?.length) turn.response.push(text);
      for (const call of message.toolCalls ?? []) openCalls.set(call.id, { turn, call });
    } else addResult(openCalls, message, text);
  }
  if (openCalls.size > 0) throw unanswered(openCalls);
  // After the results of tools the model goes on in the turn in which it called them.
  if (last.role !== 'tool') history.push({ type: 'model', response: [] });
  return history;
}

/** The model's turn at the end of the history; a turn with calls goes on after their results. */
function modelTurn(history: ChatHistoryItem[]): ModelTurn {
  const last = history.at(-1);
  if (last?.type === 'model') return last as ModelTurn;
  const turn: ModelTurn = { type: 'model', response: [] };
  history.push(turn);
  return turn;
}

function addResult(openCalls: Map<string, OpenCall>, { toolCallId = '' }: ChatMessage, text: string): void {
  const open = openCalls.get(toolCallId);
  if (open === undefined) {
    throw new ServingError(
      'BAD_REQUEST',
      `A message of the role "tool" answers the call "${toolCallId}", which no message before it has made.`,
    );
  }
  openCalls.delete(toolCallId);
  const { turn, call } = open;
  turn.response.push({ type: 'functionCall', name: call.name, params: argumentsOf(call), result: text });
}

function argumentsOf(call: ToolCall): unknown {
  try {
    return JSON.parse(call.arguments || '{}');
  } catch (cause) {
    throw new ServingError('BAD_REQUEST', `The arguments of the tool call "${call.id}" are no JSON.`, {
      cause,
    });
  }
}

function unanswered(openCalls: ReadonlyMap<string, OpenCall>): ServingError {
  const ids = [...openCalls.keys()].join(', ');
  return new ServingError(
    'BAD_REQUEST',
    `The chat has no result for the tool calls ${ids}. Add a message of the role "tool" for each.`,
  );
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
