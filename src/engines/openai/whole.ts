// A whole answer that is passed on but says nothing of its usage: read once, to be sure that it is an answer and to
// estimate what it came to. Everything else about answers is in answer.ts.
import type { Input, TokenUsage } from '#core/call.ts';
import { type ServingError, toServingError } from '#core/errors.ts';
import { type Asked, failureOfEvent } from '../http/failures.ts';
import { readChat, readCompletion } from './answer.ts';

export interface WholeOptions {
  readonly task: 'llm/v1/chat' | 'llm/v1/completions';
  /** Characters of the input. */
  readonly inputLength: number;
  readonly asked: Asked;
  readonly invalid: (what: string) => ServingError;
}

/** The usage, or why it is no answer. */
export function readWhole(text: string, options: WholeOptions): TokenUsage | ServingError {
  const { task, inputLength, asked, invalid } = options;
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return invalid(`text that is not JSON: ${JSON.stringify(text.slice(0, 80))}`);
  }
  const failure = failureOfEvent(asked, body);
  if (failure) return failure;
  // Only its length is looked at.
  const input: Input = { prompt: ' '.repeat(inputLength) };
  try {
    const item =
      task === 'llm/v1/chat' ? readChat(body, input, invalid) : readCompletion(body, input, invalid);
    return item.ok ? item.usage : item.error;
  } catch (thrown) {
    return toServingError(thrown);
  }
}
