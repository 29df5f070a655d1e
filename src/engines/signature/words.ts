// What a user of predict() reads when features do not fit: one wording for all engines. A message shows the names of
// columns and one cell of the row it is about, never another cell or row.
import { DUCKDB_COLUMN_TYPES, type SignatureColumn } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

const MOST_NAMES = 30;
const LONGEST_CELL = 80;

/** `The features do not fit model "m": PROBLEM. It expects 2: a DOUBLE, b VARCHAR.` */
export function mismatch(model: string, columns: readonly SignatureColumn[], problem: string): ServingError {
  const expected = listed(columns.map((column) => `${column.name} ${typeName(column)}`));
  return new ServingError(
    'SCHEMA_MISMATCH',
    `The features do not fit model "${model}": ${problem}. It expects ${columns.length}: ${expected}.`,
  );
}

/** `"a", "b" are missing (given: c, d)` */
export function missingProblem(missing: readonly string[], given: readonly string[]): string {
  const names = listed(missing.map((name) => `"${name}"`));
  const shown = given.length === 0 ? 'nothing' : listed(given.map((name) => name.slice(0, LONGEST_CELL)));
  return `${names} ${missing.length === 1 ? 'is' : 'are'} missing (given: ${shown})`;
}

export function countProblem(count: number): string {
  return `got ${count} ${count === 1 ? 'value' : 'values'} by position`;
}

/** `reason`: why a value of that type cannot be taken, where the type alone does not say it. */
export function wrongValue(
  model: string,
  columns: readonly SignatureColumn[],
  column: SignatureColumn,
  value: unknown,
  reason?: string,
): ServingError {
  const type = typeName(column);
  const isPlain = column.shape === undefined && column.type !== 'json';
  const cast = isPlain
    ? `; if the column holds the right values in another type, cast it (${column.name}::${type})`
    : '';
  const why = reason === undefined ? `which is no ${type}${cast}` : reason;
  const problem = `"${column.name}" is ${showCell(value)}, ${why}`;
  return mismatch(model, columns, problem);
}

export function nullValue(model: string, { name, type }: SignatureColumn): ServingError {
  const isWhole = type === 'integer' || type === 'long';
  const way = isWhole
    ? ' Integers have no missing values in Python: where a column may have some, give the model a signature with doubles.'
    : '';
  return new ServingError(
    'SCHEMA_MISMATCH',
    `Feature "${name}" of model "${model}" is NULL, and this model cannot take missing values there. ` +
      `Replace them (coalesce(${name}, ...)) or leave such rows out (WHERE ${name} IS NOT NULL).${way}`,
  );
}

/** As SQL calls it: `DOUBLE`, `FLOAT[28][28]`, `VARCHAR (optional)` is written by the caller. */
export function typeName({ type, shape, width, spec, required }: SignatureColumn): string {
  const sizes = shape ?? (width !== undefined && width >= 0 ? [width] : []);
  const dims = sizes.map((size) => `[${size < 0 ? '' : size}]`).join('');
  const nested = type === 'json' && typeof spec?.type === 'string' ? ` (${spec.type})` : '';
  return `${DUCKDB_COLUMN_TYPES[type]}${nested}${dims}${required ? '' : ' (optional)'}`;
}

/** One cell, cut. */
export function showCell(value: unknown): string {
  if (value === undefined) return 'missing';
  if (typeof value === 'bigint') return `${value}`;
  if (typeof value === 'number') return `${value}`;
  const text = typeof value === 'string' ? JSON.stringify(value.slice(0, LONGEST_CELL)) : safeJson(value);
  return text.length <= LONGEST_CELL ? text : `${text.slice(0, LONGEST_CELL - 3)}...`;
}

function safeJson(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}

function listed(names: readonly string[]): string {
  const rest = names.length - MOST_NAMES;
  if (rest <= 0) return names.join(', ');
  return `${names.slice(0, MOST_NAMES).join(', ')} and ${rest} more`;
}
