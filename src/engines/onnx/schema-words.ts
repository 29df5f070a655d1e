// Words that the plans of inputs and outputs share: types of columns, names as SQL compares them, and the refusal.
import type { ColumnType } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { ElementType } from './session.ts';

export const COLUMN_TYPE: Readonly<Record<ElementType, ColumnType>> = {
  float16: 'float',
  float32: 'float',
  float64: 'double',
  int8: 'integer',
  int16: 'integer',
  int32: 'integer',
  uint8: 'integer',
  uint16: 'integer',
  uint32: 'long',
  int64: 'long',
  uint64: 'long',
  bool: 'boolean',
  string: 'string',
};

/** Index of a name as SQL compares names: exactly, else without regard to case; -1 when absent. */
export function indexOfName(items: readonly { readonly name: string | null }[], name: string): number {
  const exact = items.findIndex((item) => item.name === name);
  if (exact >= 0) return exact;
  const folded = name.toLowerCase();
  return items.findIndex((item) => item.name?.toLowerCase() === folded);
}

export function product(sizes: readonly number[]): number {
  return sizes.reduce((total, size) => total * size, 1);
}

export function unfit(reason: string): ServingError {
  return new ServingError('INVALID_PARAMETER', `The ONNX model cannot be used for predict: ${reason}.`);
}
