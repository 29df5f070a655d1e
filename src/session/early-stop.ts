// Statements that are done as soon as enough rows have passed a filter: SELECT columns FROM tables WHERE
// ai_...(x) = y AND ... LIMIT n, without an order. Their rows with an answer are right whatever the unanswered
// rows would have been, because NULL never passes such a filter; so a pass that finds n rows is the last.
import { FUNCTION_DOCS } from '#functions/functions.ts';
import { closingIndex, type Token } from './lexer.ts';
import type { Statement } from './statement.ts';

const AI_FUNCTIONS = new Set(FUNCTION_DOCS.map((doc) => doc.name));
/** Words that let a row through, or change it, because something is NULL; or that need all rows. */
const REFUSED = new Set([
  'with',
  'distinct',
  'group',
  'order',
  'having',
  'qualify',
  'window',
  'union',
  'intersect',
  'except',
  'offset',
  'sample',
  'using',
  'left',
  'right',
  'full',
  'outer',
  'anti',
  'semi',
  'lateral',
  'asof',
  'positional',
  'natural',
  'not',
  'or',
  'case',
  'is',
  'exists',
  'any',
  'all',
  'pivot',
  'unpivot',
]);
const COMPARISONS = new Set(['=', '==', '<', '>', '<=', '>=', '<>', '!=', 'in', 'like', 'ilike', 'between']);

/**
 * The LIMIT that ends the statement; undefined when it is not surely of this shape, and then it runs until no
 * question is left. The caller makes sure that no name in it is a view or macro with AI calls of its own.
 */
export function anyRowsWanted(statement: Statement): number | undefined {
  const { tokens } = statement;
  const word = (index: number) => {
    const token = tokens[index];
    return token?.kind === 'word' ? token.value : token?.text;
  };
  if (statement.kind !== 'read' || word(0) !== 'select') return undefined;
  if (
    tokens.some(
      (token, index) => isRefused(token, tokens[index + 1]) || (token.value === 'select' && index > 0),
    )
  )
    return undefined;
  const from = indexOfClause(tokens, 'from', 1);
  const where = indexOfClause(tokens, 'where', from + 1);
  const limit = indexOfClause(tokens, 'limit', where + 1);
  if (from < 0 || where < 0 || limit !== tokens.length - 2 || tokens[limit + 1]?.kind !== 'number')
    return undefined;
  const columns = tokens.slice(1, from);
  const sources = tokens.slice(from + 1, where);
  if (hasBracket(columns) || hasBracket(sources)) return undefined;
  if (!filterRefusesNull(tokens, where, limit)) return undefined;
  return Number(tokens[limit + 1]?.text);
}

/** LEFT and RIGHT before a bracket are the functions of these names. */
function isRefused(token: Token, next: Token | undefined): boolean {
  if (token.kind !== 'word' || !REFUSED.has(token.value)) return false;
  return !((token.value === 'left' || token.value === 'right') && next?.text === '(');
}

function indexOfClause(tokens: readonly Token[], clause: string, start: number): number {
  if (start <= 0) return -1;
  for (let index = start; index < tokens.length; index++) {
    const token = tokens[index] as Token;
    if (token.kind === 'word' && token.value === clause) return index;
    if (token.text === '(' || token.text === '[' || token.text === '{') index = closingIndex(tokens, index);
  }
  return -1;
}

function hasBracket(tokens: readonly Token[]): boolean {
  return tokens.some((token) => token.kind === 'symbol' && /[([{]/.test(token.text));
}

/** Every AI call is one side of a comparison, or a condition itself, directly under WHERE or AND. */
function filterRefusesNull(tokens: readonly Token[], where: number, limit: number): boolean {
  let calls = 0;
  for (let index = where + 1; index < limit; index++) {
    const token = tokens[index] as Token;
    if (token.text === '(' || token.text === '[' || token.text === '{') {
      // Inside of brackets that are not an AI call's own nothing is known about NULL.
      const close = closingIndex(tokens, index);
      if (tokens.slice(index, close).some(isAiFunction)) return false;
      index = close;
    } else if (isAiFunction(token) && tokens[index + 1]?.text === '(') {
      const before = tokens[index - 1];
      const close = closingIndex(tokens, index + 1);
      if (tokens.slice(index + 1, close).some(isAiFunction)) return false;
      const after = tokens[close + 1];
      const begins = before?.kind === 'word' && (before.value === 'where' || before.value === 'and');
      const ends =
        after !== undefined && (COMPARISONS.has(after.value) || after.value === 'and' || close + 1 === limit);
      if (!begins || !ends) return false;
      calls++;
      index = close;
    }
  }
  return calls > 0;
}

function isAiFunction(token: Token): boolean {
  return token.kind === 'word' && AI_FUNCTIONS.has(token.value);
}
