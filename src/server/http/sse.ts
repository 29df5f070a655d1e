// Server-sent events: a stream of answers as `data:` lines, written straight to Node's response (three times as
// fast as a web stream). Not here: what the chunks look like (openai-chat, openai-completions).
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import type { Call, StreamEvent } from '#core/call.ts';
import { type ServingError, toServingError } from '#core/errors.ts';
import type { HttpDeps } from './deps.ts';
import { toOpenaiError } from './errors.ts';
import type { HttpContext } from './request.ts';

export interface ChunkFormat {
  /** Chunks before the first event. */
  open(model: string): readonly object[];
  /** Chunks for one event. */
  next(event: StreamEvent): readonly object[];
}

const toFrame = (chunk: object) => `data: ${JSON.stringify(chunk)}\n\n`;

/** Asks serving for a stream and sends it. Fails as an ordinary answer as long as nothing has been sent. */
export async function answerStream(
  c: HttpContext,
  deps: HttpDeps,
  call: Call,
  format: ChunkFormat,
  extraHeaders: Record<string, string>,
): Promise<Response> {
  const { target, events } = await deps.serving.stream(call);
  const iterator = events[Symbol.asyncIterator]();
  // Most failures (key refused, limit reached) come before the first token and deserve their own status line.
  const first = await iterator.next();
  const frames = toFrames(deps, iterator, first, target.model, format);
  const headers = {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
    // nginx would otherwise hold the tokens back until its buffer is full.
    'x-accel-buffering': 'no',
    'served-model-name': target.servedEntity,
    'x-request-id': c.get('requestId'),
    ...extraHeaders,
  };
  const outgoing = c.env?.outgoing;
  if (outgoing === undefined) return new Response(toWebStream(frames), { headers });
  outgoing.writeHead(200, headers);
  await writeFrames(outgoing, frames);
  return RESPONSE_ALREADY_SENT;
}

async function* toFrames(
  deps: HttpDeps,
  iterator: AsyncIterator<StreamEvent>,
  first: IteratorResult<StreamEvent>,
  model: string,
  format: ChunkFormat,
): AsyncGenerator<string, void, undefined> {
  let isExhausted = false;
  try {
    for (const chunk of format.open(model)) yield toFrame(chunk);
    for (let step = first; !step.done; step = await iterator.next()) {
      const chunks = format.next(step.value);
      if (chunks.length > 0) yield chunks.map(toFrame).join('');
    }
    isExhausted = true;
    yield 'data: [DONE]\n\n';
  } catch (thrown) {
    // The status line is long gone: the error travels as an event, and no [DONE] follows it.
    isExhausted = true;
    const error = toServingError(thrown);
    logBroken(deps, error);
    yield toFrame(toOpenaiError(error));
  } finally {
    if (!isExhausted) await iterator.return?.();
  }
}

function logBroken(deps: HttpDeps, error: ServingError): void {
  deps.log[error.row.logLevel]({ code: error.code, message: error.message }, 'stream ended with an error');
}

async function writeFrames(outgoing: ServerResponse, frames: AsyncIterable<string>): Promise<void> {
  for await (const frame of frames) {
    if (outgoing.destroyed) break;
    if (!outgoing.write(frame)) await drained(outgoing);
  }
  if (!outgoing.destroyed) outgoing.end();
}

/** Resolves when more can be written, or when nobody is left to read. */
async function drained(outgoing: ServerResponse): Promise<void> {
  const done = new AbortController();
  const options = { signal: done.signal };
  try {
    await Promise.race([once(outgoing, 'drain', options), once(outgoing, 'close', options)]);
  } catch {
    // An error of the socket: it is destroyed, and the loop sees that.
  } finally {
    done.abort();
  }
}

function toWebStream(frames: AsyncGenerator<string>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await frames.next();
      if (done) controller.close();
      else controller.enqueue(encoder.encode(value));
    },
    async cancel() {
      await frames.return(undefined);
    },
  });
}
