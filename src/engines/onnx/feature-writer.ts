// Writes features into the buffers of a model's inputs, from columns or from tensors, and checks each value on the
// way. A message shows the one value that does not fit.
import type { SignatureColumn } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { nullValue, wrongValue } from '../signature/words.ts';
import { CONVERT, createBuffer, isFloat, type Scalar } from './elements.ts';
import { product } from './schema-words.ts';
import type { ElementType, Feed, TensorData } from './session.ts';
import type { Schema } from './tabular-schema.ts';

type Numbers = Float64Array | Float32Array | Int32Array | Uint8Array;

/** One value a row. `values[i]` says nothing where `isNull[i]`. */
export interface Cells {
  readonly values: Numbers | BigInt64Array | readonly (Scalar | null)[];
  readonly isNull: Uint8Array | null;
}
/** What a feature is written from. */
export type Source =
  /** A column for each value of the feature. */
  | { readonly kind: 'columns'; readonly columns: readonly Cells[]; readonly dims: readonly number[] }
  /** All values of a row, then those of the next. */
  | {
      readonly kind: 'rows';
      readonly values: Numbers | BigInt64Array | readonly string[];
      /** Sizes of a row. */
      readonly dims: readonly number[];
    };

interface Target {
  readonly type: ElementType;
  readonly data: TensorData;
  /** Of a row. */
  readonly width: number;
  readonly offset: number;
}

/** Buffers for one run at a time; they grow to the largest chunk and are used again for the next. */
export class FeatureWriter {
  readonly #model: string;
  readonly #schema: Schema;
  readonly #toleratesMissing: boolean;
  readonly #buffers: (TensorData | undefined)[] = [];

  constructor(model: string, schema: Schema, toleratesMissing: boolean) {
    this.#model = model;
    this.#schema = schema;
    this.#toleratesMissing = toleratesMissing;
  }

  /**
   * Feeds for `count` rows from row `start`; valid until the next call. Rows up to `rows` are whatever was there.
   * Throws SCHEMA_MISMATCH for a value that does not fit.
   */
  write(sources: readonly (Source | null)[], start: number, count: number, rows: number): Feed[] {
    const { inputs, slots, features } = this.#schema;
    const views = new Set<number>();
    const feeds = inputs.map(({ name, type, width, rowDims }, input): Feed => {
      const source = sources[slots.findIndex((slot) => slot.input === input)] ?? null;
      const dims = width === null ? (source?.dims ?? []) : rowDims;
      const view = rows === count && width === 1 ? viewOf(type, source, start, count) : undefined;
      if (view !== undefined) views.add(input);
      const data = view ?? this.#buffer(input, type, rows * (width ?? product(dims)));
      return { name, type, data, dims: [rows, ...dims] };
    });
    for (const [index, feature] of features.entries()) {
      const slot = slots[index];
      const feed = slot && feeds[slot.input];
      if (slot === undefined || feed === undefined)
        throw new ServingError('INTERNAL', 'A feature has no place.');
      if (views.has(slot.input)) continue;
      const target = {
        type: feed.type,
        data: feed.data,
        width: feed.data.length / rows,
        offset: slot.offset,
      };
      this.#writeFeature(feature, sources[index] ?? null, start, count, target);
    }
    return feeds;
  }

  #writeFeature(
    feature: SignatureColumn,
    source: Source | null,
    start: number,
    count: number,
    target: Target,
  ): void {
    if (source?.kind === 'rows') {
      this.#writeRows(feature, source.values, start, count, target);
      return;
    }
    const columns = source?.columns ?? [null];
    for (const [index, cells] of columns.entries())
      this.#writeCells(feature, cells, start, count, { ...target, offset: target.offset + index });
  }

  #writeCells(
    feature: SignatureColumn,
    cells: Cells | null,
    start: number,
    count: number,
    { type, data, offset, width }: Target,
  ): void {
    const isPlain =
      cells !== null && isNumbers(cells.values) && (!cells.isNull || this.#toleratesMissing) && isFloat(type);
    if (isPlain) {
      copyNumbers(cells.values, cells.isNull, start, count, data as Float64Array, offset, width);
      return;
    }
    const convert = CONVERT[type];
    for (let row = 0; row < count; row++) {
      const at = row * width + offset;
      const from = start + row;
      const value = cells === null || cells.isNull?.[from] ? null : (cells.values[from] ?? null);
      if (value === null) {
        if (!isFloat(type) || !this.#toleratesMissing) throw nullValue(this.#model, feature);
        (data as Float64Array)[at] = Number.NaN;
        continue;
      }
      const converted = convert(value);
      if (converted === undefined) throw this.#wrong(feature, value);
      (data as (typeof converted)[])[at] = converted;
    }
  }

  #writeRows(
    feature: SignatureColumn,
    values: Extract<Source, { kind: 'rows' }>['values'],
    start: number,
    count: number,
    { type, data, width }: Target,
  ): void {
    const from = start * width;
    const size = count * width;
    if (isFloat(type) && isNumbers(values)) {
      (data as Float64Array).set(values.subarray(from, from + size));
      // NULL within a list has become NaN.
      if (!this.#toleratesMissing && values.subarray(from, from + size).some(Number.isNaN))
        throw nullValue(this.#model, feature);
      return;
    }
    const convert = CONVERT[type];
    for (let at = 0; at < size; at++) {
      const value = values[from + at] as Scalar;
      const converted = convert(value);
      if (converted === undefined) throw this.#wrong(feature, value);
      (data as (typeof converted)[])[at] = converted;
    }
  }

  #buffer(input: number, type: ElementType, size: number): TensorData {
    let buffer = this.#buffers[input];
    if (buffer === undefined || buffer.length < size) {
      buffer = createBuffer(type, size);
      this.#buffers[input] = buffer;
    }
    if (Array.isArray(buffer)) return buffer.slice(0, size).fill('');
    return buffer.length === size ? buffer : buffer.subarray(0, size);
  }

  #wrong(feature: SignatureColumn, value: Scalar): ServingError {
    const isWhole = feature.type === 'integer' || feature.type === 'long';
    const reason =
      isWhole && typeof value === 'number' && !Number.isInteger(value)
        ? 'which is no whole number'
        : undefined;
    return wrongValue(this.#model, this.#schema.features, feature, value, reason);
  }
}

/** A column of doubles already is the tensor [N, 1]: no copy. ONNX Runtime only reads it while it runs. */
function viewOf(
  type: ElementType,
  source: Source | null,
  start: number,
  count: number,
): Float64Array | undefined {
  if (type !== 'float64' || source?.kind !== 'columns') return undefined;
  const [only] = source.columns;
  return only?.values instanceof Float64Array && !only.isNull
    ? only.values.subarray(start, start + count)
    : undefined;
}

function isNumbers(values: Cells['values']): values is Numbers {
  return ArrayBuffer.isView(values) && !(values instanceof BigInt64Array);
}

function copyNumbers(
  from: Numbers,
  isNull: Uint8Array | null,
  start: number,
  count: number,
  to: Float64Array | Float32Array,
  offset: number,
  width: number,
): void {
  for (let row = start, at = offset; row < start + count; row++, at += width)
    to[at] = from[row] ?? Number.NaN;
  if (isNull === null) return;
  for (let row = start, at = offset; row < start + count; row++, at += width)
    if (isNull[row]) to[at] = Number.NaN;
}
