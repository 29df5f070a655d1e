// Values as text for people and for files: what one cell of a result looks like.
import type { Json } from '#core/json.ts';

/** A result, or any list the commands print: columns and rows. */
export interface Sheet {
  readonly columns: readonly SheetColumn[];
  readonly rowCount: number;
  rows(): Iterable<readonly Json[]>;
}
export interface SheetColumn {
  readonly name: string;
  /** DuckDB's type name; empty for lists that do not come from SQL. */
  readonly type: string;
  readonly isNumber?: boolean;
}

const NUMBER_TYPE =
  /^(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|U?INT(8|16|32|64|128)?|BIGNUM|FLOAT|REAL|DOUBLE|DECIMAL)(\(|$)/i;
const FLOAT_LIST_TYPE = /^(FLOAT|REAL|DOUBLE)(\[\d*\])+$/i;
/** A vector longer than this is shown by its first numbers and its length. */
const VECTOR_SHOWN_WHOLE = 8;
/** Cells are looked at up to here when they are made into one line; nobody reads further in a table. */
const CELL_SCAN_LIMIT = 4_000;

export function isNumberColumn(column: SheetColumn): boolean {
  return column.isNumber ?? (NUMBER_TYPE.test(column.type) && !column.type.endsWith(']'));
}

/** The exact text of a value, for CSV and Markdown: strings as they are, nested values as JSON. */
export function exactText(value: Json): string {
  return typeof value === 'string'
    ? value
    : typeof value === 'object'
      ? JSON.stringify(value)
      : String(value);
}

/** One line for a table cell: vectors shortened, line ends and control characters made visible. */
export function cellText(value: Json, type: string): string {
  const text = typeof value === 'object' ? nestedText(value, FLOAT_LIST_TYPE.test(type)) : exactText(value);
  return oneLine(text.length > CELL_SCAN_LIMIT ? `${text.slice(0, CELL_SCAN_LIMIT)}…` : text);
}

function nestedText(value: Json, isFloats: boolean): string {
  if (Array.isArray(value)) {
    const items: readonly Json[] = value;
    if (items.length > VECTOR_SHOWN_WHOLE && items.every((item) => typeof item === 'number')) {
      const numbers: readonly number[] = items;
      if (isFloats || numbers.some((number) => !Number.isInteger(number))) {
        const first = numbers.slice(0, 2).map((number) => String(Number(number.toPrecision(2))));
        return `[${first.join(', ')}, … ${items.length} values]`;
      }
    }
    return `[${items.map((item) => nestedText(item, isFloats)).join(', ')}]`;
  }
  if (value !== null && typeof value === 'object') {
    const members = Object.entries(value).map(
      ([key, member]) => `${JSON.stringify(key)}: ${nestedText(member, false)}`,
    );
    return `{${members.join(', ')}}`;
  }
  return JSON.stringify(value);
}

// A model may answer with escape sequences; a terminal must never be given them.
const NEEDS_CARE = /[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/u;
const CARE = /\r\n|[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/gu;

/** Line ends as ↵, tabs as blanks, other control characters as their pictures. */
export function oneLine(text: string): string {
  if (!NEEDS_CARE.test(text)) return text;
  return text.replace(CARE, (found) => {
    if (found === '\n' || found === '\r\n' || found === '\r' || found === '\u2028' || found === '\u2029')
      return '↵';
    if (found === '\t') return ' ';
    const code = found.charCodeAt(0);
    return code < 0x20 ? String.fromCharCode(0x2400 + code) : code === 0x7f ? '␡' : '\ufffd';
  });
}

/** Column names made distinct (`a`, `a_1`), so that a JSON object loses none. */
export function distinctNames(columns: readonly SheetColumn[]): readonly string[] {
  const taken = new Set<string>();
  return columns.map(({ name }) => {
    let distinct = name;
    for (let suffix = 1; taken.has(distinct); suffix += 1) distinct = `${name}_${suffix}`;
    taken.add(distinct);
    return distinct;
  });
}
