// Reading streamed answers of Anthropic's Messages API. A stream without `message_stop` was cut.
import type { ChatInput, StreamEvent } from '#core/call.ts';
import { isJsonObject, type Json } from '#core/json.ts';
import { type AnswerTool, GrowingBlocks } from '../answer-tool.ts';
import type { Connection, Post } from '../http/connection.ts';
import { failureOfEvent } from '../http/failures.ts';
import { lengthOfInput } from '../text-input.ts';
import { readUsage, toFinishReason } from './answer.ts';

type Members = Readonly<Record<string, unknown>>;

export async function* readStream(
  connection: Connection,
  post: Post,
  input: ChatInput,
  answerTool: AnswerTool | undefined,
): AsyncGenerator<StreamEvent> {
  const asked = connection.asked(post.secret);
  const blocks = new GrowingBlocks(answerTool);
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
        yield* startBlock(blocks, event);
        break;
      case 'content_block_delta':
        yield* growBlock(blocks, event);
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
  const rest = blocks.rest();
  if (rest === undefined) throw connection.invalid('a tool use without the input asked for');
  if (rest !== '') yield { type: 'delta', text: rest };
  yield {
    type: 'end',
    finishReason: toFinishReason(stopReason, blocks.toolCallCount > 0),
    usage: readUsage(usage, lengthOfInput(input), blocks.written),
  };
}

function* startBlock(
  blocks: GrowingBlocks,
  { index, content_block: block }: Members,
): Generator<StreamEvent> {
  if (!isJsonObject(block)) return;
  if (block.type === 'text' && typeof block.text === 'string') yield* blocks.addText(block.text);
  if (block.type !== 'tool_use' || typeof block.name !== 'string') return;
  yield* blocks.openTool(index, typeof block.id === 'string' ? block.id : undefined, block.name);
}

/** Thoughts and their signatures are neither text nor input. */
function* growBlock(blocks: GrowingBlocks, { index, delta }: Members): Generator<StreamEvent> {
  if (!isJsonObject(delta)) return;
  if (typeof delta.text === 'string') yield* blocks.addText(delta.text);
  if (typeof delta.partial_json === 'string') yield* blocks.addInput(index, delta.partial_json);
}
