// Scalar SQL types: their names in Spark and DuckDB, and the check that a value of a model's answer fits one,
// so that DuckDB's cast of it cannot fail. Not for lists, structs and maps: sql-type.ts is made of these.
import type { Json } from '#core/json.ts';

export type ScalarName =
  | 'VARCHAR'
  | 'BOOLEAN'
  | 'TINYINT'
  | 'SMALLINT'
  | 'INTEGER'
  | 'BIGINT'
  | 'HUGEINT'
  | 'FLOAT'
  | 'DOUBLE'
  | 'DATE'
  | 'TIMESTAMP'
  | 'TIME'
  | 'JSON';

/** By lower-case spelling. */
export const SCALARS: ReadonlyMap<string, ScalarName> = new Map([
  ['string', 'VARCHAR'],
  ['varchar', 'VARCHAR'],
  ['text', 'VARCHAR'],
  ['char', 'VARCHAR'],
  ['boolean', 'BOOLEAN'],
  ['bool', 'BOOLEAN'],
  ['tinyint', 'TINYINT'],
  ['byte', 'TINYINT'],
  ['smallint', 'SMALLINT'],
  ['short', 'SMALLINT'],
  ['int', 'INTEGER'],
  ['integer', 'INTEGER'],
  ['bigint', 'BIGINT'],
  ['long', 'BIGINT'],
  ['hugeint', 'HUGEINT'],
  ['float', 'FLOAT'],
  ['real', 'FLOAT'],
  ['double', 'DOUBLE'],
  ['date', 'DATE'],
  ['timestamp', 'TIMESTAMP'],
  ['timestamp_ntz', 'TIMESTAMP'],
  ['time', 'TIME'],
  ['json', 'JSON'],
  ['variant', 'JSON'],
]);

/** Bits of the whole-number types. */
const INTEGER_BITS: ReadonlyMap<ScalarName, number> = new Map([
  ['TINYINT', 8],
  ['SMALLINT', 16],
  ['INTEGER', 32],
  ['BIGINT', 64],
  ['HUGEINT', 128],
]);

export function isInteger(name: ScalarName): boolean {
  return INTEGER_BITS.has(name);
}

/** Ends the check: what was expected instead. */
export type Refuse = (expected: string) => never;

export function conformScalar(value: Json, name: ScalarName, refuse: Refuse): Json {
  if (name === 'JSON') return value;
  if (name === 'VARCHAR') return typeof value === 'string' ? value : JSON.stringify(value);
  if (typeof value === 'object') return refuse(name);
  const text = String(value).trim();
  const bits = INTEGER_BITS.get(name);
  if (bits !== undefined) return conformInteger(text, bits, () => refuse(`a whole number (${name})`));
  switch (name) {
    case 'BOOLEAN':
      if (/^(true|yes|1)$/i.test(text)) return true;
      return /^(false|no|0)$/i.test(text) ? false : refuse('true or false');
    case 'TIME':
      return conformTime(text) ?? refuse('a time like 13:45:00');
    case 'DATE':
    case 'TIMESTAMP':
      return conformMoment(text, name) ?? refuse(`a ${name} like 2026-01-31`);
    default: {
      const number = text === '' ? Number.NaN : Number(text);
      const fits = Number.isFinite(name === 'FLOAT' ? Math.fround(number) : number);
      return fits ? number : refuse(`a number (${name})`);
    }
  }
}

function conformInteger(text: string, bits: number, refuse: () => never): Json {
  const digits = /^([+-]?[0-9]+)(?:\.0*)?$/.exec(text)?.[1];
  if (digits === undefined) return refuse();
  const whole = BigInt(digits.replace('+', ''));
  if (BigInt.asIntN(bits, whole) !== whole) return refuse();
  // As text where a number of JavaScript would lose digits; DuckDB casts both.
  return Number.isSafeInteger(Number(whole)) ? Number(whole) : String(whole);
}

export function conformDecimal(value: Json, precision: number, scale: number, refuse: () => never): Json {
  const text = typeof value === 'number' || typeof value === 'string' ? String(value).trim() : '';
  const number = text === '' ? Number.NaN : Number(text);
  // What rounds up to one digit too many does not fit either.
  const limit = 10 ** (precision - scale) - 0.5 * 10 ** -scale;
  if (!(Math.abs(number) < limit)) return refuse();
  return typeof value === 'string' && /^[+-]?[0-9]+(\.[0-9]+)?$/.test(text) ? text : number;
}

const DATE = /^(\d{4})-(\d{2})-(\d{2})(?:[Tt ]+(.*))?$/s;
const TIME = /^(\d{1,2}):(\d{2})(?::(\d{2})(\.\d+)?)?\s*(?:Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?$/i;

/** In DuckDB's spelling. These types have no time zone; like DuckDB's cast, one that was written is left out. */
function conformTime(text: string): string | undefined {
  const [match, hour, minute, second = '00', fraction = ''] = TIME.exec(text) ?? [];
  if (match === undefined || Number(hour) > 23 || Number(minute) > 59 || Number(second) > 59)
    return undefined;
  return `${hour?.padStart(2, '0')}:${minute}:${second}${fraction}`;
}

function conformMoment(text: string, name: 'DATE' | 'TIMESTAMP'): string | undefined {
  const [match, year, month, day, rest] = DATE.exec(text) ?? [];
  if (match === undefined) return undefined;
  const date = `${year}-${month}-${day}`;
  const parsed = new Date(`${date}T00:00:00Z`);
  if (Number.isNaN(parsed.getTime()) || parsed.toISOString().slice(0, 10) !== date) return undefined;
  const time = rest === undefined ? '00:00:00' : conformTime(rest);
  if (time === undefined) return undefined;
  return name === 'DATE' ? date : `${date} ${time}`;
}
