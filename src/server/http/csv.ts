// A table as text/csv, as MLflow's scoring protocol takes it: a header with the names of the columns, then rows.
// Cells become values of the types that the model's signature names; without one, what all cells of a column are.
import { CsvError, parse } from 'csv-parse/sync';
import type { FeatureInput } from '#core/call.ts';
import type { ColumnType, Signature } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { showValue } from './errors.ts';

const WHOLE_NUMBER = /^[+-]?\d+$/;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ['true', true],
  ['false', false],
]);

/** An empty cell is null. Throws BAD_REQUEST with the line that cannot be read. */
export function parseCsv(text: string, signature: Signature | undefined): FeatureInput[] {
  const [header, ...rows] = readRecords(text);
  if (header === undefined) {
    throw new ServingError('BAD_REQUEST', 'The CSV is empty: begin with a line of column names.');
  }
  const repeated = header.find((name, index) => header.indexOf(name) !== index);
  if (repeated !== undefined) {
    throw new ServingError('BAD_REQUEST', `The CSV names the column ${showValue(repeated)} twice.`);
  }
  const columns = header.map((name, index) => {
    const type = signature?.inputs.find((column) => column.name === name)?.type;
    return { name, type: type ?? guessType(rows.map((row) => row[index] ?? '')) };
  });
  return rows.map((row, at) => ({
    features: Object.fromEntries(
      columns.map(({ name, type }, index) => [name, toValue(row[index] ?? '', type, name, at + 2)]),
    ),
  }));
}

function readRecords(text: string): string[][] {
  try {
    return parse(text, { bom: true, skip_empty_lines: true });
  } catch (thrown) {
    const reason = thrown instanceof CsvError ? thrown.message : 'it cannot be read';
    throw new ServingError(
      'BAD_REQUEST',
      `The body is not CSV with a header line: ${reason.slice(0, 200)}.`,
      {
        cause: thrown,
      },
    );
  }
}

function guessType(cells: readonly string[]): ColumnType {
  const filled = cells.filter((cell) => cell !== '');
  if (filled.length === 0) return 'string';
  if (filled.every((cell) => BOOLEANS.has(cell.toLowerCase()))) return 'boolean';
  return filled.every((cell) => NUMBER.test(cell)) ? 'double' : 'string';
}

function toValue(cell: string, type: ColumnType, name: string, line: number): Json {
  if (cell === '') return null;
  if (type === 'string') return cell;
  const misfit = (expected: string) =>
    new ServingError(
      'SCHEMA_MISMATCH',
      `Row ${line} of the CSV (the header is row 1) has ${showValue(cell)} in column ${showValue(name)}, which takes ${expected}.`,
    );
  if (type === 'boolean') {
    const value = BOOLEANS.get(cell.toLowerCase());
    if (value === undefined) throw misfit('true or false');
    return value;
  }
  const isWhole = type === 'integer' || type === 'long';
  // pandas writes whole numbers of a column with gaps as 3.0.
  const plain = isWhole ? cell.trim().replace(/\.0+$/, '') : cell.trim();
  if (!(isWhole ? WHOLE_NUMBER : NUMBER).test(plain)) throw misfit(isWhole ? 'a whole number' : 'a number');
  const value = Number(plain);
  if (isWhole && !Number.isSafeInteger(value)) throw misfit('a whole number below 2^53');
  if (!Number.isFinite(value)) throw misfit('a number that is not too large');
  return value;
}
