// Reads one answer off a connection, in whatever pieces it comes: interim answers skipped, the head, the body up to
// its end. Knows no sockets. What follows the end is left to the connection, which then is not used again.
import { ChunkDecoder } from './chunks.ts';
import { malformed, WireFailure } from './failure.ts';
import { type Head, MAX_HEAD_BYTES, parseHead } from './head.ts';

const HEAD_END = Buffer.from('\r\n\r\n', 'latin1');
const MAX_INTERIM = 8;

/** Told in this order: head, bytes (any number of times), end. Bytes are only valid while the call lasts. */
export interface ResponseListener {
  onHead(head: Head): void;
  onBytes(bytes: Buffer): void;
  onEnd(): void;
}

export class ResponseReader {
  readonly #listener: ResponseListener;
  /** The beginning of a head that has not come whole. */
  #partial: Buffer | undefined;
  #head: Head | undefined;
  #left = 0;
  #chunks: ChunkDecoder | undefined;
  #interim = 0;
  #isEnded = false;

  constructor(listener: ResponseListener) {
    this.#listener = listener;
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  get head(): Head | undefined {
    return this.#head;
  }

  /** Gives the index after the answer's last byte, or `to` while it goes on. Throws WireFailure. */
  feed(bytes: Buffer, from: number, to: number): number {
    let at = from;
    if (!this.#head) {
      at = this.#feedHead(bytes, from, to);
      if (!this.#head || this.#isEnded) return at;
    }
    return this.#feedBody(bytes, at, to);
  }

  /** The provider closed its side. Throws WireFailure where that is too early. */
  finish(): void {
    if (this.#isEnded) return;
    if (this.#head?.framing === 'close') this.#end();
    else {
      throw new WireFailure(
        'broken',
        this.#head
          ? 'the connection was closed in the middle of the answer'
          : 'the connection was closed before the answer',
      );
    }
  }

  #feedHead(bytes: Buffer, from: number, to: number): number {
    const before = this.#partial?.length ?? 0;
    const whole = this.#partial ? Buffer.concat([this.#partial, bytes.subarray(from, to)]) : bytes;
    const start = this.#partial ? 0 : from;
    const limit = this.#partial ? whole.length : to;
    const found = whole.indexOf(HEAD_END, Math.max(start, start + before - 3));
    if (found < 0 || found + 4 > limit) {
      refuseBareLines(whole, start, limit);
      if (limit - start > MAX_HEAD_BYTES)
        throw new WireFailure('too-large', `a head of over ${MAX_HEAD_BYTES} bytes`);
      this.#partial = this.#partial ? whole : Buffer.from(whole.subarray(start, limit));
      return to;
    }
    const end = found + 4;
    if (end - start > MAX_HEAD_BYTES)
      throw new WireFailure('too-large', `a head of over ${MAX_HEAD_BYTES} bytes`);
    const head = parseHead(whole, start, end);
    // Where this head ends in the bytes at hand.
    const at = from + (end - start) - before;
    this.#partial = undefined;
    if (head.status >= 200) return this.#begin(head, at);
    if (head.status === 101) throw malformed('a change of protocol that nobody asked for');
    if (++this.#interim > MAX_INTERIM) throw malformed('interim answers without end');
    return at < to ? this.#feedHead(bytes, at, to) : at;
  }

  #begin(head: Head, at: number): number {
    this.#head = head;
    this.#left = head.length;
    if (head.framing === 'chunked') this.#chunks = new ChunkDecoder();
    this.#listener.onHead(head);
    if (head.framing === 'none') this.#end();
    return at;
  }

  #feedBody(bytes: Buffer, from: number, to: number): number {
    if (from >= to) return to;
    if (this.#chunks) {
      const used = this.#chunks.feed(bytes, from, to, (first, last) =>
        this.#listener.onBytes(bytes.subarray(first, last)),
      );
      if (this.#chunks.isDone) this.#end();
      return used;
    }
    if (this.#head?.framing === 'close') {
      this.#listener.onBytes(bytes.subarray(from, to));
      return to;
    }
    const until = Math.min(to, from + this.#left);
    this.#left -= until - from;
    this.#listener.onBytes(bytes.subarray(from, until));
    if (this.#left === 0) this.#end();
    return until;
  }

  #end(): void {
    this.#isEnded = true;
    this.#listener.onEnd();
  }
}

/** A server that ends its lines with a line feed alone would be waited for until the timeout. */
function refuseBareLines(bytes: Buffer, from: number, to: number): void {
  for (let at = bytes.indexOf(10, from); at >= 0 && at < to; at = bytes.indexOf(10, at + 1)) {
    if (at === from || bytes[at - 1] !== 13) throw malformed('a line that ends without a carriage return');
  }
}
