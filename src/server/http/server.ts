// The HTTP door's socket: where it listens, to whom, within which limits, and how it closes.
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import { getRequestListener } from '@hono/node-server';
import { ServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import { createHttpApp } from './app.ts';
import { isLoopbackHost } from './auth.ts';
import { openControlSocket } from './control-socket.ts';
import type { HttpDeps } from './deps.ts';
import { type AddressRules, AllowList } from './edge/allow-list.ts';
import { Connections } from './edge/connections.ts';
import { answerParserErrors } from './edge/parser-errors.ts';
import { openTls, type TlsFiles } from './edge/tls.ts';
import { createFastListener } from './fast/door.ts';
import { EarlyMessage } from './fast/early-message.ts';
import { createMetrics, type Metrics } from './metrics.ts';

const LIMITS = {
  /** Longer than the idle limit of common load balancers (60 s), or they would reuse a socket we just closed. */
  keepAliveTimeout: 75_000,
  /** Whoever sends a header or a body a byte at a time is cut off. */
  headersTimeout: 60_000,
  requestTimeout: 300_000,
  connectionsCheckingInterval: 5_000,
  maxHeaderSize: 32 * 1024,
  noDelay: true,
  IncomingMessage: EarlyMessage,
};
const MAX_HEADERS = 200;
const HANDSHAKE_MS = 10_000;
const DEFAULT_DRAIN_MS = 30_000;
/** Connections not yet taken up: Node's 511 are filled by a burst, and who comes then is cut off without a word. */
const BACKLOG = 4_096;

export interface HttpServer {
  readonly url: string;
  readonly port: number;
  /** Takes no new connections, lets requests and streams finish for `drainMs`, then cuts them off. */
  close(): Promise<void>;
}

export interface HttpServerOptions {
  readonly host?: string;
  readonly port: number;
  /** A data directory to open the control socket in. */
  readonly controlDir?: string;
  readonly tls?: TlsFiles;
  readonly addresses?: AddressRules;
  readonly drainMs?: number;
  /** Connections at once; more are closed as they come. */
  readonly maxConnections?: number;
}

export async function startHttpServer(deps: HttpDeps, options: HttpServerOptions): Promise<HttpServer> {
  const { app, listener } = createListener(deps);
  const server = await openEdge(listener, { isOpen: deps.identity.isOpen, log: deps.log }, options);
  if (options.controlDir === undefined) return server;
  const control = await openControlSocket(app, { dataDir: options.controlDir, log: deps.log });
  const close = async () => {
    await control?.close();
    await server.close();
  };
  return { ...server, close };
}

/** The routes with the short way before them, for a server of Node. */
export function createListener(deps: HttpDeps, metrics: Metrics = createMetrics(deps)) {
  const app = createHttpApp(deps, metrics);
  // The globals stay Node's own: duckserve is also a library in other people's processes.
  const routes = getRequestListener(app.fetch, { overrideGlobalObjects: false });
  const onRequest = (route: string, status: number) => metrics.observeRequest('POST', route, status);
  const listener = createFastListener(
    { ...deps, onRequest },
    (incoming, outgoing) => void routes(incoming, outgoing),
  );
  return { app, listener };
}

/** The socket, with all that stands between it and `listener`. `isOpen`: callers need no token. */
export async function openEdge(
  listener: RequestListener,
  { isOpen, log }: { readonly isOpen: boolean; readonly log: Log },
  options: Omit<HttpServerOptions, 'controlDir'>,
): Promise<HttpServer> {
  const { host = '127.0.0.1', port, drainMs = DEFAULT_DRAIN_MS } = options;
  if (!isLoopbackHost(host) && isOpen) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The host is '${host}', which other machines can reach, and no token is set: create one (duckserve tokens create) or put the SHA-256 (hex) of one into DUCKSERVE_TOKENS and start again, or listen on 127.0.0.1.`,
    );
  }
  const allowed = new AllowList(options.addresses ?? { allow: [], trustedProxies: [] });
  const answer: RequestListener = (incoming, outgoing) => {
    const forwardedFor = incoming.headers['x-forwarded-for'];
    if (!allowed.mayAsk(incoming.socket.remoteAddress, forwardedFor?.toString())) {
      const error = new ServingError('PERMISSION_DENIED', 'This address may not use the server.');
      outgoing.writeHead(403, { 'content-type': 'application/json', connection: 'close' });
      return void outgoing.end(
        JSON.stringify({ error_code: error.row.databricksCode, message: error.message }),
      );
    }
    if (connections.isDraining && incoming.url === '/health') {
      outgoing.writeHead(503, { 'content-type': 'application/json' });
      return void outgoing.end('{"status":"draining"}');
    }
    listener(incoming, outgoing);
  };
  const tls = options.tls && (await openTls(options.tls, log));
  const server = tls
    ? createTlsServer({ ...LIMITS, ...tls.options, handshakeTimeout: HANDSHAKE_MS }, answer)
    : createServer(LIMITS, answer);
  tls?.onChange((pair) => (server as TlsServer).setSecureContext(pair));
  server.maxHeadersCount = MAX_HEADERS;
  if (options.maxConnections !== undefined) server.maxConnections = options.maxConnections;
  server.prependListener('connection', (socket) => {
    if (!allowed.mayConnect(socket.remoteAddress)) socket.destroy();
  });
  answerParserErrors(server, log);
  const connections = new Connections(server);
  await listen(server, host, port);
  server.on('error', (error) => log.error({ message: error.message }, 'http server error'));
  const address = server.address();
  const boundPort = typeof address === 'object' && address !== null ? address.port : port;
  const name = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
  const url = `${tls ? 'https' : 'http'}://${name}:${boundPort}`;
  log.info({ url, isAuthenticated: !isOpen }, 'http server listening');
  const close = async () => {
    tls?.close();
    await connections.drain(drainMs);
  };
  return { url, port: boundPort, close };
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (error: NodeJS.ErrnoException) => {
      const way = error.code === 'EADDRINUSE' ? 'the port is in use: choose another one' : error.message;
      reject(
        new ServingError('INVALID_PARAMETER', `Cannot listen on ${host}:${port}: ${way}.`, { cause: error }),
      );
    };
    server.once('error', refuse);
    server.listen({ port, host: host.replace(/^\[|\]$/g, ''), backlog: BACKLOG }, () => {
      server.off('error', refuse);
      resolve();
    });
  });
}
