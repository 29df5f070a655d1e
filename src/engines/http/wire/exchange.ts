// One request and its answer: who listens, until when, and on which connection it is right now.
// Not here: connections (connection.ts) and which of them is taken (pool.ts).
import { WireFailure } from './failure.ts';
import type { Head } from './head.ts';
import { ResponseReader } from './response.ts';

export interface WireListener {
  onHead(head: Head): void;
  /** A piece of the body. Valid only while the call lasts: the memory is used again. */
  onBytes(bytes: Buffer): void;
  /** The answer is complete. After it nothing comes. */
  onEnd(): void;
  /** Instead of `onEnd`. After it nothing comes. */
  onFailure(failure: WireFailure): void;
}

/** What an exchange needs of the connection it is on. */
export interface Carriage {
  pause(): void;
  resume(): void;
  /** Closes the connection; the exchange has told its listener already. */
  drop(): void;
}

export class Exchange {
  /** Head and body; in pieces where putting them together would cost more than sending them so. */
  readonly request: readonly Uint8Array[];
  readonly #listener: WireListener;
  readonly #timeoutMs: number;
  readonly #nowMs: () => number;
  readonly #onOver: (exchange: Exchange) => void;
  #reader: ResponseReader;
  #carriage: Carriage | undefined;
  #isOver = false;
  #isPaused = false;
  hasBytes = false;
  /** It was sent again on a fresh connection once already. */
  isResent = false;
  deadlineAtMs: number;
  /** Its place in the list of its pool. */
  slot = -1;

  constructor(
    request: readonly Uint8Array[],
    listener: WireListener,
    timeoutMs: number,
    nowMs: () => number,
    onOver: (exchange: Exchange) => void,
    latestMs: number,
  ) {
    this.request = request;
    this.#listener = listener;
    this.#timeoutMs = timeoutMs;
    this.#nowMs = nowMs;
    this.#onOver = onOver;
    this.#reader = new ResponseReader(listener);
    this.deadlineAtMs = Math.min(nowMs() + timeoutMs, latestMs);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  get head(): Head | undefined {
    return this.#reader.head;
  }

  /** Gives up on it without a word to the listener; its connection is closed. */
  abort(): void {
    if (this.#isOver) return;
    this.#over();
    this.#carriage?.drop();
  }

  /** The whole time again: for streams, which are late when nothing more comes, not when there is much of it. */
  refresh(): void {
    this.deadlineAtMs = this.#nowMs() + this.#timeoutMs;
  }

  /** The listener has what it wants; what little may follow is waited for, so that the connection can be used again. */
  endWithin(ms: number): void {
    this.deadlineAtMs = this.#nowMs() + ms;
  }

  /** No more bytes until `resume`, beyond those that are here already. */
  pause(): void {
    this.#isPaused = true;
    this.#carriage?.pause();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.refresh();
    this.#carriage?.resume();
  }

  /** Of its connection. */
  ride(carriage: Carriage): void {
    this.#carriage = carriage;
  }

  /** Of its connection: gives the index after the answer's last byte. A failure is told to the listener. */
  feed(bytes: Buffer, length: number): number {
    this.hasBytes = true;
    try {
      const used = this.#reader.feed(bytes, 0, length);
      if (this.#reader.isEnded) this.#over();
      return used;
    } catch (thrown) {
      this.fail(toFailure(thrown));
      return length;
    }
  }

  /** Of its connection: the other side has closed. */
  finish(): void {
    if (this.#isOver) return;
    try {
      this.#reader.finish();
      this.#over();
    } catch (thrown) {
      this.fail(toFailure(thrown));
    }
  }

  fail(failure: WireFailure): void {
    if (this.#isOver) return;
    this.#over();
    this.#listener.onFailure(failure);
  }

  /** Fails it and closes its connection, as the answer may still come. */
  expire(failure: WireFailure): void {
    if (this.#isOver) return;
    this.#carriage?.drop();
    this.fail(failure);
  }

  #over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#onOver(this);
  }
}

function toFailure(thrown: unknown): WireFailure {
  if (thrown instanceof WireFailure) return thrown;
  // A listener that throws must not take the connection's other callers with it.
  return new WireFailure('aborted', thrown instanceof Error ? thrown.message : String(thrown), thrown);
}
