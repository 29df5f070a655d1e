// The body of an answer, chunk by chunk, and only after all that has arrived the error that ended it: a stream read as
// such forgets its last chunks then. What becomes of the bytes is not known here.
import type { Readable } from 'node:stream';

/** Chunks that may wait for the disk. */
const MAX_WAITING = 64;

export class Arrivals {
  readonly #body: Readable;
  readonly #chunks: Uint8Array[] = [];
  #end: Error | 'end' | undefined;
  #wake = () => {};

  constructor(body: Readable) {
    this.#body = body;
    body.on('data', (chunk: Uint8Array) => {
      this.#chunks.push(chunk);
      if (this.#chunks.length >= MAX_WAITING) body.pause();
      this.#wake();
    });
    body.on('end', () => this.#finish('end'));
    body.on('error', (error: Error) => this.#finish(error));
    body.on('close', () => this.#finish(new Error('the connection was closed')));
    if (body.destroyed) this.#finish(body.errored ?? new Error('the connection was closed'));
  }

  async next(): Promise<Uint8Array | Error | 'end'> {
    for (;;) {
      const chunk = this.#chunks.shift() ?? this.#end;
      if (chunk !== undefined) return chunk;
      this.#body.resume();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #finish(how: Error | 'end'): void {
    this.#end ??= how;
    this.#wake();
  }
}
