// The short way through the HTTP door, before the routes: chat and completions whose bytes can go to a provider of
// the same dialect as they are. Everything else, and every failure, is left to the routes, with the body given back.
import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { ClientFacts, Principal, Task } from '#core/call.ts';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import type { Endpoint } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import type { Relay, RelayCall } from '#serving/relay.ts';
import type { HitCall, RelayHits } from '#serving/relay-hits.ts';
import { resolveCaller } from '../auth.ts';
import { BODY_BYTES } from '../body.ts';
import type { HttpDeps } from '../deps.ts';
import { EarlyMessage } from './early-message.ts';
import { type ExchangeOwner, FastExchange, type FastRequest } from './exchange.ts';
import { fastPathOf, INVOCATION_TYPES } from './paths.ts';
import { CACHE_HEADER, mayRepeat, rememberAnswer, repeatKey, writeAgain } from './repeats.ts';
import { keepRequestId, keptRequestId } from './request-id.ts';
import { scanBody } from './scan.ts';

export interface FastDoorDeps {
  readonly relay: Pick<Relay, 'start'>;
  readonly hits?: RelayHits | undefined;
  readonly identity: Parameters<typeof resolveCaller>[0];
  readonly findEndpoint: (name: string) => Endpoint | undefined;
  readonly log: Log;
  readonly clock?: Clock | undefined;
  /** Heard once for each request that was answered here. */
  readonly onRequest?: ((route: string, status: number) => void) | undefined;
}

const HEARTBEAT_MS = 15_000;
const LOOK_MS = 5_000;
const LONGEST_USER_AGENT = 256;
const JSON_TYPE = /^application\/json(?:; ?charset=utf-8)?$/i;
/** Headers that ask for something only the routes do. */
const LONG_WAY_HEADERS = [
  'content-encoding',
  'transfer-encoding',
  'expect',
  'databricks-ai-gateway-request-tags',
];

/** Held by the response, so that one function can stand for all that listen to its end. */
const EXCHANGE = Symbol('exchange');
type Outgoing = ServerResponse & { [EXCHANGE]?: FastExchange };

function onClose(this: Outgoing): void {
  this[EXCHANGE]?.onClose();
}

export class FastDoor implements ExchangeOwner {
  readonly #deps: FastDoorDeps;
  readonly #routes: RequestListener;
  readonly #clock: Clock;
  readonly #streams = new Set<FastExchange>();
  #isLooking = false;

  /** `routes` answer what is not answered here. */
  constructor(deps: FastDoorDeps, routes: RequestListener) {
    this.#deps = deps;
    this.#routes = routes;
    this.#clock = deps.clock ?? SYSTEM_CLOCK;
  }

  /** Stands where the routes' own listener would. */
  readonly listener = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    const path = incoming.method === 'POST' ? fastPathOf(incoming.url ?? '') : undefined;
    if (!path || !(incoming instanceof EarlyMessage) || !isPlain(incoming)) {
      this.#routes(incoming, outgoing as never);
      return;
    }
    incoming.takeBody((message, body) => {
      // Another process of this server may have begun it.
      const id = keptRequestId(message) ?? randomUUID();
      if (!outgoing.destroyed) this.#take({ path, message, outgoing, body, id });
    });
  };

  onRetreat({ request }: FastExchange): void {
    this.#leave(request);
  }

  onStream(exchange: FastExchange): void {
    this.#streams.add(exchange);
    if (!this.#isLooking) void this.#look();
  }

  onOver(exchange: FastExchange, status: number): void {
    this.#streams.delete(exchange);
    this.#deps.onRequest?.(exchange.request.path.route, status);
  }

  onBroken(error: ServingError): void {
    this.#deps.log[error.row.logLevel](
      { code: error.code, message: error.message },
      'stream ended with an error',
    );
  }

  onRefused({ row, code, message }: ServingError, requestId: string): void {
    this.#deps.log[row.logLevel]({ requestId, code, message }, 'request failed');
  }

  nowMs(): number {
    return this.#clock.now();
  }

  #take(request: FastRequest): void {
    const { path, message, outgoing, body } = request;
    const task = path.task ?? this.#deps.findEndpoint(path.endpoint ?? '')?.task;
    const principal = task && this.#callerOf(message.headers);
    if (!principal) return void this.#leave(request);
    const { hits } = this.#deps;
    const cache = message.headers[CACHE_HEADER]?.toString();
    const key =
      hits && mayRepeat(body, task === 'llm/v1/embeddings', cache)
        ? repeatKey(message.url ?? '', body, cache)
        : undefined;
    if (key !== undefined && this.#repeat(request, task, principal, key)) return;
    const isRelayed = cache === undefined || cache === 'off';
    if (isRelayed && this.#relay(request, task, principal, cache)) return;
    if (hits && key !== undefined) rememberAnswer(hits, outgoing, request.id, key);
    this.#leave(request);
  }

  /** Whether it was answered as the same bytes were answered before. */
  #repeat(request: FastRequest, task: Task, principal: Principal, key: string): boolean {
    const hit = this.#deps.hits?.find(key, toRowCall(request, task, principal));
    if (!hit) return false;
    const { outgoing, id, path } = request;
    const text = writeAgain(hit, id, this.nowMs());
    outgoing.writeHead(200, [
      'content-type',
      'application/json',
      'content-length',
      String(text.length),
      'x-request-id',
      id,
      'served-model-name',
      hit.servedEntity,
      'x-duckserve-cached',
      String(hit.inputs),
      ...hit.headers,
    ]);
    outgoing.end(text, 'latin1');
    this.#deps.onRequest?.(path.route, 200);
    return true;
  }

  /** Whether it is on its way to a provider. */
  #relay(request: FastRequest, task: Task, principal: Principal, cache: string | undefined): boolean {
    const { path, outgoing, body } = request;
    const scanned = scanBody(body, task);
    const endpoint = path.endpoint ?? scanned?.model;
    if (!scanned || endpoint === undefined) return false;
    // An answer that would be the same each time is kept, and looked for, by the routes.
    if (scanned.temperature === 0 && cache !== 'off') return false;
    const exchange = new FastExchange(this, request);
    const call: Writable<RelayCall> = {
      ...toRowCall(request, task, principal),
      endpoint,
      task,
      body: scanned.body,
    };
    const run = this.#deps.relay.start(call, exchange);
    if (!run) return false;
    exchange.begin(run);
    (outgoing as Outgoing)[EXCHANGE] = exchange;
    outgoing.on('close', onClose);
    return true;
  }

  /** Undefined: the routes find out, and say what is wrong. */
  #callerOf(headers: IncomingHttpHeaders): Principal | undefined {
    try {
      const caller = resolveCaller(this.#deps.identity, headers);
      if (!(caller instanceof Promise)) return caller;
      // The routes ask again, and say why it was refused: nobody else may hear of it, or the process would end.
      caller.catch(() => {});
      return undefined;
    } catch {
      return undefined;
    }
  }

  #leave({ message, outgoing, body, id }: FastRequest): void {
    keepRequestId(message, id);
    this.#routes(message, outgoing as never);
    message.giveBack(body);
  }

  /** One look for all streams: proxies give up on a connection that is silent for long. */
  async #look(): Promise<void> {
    this.#isLooking = true;
    while (this.#streams.size > 0) {
      await this.#clock.sleep(LOOK_MS);
      for (const stream of this.#streams) stream.beat(HEARTBEAT_MS);
    }
    this.#isLooking = false;
  }
}

/** What a usage row says of the caller. Members are set one by one: spreading costs as much as all of governance. */
function toRowCall({ path, message, id }: FastRequest, task: Task, principal: Principal): HitCall {
  const { headers } = message;
  const apiType = path.task === undefined ? (INVOCATION_TYPES[task] ?? path.apiType) : path.apiType;
  const client: Writable<ClientFacts> = { apiType, path: message.url ?? '' };
  const userAgent = headers['user-agent'];
  if (userAgent !== undefined) client.userAgent = userAgent.slice(0, LONGEST_USER_AGENT);
  const call: Writable<HitCall> = { id, principal, origin: 'http', client };
  const clientRequestId = headers['x-client-request-id'];
  if (typeof clientRequestId === 'string') call.clientRequestId = clientRequestId;
  return call;
}

type Writable<T> = { -readonly [Name in keyof T]: T[Name] };

/** What stands before the routes: the short way where serving offers one. */
export function createFastListener(
  deps: Pick<HttpDeps, 'serving' | 'registry' | 'identity' | 'log' | 'clock' | 'tracing'> &
    Pick<FastDoorDeps, 'onRequest'>,
  routes: RequestListener,
): RequestListener {
  const { relay, hits } = deps.serving;
  // Spans are made by the routes.
  if (!relay || deps.tracing) return routes;
  const { identity, log, clock, onRequest } = deps;
  const findEndpoint = (name: string) => {
    try {
      return deps.registry.getEndpoint(name);
    } catch {
      return undefined;
    }
  };
  return new FastDoor({ relay, hits, identity, log, clock, findEndpoint, onRequest }, routes).listener;
}

/** A JSON body of known size that asks for nothing besides. */
function isPlain({ headers }: IncomingMessage): boolean {
  const length = Number(headers['content-length'] ?? 0);
  if (!(length > 0 && length <= BODY_BYTES) || !JSON_TYPE.test(headers['content-type'] ?? '')) return false;
  for (const name of LONG_WAY_HEADERS) if (headers[name] !== undefined) return false;
  return true;
}
