// Reading streamed answers of Anthropic's Messages API. A stream without `message_stop` was cut.
import type { ChatInput, StreamEvent } from '#core/call.ts';
import { isJsonObject, type Json } from '#core/json.ts';
import type { Connection, Post } from '../http/connection.ts';
import { failureOfEvent } from '../http/failures.ts';
import { lengthOfInput } from '../text-input.ts';
import { readUsage, toFinishReason } from './answer.ts';
import type { AnswerTool } from './request.ts';

type Members = Readonly<Record<string, unknown>>;

export async function* readStream(
  connection: Connection,
  post: Post,
  input: ChatInput,
  answerTool: AnswerTool | undefined,
): AsyncGenerator<StreamEvent> {
  const asked = connection.asked(post.secret);
  const blocks = new Blocks(answerTool);
  let usage: Record<string, Json> = {};
  let stopReason: unknown;
  let isStopped = false;
  for await (const { data } of connection.postEvents(post, ({ event }) => event === 'message_stop')) {
    const event = connection.parse(data);
    const failure = failureOfEvent(asked, event);
    if (failure) throw failure;
    if (!isJsonObject(event)) throw connection.invalid('an event that is no object');
    switch (event.type) {
      case 'message_start':
        if (isJsonObject(event.message) && isJsonObject(event.message.usage))
          usage = { ...event.message.usage };
        break;
      case 'content_block_start':
        yield* blocks.start(event);
        break;
      case 'content_block_delta':
        yield* blocks.add(event);
        break;
      case 'message_delta':
        if (isJsonObject(event.usage)) usage = { ...usage, ...event.usage };
        if (isJsonObject(event.delta)) stopReason = event.delta.stop_reason ?? stopReason;
        break;
      case 'message_stop':
        isStopped = true;
        break;
      default: // ping, content_block_stop, and what comes to be
    }
  }
  if (!isStopped) throw connection.cut();
  const rest = blocks.unwrap();
  if (rest === undefined) throw connection.invalid('a tool use without the input asked for');
  if (rest !== '') yield { type: 'delta', text: rest };
  yield {
    type: 'end',
    finishReason: toFinishReason(stopReason, blocks.toolCallCount > 0),
    usage: readUsage(usage, lengthOfInput(input), blocks.written),
  };
}

/** Content blocks as they grow: text and the answer tool's input become text, other tools become tool calls. */
class Blocks {
  readonly #answerTool: AnswerTool | undefined;
  readonly #toolCallOf = new Map<unknown, number>();
  #wrapped: string | undefined;
  written = 0;

  constructor(answerTool: AnswerTool | undefined) {
    this.#answerTool = answerTool;
  }

  get toolCallCount(): number {
    return this.#toolCallOf.size;
  }

  *start({ index, content_block: block }: Members): Generator<StreamEvent> {
    if (!isJsonObject(block)) return;
    if (block.type === 'text' && typeof block.text === 'string' && this.#answerTool === undefined) {
      yield* this.#text(block.text);
    }
    if (block.type !== 'tool_use' || typeof block.name !== 'string') return;
    if (block.name === this.#answerTool?.name) {
      if (this.#answerTool.isWrapped) this.#wrapped = '';
      return;
    }
    const position = this.#toolCallOf.size;
    this.#toolCallOf.set(index, position);
    const id = typeof block.id === 'string' ? block.id : `toolu_${position}`;
    yield { type: 'tool_call', index: position, id, name: block.name };
  }

  *add({ index, delta }: Members): Generator<StreamEvent> {
    if (!isJsonObject(delta)) return;
    // Words around a structured answer would spoil its JSON.
    if (typeof delta.text === 'string' && this.#answerTool === undefined) yield* this.#text(delta.text);
    if (typeof delta.partial_json !== 'string') return;
    const toolCall = this.#toolCallOf.get(index);
    if (toolCall !== undefined) {
      this.written += delta.partial_json.length;
      yield { type: 'tool_call', index: toolCall, arguments: delta.partial_json };
    } else if (this.#wrapped === undefined) {
      yield* this.#text(delta.partial_json);
    } else {
      this.#wrapped += delta.partial_json;
    }
  }

  /** JSON text of what sat under `value`, empty when nothing was wrapped; undefined when it is not there. */
  unwrap(): string | undefined {
    if (this.#wrapped === undefined) return '';
    this.written += this.#wrapped.length;
    try {
      const given: unknown = JSON.parse(this.#wrapped);
      return isJsonObject(given) && given.value !== undefined ? JSON.stringify(given.value) : undefined;
    } catch {
      return undefined;
    }
  }

  *#text(text: string): Generator<StreamEvent> {
    if (text === '') return;
    this.written += text.length;
    yield { type: 'delta', text };
  }
}
