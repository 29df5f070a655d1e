// Reading inputs of text tasks: which task, which text, roughly how many tokens. For every engine.
// Not here: tokenizers (each local engine has its own) and any wire's spelling of a message.
import type { ChatInput, ChatMessage, Input, Task } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

/** Throws WRONG_TASK when a batch is not of the task its target serves. */
export function requireTask(target: Target, task: Task): void {
  if (target.task === task) return;
  throw new ServingError(
    'WRONG_TASK',
    `Endpoint "${target.endpoint}" serves ${target.task}, not ${task}. Ask it for ${target.task} or choose another endpoint.`,
    { details: { endpoint: target.endpoint, task: target.task, asked: task } },
  );
}

/** The messages of a chat input; WRONG_TASK for the input of another task. */
export function requireChat(input: Input | undefined): ChatInput {
  if (input !== undefined && 'messages' in input) return input;
  throw wrongInput('messages', input);
}

export function requirePrompt(input: Input | undefined): string {
  if (input !== undefined && 'prompt' in input) return input.prompt;
  throw wrongInput('prompt', input);
}

export function requireText(input: Input | undefined): string {
  if (input !== undefined && 'text' in input) return input.text;
  throw wrongInput('text', input);
}

function wrongInput(member: string, input: Input | undefined): ServingError {
  const found = input === undefined ? 'nothing' : `{${Object.keys(input).join(', ')}}`;
  return new ServingError('WRONG_TASK', `The input has ${found} where this task takes {${member}}.`);
}

/** Text of a message; parts are joined, images leave nothing. */
export function textOfContent(content: ChatMessage['content']): string {
  if (content === null) return '';
  if (typeof content === 'string') return content;
  return content.map((part) => (part.type === 'text' ? part.text : '')).join('');
}

/** Characters of an input as a provider would see them: what token estimates are made from. */
export function lengthOfInput(input: Input): number {
  if ('messages' in input) {
    let length = 0;
    for (const message of input.messages) {
      length += textOfContent(message.content).length;
      for (const toolCall of message.toolCalls ?? [])
        length += toolCall.name.length + toolCall.arguments.length;
    }
    return length;
  }
  if ('prompt' in input) return input.prompt.length;
  if ('text' in input) return input.text.length;
  return JSON.stringify(input.features).length;
}

/** One token per four characters, at least one: the estimate where a provider's tokenizer is not known. */
export function estimateTokens(length: number): number {
  return Math.ceil((length + 1) / 4);
}
