// CALL duckserve_...(...) : the registry, the answers and the settings from SQL. The commands themselves are
// handed in by the application; here their arguments are read and their tables given back.
import type { DuckDBConnection } from '@duckdb/node-api';
import type { Principal } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { toJson } from '#storage/values.ts';
import { closingIndex, type Token } from './lexer.ts';
import { DONE, type ResultColumn, type StatementResult, tableResult } from './result.ts';
import { argumentsOf } from './rewrite.ts';
import type { Statement } from './statement.ts';

export interface Command {
  /** Without the prefix, e.g. `create_endpoint` for CALL duckserve_create_endpoint(...). */
  readonly name: string;
  /** Names of the arguments, in the order of the positional form. */
  readonly parameters: readonly string[];
  readonly description: string;
  run(
    args: Readonly<Record<string, Json>>,
    principal: Principal,
  ): Promise<{ columns: readonly ResultColumn[]; rows: readonly (readonly Json[])[] } | undefined>;
}

export async function runCommand(
  statement: Statement,
  commands: readonly Command[],
  connection: DuckDBConnection,
  principal: Principal,
): Promise<StatementResult> {
  const name = (statement.tokens[1] as Token).value.replace(/^duckserve_/, '');
  const command = commands.find((candidate) => candidate.name === name);
  if (!command) {
    const known = commands.map((candidate) => `duckserve_${candidate.name}`).join(', ');
    throw new ServingError('NOT_FOUND', `There is no command duckserve_${name}. There are: ${known}.`);
  }
  const table = await command.run(await readArguments(statement, command, connection), principal);
  return table ? tableResult(table.columns, table.rows) : DONE;
}

/** Arguments may be any constant expression: DuckDB computes them. */
async function readArguments(
  statement: Statement,
  command: Command,
  connection: DuckDBConnection,
): Promise<Record<string, Json>> {
  const close = closingIndex(statement.tokens, 2);
  const args: Record<string, Json> = {};
  let position = 0;
  for (const argument of argumentsOf(statement.tokens, 2, close)) {
    const name = argument.name ?? command.parameters[position++];
    if (name === undefined || !command.parameters.includes(name)) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `duckserve_${command.name} takes ${command.parameters.join(', ')}; it does not take ${name ?? 'that many arguments'}.`,
      );
    }
    const [first] = argument.tokens;
    const last = argument.tokens.at(-1);
    if (!first || !last)
      throw new ServingError('INVALID_PARAMETER', `duckserve_${command.name}: ${name} is given no value.`);
    if (Object.hasOwn(args, name))
      throw new ServingError('INVALID_PARAMETER', `duckserve_${command.name}: ${name} is given twice.`);
    const reader = await connection.runAndReadAll(`SELECT ${statement.text.slice(first.start, last.end)}`);
    args[name] = toJson(reader.getRows()[0]?.[0]);
  }
  return args;
}
