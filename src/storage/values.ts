// DuckDB's values as JSON values: how every door shows them. Numbers stay numbers where JavaScript can hold
// them exactly, else text; dates and times are ISO-like text as DuckDB prints them; BLOBs are base64.
import {
  DuckDBArrayValue,
  DuckDBBlobValue,
  DuckDBDateValue,
  DuckDBDecimalValue,
  DuckDBListValue,
  DuckDBMapValue,
  DuckDBStructValue,
  DuckDBUnionValue,
  type DuckDBValue,
} from '@duckdb/node-api';
import type { Json } from '#core/json.ts';

/** NaN and the infinities become the texts 'NaN', 'Infinity', '-Infinity': JSON has no numbers for them. */
export function toJson(value: DuckDBValue | undefined): Json {
  if (value === null || value === undefined) return null;
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      return Number.isFinite(value) ? value : String(value);
    case 'bigint':
      return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER
        ? Number(value)
        : String(value);
    default:
      return objectToJson(value);
  }
}

function objectToJson(value: DuckDBValue & object): Json {
  if (value instanceof DuckDBListValue || value instanceof DuckDBArrayValue) return value.items.map(toJson);
  if (value instanceof DuckDBStructValue) {
    return Object.fromEntries(Object.entries(value.entries).map(([name, member]) => [name, toJson(member)]));
  }
  if (value instanceof DuckDBMapValue) {
    return Object.fromEntries(value.entries.map((entry) => [keyText(entry.key), toJson(entry.value)]));
  }
  if (value instanceof DuckDBUnionValue) return toJson(value.value);
  if (value instanceof DuckDBDecimalValue) return decimalToJson(value);
  if (value instanceof DuckDBBlobValue) return Buffer.from(value.bytes).toString('base64');
  if (value instanceof DuckDBDateValue && !value.isFinite) return value.days > 0 ? 'infinity' : '-infinity';
  return String(value);
}

/** A FLOAT as the shortest decimal that is the same 32-bit number, as DuckDB prints it: 0.1, not 0.10000000149. */
export function shortFloat(value: number): number {
  for (let digits = 6; digits <= 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return short;
  }
  return value;
}

/** `toJson` for a column of FLOAT or of lists of FLOAT. */
export function floatsToJson(value: DuckDBValue | undefined): Json {
  if (typeof value === 'number' && Number.isFinite(value)) return shortFloat(value);
  if (value instanceof DuckDBListValue || value instanceof DuckDBArrayValue)
    return value.items.map(floatsToJson);
  return toJson(value);
}

function keyText(key: DuckDBValue): string {
  const json = toJson(key);
  return typeof json === 'string' ? json : JSON.stringify(json);
}

/** As a number when it prints the same, else as text, so that no digit is lost. */
function decimalToJson(value: DuckDBDecimalValue): Json {
  const text = value.toString();
  const number = Number(text);
  return Math.abs(number) <= Number.MAX_SAFE_INTEGER && text.replace('.', '').length <= 15 ? number : text;
}
