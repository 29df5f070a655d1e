// The short way through the HTTP door, before the routes: chat and completions whose bytes can go to a provider of
// the same dialect as they are. Everything else, and every failure, is left to the routes, with the body given back.
import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { ClientFacts, Principal, Task } from '#core/call.ts';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import type { Endpoint } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import type { Relay } from '#serving/relay.ts';
import type { RelayBody } from '#serving/relay-body.ts';
import type { HitCall, RelayHits } from '#serving/relay-hits.ts';
import type { RelayCall } from '#serving/relay-run.ts';
import { resolveCaller } from '../auth.ts';
import { BODY_BYTES } from '../body.ts';
import type { HttpDeps } from '../deps.ts';
import { EarlyMessage } from './early-message.ts';
import { type ExchangeOwner, FastExchange, type FastRequest } from './exchange.ts';
import { fastPathOf, INVOCATION_TYPES } from './paths.ts';
import { CACHE_HEADER, mayRepeat, rememberAnswer, repeatKey, writeAgain } from './repeats.ts';
import { keepRequestId, keptRequestId } from './request-id.ts';
import { respond } from './respond.ts';
import { type Scanned, scanBody } from './scan.ts';

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
const CLIENT_REQUEST_ID = 'x-client-request-id';
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
      this.#routes(incoming, outgoing);
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

  /** A defect here costs one request and not the process. */
  #take(request: FastRequest): void {
    try {
      this.#choose(request);
    } catch (cause) {
      const { outgoing, id } = request;
      this.#deps.log.error({ err: cause, requestId: id }, 'the short way failed');
      outgoing.destroy();
    }
  }

  #choose(request: FastRequest): void {
    const { path, message, outgoing, body } = request;
    const task = path.task ?? this.#deps.findEndpoint(path.endpoint ?? '')?.task;
    const principal = task && this.#callerOf(message.headers);
    if (!principal) return void this.#leave(request);
    const { hits } = this.#deps;
    const cache = message.headers[CACHE_HEADER]?.toString();
    const scanned = scanBody(body, task);
    const key =
      hits && mayRepeat(body, scanned, task === 'llm/v1/embeddings', cache)
        ? repeatKey(message.url ?? '', body, cache)
        : undefined;
    if (key !== undefined && this.#repeat(request, task, principal, key)) return;
    const isRelayed = cache === undefined || cache === 'off';
    if (isRelayed && scanned && this.#relay(request, task, principal, scanned, cache)) return;
    if (hits && key !== undefined) rememberAnswer(hits, outgoing, request.id, key);
    this.#leave(request);
  }

  /** Whether it was answered as the same bytes were answered before. */
  #repeat(request: FastRequest, task: Task, principal: Principal, key: string): boolean {
    const hit = this.#deps.hits?.find(key, toHitCall(request, task, principal));
    if (!hit) return false;
    const { outgoing, id, path } = request;
    const nowMs = this.nowMs();
    const headers = ['content-type', 'application/json', 'x-request-id', id];
    headers.push(
      'served-model-name',
      hit.servedEntity,
      'x-duckserve-cached',
      String(hit.inputs),
      ...hit.headers,
    );
    respond(outgoing, headers, writeAgain(hit, id, nowMs), nowMs);
    this.#deps.onRequest?.(path.route, 200);
    return true;
  }

  /** Whether it is on its way to a provider. */
  #relay(
    request: FastRequest,
    task: Task,
    principal: Principal,
    scanned: Scanned,
    cache: string | undefined,
  ): boolean {
    const { path, outgoing } = request;
    const endpoint = path.endpoint ?? scanned.model;
    if (endpoint === undefined) return false;
    // An answer that would be the same each time is kept, and looked for, by the routes.
    if (scanned.temperature === 0 && cache !== 'off') return false;
    const exchange = new FastExchange(this, request);
    const call = toCall(request, task, principal, endpoint, scanned.body);
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
    this.#routes(message, outgoing);
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

/** Members are set all at once: spreading and adding cost as much as all of governance. */
function toCall(
  request: FastRequest,
  task: Task,
  principal: Principal,
  endpoint: string,
  body: RelayBody,
): RelayCall {
  const { id } = request;
  const client = toClient(request, task);
  const clientRequestId = request.message.headers[CLIENT_REQUEST_ID];
  if (typeof clientRequestId !== 'string') {
    return { id, principal, origin: 'http', endpoint, task, client, body };
  }
  return { id, principal, origin: 'http', endpoint, task, client, body, clientRequestId };
}

function toHitCall(request: FastRequest, task: Task, principal: Principal): HitCall {
  const { id } = request;
  const client = toClient(request, task);
  const clientRequestId = request.message.headers[CLIENT_REQUEST_ID];
  if (typeof clientRequestId !== 'string') return { id, principal, origin: 'http', client };
  return { id, principal, origin: 'http', client, clientRequestId };
}

function toClient({ path, message }: FastRequest, task: Task): ClientFacts {
  const apiType = path.task === undefined ? (INVOCATION_TYPES[task] ?? path.apiType) : path.apiType;
  const userAgent = message.headers['user-agent'];
  if (userAgent === undefined) return { apiType, path: message.url ?? '' };
  return { apiType, path: message.url ?? '', userAgent: userAgent.slice(0, LONGEST_USER_AGENT) };
}

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
  const type = headers['content-type'] ?? '';
  if (!(length > 0 && length <= BODY_BYTES)) return false;
  if (type !== 'application/json' && !JSON_TYPE.test(type)) return false;
  for (const name of LONG_WAY_HEADERS) if (headers[name] !== undefined) return false;
  return true;
}
