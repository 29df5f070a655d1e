// A provider on loopback that speaks OpenAI and Anthropic, and the other providers by a dialect each; answers the
// same every time, and misbehaves on request. Plain node:http, for it must be faster than what is tested with it.
// What it says is in answers.ts.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import { hashText, mixBits } from '#engines/echo-schema.ts';
import { answerAnthropic, answerOpenai, textsOf } from './answers.ts';
import { bedrockDialect } from './bedrock.ts';
import { cohereDialect } from './cohere.ts';
import { databricksDialect } from './databricks.ts';
import type { Dialect, DialectRequest } from './dialect.ts';
import { Exchange } from './exchange.ts';
import { type Ledger, LedgerBook, type Misbehaviour } from './ledger.ts';
import { TokenDesk } from './tokens.ts';
import { vertexDialect } from './vertex.ts';
import { anthropicBody, anthropicEvents, embeddingsBody, openaiBody, openaiEvents } from './wire.ts';

export { stubChatText, stubEmbedding, stubTokens } from './answers.ts';
export type { Ledger } from './ledger.ts';

export interface StubAnswer {
  /** Default 200. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** A string and bytes are sent as they are, anything else as JSON. */
  readonly body: unknown;
}

export interface SeenRequest {
  readonly path: string;
  /** With the query. */
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: JsonObject;
}

const DIALECTS: readonly Dialect[] = [cohereDialect, bedrockDialect, vertexDialect, databricksDialect];

export interface StubBehaviour {
  /** Time before an answer begins. */
  readonly latencyMs?: number;
  /** Time between the events of a stream. */
  readonly eventGapMs?: number;
  /** Requests above this number in flight are answered 429. */
  readonly maxParallel?: number;
  /** Shares of requests, 0..1, drawn by `seed` from the request itself and how often it was seen. */
  readonly rate429?: number;
  readonly rate500?: number;
  /** The connection is cut: before the answer, or in the middle of a stream. */
  readonly rateCut?: number;
  readonly rateMalformed?: number;
  /** Answered after `slowMs` instead of `latencyMs`. */
  readonly rateSlow?: number;
  readonly slowMs?: number;
  readonly seed?: number;
  /** What a 429 asks for, as `retry-after-ms` and, in whole seconds, `retry-after`. Default 50. */
  readonly retryAfterMs?: number;
  /** When given, another key is answered 401. */
  readonly apiKey?: string;
  /** Requests in OpenAI's shape and those of Anthropic need a token of `tokens`, as with Azure and Vertex. */
  readonly needsToken?: boolean;
  /** Length of embeddings. Default 64. */
  readonly dimensions?: number;
  /** Leaves `usage` out of every answer. */
  readonly omitUsage?: boolean;
  /** Replaces the answer to a request; `undefined` leaves it. Misbehaviour is drawn first. */
  readonly answer?: (body: JsonObject, request: SeenRequest) => StubAnswer | undefined;
}

export interface StubOptions extends StubBehaviour {
  /** Default 0: any free port. */
  readonly port?: number;
}

export interface StubProvider {
  /** `http://127.0.0.1:PORT`, the base URL for Anthropic. */
  readonly url: string;
  /** `url` + `/v1`, the base URL for OpenAI. */
  readonly openaiUrl: string;
  ledger(): Ledger;
  resetLedger(): void;
  /** The identity providers beside it. */
  readonly tokens: TokenDesk;
  /** The last 100 requests, oldest first. */
  readonly requests: readonly SeenRequest[];
  /** Changes the behaviour from the next request on; what is not named stays. */
  behave(change: StubBehaviour): void;
  close(): Promise<void>;
}

const KEPT_REQUESTS = 100;

export async function startStubProvider(options: StubOptions = {}): Promise<StubProvider> {
  let behaviour: StubBehaviour = options;
  const book = new LedgerBook();
  const requests: SeenRequest[] = [];
  const timesSeen = new Map<number, number>();
  const tokens = new TokenDesk();

  const server = createServer((request, response) => {
    const url = request.url ?? '/';
    if (request.method === 'GET') {
      sendControl(url, response);
      return;
    }
    const path = url.split('?', 1)[0] ?? url;
    if (path === '/ledger/reset') {
      reset();
      sendControl('/ledger', response);
      return;
    }
    if (tokens.isTokenPath(path)) {
      sendToken(path, request, response);
      return;
    }
    book.begin(path);
    const exchange = new Exchange(response, book);
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const [only] = chunks;
      const text = (chunks.length === 1 && only ? only : Buffer.concat(chunks)).toString();
      answer(exchange, text, path, request);
    });
  });
  server.on('connection', () => book.connect());
  // Longer than any client keeps a connection: who closes an idle one must not be the server.
  server.keepAliveTimeout = 120_000;

  function sendControl(url: string, response: ServerResponse): void {
    const body = url === '/ledger' ? JSON.stringify(book.read()) : '{"object":"list","data":[{"id":"stub"}]}';
    response.writeHead(200, { 'content-type': 'application/json' }).end(body);
  }

  function sendToken(path: string, request: IncomingMessage, response: ServerResponse): void {
    let text = '';
    request.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    request.on('end', () => {
      const { status, body } = tokens.answer(path, request.headers['content-type'], text);
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
  }

  function reset(): void {
    book.reset();
    requests.length = 0;
    timesSeen.clear();
  }

  /** The same request gets the same sequence of fates, whatever else runs beside it. */
  function draw(text: string): Misbehaviour | undefined {
    const { rate429 = 0, rate500 = 0, rateCut = 0, rateMalformed = 0, rateSlow = 0, seed = 1 } = behaviour;
    if (rate429 + rate500 + rateCut + rateMalformed + rateSlow === 0) return undefined;
    const identity = hashText(text, seed);
    const times = timesSeen.get(identity) ?? 0;
    timesSeen.set(identity, times + 1);
    let left = mixBits(identity + Math.imul(times + 1, 0x9e3779b9)) / 2 ** 32;
    const rates = { rate429, rate500, rateCut, rateMalformed, rateSlow };
    for (const [kind, rate] of Object.entries(rates)) {
      if (left < rate) return kind as Misbehaviour;
      left -= rate;
    }
    return undefined;
  }

  function answer(exchange: Exchange, text: string, path: string, request: IncomingMessage): void {
    const body = parseBody(text);
    if (body === undefined) {
      exchange.sendError(400, 'invalid_request_error', 'The body is not a JSON object.');
      return;
    }
    const seen: SeenRequest = { path, url: request.url ?? path, headers: request.headers, body };
    requests.push(seen);
    if (requests.length > KEPT_REQUESTS) requests.shift();
    const dialect = DIALECTS.find((each) => each.matches(path));
    book.inputs(dialect ? dialect.textsOf(body) : textsOf(body));

    const { apiKey, needsToken = false, maxParallel, retryAfterMs = 50 } = behaviour;
    if (!dialect && needsToken && !tokens.isGood(request.headers.authorization)) {
      exchange.sendError(401, 'authentication_error', 'The access token is not known.');
      return;
    }
    if (apiKey !== undefined && !hasKey(request, apiKey)) {
      exchange.sendError(401, 'authentication_error', `Incorrect API key provided: ${givenKey(request)}.`);
      return;
    }
    const isOver = maxParallel !== undefined && book.inFlight > maxParallel;
    const fate = isOver ? 'overParallel' : draw(text);
    if (fate !== undefined) book.misbehave(fate);
    const asked: DialectRequest = { ...seen, text };
    if (dialect && fate !== 'rate429' && fate !== 'overParallel') {
      const { latencyMs = 0, slowMs = 5_000 } = behaviour;
      exchange.after(fate === 'rateSlow' ? slowMs : latencyMs, () =>
        speakDialect(exchange, dialect, asked, fate),
      );
      return;
    }
    if (fate === 'rate429' || fate === 'overParallel') {
      exchange.sendError(429, 'rate_limit_error', 'Rate limit reached, wait and try again.', {
        'retry-after': String(Math.ceil(retryAfterMs / 1000)),
        'retry-after-ms': String(retryAfterMs),
      });
      return;
    }
    const { latencyMs = 0, slowMs = 5_000 } = behaviour;
    exchange.after(fate === 'rateSlow' ? slowMs : latencyMs, () => speak(exchange, seen, fate));
  }

  function speakDialect(
    exchange: Exchange,
    dialect: Dialect,
    asked: DialectRequest,
    fate: Misbehaviour | undefined,
  ): void {
    const isStream = dialect.isStream(asked);
    if (fate === 'rateCut' && !isStream) {
      exchange.cut();
      return;
    }
    if (fate === 'rateMalformed' && !isStream) {
      exchange.send(200, '{"choices":[{"index":0,"mess');
      return;
    }
    const replaced = behaviour.answer?.(asked.body, asked);
    if (replaced !== undefined) {
      exchange.send(replaced.status ?? 200, contentOf(replaced.body), replaced.headers);
      return;
    }
    const { dimensions = 64, omitUsage = false, eventGapMs = 0 } = behaviour;
    const options = { dimensions, omitUsage, tokens };
    const refusal =
      fate === 'rate500'
        ? { status: 500, type: 'INTERNAL', message: 'The server had an error.' }
        : dialect.refuse(asked, options);
    if (refusal !== undefined) {
      const { text, headers } = dialect.error(refusal);
      exchange.send(refusal.status, text, headers);
      return;
    }
    const { reply, promptTokens, completionTokens } = dialect.answer(asked, options);
    const done = () => book.tokens(promptTokens, completionTokens);
    if ('events' in reply) {
      const { contentType } = reply;
      exchange.stream(reply.events, eventGapMs, fate, done, { contentType, malformed: dialect.malformed });
      return;
    }
    done();
    exchange.send(200, reply.text, reply.headers);
  }

  function speak(exchange: Exchange, seen: SeenRequest, fate: Misbehaviour | undefined): void {
    const { body, path } = seen;
    if (fate === 'rate500') {
      exchange.sendError(500, 'server_error', 'The server had an error.');
      return;
    }
    if (fate === 'rateCut' && body.stream !== true) {
      exchange.cut();
      return;
    }
    if (fate === 'rateMalformed' && body.stream !== true) {
      exchange.send(200, '{"choices":[{"index":0,"mess');
      return;
    }
    const replaced = behaviour.answer?.(body, seen);
    if (replaced !== undefined) {
      exchange.send(replaced.status ?? 200, contentOf(replaced.body), replaced.headers);
      return;
    }
    const { dimensions = 64, omitUsage = false, eventGapMs = 0 } = behaviour;
    if (path.endsWith('/embeddings')) {
      const { text, promptTokens } = embeddingsBody(body, dimensions, omitUsage);
      book.tokens(promptTokens, 0);
      exchange.send(200, text);
      return;
    }
    const isAnthropic = path.endsWith('/messages') || path.endsWith('awPredict');
    if (!isAnthropic && !path.endsWith('/completions')) {
      exchange.sendError(404, 'not_found_error', `Unknown path ${path}.`);
      return;
    }
    const said = isAnthropic ? answerAnthropic(body) : answerOpenai(body);
    if (body.stream === true) {
      const events = isAnthropic ? anthropicEvents(body, said) : openaiEvents(body, said, omitUsage);
      exchange.stream(events, eventGapMs, fate, () => book.tokens(said.promptTokens, said.completionTokens));
      return;
    }
    book.tokens(said.promptTokens, said.completionTokens);
    exchange.send(
      200,
      isAnthropic ? anthropicBody(body, said, omitUsage) : openaiBody(body, said, omitUsage),
    );
  }

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port ?? 0, '127.0.0.1', 4096, resolve);
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  let closing: Promise<void> | undefined;
  return {
    url,
    tokens,
    openaiUrl: `${url}/v1`,
    requests,
    ledger: () => book.read(),
    resetLedger: reset,
    behave: (change) => {
      behaviour = { ...behaviour, ...change };
    },
    close: () => {
      closing ??= new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
      return closing;
    },
  };
}

/** A string or bytes as they are, anything else as JSON. */
function contentOf(body: unknown): string | Buffer {
  return typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
}

function parseBody(text: string): JsonObject | undefined {
  try {
    const body: unknown = JSON.parse(text);
    return isJsonObject(body) ? body : undefined;
  } catch {
    return undefined;
  }
}

function givenKey({ headers }: IncomingMessage): string {
  const { authorization = '' } = headers;
  return String(headers['x-api-key'] ?? headers['api-key'] ?? authorization.replace(/^Bearer /, ''));
}

function hasKey(request: IncomingMessage, apiKey: string): boolean {
  return givenKey(request) === apiKey;
}
