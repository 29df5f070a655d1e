// Passes requests of the OpenAI API on as bytes, over connections of our own framing, and their answers back.
// One attempt. Not here: what may be passed on (serving), and calls that are read and written anew (openai.ts).
import type { Task, TokenUsage } from '#core/call.ts';
import type { ExternalModel } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { ByteRelay, EngineContext, RelayExchange, RelayListener, RelayRequest } from '../engine.ts';
import { type Asked, failureOfEvent, failureOfStatus } from '../http/failures.ts';
import type { Exchange, WireListener } from '../http/wire/exchange.ts';
import type { WireFailure } from '../http/wire/failure.ts';
import type { Head } from '../http/wire/head.ts';
import { WirePool, type WirePoolOptions } from '../http/wire/pool.ts';
import { estimateTokens } from '../text-input.ts';
import { type Dialect, keyOf, toKeyHeaders } from './dialect.ts';
import { type EventsListener, RelayEvents } from './relay-events.ts';
import { type AskedProvider, cutStream, invalidAnswer, wireError } from './relay-failures.ts';
import { lastUsageObjectAt, readUsageAt } from './relay-usage.ts';
import { NEW_MAX_TOKENS } from './request.ts';
import { readWhole } from './whole.ts';

const DEFAULT_TIMEOUT_MS = 120_000;
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
const MAX_REFUSAL_BYTES = 64 * 1024;
/** A body above this is sent in pieces, as copying it costs more. */
const MAX_COPIED_BYTES = 16 * 1024;
/** What may still follow the last event, before the connection is used again or given up. */
const DRAIN_MS = 1_000;
/** A changed key is used so much later at most. */
const KEY_MS = 1_000;
const END_OF_EVENTS = Buffer.from('data: [DONE]\n\n');

export interface OpenaiRelayOptions {
  readonly model: ExternalModel;
  readonly dialect: Dialect;
  readonly task: 'llm/v1/chat' | 'llm/v1/completions';
  readonly context: EngineContext;
  readonly pool?: Partial<WirePoolOptions>;
}

/** Undefined where more than the model's name would have to change, or a token must be fetched first. */
export function openRelay(
  model: ExternalModel,
  dialect: Dialect,
  task: Task,
  context: EngineContext,
): OpenaiRelay | undefined {
  const isBytes = model.provider === 'openai' || model.provider === 'custom';
  if (!isBytes || model.apiType === 'azuread' || dialect.known !== undefined) return undefined;
  if (task !== 'llm/v1/chat' && task !== 'llm/v1/completions') return undefined;
  return new OpenaiRelay({ model, dialect, task, context });
}

export class OpenaiRelay implements ByteRelay {
  readonly model: Uint8Array;
  readonly limitField: ByteRelay['limitField'];
  readonly hasStreamOptions: boolean;
  readonly provider: AskedProvider;
  readonly task: OpenaiRelayOptions['task'];
  readonly #options: OpenaiRelayOptions;
  readonly #pool: WirePool;
  readonly #headStart: string;
  #key: KeyedHead | undefined;

  constructor(options: OpenaiRelayOptions) {
    const { model, dialect, task } = options;
    const url = new URL(dialect.baseUrl);
    const isSecure = url.protocol === 'https:';
    this.#options = options;
    this.task = task;
    const timeoutMs = model.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.provider = { provider: model.provider, model: model.name, origin: url.origin, timeoutMs };
    this.model = Buffer.from(JSON.stringify(model.name));
    this.limitField = NEW_MAX_TOKENS.test(model.name) ? 'max_completion_tokens' : 'max_tokens';
    this.hasStreamOptions = dialect.hasStreamOptions;
    this.#pool = new WirePool({
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: Number(url.port) || (isSecure ? 443 : 80),
      isSecure,
      timeoutMs,
      ...options.pool,
    });
    const path = url.pathname.replace(/\/+$/, '') + dialect.path;
    this.#headStart = `POST ${path} HTTP/1.1\r\nhost: ${url.host}\r\nuser-agent: duckserve\r\ncontent-type: application/json\r\n`;
  }

  get connections(): number {
    return this.#pool.size;
  }

  asked(secret: string | undefined): Asked {
    const { provider, name } = this.#options.model;
    return { provider, model: name, secret };
  }

  send(request: RelayRequest, listener: RelayListener): RelayExchange {
    let length = 0;
    for (const piece of request.pieces) length += piece.length;
    const { start, secret } = this.#keyed();
    const head = `${start}content-length: ${length}\r\n\r\n`;
    const relayed = new Relayed(this, request, listener, secret);
    relayed.begin(this.#pool.send(toRequest(head, request.pieces, length), relayed, request.deadlineMs));
    return relayed;
  }

  async close(): Promise<void> {
    this.#key = undefined;
    this.#pool.close();
  }

  /** The head with the key. Resolving it may mean decrypting it, so it is done once in a second and then forgotten. */
  #keyed(): KeyedHead {
    if (this.#key) return this.#key;
    const { model, dialect, context } = this.#options;
    const secret = keyOf(model, context);
    let start = this.#headStart;
    const headers = toKeyHeaders(dialect, model, secret);
    for (const name in headers) start += `${name}: ${requireLine(headers[name] ?? '', name)}\r\n`;
    this.#key = { start, secret };
    setTimeout(() => {
      this.#key = undefined;
    }, KEY_MS).unref();
    return this.#key;
  }
}

/** One piece where that is a small copy. */
function toRequest(head: string, pieces: readonly Uint8Array[], length: number): readonly Uint8Array[] {
  if (length > MAX_COPIED_BYTES) return [Buffer.from(head, 'latin1'), ...pieces];
  const bytes = Buffer.allocUnsafe(head.length + length);
  let at = bytes.write(head, 'latin1');
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return [bytes];
}

interface KeyedHead {
  readonly start: string;
  readonly secret: string | undefined;
}

/** One request on its way. */
class Relayed implements WireListener, EventsListener, RelayExchange {
  readonly #relay: OpenaiRelay;
  readonly #request: RelayRequest;
  readonly #listener: RelayListener;
  readonly #secret: string | undefined;
  #exchange: Exchange | undefined;
  #head: Head | undefined;
  #events: RelayEvents | undefined;
  #pieces: Buffer[] | undefined;
  #whole: Buffer | undefined;
  #size = 0;
  #isOver = false;

  constructor(
    relay: OpenaiRelay,
    request: RelayRequest,
    listener: RelayListener,
    secret: string | undefined,
  ) {
    this.#relay = relay;
    this.#request = request;
    this.#listener = listener;
    this.#secret = secret;
  }

  begin(exchange: Exchange): void {
    this.#exchange = exchange;
  }

  pause(): void {
    this.#exchange?.pause();
  }

  resume(): void {
    this.#exchange?.resume();
  }

  abort(): TokenUsage {
    this.#isOver = true;
    this.#exchange?.abort();
    return this.#usage();
  }

  onHead(head: Head): void {
    this.#head = head;
    if (!isGood(head)) return;
    const wanted = this.#request.isStream ? 'text/event-stream' : 'application/json';
    if (!head.contentType.toLowerCase().startsWith(wanted)) {
      this.#fail(this.#invalid(`content type ${JSON.stringify(head.contentType)} where ${wanted} was asked`));
    } else if (head.contentEncoding !== '' && head.contentEncoding.toLowerCase() !== 'identity') {
      this.#fail(this.#invalid(`an encoding nobody asked for, ${JSON.stringify(head.contentEncoding)}`));
    } else if (this.#request.isStream) {
      this.#events = new RelayEvents(this, this.#request.hidesUsage);
    }
  }

  onBytes(bytes: Buffer): void {
    if (this.#isOver) return;
    if (this.#events) return void this.#takeEvents(this.#events, bytes);
    this.#size += bytes.length;
    const isRefusal = this.#head !== undefined && !isGood(this.#head);
    if (isRefusal && this.#size > MAX_REFUSAL_BYTES) return;
    if (this.#size > MAX_ANSWER_BYTES) {
      this.#fail(this.#invalid(`more than ${MAX_ANSWER_BYTES} bytes`));
    } else if (this.#head?.framing === 'length' && this.#head.length === bytes.length) {
      // All of it at once, as nearly always; its end is told in the same turn.
      this.#whole = bytes;
    } else {
      this.#pieces ??= [];
      this.#pieces.push(Buffer.from(bytes));
    }
  }

  onEnd(): void {
    if (this.#isOver) return;
    if (this.#events) this.#endEvents(this.#events);
    else {
      const body = this.#whole ?? Buffer.concat(this.#pieces ?? []);
      if (this.#head && isGood(this.#head)) this.#answer(body);
      else this.#fail(this.#refusal(body));
    }
  }

  onFailure(failure: WireFailure): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#listener.onFailure(wireError(this.#relay.provider, failure), this.#usage());
  }

  #answer(body: Buffer): void {
    const open = lastUsageObjectAt(body);
    const usage = open < 0 || !looksWhole(body) ? undefined : readUsageAt(body, open);
    if (usage) {
      this.#isOver = true;
      this.#listener.onAnswer(body, usage);
      return;
    }
    // It does not count, or is no answer: read as the slow path reads it.
    const read = readWhole(body.toString('utf8'), {
      task: this.#relay.task,
      inputLength: this.#request.inputLength,
      asked: this.#relay.asked(this.#secret),
      invalid: (what) => this.#invalid(what),
    });
    if (read instanceof ServingError) return void this.#fail(read);
    this.#isOver = true;
    this.#listener.onAnswer(body, read);
  }

  #takeEvents(events: RelayEvents, bytes: Buffer): void {
    this.#exchange?.refresh();
    if (!events.feed(bytes)) this.#fail(this.#invalid('an event without end'));
    else if (events.isDone && !this.#isOver) this.#endWell();
  }

  #endEvents(events: RelayEvents): void {
    events.end();
    if (this.#isOver) return;
    if (!events.isDone) {
      // A reason why it ended will do, for some servers never say that they are done.
      if (!events.isFinished) return void this.#fail(cutStream(this.#relay.provider));
      this.#listener.onEvents(END_OF_EVENTS);
    }
    this.#endWell();
  }

  #endWell(): void {
    this.#isOver = true;
    this.#exchange?.endWithin(DRAIN_MS);
    this.#listener.onEnd(this.#usage());
  }

  onEvents(events: Buffer): void {
    this.#listener.onEvents(events);
  }

  isFailure(data: string): boolean {
    let event: unknown;
    try {
      event = JSON.parse(data);
    } catch {
      return false;
    }
    const failure = failureOfEvent(this.#relay.asked(this.#secret), event);
    if (failure) this.#fail(failure);
    return failure !== undefined;
  }

  #refusal(body: Buffer): ServingError {
    const { status = 0 } = this.#head ?? {};
    const headers = this.#head?.headers() ?? {};
    return failureOfStatus(
      this.#relay.asked(this.#secret),
      status,
      headers,
      body.toString('utf8'),
      Date.now(),
    );
  }

  /** The connection is closed unless the answer has come to its end. */
  #fail(error: ServingError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#exchange?.abort();
    this.#listener.onFailure(error, this.#usage());
  }

  #invalid(what: string): ServingError {
    return invalidAnswer(this.#relay.provider, what);
  }

  /** As counted by the provider, or estimated of what was seen. */
  #usage(): TokenUsage {
    const events = this.#events;
    if (events?.usage) return events.usage;
    if (!events?.hasData) return { inputTokens: 0, outputTokens: 0 };
    return {
      inputTokens: estimateTokens(this.#request.inputLength),
      outputTokens: events.textLength === 0 ? 0 : estimateTokens(events.textLength),
    };
  }
}

function isGood({ status }: Head): boolean {
  return status >= 200 && status < 300;
}

/** A cheap look at both ends: what was cut or is a page of a proxy is read properly, and refused. */
function looksWhole(body: Buffer): boolean {
  let last = body.length - 1;
  while (last > 0 && (body[last] === 10 || body[last] === 13 || body[last] === 32)) last--;
  return body[0] === 123 && body[last] === 125 && body.includes('"choices"');
}

/** A secret with a line break would end the header and begin another. */
function requireLine(value: string, name: string): string {
  if (/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) return value;
  throw new ServingError(
    'INVALID_PARAMETER',
    `The value of header ${name} holds characters that no header can carry. Set the secret again, without line breaks.`,
  );
}
