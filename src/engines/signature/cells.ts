// One value of a row as the value of its column's type, or the reason why it is none. MLflow's rules, strict ones:
// whole numbers become decimals, nothing becomes a number or a text by force.
import type { ColumnType } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';

/** A value that does not fit; without a reason the type says enough. */
export class Unfit {
  readonly reason: string | undefined;

  constructor(reason?: string) {
    this.reason = reason;
  }
}

export const UNFIT = new Unfit();
const INEXACT = new Unfit(
  'and numbers beyond 2^53 lose digits on their way through JSON: send it as a text of digits',
);
const TOO_LARGE_FLOAT = new Unfit('which is too large for a FLOAT');

const LEAST_LONG = -(2n ** 63n);
const MOST_LONG = 2n ** 63n - 1n;
const MOST_FLOAT = 3.402_823_466_385_288_6e38;

/** How DuckDB's values that JSON has no number for arrive. */
const SPECIAL_NUMBERS: Readonly<Record<string, number>> = {
  NaN: Number.NaN,
  Infinity: Number.POSITIVE_INFINITY,
  '-Infinity': Number.NEGATIVE_INFINITY,
};

export function toDouble(value: Json): number | Unfit {
  if (typeof value === 'number') return value;
  return typeof value === 'string' && Object.hasOwn(SPECIAL_NUMBERS, value)
    ? (SPECIAL_NUMBERS[value] ?? UNFIT)
    : UNFIT;
}

export function toFloat(value: Json): number | Unfit {
  const number = toDouble(value);
  if (number instanceof Unfit || !Number.isFinite(number)) return number;
  return Math.abs(number) > MOST_FLOAT ? TOO_LARGE_FLOAT : number;
}

/** A whole number in a range of at most 32 bits. */
export function toInteger(value: Json, least = -2_147_483_648, most = 2_147_483_647): number | Unfit {
  if (typeof value !== 'number') return UNFIT;
  if (!Number.isInteger(value)) return new Unfit('which is no whole number');
  if (value >= least && value <= most) return value;
  return new Unfit(`which is outside ${least} to ${most}`);
}

/** As a number, or a text of digits for those that JavaScript cannot hold. */
export function toLong(value: Json, least = LEAST_LONG, most = MOST_LONG): bigint | Unfit {
  let long: bigint;
  if (typeof value === 'number') {
    if (!Number.isInteger(value)) return new Unfit('which is no whole number');
    if (!Number.isSafeInteger(value)) return INEXACT;
    long = BigInt(value);
  } else if (typeof value === 'string' && /^[+-]?\d{1,20}$/.test(value))
    long = BigInt(value.replace('+', ''));
  else return UNFIT;
  return long >= least && long <= most ? long : new Unfit(`which is outside ${least} to ${most}`);
}

/** Also 0 and 1, which is what a list of numbers in SQL makes of booleans. */
export function toBoolean(value: Json): boolean | Unfit {
  if (typeof value === 'boolean') return value;
  return value === 0 || value === 1 ? value === 1 : UNFIT;
}

export function toText(value: Json): string | Unfit {
  return typeof value === 'string' ? value : UNFIT;
}

/** Base64 as JSON and SQL carry it: padded, of the standard alphabet. */
export function toBytes(value: Json): Uint8Array | Unfit {
  if (typeof value !== 'string' || value.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(value))
    return new Unfit('which is no base64; binary values are sent as base64 text');
  return Buffer.from(value, 'base64');
}

const DATETIME =
  /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d(?::?\d\d)?)?)?$/;
const NO_DATETIME = new Unfit('which is no date and time such as 2026-01-31 or 2026-01-31T12:30:00.5Z');

/** Microseconds since 1970 in UTC; a text without an offset is taken as UTC. */
export function toDatetime(value: Json): bigint | Unfit {
  const match = typeof value === 'string' ? DATETIME.exec(value) : null;
  if (match === null) return NO_DATETIME;
  const part = (index: number) => Number(match[index] ?? 0);
  const date = new Date(0);
  date.setUTCFullYear(part(1), part(2) - 1, part(3));
  date.setUTCHours(part(4), part(5), part(6));
  const isReal =
    date.getUTCMonth() === part(2) - 1 &&
    date.getUTCDate() === part(3) &&
    part(4) < 24 &&
    part(5) < 60 &&
    part(6) < 60;
  if (!isReal) return NO_DATETIME;
  const fraction = BigInt((match[7] ?? '').padEnd(6, '0').slice(0, 6) || '0');
  return (BigInt(date.getTime()) - BigInt(offsetMinutes(match[8])) * 60_000n) * 1_000n + fraction;
}

function offsetMinutes(text: string | undefined): number {
  if (text === undefined || text === 'Z') return 0;
  const minutes = Number(text.slice(1, 3)) * 60 + Number(text.slice(3).replace(':', '') || 0);
  return text.startsWith('-') ? -minutes : minutes;
}

/** Types whose columns in pandas have no missing values. */
export const NEVER_NULL: ReadonlySet<ColumnType> = new Set(['integer', 'long', 'boolean']);
