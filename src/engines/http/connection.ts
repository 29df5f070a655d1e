// One provider's address and its pool of connections: POST a body, get JSON or a stream of events, or a
// ServingError that says which. Not here: what is in the bodies, and any second attempt.
import { EventEmitter, setMaxListeners } from 'node:events';
import { createParser, type EventSourceMessage } from 'eventsource-parser';
import { type Dispatcher, Pool } from 'undici';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import { type Asked, failureOfStatus, redact, type Secret } from './failures.ts';

const MAX_RESPONSE_BYTES = 64 * 1024 * 1024;
const DRAIN_BYTES = 16 * 1024;
const DRAIN_MS = 1_000;
const CONNECT_TIMEOUT_MS = 10_000;

export interface ConnectionOptions {
  readonly provider: string;
  readonly model: string;
  readonly baseUrl: string;
  readonly maxConcurrency: number;
  /** Until the whole answer is there; of a stream: until its next bytes are there. */
  readonly timeoutMs: number;
}

export interface Post {
  /** Appended to the path of the base URL. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** An object is sent as JSON; a text is sent as it is (signed bytes, forms). */
  readonly body: object | string;
  readonly signal: AbortSignal;
  /** Removed from error texts. */
  readonly secret?: Secret;
}

export interface Response {
  /** Names in lower case. */
  readonly headers: Dispatcher.ResponseData['headers'];
  readonly body: unknown;
}

/** Turns the bytes of a streamed body into items; `undefined` says that the body has ended. */
export type Decode<Item> = (bytes: Buffer | undefined) => readonly Item[];

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #pool: Pool;
  readonly #basePath: string;
  #closing: Promise<void> | undefined;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    const url = parseBaseUrl(options);
    this.#basePath = url.pathname.replace(/\/+$/, '');
    this.#pool = new Pool(url.origin, {
      connections: options.maxConcurrency,
      pipelining: 1,
      connect: { timeout: Math.min(CONNECT_TIMEOUT_MS, options.timeoutMs) },
      maxResponseSize: MAX_RESPONSE_BYTES,
      // The deadline is kept here, for it also covers waiting for a free connection.
      headersTimeout: 0,
      bodyTimeout: 0,
    });
  }

  /** The parsed body of a 2xx answer. */
  async postJson(post: Post): Promise<unknown> {
    return (await this.post(post)).body;
  }

  /** The same with its headers, for providers that count tokens there. */
  async post(post: Post): Promise<Response> {
    const attempt = new Attempt(post, this.#options);
    let text: string;
    let headers: Response['headers'];
    try {
      const response = await this.#send(post, attempt);
      headers = response.headers;
      text = await response.body.text();
      if (!isGood(response)) throw this.#refusal(post, response, text);
    } catch (thrown) {
      throw attempt.explain(thrown);
    } finally {
      attempt.end();
    }
    return { headers, body: this.parse(text) };
  }

  /**
   * The server-sent events of a 2xx answer up to and with the one that `isLast`. Ends without it where the provider ended the
   * body; whether that was too early, the caller knows.
   */
  postEvents(
    post: Post,
    isLast: (message: EventSourceMessage) => boolean,
  ): AsyncGenerator<EventSourceMessage> {
    return this.postStream(post, 'text/event-stream', decodeEvents(), isLast);
  }

  /** The same for a body of another content type, cut into items by `decode`. */
  async *postStream<Item>(
    post: Post,
    contentType: string,
    decode: Decode<Item>,
    isLast: (item: Item) => boolean,
  ): AsyncGenerator<Item> {
    const attempt = new Attempt(post, this.#options);
    let body: Dispatcher.ResponseData['body'] | undefined;
    let isFinished = false;
    try {
      const response = await this.#send(post, attempt);
      body = response.body;
      if (!isGood(response)) throw this.#refusal(post, response, await body.text());
      const type = String(response.headers['content-type'] ?? '');
      if (!type.startsWith(contentType)) {
        throw this.invalid(`content type "${type}" where a stream of ${contentType} was asked`);
      }
      const chunks: AsyncIterator<Buffer, undefined> = body.iterator({ destroyOnReturn: false });
      for (let isEnded = false; !isEnded && !isFinished; ) {
        const { done, value } = await chunks.next();
        isEnded = done === true;
        const items = decode(value);
        // Time that the consumer takes is not the provider's.
        attempt.pause();
        for (const item of items) {
          isFinished = isLast(item);
          yield item;
          if (isFinished) break;
        }
        attempt.resume();
      }
    } catch (thrown) {
      throw attempt.explain(thrown);
    } finally {
      attempt.end();
      if (isFinished) drain(body);
      // A consumer that stops early must not leave the provider generating; an error here has no one to hear it.
      else body?.on('error', () => {}).destroy();
    }
  }

  /** Text of an answer or an event as JSON; INVALID_RESPONSE with its beginning when it is none. */
  parse(text: string): unknown {
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw this.invalid(`text that is not JSON: ${JSON.stringify(redact(text.slice(0, 80)))}`, cause);
    }
  }

  /** INVALID_RESPONSE: the provider's answer has `what`. */
  invalid(what: string, cause?: unknown): ServingError {
    const { provider, model } = this.#options;
    return new ServingError(
      'INVALID_RESPONSE',
      `${provider} model "${model}" answered with ${what}. Try again, or check that the base URL is that of a compatible API.`,
      { cause, details: { provider, model } },
    );
  }

  /** UPSTREAM_ERROR: a stream that ended before its last event. */
  cut(): ServingError {
    const { provider, model } = this.#options;
    return new ServingError(
      'UPSTREAM_ERROR',
      `The stream of ${provider} model "${model}" was cut before its end. Try again.`,
      { details: { provider, model } },
    );
  }

  asked(secret: Secret): Asked {
    const { provider, model } = this.#options;
    return { provider, model, secret };
  }

  /** Waits for requests under way. */
  close(): Promise<void> {
    this.#closing ??= this.#pool.close();
    return this.#closing;
  }

  #send(post: Post, attempt: Attempt): Promise<Dispatcher.ResponseData> {
    throwIfAborted(post.signal);
    return new Promise((resolve, reject) => {
      // undici hears a signal only once the request has a connection; connecting may take long.
      attempt.aborted.once('abort', () => reject(new Error('aborted')));
      this.#pool
        .request({
          method: 'POST',
          path: this.#basePath + post.path,
          headers: { 'content-type': 'application/json', 'user-agent': 'duckserve', ...post.headers },
          body: typeof post.body === 'string' ? post.body : JSON.stringify(post.body),
          signal: attempt.aborted,
        })
        .then(resolve, reject);
    });
  }

  #refusal(post: Post, response: Dispatcher.ResponseData, text: string): ServingError {
    const asked = this.asked(post.secret);
    return failureOfStatus(asked, response.statusCode, response.headers, text, SYSTEM_CLOCK.now());
  }
}

/** The time and the signal of one request, and what a thrown thing meant given both. */
class Attempt {
  readonly #post: Post;
  readonly #options: ConnectionOptions;
  /** Emits `abort`. undici takes it for a signal, and it is made many times faster than an AbortController. */
  readonly aborted = new EventEmitter();
  readonly #onAbort = () => this.aborted.emit('abort');
  readonly #timer: NodeJS.Timeout;
  #isLate = false;
  #isWaiting = true;

  constructor(post: Post, options: ConnectionOptions) {
    this.#post = post;
    this.#options = options;
    this.#timer = setTimeout(() => {
      if (!this.#isWaiting) return;
      this.#isLate = true;
      this.aborted.emit('abort');
    }, options.timeoutMs);
    // One signal may stand over hundreds of requests at once; that is no leak.
    setMaxListeners(0, post.signal);
    post.signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  pause(): void {
    this.#isWaiting = false;
  }

  /** The whole time again: a stream is late when nothing more comes, not when there is much of it. */
  resume(): void {
    this.#isWaiting = true;
    this.#timer.refresh();
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#post.signal.removeEventListener('abort', this.#onAbort);
  }

  explain(thrown: unknown): ServingError {
    if (thrown instanceof ServingError) return thrown;
    const { provider, model, timeoutMs } = this.#options;
    const options = { cause: thrown, details: { provider, model } };
    if (this.#post.signal.aborted) return new ServingError('CANCELLED', 'The call was cancelled.', options);
    if (this.#isLate || codeOf(thrown) === 'UND_ERR_CONNECT_TIMEOUT') {
      return new ServingError(
        'TIMEOUT',
        `${provider} model "${model}" did not answer within ${timeoutMs} ms. Ask for less, or raise the timeout of the endpoint.`,
        options,
      );
    }
    if (codeOf(thrown) === 'UND_ERR_RES_EXCEEDED_MAX_SIZE') {
      return new ServingError(
        'INVALID_RESPONSE',
        `The answer of ${provider} model "${model}" is larger than ${MAX_RESPONSE_BYTES} bytes. Ask for less at once.`,
        options,
      );
    }
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    return new ServingError(
      'UPSTREAM_ERROR',
      `The connection to ${provider} model "${model}" failed (${codeOf(thrown) ?? reason}). Check that the server is up and the base URL of the endpoint is right.`,
      options,
    );
  }
}

function decodeEvents(): Decode<EventSourceMessage> {
  const ready: EventSourceMessage[] = [];
  const parser = createParser({ onEvent: (message) => ready.push(message) });
  const decoder = new TextDecoder();
  return (bytes) => {
    // Some servers end the body right after the last event, without its blank line.
    parser.feed(bytes === undefined ? '\n\n' : decoder.decode(bytes, { stream: true }));
    return ready.splice(0);
  };
}

/** Reads what little follows the last event, so that the connection can be used again. Nobody waits for it. */
function drain(body: Dispatcher.ResponseData['body'] | undefined): void {
  body?.dump({ limit: DRAIN_BYTES, signal: AbortSignal.timeout(DRAIN_MS) }).catch(() => {});
}

function isGood({ statusCode }: Dispatcher.ResponseData): boolean {
  return statusCode >= 200 && statusCode < 300;
}

function codeOf(thrown: unknown): string | undefined {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string'
    ? thrown.code
    : undefined;
}

function parseBaseUrl({ baseUrl, provider }: ConnectionOptions): URL {
  const url = URL.canParse(baseUrl) ? new URL(baseUrl) : undefined;
  if (url?.protocol === 'https:' || url?.protocol === 'http:') return url;
  throw new ServingError(
    'INVALID_PARAMETER',
    `The base URL of a model of ${provider} is "${baseUrl}". Give an http or https address such as "https://api.openai.com/v1".`,
  );
}
