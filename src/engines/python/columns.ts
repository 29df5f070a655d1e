// Columns of a table as buffers of a frame, and back: numbers as they lie in memory, texts as offsets and UTF-8,
// whatever else as JSON. Whether values fit a model is not asked here; the other side is columns.py.
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import type { TypedColumn } from '../signature/enforce.ts';

/**
 * How the cells of a column travel. `datetime`: microseconds since 1970 as i64. `json`: texts that hold JSON.
 * A column with a `shape` has its numbers row after row, innermost dimension last.
 */
export type WireType = 'f64' | 'f32' | 'i64' | 'i32' | 'bool' | 'datetime' | 'utf8' | 'bytes' | 'json';

export interface WireColumn {
  /** null: by position. */
  readonly name: string | null;
  readonly type: WireType;
  readonly values: TypedColumn['values'];
  /** 1 where NULL; null when no value is NULL. What stands in `values` there is never looked at. */
  readonly isNull: Uint8Array | null;
  /** A tensor: the sizes of one row's value; the numbers of rows must be even. */
  readonly shape?: readonly number[];
}

export interface EncodedColumns {
  /** One object a column, for the header: `{name, type, nulls, shape?}`. */
  readonly columns: readonly JsonObject[];
  readonly buffers: readonly ArrayBufferView[];
}

export function encodeColumns(columns: readonly WireColumn[]): EncodedColumns {
  const buffers: ArrayBufferView[] = [];
  const heads = columns.map(({ name, type, values, isNull, shape }): JsonObject => {
    if (isTexts(values)) buffers.push(...encodeTexts(values));
    else if (Array.isArray(values)) buffers.push(...encodeBytes(values as readonly Uint8Array[]));
    else buffers.push(values as ArrayBufferView);
    if (isNull) buffers.push(isNull);
    return { name, type, nulls: isNull !== null, ...(shape === undefined ? {} : { shape }) };
  });
  return { columns: heads, buffers };
}

function isTexts(values: WireColumn['values']): values is readonly string[] {
  return Array.isArray(values) && typeof values[0] === 'string';
}

/** Offsets (u32, one more than texts) and the UTF-8 of all texts. */
function encodeTexts(texts: readonly string[]): [Uint32Array, Uint8Array] {
  const joined = texts.join('');
  const bytes = Buffer.from(joined, 'utf8');
  const isAscii = bytes.length === joined.length;
  const offsets = new Uint32Array(texts.length + 1);
  let at = 0;
  for (const [index, text] of texts.entries()) {
    at += isAscii ? text.length : Buffer.byteLength(text, 'utf8');
    offsets[index + 1] = at;
  }
  // Half a surrogate pair at the end of one text and half at the start of the next make one character when joined.
  if (at !== bytes.length) return encodeBytes(texts.map((text) => Buffer.from(text, 'utf8')));
  return [offsets, bytes];
}

function encodeBytes(cells: readonly Uint8Array[]): [Uint32Array, Uint8Array] {
  const offsets = new Uint32Array(cells.length + 1);
  let at = 0;
  for (const [index, cell] of cells.entries()) offsets[index + 1] = at += cell.length;
  const bytes = new Uint8Array(at);
  for (const [index, cell] of cells.entries()) bytes.set(cell, offsets[index] ?? 0);
  return [offsets, bytes];
}

/** A column of predictions: its name, where the model gave one, and one value a row. */
export interface PredictedColumn {
  readonly name: string | null;
  readonly cells: readonly Json[];
}

/** Throws INVALID_RESPONSE for columns that do not hold `rows` values. Missing values and NaN are null. */
export function decodeColumns(
  heads: Json | undefined,
  buffers: readonly Uint8Array[],
  rows: number,
): PredictedColumn[] {
  let next = 0;
  const take = (): Uint8Array => {
    const buffer = buffers[next++];
    if (buffer === undefined) throw broken('a column is missing');
    return buffer;
  };
  return (Array.isArray(heads) ? heads : []).map((head: Json): PredictedColumn => {
    if (!isJsonObject(head)) throw broken('a column has no head');
    const { name, type, nulls, shape } = head;
    const width = (Array.isArray(shape) ? shape : []).reduce<number>((all, size) => all * Number(size), 1);
    const read = readCells(String(type), take, rows * width);
    const isNull = nulls === true ? take() : null;
    const dims = Array.isArray(shape) ? shape.map(Number) : [];
    const cells = Array.from({ length: rows }, (_, row): Json => {
      if (isNull?.[row]) return null;
      return dims.length === 0 ? read(row) : nest(read, row * width, dims, 0);
    });
    return { name: typeof name === 'string' ? name : null, cells };
  });
}

function nest(read: (at: number) => Json, start: number, dims: readonly number[], depth: number): Json {
  const size = dims[depth] ?? 0;
  const inner = dims.slice(depth + 1).reduce((all, each) => all * each, 1);
  return Array.from({ length: size }, (_, index): Json => {
    const at = start + index * inner;
    return depth + 1 === dims.length ? read(at) : nest(read, at, dims, depth + 1);
  });
}

function readCells(type: string, take: () => Uint8Array, count: number): (at: number) => Json {
  switch (type) {
    case 'f64': {
      const bytes = requireSize(take(), count * 8);
      const values = new Float64Array(bytes.buffer, bytes.byteOffset, count);
      return (at) => finite(values[at]);
    }
    case 'f32': {
      const bytes = requireSize(take(), count * 4);
      const values = new Float32Array(bytes.buffer, bytes.byteOffset, count);
      return (at) => finite(values[at]);
    }
    case 'bool': {
      const values = requireSize(take(), count);
      return (at) => values[at] !== 0;
    }
    case 'utf8':
    case 'json': {
      const offsetBytes = requireSize(take(), (count + 1) * 4);
      const offsets = new Uint32Array(offsetBytes.buffer, offsetBytes.byteOffset, count + 1);
      const bytes = take();
      if ((offsets[count] ?? 0) > bytes.length) throw broken('texts are longer than their bytes');
      const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const whole = buffer.toString('utf8');
      const textAt =
        whole.length === bytes.length
          ? (at: number) => whole.slice(offsets[at], offsets[at + 1])
          : (at: number) => buffer.toString('utf8', offsets[at], offsets[at + 1]);
      return type === 'utf8' ? textAt : (at) => JSON.parse(textAt(at)) as Json;
    }
    default:
      throw broken(`a column has the type ${JSON.stringify(type)}`);
  }
}

/** JSON has no NaN and no infinity. */
function finite(value: number | undefined): number | null {
  return value !== undefined && Number.isFinite(value) ? value : null;
}

function requireSize(bytes: Uint8Array, size: number): Uint8Array {
  if (bytes.byteLength === size) return bytes;
  throw broken(`a column has ${bytes.byteLength} bytes, and ${size} were expected`);
}

function broken(what: string): ServingError {
  return new ServingError('INVALID_RESPONSE', `The predictions of the model cannot be read: ${what}.`);
}
