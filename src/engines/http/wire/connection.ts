// One connection to a provider: plain or TLS, one exchange at a time, one write for a whole request, at the end of
// the turn. It says when it is free and when it is gone; which exchange it gets is the pool's choice.
import net from 'node:net';
import tls from 'node:tls';
import type { Carriage, Exchange } from './exchange.ts';
import { WireFailure } from './failure.ts';

export interface Address {
  readonly host: string;
  readonly port: number;
  readonly isSecure: boolean;
  /** Certificates to trust instead of the system's. */
  readonly ca?: string | Buffer;
}

export interface ConnectionOwner {
  /** The exchange is over and the connection can carry the next one. */
  onFree(connection: WireConnection): void;
  /** It is closed. `unanswered`: an exchange that may be sent again, as not a byte of an answer came. */
  onGone(connection: WireConnection, unanswered: Exchange | undefined): void;
}

const NOTHING = Buffer.alloc(0);
const READ_BYTES = 64 * 1024;
/** Windows hands out the memory before the data is there, so sockets cannot share it. */
const isSharing = process.platform !== 'win32';
let shared: Buffer | undefined;

/** Reads of one event loop come one after the other, and nothing is kept of them. */
function readBuffer(): Buffer {
  if (!isSharing) return Buffer.allocUnsafeSlow(READ_BYTES);
  shared ??= Buffer.allocUnsafeSlow(READ_BYTES);
  return shared;
}

/**
 * With a request to send. All of one turn of the event loop go out in a row: the first write wakes whoever reads at the
 * other end, which costs more than the write itself, and the next ones find it awake.
 */
let due: WireConnection[] = [];

function sendDue(): void {
  const connections = due;
  due = [];
  for (const connection of connections) connection.send();
}

export class WireConnection implements Carriage {
  readonly #owner: ConnectionOwner;
  readonly #socket: net.Socket;
  #exchange: Exchange | undefined;
  #isConnected = false;
  #isGone = false;
  #uses = 0;
  #error: Error | undefined;
  /** When it became free, and how long the other side keeps it then. */
  freeSinceMs = 0;
  keepAliveMs: number | undefined;
  readonly connectingUntilMs: number;

  constructor(address: Address, owner: ConnectionOwner, connectingUntilMs: number, session?: Buffer) {
    this.#owner = owner;
    this.connectingUntilMs = connectingUntilMs;
    const { host, port, isSecure, ca } = address;
    if (isSecure) {
      const secure = tls.connect({
        host,
        port,
        ...(net.isIP(host) === 0 ? { servername: host } : {}),
        ALPNProtocols: ['http/1.1'],
        ...(ca === undefined ? {} : { ca }),
        ...(session === undefined ? {} : { session }),
      });
      secure.setNoDelay(true);
      secure.on('secureConnect', () => {
        this.#isConnected = true;
      });
      secure.on('data', (bytes: Buffer) => this.#receive(bytes, bytes.length));
      this.#socket = secure;
    } else {
      this.#socket = net.connect({
        host,
        port,
        noDelay: true,
        onread: {
          buffer: readBuffer(),
          callback: (length, bytes) => this.#receive(bytes as Buffer, length),
        },
      });
      this.#socket.on('connect', () => {
        this.#isConnected = true;
      });
    }
    this.#socket.on('error', (error) => {
      this.#error = error;
    });
    this.#socket.on('end', () => this.#ended());
    this.#socket.on('close', () => this.#closed());
  }

  get socket(): net.Socket {
    return this.#socket;
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  get isIdle(): boolean {
    return this.#exchange === undefined && !this.#isGone;
  }

  carry(exchange: Exchange): void {
    this.#exchange = exchange;
    this.#uses++;
    exchange.ride(this);
    if (due.push(this) === 1) setImmediate(sendDue);
  }

  /** Writes the request of the exchange it carries, unless that was given up meanwhile. */
  send(): void {
    if (!this.#exchange) return;
    const { request } = this.#exchange;
    const [first = NOTHING] = request;
    if (request.length === 1) {
      this.#socket.write(first);
      return;
    }
    // Corked, they leave in one call into the system.
    this.#socket.cork();
    for (const piece of request) this.#socket.write(piece);
    this.#socket.uncork();
  }

  /** Kept from ending the process' life by the pool. */
  setIdle(isIdle: boolean): void {
    if (isIdle) this.#socket.unref();
    else this.#socket.ref();
  }

  pause(): void {
    // Plain sockets stop by what the read callback returns.
    if (this.#socket instanceof tls.TLSSocket) this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  drop(): void {
    this.#exchange = undefined;
    this.#socket.destroy();
  }

  /** Fails the exchange that is on it, and closes. */
  fail(failure: WireFailure): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    this.#socket.destroy();
    exchange?.fail(failure);
  }

  #receive(bytes: Buffer, length: number): boolean {
    const exchange = this.#exchange;
    if (!exchange) {
      // Nobody asked for this: what would come next could be taken for another answer.
      this.#socket.destroy();
      return false;
    }
    const used = exchange.feed(bytes, length);
    if (!exchange.isOver) return !exchange.isPaused;
    if (this.#exchange !== exchange) return true;
    this.#exchange = undefined;
    const isClean =
      used === length && exchange.head?.isReusable === true && this.#socket.writableLength === 0;
    if (isClean) {
      this.keepAliveMs = exchange.head?.keepAliveMs;
      this.#owner.onFree(this);
    } else this.#socket.destroy();
    return true;
  }

  #ended(): void {
    const exchange = this.#exchange;
    if (!exchange?.hasBytes) return;
    this.#exchange = undefined;
    this.#socket.destroy();
    exchange.finish();
  }

  #closed(): void {
    this.#isGone = true;
    const exchange = this.#exchange;
    this.#exchange = undefined;
    const isUnanswered = exchange !== undefined && !exchange.hasBytes && !exchange.isOver;
    // Only a connection that has worked before may have been closed by the other side for being idle.
    const canResend = isUnanswered && this.#uses > 1 && !exchange.isResent;
    this.#owner.onGone(this, canResend ? exchange : undefined);
    if (!exchange || canResend) return;
    const reason = codeOf(this.#error) ?? 'the connection was closed before the answer was complete';
    exchange.fail(new WireFailure('broken', reason, this.#error));
  }
}

function codeOf(error: Error | undefined): string | undefined {
  if (!error) return undefined;
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message;
}
