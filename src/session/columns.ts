// Between DuckDB's vectors and plain values, for the callbacks of AI functions: rows of arguments in, values
// out, and numeric features as arrays for local models.
import {
  DuckDBArrayType,
  DuckDBArrayVector,
  type DuckDBDataChunk,
  DuckDBDecimalValue,
  DuckDBDoubleVector,
  DuckDBListType,
  DuckDBListValue,
  DuckDBListVector,
  DuckDBStructVector,
  type DuckDBValue,
  DuckDBVarCharVector,
  type DuckDBVector,
} from '@duckdb/node-api';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { ReturnType, SqlValue } from '#functions/function.ts';
import { toJson } from '#storage/values.ts';
import './untyped-null.ts';

/** One argument of a chunk, read row by row. */
export interface ArgumentColumn {
  readonly vector: DuckDBVector | null;
  value(row: number): Json;
  /** Text that differs for values that differ. */
  key(row: number): string;
  /** True only when the value is surely that of the row before: constants of a call are read once a chunk. */
  isRepeated(row: number): boolean;
}

/** Columns of a chunk; a NULL constant without a type cannot be read and counts as all NULL. */
export function argumentColumns(chunk: DuckDBDataChunk): ArgumentColumn[] {
  return Array.from({ length: chunk.columnCount }, (_, index) => argumentColumn(vectorAt(chunk, index)));
}

function vectorAt(chunk: DuckDBDataChunk, index: number): DuckDBVector | null {
  try {
    return chunk.getColumnVector(index);
  } catch (error) {
    if (error instanceof Error && error.message.includes('SQLNULL')) return null;
    throw error;
  }
}

function argumentColumn(vector: DuckDBVector | null): ArgumentColumn {
  if (vector === null) return { vector, value: () => null, key: () => 'n', isRepeated: (row) => row > 0 };
  if (vector instanceof DuckDBVarCharVector) return textColumn(vector);
  if (vector instanceof DuckDBListVector) return listColumn(vector);
  return {
    vector,
    value: (row) => toJson(vector.getItem(row)),
    key: (row) => JSON.stringify(toJson(vector.getItem(row))),
    isRepeated: () => false,
  };
}

function textColumn(vector: DuckDBVarCharVector): ArgumentColumn {
  return {
    vector,
    value: (row) => vector.getItem(row),
    key: (row) => {
      const text = vector.getItem(row);
      return text === null ? 'n' : `"${text}`;
    },
    isRepeated: repeatedText(vector),
  };
}

/**
 * DuckDB keeps a string as 16 bytes: its length and a prefix or pointer. Equal bytes are the same string, which
 * is far cheaper to see than to decode it. These are inner fields of the vector, so their absence is no error.
 */
function repeatedText(vector: DuckDBVarCharVector): (row: number) => boolean {
  const inner = vector as unknown as { dataView?: DataView; validity?: { itemValid(row: number): boolean } };
  const { dataView, validity } = inner;
  if (!(dataView instanceof DataView) || typeof validity?.itemValid !== 'function') return () => false;
  return (row) => {
    if (row === 0 || !validity.itemValid(row) || !validity.itemValid(row - 1)) return false;
    const at = row * 16;
    return (
      dataView.getInt32(at + 8) === dataView.getInt32(at - 8) &&
      dataView.getInt32(at + 4) === dataView.getInt32(at - 12) &&
      dataView.getInt32(at) === dataView.getInt32(at - 16) &&
      dataView.getInt32(at + 12) === dataView.getInt32(at - 4)
    );
  };
}

/** A constant list has the same place in the child vector for every row. */
function listColumn(vector: DuckDBListVector): ArgumentColumn {
  const value = (row: number): Json => toJson(vector.getItem(row));
  const { validity } = vector as unknown as { validity?: { itemValid(row: number): boolean } };
  return {
    vector,
    value,
    key: (row) => JSON.stringify(value(row)),
    isRepeated: (row) =>
      row > 0 &&
      typeof validity?.itemValid === 'function' &&
      validity.itemValid(row) &&
      validity.itemValid(row - 1) &&
      vector.getEntryLength(row) === vector.getEntryLength(row - 1) &&
      vector.getEntryOffset(row) === vector.getEntryOffset(row - 1),
  };
}

/** Writes one value; the vector is flushed by the caller when the chunk is done. */
export function writeValue(output: DuckDBVector, row: number, value: SqlValue, returns: ReturnType): void {
  if (value === null) output.setItem(row, null);
  else if (returns === 'FLOAT[]') output.setItem(row, floatList(value));
  else if (returns === 'JSON')
    output.setItem(row, JSON.stringify(value instanceof Float32Array ? Array.from(value) : value));
  else if (returns === 'VARCHAR')
    output.setItem(row, typeof value === 'string' ? value : JSON.stringify(value));
  else if (returns === 'BIGINT') output.setItem(row, BigInt(Math.round(Number(value))));
  else output.setItem(row, value as never);
}

/** The list vector only reads `items[i]` and `items.length`, so the vector is not copied into a JS array. */
function floatList(value: SqlValue): DuckDBListValue {
  if (value instanceof Float32Array || Array.isArray(value))
    return new DuckDBListValue(value as unknown as readonly number[]);
  throw new ServingError('INVALID_RESPONSE', 'A vector was expected.');
}

/** A feature column for a local model: numbers as Float64Array wherever DuckDB's type is numeric. */
export interface NumericColumn {
  readonly name: string | null;
  readonly values: Float64Array | (string | number | boolean | null)[];
  readonly isNull: Uint8Array | null;
}

/** Features of a chunk by column: the members of one struct, the positions of one list, or the columns as given. */
export function featureColumns(
  vectors: readonly (DuckDBVector | null)[],
  rowCount: number,
): { columns: NumericColumn[]; nullRows: Uint8Array | null } {
  const [first] = vectors;
  if (vectors.length === 1 && first instanceof DuckDBStructVector) {
    const names = first.type.entryNames;
    const columns = names.map((name, index) => toNumericColumn(name, first.entryVectorAt(index), rowCount));
    return withoutNullRows(
      columns,
      nullRowsOf((row) => first.isItemValid(row), rowCount),
    );
  }
  if (vectors.length === 1 && (first instanceof DuckDBListVector || first instanceof DuckDBArrayVector))
    return listFeatures(first, rowCount);
  const columns = vectors.map((vector) => toNumericColumn(null, vector, rowCount));
  // One value that is NULL is no row of features; among several it is a missing feature, for the model to judge.
  return columns.length === 1
    ? withoutNullRows(columns, columns[0]?.isNull ?? null)
    : { columns, nullRows: null };
}

/**
 * Rows that are NULL as a whole get NULL whatever the model says, so the model must not stumble over them: they
 * are given the features of a row that is there.
 */
function withoutNullRows(
  columns: readonly NumericColumn[],
  nullRows: Uint8Array | null,
): { columns: NumericColumn[]; nullRows: Uint8Array | null } {
  if (nullRows === null) return { columns: [...columns], nullRows };
  const donor = nullRows.indexOf(0);
  if (donor < 0) return { columns: [...columns], nullRows };
  const filled = columns.map(({ name, values, isNull }): NumericColumn => {
    const missing = isNull?.slice() ?? null;
    const copy = values.slice();
    nullRows.forEach((isNullRow, row) => {
      if (!isNullRow) return;
      copy[row] = values[donor] as never;
      if (missing) missing[row] = missing[donor] ?? 0;
    });
    return { name, values: copy, isNull: missing?.includes(1) ? missing : null };
  });
  return { columns: filled, nullRows };
}

/** Features that are lists themselves travel row by row, as questions: columns of numbers cannot hold them. */
export function hasListFeatures(vectors: readonly (DuckDBVector | null)[]): boolean {
  const isList = (vector: unknown) =>
    vector instanceof DuckDBListVector || vector instanceof DuckDBArrayVector;
  const [first] = vectors;
  if (vectors.length > 1) return vectors.some(isList);
  if (first instanceof DuckDBListVector || first instanceof DuckDBArrayVector)
    return first.type.valueType instanceof DuckDBListType || first.type.valueType instanceof DuckDBArrayType;
  return (
    first instanceof DuckDBStructVector &&
    first.type.entryNames.some((_, index) => isList(first.entryVectorAt(index)))
  );
}

function nullRowsOf(isValid: (row: number) => boolean, rowCount: number): Uint8Array | null {
  let nullRows: Uint8Array | null = null;
  for (let row = 0; row < rowCount; row++) {
    if (isValid(row)) continue;
    nullRows ??= new Uint8Array(rowCount);
    nullRows[row] = 1;
  }
  return nullRows;
}

function toNumericColumn(name: string | null, vector: DuckDBVector | null, rowCount: number): NumericColumn {
  if (vector instanceof DuckDBVarCharVector) {
    return {
      name,
      values: Array.from({ length: rowCount }, (_, row) => vector.getItem(row)),
      isNull: nullRowsOf((row) => vector.getItem(row) !== null, rowCount),
    };
  }
  const values = new Float64Array(rowCount);
  let isNull: Uint8Array | null = null;
  const isDouble = vector instanceof DuckDBDoubleVector;
  for (let row = 0; row < rowCount; row++) {
    const item = vector === null ? null : isDouble ? vector.getItem(row) : numberOf(vector.getItem(row));
    if (item === null) {
      isNull ??= new Uint8Array(rowCount);
      isNull[row] = 1;
    } else values[row] = item;
  }
  return { name, values, isNull };
}

function numberOf(value: DuckDBValue): number | null {
  if (value === null) return null;
  if (typeof value === 'number') return value;
  if (typeof value === 'bigint' || typeof value === 'boolean') return Number(value);
  if (value instanceof DuckDBDecimalValue) return value.toDouble();
  throw new ServingError(
    'SCHEMA_MISMATCH',
    `A feature is ${String(value)}; features are numbers, booleans or texts. Cast it, for example with epoch(x) for a time.`,
  );
}

function listFeatures(
  vector: DuckDBListVector | DuckDBArrayVector,
  rowCount: number,
): { columns: NumericColumn[]; nullRows: Uint8Array | null } {
  const rows = Array.from({ length: rowCount }, (_, row) => vector.getItem(row));
  const width = rows.find((row) => row !== null)?.items.length ?? 0;
  const uneven = rows.find((row) => row !== null && row.items.length !== width);
  if (uneven) {
    throw new ServingError(
      'SCHEMA_MISMATCH',
      `The lists of features have ${width} and ${uneven.items.length} members; every row needs the same number.`,
    );
  }
  const columns = Array.from({ length: width }, (_, position): NumericColumn => {
    const items = rows.map((row) => row?.items[position] ?? null);
    if (items.some((item) => typeof item === 'string')) {
      return {
        name: null,
        values: items.map((item) => (item === null ? null : String(item))),
        isNull: nullRowsOf((row) => items[row] !== null, rowCount),
      };
    }
    return {
      name: null,
      values: Float64Array.from(items, (item) => numberOf(item) ?? 0),
      isNull: nullRowsOf((row) => items[row] !== null, rowCount),
    };
  });
  return withoutNullRows(
    columns,
    nullRowsOf((row) => rows[row] !== null, rowCount),
  );
}
