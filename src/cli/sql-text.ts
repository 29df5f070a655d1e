// Just enough of SQL's spelling to know whether a typed statement is complete. Not a parser.

/** True when the last thing that is not blank or comment is a semicolon outside of quotes. */
export function endsStatement(sql: string): boolean {
  const { last, isOpen } = scan(sql);
  return !isOpen && last === ';';
}

/** True where nothing but blanks, comments and semicolons is left. */
export function isBlankSql(sql: string): boolean {
  const { hasWords, isOpen } = scan(sql);
  return !hasWords && !isOpen;
}

interface Scan {
  /** The last character that counts. */
  readonly last: string;
  /** A quote or comment has no end yet. */
  readonly isOpen: boolean;
  readonly hasWords: boolean;
}

function scan(sql: string): Scan {
  let last = '';
  let hasWords = false;
  for (let at = 0; at < sql.length; at += 1) {
    const char = sql[at] ?? '';
    if (/\s/.test(char)) continue;
    if (char === '-' && sql[at + 1] === '-') {
      const end = sql.indexOf('\n', at);
      if (end < 0) break;
      at = end;
      continue;
    }
    const isComment = char === '/' && sql[at + 1] === '*';
    const end = isComment ? indexAfter(sql, '*/', at + 2) : endOfQuoted(sql, at);
    if (!isComment) {
      last = char;
      hasWords ||= char !== ';';
    }
    if (end < 0) return { last, isOpen: true, hasWords };
    at = end;
  }
  return { last, isOpen: false, hasWords };
}

/** Index of the last character of what begins at `from`: itself outside of quotes, -1 when the quote stays open. */
function endOfQuoted(sql: string, from: number): number {
  const char = sql[from];
  if (char === '$') {
    const tag = /^\$([A-Za-z_]\w*)?\$/.exec(sql.slice(from, from + 66))?.[0];
    return tag === undefined ? from : indexAfter(sql, tag, from + tag.length);
  }
  if (char !== "'" && char !== '"') return from;
  const hasEscapes = char === "'" && /(^|\W)e$/i.test(sql.slice(Math.max(0, from - 2), from));
  // A doubled quote closes and opens again, which comes to the same.
  for (let at = from + 1; at < sql.length; at += 1) {
    if (hasEscapes && sql[at] === '\\') at += 1;
    else if (sql[at] === char) return at;
  }
  return -1;
}

function indexAfter(sql: string, end: string, from: number): number {
  const found = sql.indexOf(end, from);
  return found < 0 ? -1 : found + end.length - 1;
}
