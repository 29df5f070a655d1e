// Who is connected and what is under way, for closing well: idle connections go at once, busy ones when their answer
// is out, the rest when the patience ends. Node's own closeIdleConnections leaves open those connections that a client
// has opened ahead and not used yet, and would wait for them.
import type { Server, ServerResponse } from 'node:http';
import { Server as TlsServer } from 'node:https';
import type { Socket } from 'node:net';

/** Held by the response, so that one function can stand for all that listen to its end. */
const OWNER = Symbol('owner');
type Owned = ServerResponse & { [OWNER]?: Connections };

function onClose(this: Owned): void {
  this[OWNER]?.released(this.req.socket);
}

export class Connections {
  readonly #server: Server;
  readonly #idle = new Set<Socket>();
  #busy = 0;
  #isDraining = false;

  constructor(server: Server) {
    this.#server = server;
    const onConnection = (socket: Socket) => {
      this.#idle.add(socket);
      socket.once('close', () => this.#idle.delete(socket));
    };
    // Under TLS the requests belong to the encrypted socket, not to the one below it.
    server.on(server instanceof TlsServer ? 'secureConnection' : 'connection', onConnection);
    server.on('request', ({ socket }, outgoing) => {
      this.#idle.delete(socket);
      this.#busy += 1;
      if (this.#isDraining && !outgoing.headersSent) outgoing.setHeader('connection', 'close');
      (outgoing as Owned)[OWNER] = this;
      outgoing.on('close', onClose);
    });
  }

  /** Told to end: new requests on open connections are still answered, with `Connection: close`. */
  get isDraining(): boolean {
    return this.#isDraining;
  }

  get busy(): number {
    return this.#busy;
  }

  /** Stops listening; resolves when the last answer is out, or `patienceMs` later when the rest was cut off. */
  drain(patienceMs: number): Promise<void> {
    this.#isDraining = true;
    return new Promise((resolve) => {
      const cutOff = setTimeout(() => this.#server.closeAllConnections(), patienceMs);
      this.#server.close(() => {
        clearTimeout(cutOff);
        resolve();
      });
      for (const socket of this.#idle) socket.destroy();
    });
  }

  /** An answer is out, or its caller has gone. */
  released(socket: Socket): void {
    this.#busy -= 1;
    this.#release(socket);
  }

  #release(socket: Socket): void {
    if (socket.destroyed) return;
    if (this.#isDraining) socket.destroySoon();
    else this.#idle.add(socket);
  }
}
