// One answer of the stub provider on its way out: whole, late, cut, or as a stream.
import type { ServerResponse } from 'node:http';
import type { LedgerBook, Misbehaviour } from './ledger.ts';

export interface StreamSpelling {
  readonly contentType?: string;
  /** An event that is broken in itself. */
  readonly malformed?: string | Buffer;
}

/** One request's answer; books its end exactly once, whoever hangs up. */
export class Exchange {
  readonly #response: ServerResponse;
  #timer: NodeJS.Timeout | undefined;
  #isCut = false;

  constructor(response: ServerResponse, book: LedgerBook) {
    this.#response = response;
    response.on('close', () => {
      clearTimeout(this.#timer);
      const isWhole = response.writableFinished;
      // A cut by this side destroys the socket with `cut` set; everything else unfinished is the client's doing.
      book.end(response.headersSent ? response.statusCode : 0, !isWhole && !this.#isCut);
    });
  }

  after(delayMs: number, work: () => void): void {
    if (delayMs > 0) this.#timer = setTimeout(work, delayMs);
    else work();
  }

  send(status: number, text: string | Buffer, headers: Readonly<Record<string, string>> = {}): void {
    const length = Buffer.byteLength(text);
    this.#response
      .writeHead(status, { 'content-type': 'application/json', 'content-length': length, ...headers })
      .end(text);
  }

  /** Fits both wires: OpenAI reads `error`, Anthropic `type` and `error`. */
  sendError(
    status: number,
    type: string,
    message: string,
    headers: Readonly<Record<string, string>> = {},
  ): void {
    this.send(
      status,
      JSON.stringify({ type: 'error', error: { type, message, code: null, param: null } }),
      headers,
    );
  }

  cut(): void {
    this.#isCut = true;
    this.#response.socket?.destroy();
  }

  stream(
    events: readonly (string | Buffer)[],
    gapMs: number,
    fate: Misbehaviour | undefined,
    done: () => void,
    { contentType = 'text/event-stream', malformed = 'data: {"choices":[{"de\n\n' }: StreamSpelling = {},
  ): void {
    this.#response.writeHead(200, { 'content-type': contentType });
    const badFrom = Math.ceil(events.length / 2);
    const sendFrom = (from: number): void => {
      for (let index = from; index < events.length; index++) {
        if (index === badFrom && fate === 'rateCut') {
          // In the middle of an event, and flushed first, so that the client has seen half of it.
          const event = events[index] ?? '';
          this.#response.write(event.slice(0, Math.ceil(event.length / 2)), () => this.cut());
          return;
        }
        this.#response.write(index === badFrom && fate === 'rateMalformed' ? malformed : events[index]);
        if (gapMs > 0) {
          this.after(gapMs, () => sendFrom(index + 1));
          return;
        }
      }
      done();
      this.#response.end();
    };
    sendFrom(0);
  }
}
