// Tensors of the Open Inference Protocol (KServe v2): their JSON checked against datatype and shape, as rows and back.
// Not here: which endpoint takes which tensors (infer.ts).
import { z } from 'zod';
import type { ColumnType, SignatureColumn } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import { showValue } from '../errors.ts';

interface Datatype {
  readonly what: string;
  accepts(value: Json): boolean;
}

const wholeNumber = (from: number, to: number): Datatype => ({
  what: `a whole number from ${from} to ${to}`,
  accepts: (value) => Number.isSafeInteger(value) && (value as number) >= from && (value as number) <= to,
});
const signed = (bits: number) => wholeNumber(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1);
const unsigned = (bits: number) => wholeNumber(0, 2 ** bits - 1);
/** JSON numbers are exact up to here; beyond, another number would be asked than was sent. */
const EXACT = Number.MAX_SAFE_INTEGER;
const number: Datatype = { what: 'a number', accepts: (value) => typeof value === 'number' };

const DATATYPES: ReadonlyMap<string, Datatype> = new Map([
  ['BOOL', { what: 'true or false', accepts: (value: Json) => typeof value === 'boolean' }],
  ['INT8', signed(8)],
  ['INT16', signed(16)],
  ['INT32', signed(32)],
  ['INT64', wholeNumber(-EXACT, EXACT)],
  ['UINT8', unsigned(8)],
  ['UINT16', unsigned(16)],
  ['UINT32', unsigned(32)],
  ['UINT64', wholeNumber(0, EXACT)],
  ['FP16', number],
  ['FP32', number],
  ['FP64', number],
  ['BYTES', { what: 'a text', accepts: (value: Json) => typeof value === 'string' }],
]);

const COLUMN_DATATYPES: Readonly<Record<ColumnType, string>> = {
  boolean: 'BOOL',
  integer: 'INT32',
  long: 'INT64',
  float: 'FP32',
  double: 'FP64',
  string: 'BYTES',
  binary: 'BYTES',
  datetime: 'BYTES',
  json: 'BYTES',
};

export const tensorInput = z.object({
  name: z.string().min(1),
  shape: z.array(z.int().min(0)),
  datatype: z.string(),
  parameters: z.record(z.string(), z.json()).nullish(),
  /** Missing where the bytes stand behind the JSON. */
  data: z.array(z.json()).optional(),
});
type TensorInput = z.output<typeof tensorInput>;

/** A tensor cut along its first dimension. */
export interface TensorRows {
  readonly name: string;
  readonly datatype: string;
  /** Values in a row, over all further dimensions. */
  readonly width: number;
  /** One for each row: the value itself where a row has one, else a list of them. */
  readonly rows: readonly Json[];
}

export function readTensor(input: TensorInput): TensorRows {
  const { name, shape, datatype } = input;
  const wrong = (problem: string) =>
    new ServingError('INVALID_PARAMETER', `Input ${showValue(name)}: ${problem}.`, {
      details: { field: 'inputs' },
    });
  const type = DATATYPES.get(datatype);
  if (type === undefined) {
    throw wrong(`the datatype is ${showValue(datatype)}; it is one of ${[...DATATYPES.keys()].join(', ')}`);
  }
  const [rowCount, ...rowShape] = shape;
  if (rowCount === undefined) throw wrong('the shape is []; the first dimension counts rows, as in [1, 4]');
  if (rowShape.includes(0)) throw wrong(`the shape ${JSON.stringify(shape)} leaves no value in a row`);
  const width = rowShape.reduce((product, size) => product * size, 1);
  if (input.data === undefined) throw wrong('it has no data');
  const values = flatten(input.data);
  if (values.length !== rowCount * width) {
    throw wrong(
      `the shape ${JSON.stringify(shape)} holds ${rowCount * width} values, and data has ${values.length}`,
    );
  }
  const misfit = values.findIndex((value) => !type.accepts(value));
  if (misfit >= 0) {
    throw wrong(`value ${misfit} is ${showValue(values[misfit])}, and ${datatype} takes ${type.what}`);
  }
  if (width === 1) return { name, datatype, width, rows: values };
  const rows = Array.from({ length: rowCount }, (_, row) => values.slice(row * width, (row + 1) * width));
  return { name, datatype, width, rows };
}

/** Data may be flat or nested as the shape is. */
function flatten(data: readonly Json[]): Json[] {
  if (!data.some(Array.isArray)) return [...data];
  return (data as readonly unknown[]).flat(Number.POSITIVE_INFINITY) as Json[];
}

/** An output tensor of one value, or lists (of lists) of equal sizes, for each row; JSON texts where sizes differ. */
export function formatTensor(
  column: Pick<SignatureColumn, 'name'> & { readonly type?: ColumnType | undefined },
  rows: readonly Json[],
): JsonObject {
  const shape = [rows.length];
  let values = rows;
  for (;;) {
    const [first] = values;
    const size = Array.isArray(first) ? first.length : 0;
    if (size === 0 || !values.every((item) => Array.isArray(item) && item.length === size)) break;
    shape.push(size);
    values = values.flatMap((item): readonly Json[] => (Array.isArray(item) ? item : [item]));
  }
  const isUneven = values.some((item) => Array.isArray(item));
  if (isUneven)
    return { name: column.name, datatype: 'BYTES', shape: [rows.length], data: rows.map(toBytes) };
  const datatype = column.type === undefined ? datatypeOf(values) : COLUMN_DATATYPES[column.type];
  return { name: column.name, datatype, shape, data: datatype === 'BYTES' ? values.map(toBytes) : values };
}

function datatypeOf(values: readonly Json[]): string {
  if (values.length > 0 && values.every((value) => typeof value === 'boolean')) return 'BOOL';
  return values.every((value) => typeof value === 'number') ? 'FP64' : 'BYTES';
}

function toBytes(value: Json): Json {
  return value === null || typeof value === 'string' ? value : JSON.stringify(value);
}

/** Metadata of a column; -1 stands for the number of rows. */
export function formatColumn({ name, type, width = -1, shape }: SignatureColumn): JsonObject {
  const rowShape = shape ?? (width < 0 ? [] : [width]);
  return { name, datatype: COLUMN_DATATYPES[type], shape: [-1, ...rowShape] };
}
