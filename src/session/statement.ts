// One text of SQL as statements, and what has to be known of each before its passes begin.
import { closingIndex, type Token, tokenize } from './lexer.ts';

/**
 * - `read`: gives rows and changes nothing.
 * - `write`: INSERT, UPDATE, DELETE, MERGE, CREATE TABLE AS, ALTER, EXECUTE (of who knows what); run in a
 *   transaction until nothing is unanswered.
 * - `copy`: COPY (query) TO a file, COPY view TO a file; `copySource` is the query.
 * - `begin`, `commit`, `rollback`: the transaction of the user.
 * - `explain`: never asks a model. EXPLAIN ANALYZE really runs its statement and is of that one's kind.
 * - `estimate`: ESTIMATE statement (ours): what the statement would cost.
 * - `set`: SET or RESET of one of duckserve's own settings (`ai_...`).
 * - `call`: CALL of one of duckserve's own commands (`duckserve_...`).
 * - `setting`: SET, PRAGMA, USE, PREPARE and the like: they write no data.
 * - `other`: everything else, run as it is.
 */
export type StatementKind =
  | 'read'
  | 'write'
  | 'copy'
  | 'begin'
  | 'commit'
  | 'rollback'
  | 'explain'
  | 'estimate'
  | 'set'
  | 'call'
  | 'setting'
  | 'other';

export interface Statement {
  readonly text: string;
  /** Places are those of `text`. */
  readonly tokens: readonly Token[];
  readonly kind: StatementKind;
  /** It could be done before it has read everything (LIMIT, EXISTS): the question budget doubles from small. */
  readonly mayStopEarly: boolean;
}

const READS = new Set([
  'select',
  'from',
  'values',
  'table',
  'with',
  'pivot',
  'pivot_wider',
  'pivot_longer',
  'unpivot',
  'summarize',
  'describe',
  'desc',
  'show',
]);
const WRITES = new Set(['insert', 'update', 'delete', 'merge', 'alter', 'execute']);
const SETTINGS = new Set(['set', 'reset', 'pragma', 'use', 'prepare', 'deallocate', 'load', 'checkpoint']);
const EARLY_STOPS = new Set(['limit', 'exists', 'fetch']);

/** Statements of a text in order; empty ones (only comments or semicolons) are left out. */
export function parseStatements(sql: string): Statement[] {
  const tokens = tokenize(sql);
  const statements: Statement[] = [];
  let first = 0;
  for (let index = 0; index <= tokens.length; index++) {
    const token = tokens[index];
    if (token && !(token.kind === 'symbol' && token.text === ';')) continue;
    if (index > first) {
      const start = (tokens[first] as Token).start;
      const end = (tokens[index - 1] as Token).end;
      statements.push(parseStatement(sql.slice(start, end)));
    }
    first = index + 1;
  }
  return statements;
}

export function parseStatement(text: string): Statement {
  const tokens = tokenize(text);
  const kind = kindOf(tokens);
  const mayStopEarly =
    (kind === 'read' || kind === 'write' || kind === 'copy') &&
    tokens.some((token) => token.kind === 'word' && EARLY_STOPS.has(token.value));
  return { text, tokens, kind, mayStopEarly };
}

function kindOf(tokens: readonly Token[]): StatementKind {
  const first = wordAt(tokens, 0);
  const second = wordAt(tokens, 1);
  if (tokens[0]?.text === '(') return kindOf(tokens.slice(1));
  if (first === 'with') return kindOf(afterCtes(tokens));
  if (READS.has(first)) return 'read';
  if (WRITES.has(first)) return 'write';
  if (first === 'create') return isCreateTableAs(tokens) ? 'write' : 'other';
  if (first === 'copy') return tokens[1]?.text === '(' || copiedName(tokens) !== undefined ? 'copy' : 'other';
  if (first === 'begin' || (first === 'start' && second === 'transaction')) return 'begin';
  if (first === 'commit' || first === 'end') return 'commit';
  if (first === 'rollback' || first === 'abort') return 'rollback';
  if (first === 'explain') return explainKind(tokens);
  if (first === 'estimate') return 'estimate';
  if (first === 'set' || first === 'reset') {
    const name =
      second === 'session' || second === 'global' || second === 'local' ? wordAt(tokens, 2) : second;
    if (name.startsWith('ai_')) return 'set';
  }
  if (SETTINGS.has(first)) return 'setting';
  if (first === 'call') return second.startsWith('duckserve_') ? 'call' : 'other';
  return 'other';
}

function wordAt(tokens: readonly Token[], index: number): string {
  const token = tokens[index];
  return token?.kind === 'word' ? token.value : '';
}

/** EXPLAIN [ANALYZE] [VERBOSE] statement, EXPLAIN (ANALYZE, FORMAT ...) statement. */
function explainKind(tokens: readonly Token[]): StatementKind {
  const hasOptions = tokens[1]?.text === '(' && !READS.has(wordAt(tokens, 2)) && tokens[2]?.text !== '(';
  const close = hasOptions ? closingIndex(tokens, 1) : 0;
  const options = hasOptions ? tokens.slice(2, close) : tokens.slice(1, 2);
  const isRun = options.some((token) => token.kind === 'word' && token.value === 'analyze');
  if (!isRun) return 'explain';
  const rest = tokens.slice(hasOptions ? close + 1 : 2);
  return kindOf(wordAt(rest, 0) === 'verbose' ? rest.slice(1) : rest);
}

/** The tokens after `WITH [RECURSIVE] name [(columns)] AS [NOT] [MATERIALIZED] (...) [, ...]`. */
function afterCtes(tokens: readonly Token[]): readonly Token[] {
  let at = wordAt(tokens, 1) === 'recursive' ? 2 : 1;
  while (at < tokens.length) {
    // A name may be any word, also `update`: only what follows the brackets of the last query counts.
    while (at < tokens.length && wordAt(tokens, at) !== 'as') at++;
    while (at < tokens.length && tokens[at]?.text !== '(') at++;
    at = closingIndex(tokens, at) + 1;
    if (tokens[at]?.text !== ',') break;
    at++;
  }
  return tokens.slice(at);
}

function isCreateTableAs(tokens: readonly Token[]): boolean {
  const table = tokens.findIndex((token) => token.kind === 'word' && token.value === 'table');
  if (table < 0 || table > 4) return false;
  for (let index = table + 1; index < tokens.length; index++) {
    const token = tokens[index] as Token;
    if (token.text === '(') index = closingIndex(tokens, index);
    else if (token.kind === 'word' && token.value === 'as') return true;
  }
  return false;
}

/** Of `COPY name TO ...`: the text of the name, which may be a view; undefined for COPY ... FROM and COPY (query). */
function copiedName(tokens: readonly Token[]): { readonly first: Token; readonly last: Token } | undefined {
  let at = 1;
  while (tokens[at + 1]?.text === '.') at += 2;
  const first = tokens[1];
  const last = tokens[at];
  const isName = (token: Token | undefined) => token?.kind === 'word' || token?.kind === 'quoted';
  const to = wordAt(tokens, at + 1);
  return first && last && isName(first) && isName(last) && to === 'to' ? { first, last } : undefined;
}

/** Of `COPY (query) TO ...` the query, of `COPY name TO ...` FROM name: a statement of its own. */
export function copySource(statement: Statement): Statement {
  const name = copiedName(statement.tokens);
  if (name) return parseStatement(`FROM ${statement.text.slice(name.first.start, name.last.end)}`);
  const close = closingIndex(statement.tokens, 1);
  const open = statement.tokens[1] as Token;
  return parseStatement(statement.text.slice(open.end, (statement.tokens[close] as Token).start));
}
