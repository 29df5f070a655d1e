// One request on the short way: its answer written straight to Node's response, its caller's leaving noticed.
// Not here: which requests come here (door.ts), and what is said to those that fail (the routes, in the end).
import type { ServerResponse } from 'node:http';
import type { ServingError } from '#core/errors.ts';
import type { RelayReader, RelayRun } from '#serving/relay-run.ts';
import { errorBody, errorHeaders } from '../errors.ts';
import { openaiEnds } from '../sse.ts';
import type { EarlyMessage } from './early-message.ts';
import type { FastPath } from './paths.ts';
import { respond } from './respond.ts';

/** Below this a body is copied into one text with the head and written at once. */
const ONE_WRITE_BYTES = 32 * 1024;

/** What the routes need to answer it after all. */
export interface FastRequest {
  readonly path: FastPath;
  readonly message: EarlyMessage;
  readonly outgoing: ServerResponse;
  readonly body: Buffer;
  readonly id: string;
}

export interface ExchangeOwner {
  /** Nothing was given: the routes answer it. */
  onRetreat(exchange: FastExchange): void;
  onStream(exchange: FastExchange): void;
  onOver(exchange: FastExchange, status: number): void;
  onBroken(error: ServingError): void;
  onRefused(error: ServingError, requestId: string): void;
  nowMs(): number;
}

export class FastExchange implements RelayReader {
  readonly request: FastRequest;
  readonly #owner: ExchangeOwner;
  #run: RelayRun | undefined;
  #isStreaming = false;
  #isOver = false;
  #isFull = false;
  #touchedAtMs = 0;

  constructor(owner: ExchangeOwner, request: FastRequest) {
    this.#owner = owner;
    this.request = request;
  }

  begin(run: RelayRun): void {
    this.#run = run;
  }

  onAnswer(body: Buffer): void {
    const { outgoing, id } = this.request;
    const servedEntity = this.#run?.target.servedEntity ?? '';
    const headers = [
      'content-type',
      'application/json',
      'x-request-id',
      id,
      'served-model-name',
      servedEntity,
      'x-duckserve-cached',
      '0',
    ];
    if (body.length <= ONE_WRITE_BYTES) {
      respond(outgoing, headers, body.toString('latin1'), this.#owner.nowMs());
    } else {
      outgoing.writeHead(200, [...headers, 'content-length', String(body.length)]);
      outgoing.end(Buffer.from(body));
    }
    this.#over(200);
  }

  onEvents(events: Buffer): void {
    const { outgoing, id } = this.request;
    if (!this.#isStreaming) {
      this.#isStreaming = true;
      outgoing.writeHead(200, [
        'content-type',
        'text/event-stream; charset=utf-8',
        'cache-control',
        'no-cache',
        'x-accel-buffering',
        'no',
        'served-model-name',
        this.#run?.target.servedEntity ?? '',
        'x-request-id',
        id,
      ]);
      this.#owner.onStream(this);
    }
    this.#touchedAtMs = this.#owner.nowMs();
    // The memory of the events is used again as soon as this returns, and the socket may take its time.
    if (outgoing.write(Buffer.from(events)) || this.#isFull) return;
    this.#isFull = true;
    this.#run?.pause();
    outgoing.once('drain', () => {
      this.#isFull = false;
      this.#run?.resume();
    });
  }

  onEnd(): void {
    this.request.outgoing.end();
    this.#over(200);
  }

  onCut(error: ServingError): void {
    this.#owner.onBroken(error);
    const asked = { endpoint: '', apiType: this.request.path.apiType };
    // The status line is long gone: the failure travels as an event, and no [DONE] follows it.
    this.request.outgoing.end(openaiEnds(asked).fail(error));
    this.#over(200);
  }

  onRefused(error: ServingError): void {
    if (this.#isOver) return;
    const { outgoing, id, message } = this.request;
    const text = JSON.stringify(errorBody(message.url ?? '', error, id));
    outgoing.writeHead(error.row.httpStatus, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(text),
      'x-request-id': id,
      ...errorHeaders(error),
    });
    outgoing.end(text);
    this.#owner.onRefused(error, id);
    this.#over(error.row.httpStatus);
  }

  onRetreat(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#owner.onRetreat(this);
  }

  /** The connection is closed; whether that was too early, is seen here. */
  onClose(): void {
    if (this.#isOver) return;
    this.#run?.cancel();
    this.#over(499);
  }

  /** A sign of life where the model has been silent for `silenceMs`. */
  beat(silenceMs: number): void {
    if (this.#isFull || this.#owner.nowMs() - this.#touchedAtMs < silenceMs) return;
    this.#touchedAtMs = this.#owner.nowMs();
    const { outgoing, path } = this.request;
    outgoing.write(openaiEnds({ endpoint: '', apiType: path.apiType }).heartbeat);
  }

  #over(status: number): void {
    this.#isOver = true;
    this.#owner.onOver(this, status);
  }
}
