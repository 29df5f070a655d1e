// Takes the chunked coding off a body, whatever way it is cut into reads. Extensions and trailers are checked and
// dropped. Not here: heads (head.ts), which end a message and where (response.ts).
import { malformed, WireFailure } from './failure.ts';
import { colonOf } from './head.ts';

/** Of size lines with their extensions and of all trailers together; data is not counted. */
const MAX_OVERHEAD_LINE = 4 * 1024;
const MAX_TRAILER_BYTES = 16 * 1024;
/** 2^52 bytes; more digits can only be meant to overflow something. */
const MAX_SIZE_DIGITS = 13;

type State = 'size' | 'extension' | 'size-end' | 'data' | 'data-end-cr' | 'data-end-lf' | 'trailer' | 'done';

export class ChunkDecoder {
  #state: State = 'size';
  #size = 0;
  #digits = 0;
  #lineBytes = 0;
  #isQuoted = false;
  #trailerBytes = 0;
  #trailer: number[] = [];

  get isDone(): boolean {
    return this.#state === 'done';
  }

  /** Hands the data to `onData` as it stands in `bytes`; gives the index after what was used. Throws WireFailure. */
  feed(bytes: Buffer, from: number, to: number, onData: (from: number, to: number) => void): number {
    let at = from;
    while (at < to && this.#state !== 'done') {
      if (this.#state === 'data') {
        const until = Math.min(to, at + this.#size);
        onData(at, until);
        this.#size -= until - at;
        at = until;
        if (this.#size === 0) this.#state = 'data-end-cr';
      } else {
        this.#take(bytes[at] as number);
        at++;
      }
    }
    return at;
  }

  #take(byte: number): void {
    switch (this.#state) {
      case 'size':
        this.#takeSize(byte);
        return;
      case 'extension':
        this.#takeExtension(byte);
        return;
      case 'size-end':
        if (byte !== 10) throw malformed('a chunk size line without a line feed');
        this.#state = this.#size === 0 ? 'trailer' : 'data';
        this.#lineBytes = 0;
        return;
      case 'data-end-cr':
        if (byte !== 13) throw malformed('a chunk that is longer than its size');
        this.#state = 'data-end-lf';
        return;
      case 'data-end-lf':
        if (byte !== 10) throw malformed('a chunk without its end');
        this.#state = 'size';
        this.#digits = 0;
        return;
      default:
        this.#takeTrailer(byte);
    }
  }

  #takeSize(byte: number): void {
    const digit = hexValue(byte);
    if (digit >= 0) {
      if (++this.#digits > MAX_SIZE_DIGITS) throw malformed('a chunk size that is too large');
      this.#size = this.#size * 16 + digit;
      return;
    }
    if (this.#digits === 0) throw malformed('a chunk without a size');
    if (byte === 13) this.#state = 'size-end';
    else if (byte === 59) this.#state = 'extension';
    else throw malformed('a chunk size that is no hexadecimal number');
  }

  /** What it says is not looked at, only whether two readers could see its end in different places. */
  #takeExtension(byte: number): void {
    if (byte === 13) {
      if (this.#lineBytes === 0 || this.#isQuoted) throw malformed('a chunk extension that is not complete');
      this.#state = 'size-end';
    } else if (byte === 127 || (byte < 32 && byte !== 9)) {
      throw malformed('a control character in a chunk extension');
    } else {
      if (byte === 34) this.#isQuoted = !this.#isQuoted;
      this.#countLine();
    }
  }

  #countLine(): void {
    if (++this.#lineBytes > MAX_OVERHEAD_LINE)
      throw new WireFailure('too-large', 'a chunk extension without end');
  }

  #takeTrailer(byte: number): void {
    if (++this.#trailerBytes > MAX_TRAILER_BYTES) throw new WireFailure('too-large', 'trailers without end');
    const line = this.#trailer;
    const last = line.at(-1);
    if (byte === 10) {
      if (last !== 13) throw malformed('a trailer that ends without a carriage return');
      if (line.length === 1) this.#state = 'done';
      else colonOf(Uint8Array.from(line), 0, line.length - 1);
      this.#trailer = [];
      return;
    }
    if (last === 13) throw malformed('a carriage return inside a trailer');
    line.push(byte);
  }
}

function hexValue(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const lower = byte | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}
