// DuckDB's SQL as tokens with their places in the text: enough to split statements, to know what kind they
// are and to find calls of AI functions. Not a parser: DuckDB parses; text that is not touched stays as it was.

export type TokenKind = 'word' | 'quoted' | 'string' | 'number' | 'parameter' | 'symbol';

export interface Token {
  readonly kind: TokenKind;
  /** As written. For `word` compare with `lower`. */
  readonly text: string;
  /** Lower case for words, the unquoted name for quoted identifiers, the value for strings. */
  readonly value: string;
  readonly start: number;
  readonly end: number;
}

const WORD_START = /[A-Za-z_\u0080-\uffff]/;
/** DuckDB takes the spaces of Unicode for spaces, so they end a word. */
const WORD = /(?!\s)[A-Za-z0-9_$\u0080-\uffff]/;
const DIGIT = /[0-9]/;
const OPERATORS = ['::', ':=', '=>', '->>', '->', '||', '<=', '>=', '<>', '!=', '==', '**', '//'];

/** Tokens of a text; comments and white space are left out. An unfinished string or comment runs to the end. */
export function tokenize(sql: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  const push = (kind: TokenKind, end: number, value: string) => {
    tokens.push({ kind, text: sql.slice(at, end), value, start: at, end });
    at = end;
  };
  while (at < sql.length) {
    const char = sql[at] as string;
    if (/\s/.test(char)) at++;
    else if (sql.startsWith('--', at)) at = endOfLine(sql, at);
    else if (sql.startsWith('/*', at)) at = endOfBlockComment(sql, at);
    else if (char === "'") push('string', ...quotedText(sql, at, "'", false));
    else if ((char === 'e' || char === 'E') && sql[at + 1] === "'")
      push('string', ...quotedText(sql, at + 1, "'", true));
    else if ((char === 'x' || char === 'X') && sql[at + 1] === "'")
      push('string', ...quotedText(sql, at + 1, "'", false));
    else if (char === '"') push('quoted', ...quotedText(sql, at, '"', false));
    else if (char === '$') {
      const dollar = /^\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/.exec(
        sql.slice(at, at + 80),
      );
      if (dollar) {
        const tag = dollar[0];
        const close = sql.indexOf(tag, at + tag.length);
        const end = close < 0 ? sql.length : close + tag.length;
        push('string', end, sql.slice(at + tag.length, close < 0 ? sql.length : close));
      } else {
        const end = endOf(sql, at + 1, WORD);
        push('parameter', end, sql.slice(at + 1, end));
      }
    } else if (char === '?') push('parameter', at + 1, '?');
    else if (WORD_START.test(char)) {
      const end = endOf(sql, at, WORD);
      push('word', end, sql.slice(at, end).toLowerCase());
    } else if (DIGIT.test(char) || (char === '.' && DIGIT.test(sql[at + 1] ?? ''))) {
      const match = /^(0[xX][0-9a-fA-F_]+|[0-9_]*\.?[0-9_]*(?:[eE][+-]?[0-9]+)?)/.exec(
        sql.slice(at, at + 400),
      );
      const end = at + Math.max(1, match?.[0].length ?? 1);
      push('number', end, sql.slice(at, end));
    } else {
      const operator = OPERATORS.find((candidate) => sql.startsWith(candidate, at)) ?? char;
      push('symbol', at + operator.length, operator);
    }
  }
  return tokens;
}

function endOf(sql: string, from: number, member: RegExp): number {
  let end = from;
  while (end < sql.length && member.test(sql[end] as string)) end++;
  return end;
}

function endOfLine(sql: string, from: number): number {
  let end = from;
  while (end < sql.length && sql[end] !== '\n' && sql[end] !== '\r') end++;
  return end;
}

/** Block comments nest in DuckDB as in PostgreSQL. */
function endOfBlockComment(sql: string, from: number): number {
  let depth = 0;
  let at = from;
  while (at < sql.length) {
    if (sql.startsWith('/*', at)) {
      depth++;
      at += 2;
    } else if (sql.startsWith('*/', at)) {
      depth--;
      at += 2;
      if (depth === 0) return at;
    } else at++;
  }
  return sql.length;
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', b: '\b', f: '\f' };

/** End of a quoted text that opens at `open`, and its value; the quote is doubled inside, or escaped if `escapes`. */
function quotedText(
  sql: string,
  open: number,
  quote: string,
  escapes: boolean,
): [end: number, value: string] {
  let value = '';
  let at = open + 1;
  while (at < sql.length) {
    const char = sql[at] as string;
    if (escapes && char === '\\' && at + 1 < sql.length) {
      const code = /^\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3}))/.exec(sql.slice(at, at + 4));
      const next = sql[at + 1] as string;
      if (code)
        value += String.fromCharCode(
          code[1] ? Number.parseInt(code[1], 16) : Number.parseInt(code[2] ?? '0', 8),
        );
      else value += ESCAPES[next] ?? next;
      at += code ? code[0].length : 2;
    } else if (char === quote) {
      if (sql[at + 1] === quote) {
        value += quote;
        at += 2;
      } else return [at + 1, value];
    } else {
      value += char;
      at++;
    }
  }
  return [sql.length, value];
}

/** Index of the token that closes the bracket at `open`; the last index when it is never closed. */
export function closingIndex(tokens: readonly Token[], open: number): number {
  let depth = 0;
  for (let index = open; index < tokens.length; index++) {
    const token = tokens[index] as Token;
    if (token.kind !== 'symbol') continue;
    if (token.text === '(' || token.text === '[' || token.text === '{') depth++;
    else if (token.text === ')' || token.text === ']' || token.text === '}') {
      depth--;
      if (depth === 0) return index;
    }
  }
  return tokens.length - 1;
}
