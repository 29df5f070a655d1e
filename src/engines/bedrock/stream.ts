// Reading streamed answers of ConverseStream. A stream without `messageStop` was cut.
import type { ChatInput, StreamEvent } from '#core/call.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import { type AnswerTool, GrowingBlocks } from '../answer-tool.ts';
import type { Connection, Decode, Post } from '../http/connection.ts';
import { failureOfName } from '../http/failures.ts';
import { lengthOfInput } from '../text-input.ts';
import { readUsage, toFinishReason } from './answer.ts';
import type { StreamMessage } from './event-stream.ts';

const CONTENT_TYPE = 'application/vnd.amazon.eventstream';

export async function* readStream(
  connection: Connection,
  post: Post,
  decode: Decode<StreamMessage>,
  input: ChatInput,
  answerTool: AnswerTool | undefined,
): AsyncGenerator<StreamEvent> {
  const blocks = new GrowingBlocks(answerTool);
  let stopReason: unknown;
  let isStopped = false;
  let usage: unknown;
  // Usage comes behind the end of the message.
  const messages = connection.postStream(post, CONTENT_TYPE, decode, ({ name }) => name === 'metadata');
  for await (const message of messages) {
    const event = readEvent(connection, post, message);
    switch (message.name) {
      case 'contentBlockStart':
        yield* startBlock(blocks, event);
        break;
      case 'contentBlockDelta':
        yield* growBlock(blocks, event);
        break;
      case 'messageStop':
        stopReason = event.stopReason;
        isStopped = true;
        break;
      case 'metadata':
        usage = event.usage;
        break;
      default: // messageStart, contentBlockStop, and what comes to be
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

/** The body of an event; throws what an exception or an error among them says. */
function readEvent(connection: Connection, post: Post, message: StreamMessage): JsonObject {
  const { messageType, name, said, body } = message;
  const event: unknown = messageType === 'event' || body !== '' ? connection.parse(body) : {};
  if (!isJsonObject(event)) throw connection.invalid('an event that is no object');
  if (messageType === 'event') return event;
  const text = typeof event.message === 'string' ? event.message : said;
  throw failureOfName(connection.asked(post.secret), name, text);
}

function* startBlock(blocks: GrowingBlocks, event: JsonObject): Generator<StreamEvent> {
  const use: unknown = isJsonObject(event.start) ? event.start.toolUse : undefined;
  if (!isJsonObject(use) || typeof use.name !== 'string') return;
  const id = typeof use.toolUseId === 'string' ? use.toolUseId : undefined;
  yield* blocks.openTool(event.contentBlockIndex, id, use.name);
}

/** Reasoning is neither text nor input. */
function* growBlock(blocks: GrowingBlocks, event: JsonObject): Generator<StreamEvent> {
  const { delta } = event;
  if (!isJsonObject(delta)) return;
  if (typeof delta.text === 'string') yield* blocks.addText(delta.text);
  if (isJsonObject(delta.toolUse) && typeof delta.toolUse.input === 'string') {
    yield* blocks.addInput(event.contentBlockIndex, delta.toolUse.input);
  }
}
