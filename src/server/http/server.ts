// The HTTP door's socket: where it listens, to whom, and how it closes.
import { createServer, type Server } from 'node:http';
import type { Socket } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import { ServingError } from '#core/errors.ts';
import { createHttpApp } from './app.ts';
import { isLoopbackHost } from './auth.ts';
import type { HttpDeps } from './deps.ts';

/** Longer than the idle limit of common load balancers (60 s), or they would reuse a socket we just closed. */
const KEEP_ALIVE_MS = 75_000;
const CLOSE_GRACE_MS = 5_000;

export interface HttpServer {
  readonly url: string;
  readonly port: number;
  /** Takes no new connections, lets requests finish for five seconds, then cuts them off. */
  close(): Promise<void>;
}

export async function startHttpServer(
  deps: HttpDeps,
  options: { readonly host?: string; readonly port: number },
): Promise<HttpServer> {
  const { host = '127.0.0.1', port } = options;
  if (!isLoopbackHost(host) && !deps.authTokens?.length) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The host is '${host}', which other machines can reach, and no token is set: put the SHA-256 (hex) of one into DUCKSERVE_TOKENS and start again, or listen on 127.0.0.1.`,
    );
  }
  const app = createHttpApp(deps);
  // The globals stay Node's own: duckserve is also a library in other people's processes.
  const listener = getRequestListener(app.fetch, { overrideGlobalObjects: false });
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, noDelay: true }, (incoming, outgoing) => {
    void listener(incoming, outgoing);
  });
  const connections = new Connections(server);
  await listen(server, host, port);
  server.on('error', (error) => deps.log.error({ message: error.message }, 'http server error'));
  const address = server.address();
  const boundPort = typeof address === 'object' && address !== null ? address.port : port;
  const name = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
  const url = `http://${name}:${boundPort}`;
  deps.log.info({ url, isAuthenticated: deps.authTokens !== undefined }, 'http server listening');
  return { url, port: boundPort, close: () => close(server, connections) };
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
    server.listen(port, host.replace(/^\[|\]$/g, ''), () => {
      server.off('error', refuse);
      resolve();
    });
  });
}

/**
 * Closes what nobody uses at once and the rest as it becomes free. Node's own closeIdleConnections leaves open
 * those connections that a client has opened ahead and not used yet, and would wait for them.
 */
class Connections {
  readonly #idle = new Set<Socket>();
  #isClosing = false;

  constructor(server: Server) {
    server.on('connection', (socket) => {
      this.#idle.add(socket);
      socket.once('close', () => this.#idle.delete(socket));
    });
    server.on('request', ({ socket }, outgoing) => {
      this.#idle.delete(socket);
      outgoing.once('close', () => this.#release(socket));
    });
  }

  closeIdle(): void {
    this.#isClosing = true;
    for (const socket of this.#idle) socket.destroy();
  }

  #release(socket: Socket): void {
    if (socket.destroyed) return;
    if (this.#isClosing) socket.destroySoon();
    else this.#idle.add(socket);
  }
}

function close(server: Server, connections: Connections): Promise<void> {
  return new Promise((resolve) => {
    const cutOff = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS);
    server.close(() => {
      clearTimeout(cutOff);
      resolve();
    });
    connections.closeIdle();
  });
}
