// Parameters of a SQL statement sent by HTTP: `?`, `:name` and `$name` markers become DuckDB's `$1`, `$2`, ...,
// cast where the client gave a type. Values travel beside the statement and are never written into it.
import { z } from 'zod';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { type Token, tokenize } from '#session/lexer.ts';

export const statementParameter = z.object({
  name: z.string().nullish(),
  value: z.json().optional(),
  type: z
    .string()
    .regex(
      /^[A-Za-z_]\w*(\(\d{1,3}(\s*,\s*\d{1,3})?\))?$/,
      'must be a type name such as INT or DECIMAL(10, 2)',
    )
    .nullish(),
});
export type StatementParameter = z.output<typeof statementParameter>;

/** Databricks names of types that DuckDB spells otherwise. */
const DUCKDB_TYPES: Readonly<Record<string, string>> = {
  TIMESTAMP_NTZ: 'TIMESTAMP',
  VOID: 'VARCHAR',
  BYTE: 'TINYINT',
};

export interface BoundStatement {
  readonly sql: string;
  readonly values: readonly Json[];
}

export function bindParameters(sql: string, parameters: readonly StatementParameter[]): BoundStatement {
  const values = parameters.map((parameter) => parameter.value ?? null);
  // Without names and types the statement goes to DuckDB exactly as it came.
  if (parameters.every(({ name, type }) => !name && !type)) return { sql, values };
  const numbers = new Map(
    parameters.flatMap(({ name }, index) => (name ? [[name.toLowerCase(), index + 1]] : [])),
  );
  const used = new Set<number>();
  let bound = '';
  let copied = 0;
  let position = 0;
  const tokens = tokenize(sql);
  for (const [index, token] of tokens.entries()) {
    let start = token.start;
    let number: number | undefined;
    if (token.kind === 'parameter' && token.value === '?') number = ++position;
    else if (token.kind === 'parameter') number = numbers.get(token.value.toLowerCase());
    else if (isNameAfterColon(tokens, index)) {
      number = numbers.get(token.value);
      start -= 1;
    }
    const parameter = number === undefined ? undefined : parameters[number - 1];
    if (number === undefined || parameter === undefined) continue;
    used.add(number);
    bound += sql.slice(copied, start) + toMarker(number, parameter.type);
    copied = token.end;
  }
  for (const [index, { name }] of parameters.entries()) {
    if (name && !used.has(index + 1)) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `Parameter '${name}' is given, and the statement has no :${name} in it.`,
      );
    }
  }
  return { sql: bound + sql.slice(copied), values };
}

/** `:name` is a marker; `::name` is a cast and `{'a': name}` (with a space) a struct. */
function isNameAfterColon(tokens: readonly Token[], index: number): boolean {
  const token = tokens[index];
  const before = tokens[index - 1];
  return (
    token?.kind === 'word' && before?.kind === 'symbol' && before.text === ':' && before.end === token.start
  );
}

function toMarker(number: number, type: string | null | undefined): string {
  if (!type) return `$${number}`;
  return `CAST($${number} AS ${DUCKDB_TYPES[type.toUpperCase()] ?? type})`;
}
