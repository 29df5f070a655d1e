// Server-sent events: the events of one or several streamed answers as frames of a dialect, written straight to
// Node's response (three times as fast as a web stream). Not here: what the frames look like (each dialect's file).
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import type { Call, StreamEvent } from '#core/call.ts';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { type ServingError, toServingError } from '#core/errors.ts';
import { Choices } from './choices.ts';
import type { HttpDeps } from './deps.ts';
import { toOpenaiError } from './errors.ts';
import type { Asked, HttpContext } from './request.ts';

/** Proxies give up on a connection that is silent for 30 or 60 seconds. */
const HEARTBEAT_MS = 15_000;

export interface StreamFormat {
  /** Frames before the first event. */
  open(target: Target): string;
  /** Frames of one event; `choice` counts from 0 where several answers were asked for. */
  next(event: StreamEvent, choice: number): string;
  /** Frames after the last event. */
  close(): string;
  /** The last frame of a stream that broke: the status line is long gone. */
  fail(error: ServingError): string;
  /** Sent after 15 seconds of silence. */
  readonly heartbeat: string;
}

export const COMMENT = ': still here\n\n';
export const toFrame = (chunk: object): string => `data: ${JSON.stringify(chunk)}\n\n`;
export const toNamedFrame = (name: string, chunk: object): string => `event: ${name}\n${toFrame(chunk)}`;

/** What the streams of OpenAI's older interfaces share: no [DONE] follows a failure. */
export const DONE = 'data: [DONE]\n\n';
export function openaiEnds({ apiType }: Asked): Pick<StreamFormat, 'fail' | 'heartbeat'> {
  return {
    fail: (error) => toFrame(toOpenaiError(error)),
    // MLflow's client takes no line but `data:` and empty ones.
    heartbeat: apiType.startsWith('mlflow/') ? '\n' : COMMENT,
  };
}

/** Asks serving for a stream of each call and sends them as one. Fails as an ordinary answer until there is an event. */
export async function answerStream(
  c: HttpContext,
  deps: HttpDeps,
  calls: readonly Call[],
  format: StreamFormat,
  extraHeaders: Record<string, string>,
): Promise<Response> {
  const choices = await Choices.open(deps.serving, calls);
  const { target } = choices;
  // Most failures (key refused, limit reached) come before the first token and deserve their own status line.
  const first = await choices.next();
  const headers = {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
    // nginx would otherwise hold the tokens back until its buffer is full.
    'x-accel-buffering': 'no',
    'served-model-name': target.servedEntity,
    'x-request-id': c.get('requestId'),
    ...extraHeaders,
  };
  const send = (sink: Sink) => sendEvents(sink, deps, choices, first, format);
  const outgoing = c.env?.outgoing;
  if (outgoing === undefined) {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    void send(new WebSink(writable));
    return new Response(readable, { headers });
  }
  outgoing.writeHead(200, headers);
  await send(new SocketSink(outgoing));
  return RESPONSE_ALREADY_SENT;
}

/** Never throws: what goes wrong becomes the last frame. */
async function sendEvents(
  sink: Sink,
  deps: HttpDeps,
  choices: Choices,
  first: Awaited<ReturnType<Choices['next']>>,
  format: StreamFormat,
): Promise<void> {
  const pulse = new Pulse(deps.clock ?? SYSTEM_CLOCK, () => sink.beat(format.heartbeat));
  const write = (frame: string): Promise<void> | undefined => {
    if (frame === '') return undefined;
    pulse.touch();
    return sink.write(frame);
  };
  try {
    await write(format.open(choices.target));
    for (let step = first; step !== undefined && !sink.isGone; step = await choices.next()) {
      // Only waited for when the reader is slower than the writer: a turn for every token would cost more.
      const full = write(format.next(step.event, step.choice));
      if (full) await full;
    }
    if (!sink.isGone) await write(format.close());
  } catch (thrown) {
    const error = toServingError(thrown);
    deps.log[error.row.logLevel]({ code: error.code, message: error.message }, 'stream ended with an error');
    if (!sink.isGone) await write(format.fail(error));
  } finally {
    pulse.stop();
    await choices.close();
    sink.end();
  }
}

/** One timer for a stream, not one for each event. */
class Pulse {
  readonly #clock: Clock;
  readonly #stopped = new AbortController();
  #lastMs: number;

  constructor(clock: Clock, beat: () => void) {
    this.#clock = clock;
    this.#lastMs = clock.now();
    void this.#run(beat);
  }

  touch(): void {
    this.#lastMs = this.#clock.now();
  }

  stop(): void {
    this.#stopped.abort();
  }

  async #run(beat: () => void): Promise<void> {
    const { signal } = this.#stopped;
    try {
      while (!signal.aborted) {
        const silentMs = this.#clock.now() - this.#lastMs;
        if (silentMs >= HEARTBEAT_MS) {
          beat();
          this.touch();
        }
        await this.#clock.sleep(Math.max(1, HEARTBEAT_MS - (this.#clock.now() - this.#lastMs)), signal);
      }
    } catch {
      // Stopped while it slept.
    }
  }
}

interface Sink {
  /** Nobody reads any more. */
  readonly isGone: boolean;
  /** A promise where the reader has to catch up first. */
  write(frame: string): Promise<void> | undefined;
  /** A frame that may be left out. */
  beat(frame: string): void;
  end(): void;
}

class SocketSink implements Sink {
  readonly #outgoing: ServerResponse;

  constructor(outgoing: ServerResponse) {
    this.#outgoing = outgoing;
  }

  get isGone(): boolean {
    return this.#outgoing.destroyed;
  }

  write(frame: string): Promise<void> | undefined {
    return this.#outgoing.write(frame) ? undefined : this.#drained();
  }

  beat(frame: string): void {
    if (!this.isGone && !this.#outgoing.writableNeedDrain) this.#outgoing.write(frame);
  }

  end(): void {
    if (!this.isGone) this.#outgoing.end();
  }

  /** Resolves when more can be written, or when nobody is left to read. */
  async #drained(): Promise<void> {
    if (this.isGone) return;
    const done = new AbortController();
    const options = { signal: done.signal };
    try {
      await Promise.race([once(this.#outgoing, 'drain', options), once(this.#outgoing, 'close', options)]);
    } catch {
      // An error of the socket: it is destroyed, and the loop sees that.
    } finally {
      done.abort();
    }
  }
}

/** For requests without a socket. */
class WebSink implements Sink {
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #encoder = new TextEncoder();
  #isGone = false;

  constructor(writable: WritableStream<Uint8Array>) {
    this.#writer = writable.getWriter();
    this.#writer.closed.catch(() => {
      this.#isGone = true;
    });
  }

  get isGone(): boolean {
    return this.#isGone;
  }

  async write(frame: string): Promise<void> {
    await this.#writer.write(this.#encoder.encode(frame)).catch(() => {
      this.#isGone = true;
    });
  }

  beat(frame: string): void {
    if (!this.#isGone) void this.write(frame);
  }

  end(): void {
    if (!this.#isGone) void this.#writer.close().catch(() => {});
  }
}
