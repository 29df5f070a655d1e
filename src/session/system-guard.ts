// Keeps statements from changing the system catalog by accident: it is read like any other tables, but changed
// only through CALL duckserve_..., the command line and HTTP, which check what they are given.
import { ServingError } from '#core/errors.ts';
import type { Token } from './lexer.ts';
import type { Statement } from './statement.ts';
import { isPrices, writesPrices } from './system-names.ts';

const CATALOG = 'duckserve';
/** Words after which the thing to be changed is named. */
const BEFORE_TARGET = new Set([
  'into',
  'update',
  'table',
  'view',
  'index',
  'schema',
  'sequence',
  'type',
  'macro',
  'exists',
  'detach',
  'database',
  'use',
  'truncate',
  'copy',
]);

/** Throws PERMISSION_DENIED for a statement that would write to, alter or detach the system catalog. */
export function refuseSystemChange(statement: Statement): void {
  const { kind, tokens } = statement;
  if (kind === 'read' || kind === 'explain' || kind === 'estimate' || kind === 'call' || kind === 'set')
    return;
  if (kind === 'copy') return;
  const editsPrices = writesPrices(statement);
  tokens.forEach((token, index) => {
    if (!isCatalog(token)) return;
    const before = tokens[index - 1];
    const word = before?.kind === 'word' ? before.value : '';
    const isDeleted = word === 'from' && tokens[index - 2]?.value === 'delete';
    const isTarget = BEFORE_TARGET.has(word) || isDeleted || (kind === 'setting' && namesPath(tokens));
    if (isTarget && !(editsPrices && isPrices(tokens, index))) throw refusal(tokens, index);
  });
  if (
    kind === 'setting' &&
    namesPath(tokens) &&
    tokens.some((token) => token.kind === 'string' && token.value.toLowerCase().includes(CATALOG))
  ) {
    throw refusal(tokens, 0);
  }
}

function isCatalog(token: Token): boolean {
  return (token.kind === 'word' || token.kind === 'quoted') && token.value.toLowerCase() === CATALOG;
}

/** SET schema, SET search_path, USE: would let a later statement leave the catalog out of its names. */
function namesPath(tokens: readonly Token[]): boolean {
  return tokens.some(
    (token) => token.kind === 'word' && ['schema', 'search_path', 'use'].includes(token.value),
  );
}

function refusal(tokens: readonly Token[], index: number): ServingError {
  const table = tokens[index + 1]?.text === '.' ? tokens[index + 2]?.value : undefined;
  const wayOut =
    table === 'answers'
      ? 'To forget answers: CALL duckserve_clear_answers().'
      : 'The registry is changed by CALL duckserve_...() (see FROM duckserve.commands), the command line or HTTP; duckserve.prices is edited by INSERT, UPDATE and DELETE; usage is never changed.';
  return new ServingError(
    'PERMISSION_DENIED',
    `The system catalog "${CATALOG}" can be read but not changed by SQL. ${wayOut}`,
  );
}
