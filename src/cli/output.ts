// Where rows go: standard output or a file, in large pieces, waiting for a slow reader.
import { createWriteStream } from 'node:fs';
import { ServingError } from '#core/errors.ts';

const PIECE_CHARACTERS = 65_536;
const CLOSED_CODES = new Set(['EPIPE', 'ERR_STREAM_DESTROYED', 'ERR_STREAM_WRITE_AFTER_END', 'EOF']);

/** The reader of standard output has gone (`| head`). Ends the program quietly; not an error. */
export class OutputClosed extends Error {
  constructor() {
    super('The reader of the output has gone.');
    this.name = 'OutputClosed';
  }
}

export class Output {
  readonly #stream: NodeJS.WritableStream;
  readonly #path: string | undefined;
  #waiting: string[] = [];
  #waitingCharacters = 0;

  private constructor(stream: NodeJS.WritableStream, path?: string) {
    this.#stream = stream;
    this.#path = path;
  }

  static toStream(stream: NodeJS.WritableStream): Output {
    return new Output(stream);
  }

  /** What the file held is lost here; callers wait for the first result, so that a query that fails leaves it alone. */
  static toFile(path: string): Output {
    const stream = createWriteStream(path);
    // Reported by the callback of the write it breaks.
    stream.on('error', () => {});
    return new Output(stream, path);
  }

  async writeAll(pieces: Iterable<string>, signal?: AbortSignal): Promise<void> {
    for (const piece of pieces) {
      this.#waiting.push(piece);
      this.#waitingCharacters += piece.length;
      if (this.#waitingCharacters >= PIECE_CHARACTERS) {
        await this.flush();
        if (signal?.aborted) throw new ServingError('CANCELLED', 'The output was cut short by an interrupt.');
      }
    }
    await this.flush();
  }

  async flush(): Promise<void> {
    if (this.#waiting.length === 0) return;
    const text = this.#waiting.join('');
    this.#waiting = [];
    this.#waitingCharacters = 0;
    await new Promise<void>((resolve, reject) => {
      this.#stream.write(text, (error) => (error ? reject(this.#explain(error)) : resolve()));
    });
  }

  /** For files; standard output stays open. */
  async close(): Promise<void> {
    if (this.#path === undefined) return;
    await new Promise<void>((resolve, reject) => {
      this.#stream.once('error', (error: Error) => reject(this.#explain(error)));
      this.#stream.end(() => resolve());
    });
  }

  #explain(error: NodeJS.ErrnoException): Error {
    if (this.#path === undefined) return CLOSED_CODES.has(error.code ?? '') ? new OutputClosed() : error;
    return new ServingError(
      'STORAGE_ERROR',
      `Cannot write ${this.#path}: ${error.message}. Name another file with -o.`,
      {
        cause: error,
      },
    );
  }
}
