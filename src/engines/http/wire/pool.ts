// The connections to one provider: the one used last is used next, and a request that meets a connection which the
// provider had just closed is sent once more on a fresh one. Time is looked after for all of them by one timer.
import type net from 'node:net';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import { type Address, type ConnectionOwner, WireConnection } from './connection.ts';
import { Exchange, type WireListener } from './exchange.ts';
import { WireFailure } from './failure.ts';

export interface WirePoolOptions extends Address {
  /** Until the whole answer is there; of one that is refreshed: until its next bytes are there. */
  readonly timeoutMs: number;
  readonly connectTimeoutMs?: number;
  /** Connections that nobody used for this long are closed. */
  readonly idleMs?: number;
  readonly clock?: Clock;
}

const CONNECT_TIMEOUT_MS = 10_000;
const IDLE_MS = 55_000;
/** A connection is not used in the last moments before the other side closes it. */
const IDLE_MARGIN_MS = 1_000;
const LOOKS_PER_TIMEOUT = 8;
const LONGEST_LOOK_MS = 500;

export class WirePool implements ConnectionOwner {
  readonly #options: WirePoolOptions;
  readonly #clock: Clock;
  readonly #free: WireConnection[] = [];
  readonly #connections = new Set<WireConnection>();
  /** In no order. A Set that is filled and emptied so quickly would keep thousands of dead exchanges alive. */
  readonly #exchanges: Exchange[] = [];
  readonly #nowMs: () => number;
  readonly #onOver = (exchange: Exchange) => this.#forget(exchange);
  readonly #lookMs: number;
  #timer: NodeJS.Timeout | undefined;
  #session: Buffer | undefined;
  #isClosed = false;

  constructor(options: WirePoolOptions) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#nowMs = () => this.#clock.now();
    const shortest = Math.min(options.timeoutMs, options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS);
    this.#lookMs = Math.max(1, Math.min(LONGEST_LOOK_MS, shortest / LOOKS_PER_TIMEOUT));
  }

  /** Open connections, used or free. */
  get size(): number {
    return this.#connections.size;
  }

  get inUse(): number {
    return this.#exchanges.length;
  }

  /** `request`: a whole request, head and body; it must not change until the answer begins. `latestMs`: a deadline. */
  send(
    request: readonly Uint8Array[],
    listener: WireListener,
    latestMs = Number.POSITIVE_INFINITY,
  ): Exchange {
    const { timeoutMs } = this.#options;
    const exchange = new Exchange(request, listener, timeoutMs, this.#nowMs, this.#onOver, latestMs);
    if (this.#isClosed) {
      queueMicrotask(() => exchange.fail(new WireFailure('aborted', 'the pool of connections is closed')));
      return exchange;
    }
    exchange.slot = this.#exchanges.push(exchange) - 1;
    (this.#takeFree() ?? this.#connect()).carry(exchange);
    this.#watch();
    return exchange;
  }

  /** Fails what is under way and closes all connections. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#timer);
    const failure = new WireFailure('aborted', 'the pool of connections is closed');
    for (const connection of [...this.#connections]) connection.fail(failure);
    for (const exchange of [...this.#exchanges]) exchange.fail(failure);
    this.#free.length = 0;
  }

  onFree(connection: WireConnection): void {
    if (this.#isClosed) {
      connection.drop();
      return;
    }
    connection.freeSinceMs = this.#clock.now();
    connection.setIdle(true);
    this.#free.push(connection);
    this.#watch();
  }

  onGone(connection: WireConnection, unanswered: Exchange | undefined): void {
    this.#connections.delete(connection);
    const at = this.#free.lastIndexOf(connection);
    if (at >= 0) this.#free.splice(at, 1);
    if (!unanswered) return;
    if (this.#isClosed) unanswered.fail(new WireFailure('aborted', 'the pool of connections is closed'));
    else {
      unanswered.isResent = true;
      this.#connect().carry(unanswered);
    }
  }

  #takeFree(): WireConnection | undefined {
    const nowMs = this.#clock.now();
    for (let connection = this.#free.pop(); connection; connection = this.#free.pop()) {
      if (connection.isIdle && nowMs < this.#idleUntilMs(connection)) {
        connection.setIdle(false);
        return connection;
      }
      connection.drop();
    }
    return undefined;
  }

  #idleUntilMs({ freeSinceMs, keepAliveMs }: WireConnection): number {
    const ownMs = this.#options.idleMs ?? IDLE_MS;
    if (keepAliveMs === undefined) return freeSinceMs + ownMs;
    return freeSinceMs + Math.min(ownMs, Math.max(1, keepAliveMs - IDLE_MARGIN_MS));
  }

  #connect(): WireConnection {
    const untilMs = this.#clock.now() + (this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS);
    const connection = new WireConnection(this.#options, this, untilMs, this.#session);
    this.#connections.add(connection);
    // A later connection that takes up the session needs no second handshake.
    if (this.#options.isSecure) this.#keepSession(connection.socket);
    return connection;
  }

  #keepSession(socket: net.Socket): void {
    socket.on('session', (session: Buffer) => {
      this.#session = session;
    });
    socket.on('error', () => {
      this.#session = undefined;
    });
  }

  /** The last one takes its slot. */
  #forget(exchange: Exchange): void {
    const { slot } = exchange;
    if (slot < 0) return;
    exchange.slot = -1;
    const last = this.#exchanges.pop();
    if (!last || last === exchange) return;
    this.#exchanges[slot] = last;
    last.slot = slot;
  }

  #watch(): void {
    if (this.#timer !== undefined || this.#isClosed) return;
    this.#timer = setTimeout(() => this.#look(), this.#lookMs);
    this.#timer.unref();
  }

  /** Deadlines are kept to within an eighth: one timer for all costs nothing a request. */
  #look(): void {
    this.#timer = undefined;
    const nowMs = this.#clock.now();
    for (const exchange of [...this.#exchanges]) {
      // Time that the caller takes is not the provider's.
      if (exchange.isPaused || nowMs < exchange.deadlineAtMs) continue;
      const failure = new WireFailure('late', `no answer within ${this.#options.timeoutMs} ms`);
      exchange.expire(failure);
    }
    for (const connection of [...this.#connections]) {
      if (connection.isIdle ? nowMs >= this.#idleUntilMs(connection) : isStuck(connection, nowMs)) {
        const seconds = (this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS) / 1_000;
        connection.fail(new WireFailure('late', `no connection within ${seconds} s`));
      }
    }
    if (this.#connections.size > 0 || this.#exchanges.length > 0) this.#watch();
  }
}

function isStuck(connection: WireConnection, nowMs: number): boolean {
  return !connection.isConnected && nowMs >= connection.connectingUntilMs;
}
