// Values in and out of tensors: columns of features are checked and written into reused buffers, output tensors
// are read into prediction columns. Error messages here are what a user of predict() sees most.
import { DUCKDB_COLUMN_TYPES, type SignatureColumn } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { FeatureColumn, PredictionColumn } from '../engine.ts';
import { indexOfName, type OutputPlan, type Schema } from './tabular-schema.ts';
import type { ElementType, Feed, TensorData } from './tabular-session.ts';

/** The feature columns in the order of the signature; null for an optional one that was not given. */
export function matchColumns(
  model: string,
  features: readonly SignatureColumn[],
  columns: readonly FeatureColumn[],
): (FeatureColumn | null)[] {
  const named = columns.filter(({ name }) => name !== null).length;
  if (named === 0) {
    if (columns.length === features.length) return [...columns];
    throw mismatch(model, features, `got ${columns.length} values by position`);
  }
  if (named !== columns.length)
    throw mismatch(model, features, 'got some values by name and some by position');
  const matched = features.map(({ name }) => columns[indexOfName(columns, name)] ?? null);
  const missing = features.filter(({ required }, index) => required && matched[index] === null);
  if (missing.length > 0) {
    const given = columns.map(({ name }) => name).join(', ');
    throw mismatch(
      model,
      features,
      `${missing.map(({ name }) => `"${name}"`).join(', ')} ${missing.length === 1 ? 'is' : 'are'} missing (given: ${given})`,
    );
  }
  return matched;
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

  /** Feeds for `count` rows from row `start`; valid until the next call. Rows up to `rows` are padded with zeros. */
  write(columns: readonly (FeatureColumn | null)[], start: number, count: number, rows: number): Feed[] {
    const { inputs, places, features } = this.#schema;
    const feeds = inputs.map(
      ({ name, type, width, rowDims }, input): Feed & { readonly isColumn: boolean } => {
        const only = width === 1 ? columns[places.findIndex((place) => place.input === input)] : undefined;
        // A column of doubles already is the tensor [N, 1]: no copy. ONNX Runtime only reads it while it runs.
        const isColumn =
          type === 'float64' && only?.values instanceof Float64Array && !only.isNull && rows === count;
        const data = isColumn
          ? only.values.subarray(start, start + count)
          : this.#buffer(input, type, rows * width);
        return { name, type, data, dims: [rows, ...rowDims], isColumn };
      },
    );
    for (const [index, feature] of features.entries()) {
      const place = places[index];
      const feed = place && feeds[place.input];
      const width = place && inputs[place.input]?.width;
      if (place === undefined || feed === undefined || width === undefined)
        throw new ServingError('INTERNAL', 'A feature has no place.');
      if (feed.isColumn) continue;
      const { type, data } = feed;
      const column = columns[index] ?? null;
      const isFloat = data instanceof Float64Array || data instanceof Float32Array;
      const isPlain = column?.values instanceof Float64Array && (!column.isNull || this.#toleratesMissing);
      if (isFloat && isPlain)
        copyNumbers(column.values, column.isNull, start, count, data, place.offset, width);
      else this.#writeChecked(feature, column, start, count, type, data, place.offset, width);
    }
    return feeds;
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

  #writeChecked(
    feature: SignatureColumn,
    column: FeatureColumn | null,
    start: number,
    count: number,
    type: ElementType,
    target: TensorData,
    offset: number,
    width: number,
  ): void {
    const isFloat = type === 'float32' || type === 'float64';
    const convert = CONVERT[type];
    for (let row = 0; row < count; row++) {
      const at = row * width + offset;
      const source = start + row;
      const value = column === null || column.isNull?.[source] ? null : (column.values[source] ?? null);
      if (value === null) {
        if (!isFloat || !this.#toleratesMissing) throw this.#missing(feature);
        (target as Float64Array)[at] = Number.NaN;
        continue;
      }
      const converted = convert(value);
      if (converted === undefined) throw this.#wrongType(feature, value);
      (target as (typeof converted)[])[at] = converted;
    }
  }

  #missing({ name }: SignatureColumn): ServingError {
    return new ServingError(
      'SCHEMA_MISMATCH',
      `Feature "${name}" of model "${this.#model}" is NULL, and this model cannot take missing values there. ` +
        `Replace them (coalesce(${name}, ...)) or leave such rows out (WHERE ${name} IS NOT NULL).`,
    );
  }

  #wrongType({ name, type }: SignatureColumn, value: Scalar): ServingError {
    const shown = typeof value === 'bigint' ? `${value}` : JSON.stringify(value).slice(0, 80);
    return mismatch(
      this.#model,
      this.#schema.features,
      `"${name}" is ${shown}, which is no ${DUCKDB_COLUMN_TYPES[type]}; if the column holds the right values in another type, cast it (${name}::${DUCKDB_COLUMN_TYPES[type]})`,
    );
  }
}

function copyNumbers(
  from: Float64Array,
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

type Scalar = string | number | boolean | bigint;

const toFloat = (value: Scalar) =>
  typeof value === 'number' ? value : typeof value === 'bigint' ? Number(value) : undefined;
const toInteger = (least: number, most: number) => (value: Scalar) => {
  const number = toFloat(value);
  return number !== undefined && Number.isInteger(number) && number >= least && number <= most
    ? number
    : undefined;
};
const toBigInteger = (least: bigint, most: bigint) => (value: Scalar) => {
  const isWhole = typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value));
  const number = isWhole ? BigInt(value) : undefined;
  return number !== undefined && number >= least && number <= most ? number : undefined;
};

/** A value as the element of a tensor; undefined when it is none. Booleans are not numbers, as in MLflow. */
const CONVERT: Readonly<Record<ElementType, (value: Scalar) => string | number | bigint | undefined>> = {
  float32: toFloat,
  float64: toFloat,
  int8: toInteger(-128, 127),
  int16: toInteger(-32_768, 32_767),
  int32: toInteger(-2_147_483_648, 2_147_483_647),
  uint8: toInteger(0, 255),
  uint16: toInteger(0, 65_535),
  uint32: toInteger(0, 4_294_967_295),
  int64: toBigInteger(-(2n ** 63n), 2n ** 63n - 1n),
  uint64: toBigInteger(0n, 2n ** 64n - 1n),
  bool: (value) => (typeof value === 'boolean' ? Number(value) : toInteger(0, 1)(value)),
  string: (value) => (typeof value === 'string' ? value : undefined),
};

function createBuffer(type: ElementType, size: number): TensorData {
  switch (type) {
    case 'float32':
      return new Float32Array(size);
    case 'float64':
      return new Float64Array(size);
    case 'int8':
      return new Int8Array(size);
    case 'int16':
      return new Int16Array(size);
    case 'int32':
      return new Int32Array(size);
    case 'int64':
      return new BigInt64Array(size);
    case 'uint8':
    case 'bool':
      return new Uint8Array(size);
    case 'uint16':
      return new Uint16Array(size);
    case 'uint32':
      return new Uint32Array(size);
    case 'uint64':
      return new BigUint64Array(size);
    case 'string':
      return new Array<string>(size).fill('');
  }
}

/** Predictions of the first `count` of `rows` rows. The values are the caller's to keep. */
export function readOutput(
  plan: OutputPlan,
  data: TensorData,
  count: number,
  rows: number,
): PredictionColumn['values'] {
  const width = data.length / rows;
  if (!Number.isInteger(width) || width < 1) {
    throw new ServingError(
      'INVALID_RESPONSE',
      `Output "${plan.tensor}" of the model has ${data.length} values for ${rows} rows; it must have the same number for each row.`,
    );
  }
  if (Array.isArray(data)) {
    if (width === 1) return data.length === count ? data : data.slice(0, count);
    throw new ServingError(
      'INVALID_RESPONSE',
      `Output "${plan.tensor}" of the model has ${width} strings a row, not one.`,
    );
  }
  const { labels } = plan;
  if (labels !== null) {
    return Array.from({ length: count }, (_, row) => {
      const index = width === 1 ? Number(data[row]) : largestOf(data, row * width, width);
      const label = labels[index];
      if (label !== undefined) return label;
      throw new ServingError(
        'INVALID_RESPONSE',
        `The model gave class ${index}, but it has ${labels.length} labels.`,
      );
    });
  }
  if (width > 1) {
    return Array.from({ length: count }, (_, row) => {
      const list = new Array<number>(width);
      for (let index = 0; index < width; index++) list[index] = Number(data[row * width + index]);
      return list;
    });
  }
  if (plan.type === 'bool') return Array.from({ length: count }, (_, row) => Number(data[row]) !== 0);
  const isBig = data instanceof BigInt64Array || data instanceof BigUint64Array;
  return isBig
    ? Float64Array.from(data.subarray(0, count), Number)
    : new Float64Array(data.subarray(0, count));
}

function largestOf(data: Exclude<TensorData, string[]>, start: number, width: number): number {
  let best = 0;
  for (let index = 1; index < width; index++) {
    if ((data[start + index] ?? 0) > (data[start + best] ?? 0)) best = index;
  }
  return best;
}

export function mismatch(model: string, features: readonly SignatureColumn[], problem: string): ServingError {
  const expected = features.map(({ name, type }) => `${name} ${DUCKDB_COLUMN_TYPES[type]}`).join(', ');
  return new ServingError(
    'SCHEMA_MISMATCH',
    `The features do not fit model "${model}": ${problem}. It expects ${features.length}: ${expected}.`,
  );
}
