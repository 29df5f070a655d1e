// Universal Binary JSON, as XGBoost writes its models: big endian, arrays of one type in one piece. Reads only.
// What the members of a document mean is xgboost.ts's business.
import { ServingError } from '#core/errors.ts';

/** Arrays with a declared number type come back as typed arrays. */
export type Ubjson =
  | null
  | boolean
  | number
  | string
  | readonly Ubjson[]
  | Uint8Array
  | Int8Array
  | Int16Array
  | Int32Array
  | Float32Array
  | Float64Array
  | { readonly [key: string]: Ubjson };

const MAX_DEPTH = 64;
const WIDTHS: Readonly<Record<string, number>> = { i: 1, U: 1, C: 1, I: 2, l: 4, d: 4, L: 8, D: 8 };

/** Throws INVALID_PARAMETER when the bytes end too early, or are no UBJSON. */
export function parseUbjson(bytes: Uint8Array): Ubjson {
  const reader = new Reader(bytes);
  const value = reader.value(reader.marker(), 0);
  if (reader.rest > 0) throw broken(`${reader.rest} bytes follow its end`);
  return value;
}

class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #decoder = new TextDecoder();
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get rest(): number {
    return this.#bytes.length - this.#at;
  }

  /** The next type marker; no-ops are skipped. */
  marker(): string {
    let byte = this.#byte();
    while (byte === 0x4e) byte = this.#byte();
    return String.fromCharCode(byte);
  }

  value(marker: string, depth: number): Ubjson {
    if (depth > MAX_DEPTH) throw broken(`it is nested more than ${MAX_DEPTH} levels deep`);
    switch (marker) {
      case 'Z':
        return null;
      case 'T':
        return true;
      case 'F':
        return false;
      case 'S':
        return this.#text(this.#length());
      case 'C':
        return String.fromCharCode(this.#byte());
      case 'H':
        return Number(this.#text(this.#length()));
      case '[':
        return this.#array(depth);
      case '{':
        return this.#object(depth);
      default:
        return this.#number(marker);
    }
  }

  #byte(): number {
    return this.#view.getUint8(this.#take(1));
  }

  /** Where the next `size` bytes are. */
  #take(size: number): number {
    if (size > this.rest) {
      throw broken(`it ends after ${this.#bytes.length} bytes, where ${size - this.rest} more are expected`);
    }
    const at = this.#at;
    this.#at += size;
    return at;
  }

  #number(marker: string): number {
    const width = WIDTHS[marker];
    if (width === undefined || marker === 'C') {
      throw broken(`byte ${this.#at - 1} is ${JSON.stringify(marker)}, which begins no value`);
    }
    const at = this.#take(width);
    const view = this.#view;
    if (marker === 'i') return view.getInt8(at);
    if (marker === 'U') return view.getUint8(at);
    if (marker === 'I') return view.getInt16(at);
    if (marker === 'l') return view.getInt32(at);
    if (marker === 'L') return Number(view.getBigInt64(at));
    return marker === 'd' ? view.getFloat32(at) : view.getFloat64(at);
  }

  #length(): number {
    const length = this.#number(this.marker());
    if (!Number.isSafeInteger(length) || length < 0) throw broken(`it has a length of ${length}`);
    return length;
  }

  #text(length: number): string {
    const at = this.#take(length);
    return this.#decoder.decode(this.#bytes.subarray(at, at + length));
  }

  /** `$type#count`, `#count` or neither, after the marker of an array or object. */
  #header(): { readonly type: string | undefined; readonly count: number | undefined } {
    let type: string | undefined;
    if (this.#peek() === '$') {
      this.#at++;
      type = this.marker();
      if (this.#peek() !== '#') throw broken('a container has a type and no count');
    }
    if (this.#peek() !== '#') return { type, count: undefined };
    this.#at++;
    return { type, count: this.#length() };
  }

  #peek(): string {
    return this.rest === 0 ? '' : String.fromCharCode(this.#bytes[this.#at] ?? 0);
  }

  #array(depth: number): Ubjson {
    const { type, count } = this.#header();
    if (type !== undefined && count !== undefined && WIDTHS[type] !== undefined && type !== 'C') {
      return this.#typed(type, count);
    }
    const items: Ubjson[] = [];
    if (count !== undefined) {
      // A type such as null takes no bytes, so the count alone must not be believed.
      if (type !== undefined && 'ZTF'.includes(type)) throw broken(`an array is of type ${type}`);
      for (let index = 0; index < count; index++) items.push(this.value(type ?? this.marker(), depth + 1));
      return items;
    }
    for (let marker = this.marker(); marker !== ']'; marker = this.marker())
      items.push(this.value(marker, depth + 1));
    return items;
  }

  #typed(type: string, count: number): Ubjson {
    const width = WIDTHS[type] ?? 1;
    const start = this.#take(count * width);
    const view = this.#view;
    const fill = <T extends { [index: number]: number }>(into: T, get: (at: number) => number): T => {
      for (let index = 0, at = start; index < count; index++, at += width) into[index] = get(at);
      return into;
    };
    if (type === 'U') return this.#bytes.slice(start, start + count);
    if (type === 'i') return fill(new Int8Array(count), (at) => view.getInt8(at));
    if (type === 'I') return fill(new Int16Array(count), (at) => view.getInt16(at));
    if (type === 'l') return fill(new Int32Array(count), (at) => view.getInt32(at));
    if (type === 'd') return fill(new Float32Array(count), (at) => view.getFloat32(at));
    if (type === 'D') return fill(new Float64Array(count), (at) => view.getFloat64(at));
    return fill(new Float64Array(count), (at) => Number(view.getBigInt64(at)));
  }

  #object(depth: number): Ubjson {
    const { type, count } = this.#header();
    const members: [string, Ubjson][] = [];
    const member = () => {
      const key = this.#text(this.#length());
      members.push([key, this.value(type ?? this.marker(), depth + 1)]);
    };
    if (count !== undefined) for (let index = 0; index < count; index++) member();
    else {
      while (this.#peek() !== '}') member();
      this.#at++;
    }
    return Object.fromEntries(members);
  }
}

function broken(reason: string): ServingError {
  return new ServingError(
    'INVALID_PARAMETER',
    `The model is not a whole UBJSON file: ${reason}. Save it again, for example with booster.save_model("model.json").`,
  );
}
