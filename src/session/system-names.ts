// Names of the system catalog in statements: Databricks' system tables are found under their own names, and the one
// table of ours that users edit is known when it is written. By tokens, so that texts and comments stay untouched.
import type { Token } from './lexer.ts';
import { parseStatement, type Statement } from './statement.ts';

/** Schemas of Databricks' catalog `system` that exist here in `duckserve`. DuckDB has a `system` of its own. */
const SCHEMAS = new Set(['serving', 'ai_gateway']);
const EDITS = new Set(['insert', 'update', 'delete', 'merge']);

/** `system.serving.endpoint_usage` becomes `duckserve.serving.endpoint_usage`; the same statement otherwise. */
export function withOurNames(statement: Statement): Statement {
  const { text, tokens } = statement;
  let result = '';
  let at = 0;
  tokens.forEach((token, index) => {
    if (!isName(token, 'system') || tokens[index - 1]?.text === '.') return;
    const schema = tokens[index + 2];
    if (tokens[index + 1]?.text !== '.' || tokens[index + 3]?.text !== '.') return;
    if (!schema || !SCHEMAS.has(schema.value.toLowerCase())) return;
    result += `${text.slice(at, token.start)}duckserve`;
    at = token.end;
  });
  return at === 0 ? statement : parseStatement(result + text.slice(at));
}

/** INSERT, UPDATE, DELETE or MERGE of duckserve.prices. */
export function writesPrices({ kind, tokens }: Statement): boolean {
  const [first] = tokens;
  if (kind !== 'write' || first?.kind !== 'word' || !EDITS.has(first.value)) return false;
  return tokens.some((token, index) => isName(token, 'duckserve') && isPrices(tokens, index));
}

/** Do the tokens from the catalog's name on name the price table? */
export function isPrices(tokens: readonly Token[], index: number): boolean {
  if (tokens[index + 1]?.text !== '.') return false;
  const next = tokens[index + 2];
  if (isName(next, 'prices')) return tokens[index + 3]?.text !== '.';
  return isName(next, 'main') && tokens[index + 3]?.text === '.' && isName(tokens[index + 4], 'prices');
}

function isName(token: Token | undefined, name: string): boolean {
  return (token?.kind === 'word' || token?.kind === 'quoted') && token.value.toLowerCase() === name;
}
