// Reads the outputs of a run into predictions: one value a row, nested lists, the name of a class, or numbers by label.
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { PredictionColumn } from '../engine.ts';
import type { OutputPlan } from './output-plan.ts';
import { product } from './schema-words.ts';
import type { Result, TensorData } from './session.ts';

/** Predictions of the first `count` of `rows` rows. The values are the caller's to keep. */
export function readOutput(
  plan: OutputPlan,
  result: Result,
  count: number,
  rows: number,
): PredictionColumn['values'] {
  const { data } = result;
  const dims = rowDimsOf(plan.tensor, result, rows);
  const width = product(dims);
  if (plan.keys !== null) return readMaps(plan.tensor, plan.keys, data, width, count);
  if (plan.labels !== null) return readLabels(plan.labels, data, width, count);
  if (width !== 1 || plan.isOpen) {
    const cell = cellOf(plan, data);
    return Array.from({ length: count }, (_, row) => nested(dims, 0, row * width, cell));
  }
  if (Array.isArray(data)) return data.length === count ? data : data.slice(0, count);
  if (plan.type === 'bool') return Array.from({ length: count }, (_, row) => Number(data[row]) !== 0);
  const isBig = data instanceof BigInt64Array || data instanceof BigUint64Array;
  return isBig
    ? Float64Array.from(data.subarray(0, count), Number)
    : new Float64Array(data.subarray(0, count));
}

/** Sizes of one row of an output. Throws INVALID_RESPONSE when the rows are not all alike. */
export function rowDimsOf(tensor: string, { data, dims }: Result, rows: number): readonly number[] {
  if (dims[0] === rows && dims.length > 1) return dims.slice(1);
  const width = data.length / rows;
  if (Number.isInteger(width) && width >= 1) return width === 1 ? [] : [width];
  throw new ServingError(
    'INVALID_RESPONSE',
    `Output "${tensor}" of the model has ${data.length} values for ${rows} rows; it must have the same number for each row.`,
  );
}

type Cell = (index: number) => Json;

function cellOf({ type }: OutputPlan, data: TensorData): Cell {
  if (Array.isArray(data)) return (index) => data[index] ?? null;
  if (type === 'bool') return (index) => Number(data[index]) !== 0;
  return data instanceof BigInt64Array || data instanceof BigUint64Array
    ? (index) => Number(data[index])
    : (index) => data[index] ?? null;
}

function nested(dims: readonly number[], depth: number, start: number, cell: Cell): Json[] {
  const size = dims[depth] ?? 1;
  const list = new Array<Json>(size);
  if (depth >= dims.length - 1) {
    for (let index = 0; index < size; index++) list[index] = cell(start + index);
    return list;
  }
  const step = product(dims.slice(depth + 1));
  for (let index = 0; index < size; index++)
    list[index] = nested(dims, depth + 1, start + index * step, cell);
  return list;
}

function readMaps(
  tensor: string,
  keys: readonly string[],
  data: TensorData,
  width: number,
  count: number,
): Json[] {
  if (width !== keys.length) {
    throw new ServingError(
      'INVALID_RESPONSE',
      `Output "${tensor}" of the model has ${width} values a row for its ${keys.length} labels.`,
    );
  }
  return Array.from({ length: count }, (_, row) => {
    // Without a prototype a label called __proto__ is a member like any other.
    const map = Object.create(null) as Record<string, Json>;
    for (const [index, key] of keys.entries()) map[key] = Number(data[row * width + index]);
    return map;
  });
}

function readLabels(labels: readonly string[], data: TensorData, width: number, count: number): Json[] {
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

function largestOf(data: TensorData, start: number, width: number): number {
  let best = 0;
  for (let index = 1; index < width; index++) {
    if ((data[start + index] ?? 0) > (data[start + best] ?? 0)) best = index;
  }
  return best;
}
