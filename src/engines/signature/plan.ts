// How the cells of one column are converted and where they are put. Made once for a column, used for all its rows.
import type { SignatureColumn } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';
import {
  NEVER_NULL,
  toBoolean,
  toBytes,
  toDatetime,
  toDouble,
  toFloat,
  toInteger,
  toLong,
  toText,
  UNFIT,
  Unfit,
} from './cells.ts';
import { nestedProblem } from './nested.ts';

export type CellValue = number | bigint | string | boolean | Uint8Array;

export interface CellPlan {
  readonly column: SignatureColumn;
  readonly kind: 'f64' | 'f32' | 'i64' | 'i32' | 'bool' | 'datetime' | 'utf8' | 'bytes' | 'json';
  readonly takesNull: boolean;
  /** What stands where NULL is. */
  readonly nullValue: CellValue;
  /** NULL inside a tensor. */
  readonly nullItem: CellValue | Unfit;
  convert(value: Json): CellValue | Unfit;
  /** As many places; indexed by row, or by row and place in a tensor. */
  allocate(size: number): { [index: number]: CellValue };
}

/** Least and most of NumPy's small integers; a tensor says which it has. */
const RANGES: Readonly<Record<string, readonly [number, number]>> = {
  int8: [-128, 127],
  int16: [-32_768, 32_767],
  uint8: [0, 255],
  uint16: [0, 65_535],
};
const MOST_UINT32 = 2n ** 32n - 1n;
const MOST_LONG = 2n ** 63n - 1n;
const EMPTY = new Uint8Array(0);

export function planCell(column: SignatureColumn): CellPlan {
  const { type, shape, spec } = column;
  const dtype = shape !== undefined && typeof spec?.dtype === 'string' ? spec.dtype : '';
  const isTensor = shape !== undefined;
  const isFloat = type === 'double' || type === 'float';
  const common = {
    column,
    // NumPy has missing values among floats and objects only; pandas in all columns but those of NEVER_NULL.
    takesNull: isTensor ? shape.length === 0 && (isFloat || type === 'string') : !NEVER_NULL.has(type),
    nullItem: isFloat ? Number.NaN : UNFIT,
  };
  const make = (
    kind: CellPlan['kind'],
    nullValue: CellValue,
    convert: CellPlan['convert'],
    allocate: (size: number) => unknown,
  ): CellPlan => ({
    ...common,
    kind,
    nullValue,
    convert,
    allocate: allocate as CellPlan['allocate'],
  });
  const list = (size: number) => new Array(size);
  switch (type) {
    case 'double':
      return make('f64', Number.NaN, toDouble, (size) => new Float64Array(size));
    case 'float':
      return make('f32', Number.NaN, toFloat, (size) => new Float32Array(size));
    case 'integer': {
      const [least, most] = RANGES[dtype] ?? [undefined, undefined];
      return make(
        'i32',
        0,
        (value) => toInteger(value, least, most),
        (size) => new Int32Array(size),
      );
    }
    case 'long': {
      const [least, most] =
        dtype === 'uint32'
          ? [0n, MOST_UINT32]
          : dtype === 'uint64'
            ? [0n, MOST_LONG]
            : [undefined, undefined];
      return make(
        'i64',
        0n,
        (value) => toLong(value, least, most),
        (size) => new BigInt64Array(size),
      );
    }
    case 'boolean':
      return make('bool', 0, toBit, (size) => new Uint8Array(size));
    case 'datetime':
      return make('datetime', 0n, toDatetime, (size) => new BigInt64Array(size));
    case 'string':
      return make('utf8', '', toText, list);
    case 'binary':
      return make('bytes', EMPTY, toBytes, list);
    case 'json':
      return make('json', 'null', (value) => toJsonText(value, column), list);
  }
}

function toBit(value: Json): number | Unfit {
  const bit = toBoolean(value);
  return bit instanceof Unfit ? bit : Number(bit);
}

function toJsonText(value: Json, { spec }: SignatureColumn): string | Unfit {
  const problem = spec === undefined ? undefined : nestedProblem(value, spec);
  if (problem !== undefined) return new Unfit(`where ${problem}`);
  try {
    return JSON.stringify(value);
  } catch {
    // What was parsed without end cannot be written again.
    return new Unfit('which is nested too deep');
  }
}
