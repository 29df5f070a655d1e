// Binds the AI functions into DuckDB. A callback never waits: it answers from the sheet of the statement that
// is running on its connection, or straight from a local model, and what it cannot answer it leaves NULL.
import {
  ANY,
  BIGINT,
  BOOLEAN,
  DOUBLE,
  type DuckDBConnection,
  type DuckDBDataChunk,
  DuckDBFloatType,
  DuckDBListType,
  DuckDBScalarFunction,
  type DuckDBType,
  DuckDBVarCharType,
  type DuckDBVector,
  FLOAT,
  VARCHAR,
} from '@duckdb/node-api';
import { ServingError, toServingError } from '#core/errors.ts';
import type { AiFunction, ReturnType } from '#functions/function.ts';
import { type ArgumentColumn, argumentColumns, writeValue } from './columns.ts';
import { answerLocally } from './local.ts';
import { type RowGroup, UNANSWERED } from './sheet.ts';
import type { StatementRun } from './statement-run.ts';

const TYPES: Readonly<Record<ReturnType, DuckDBType>> = {
  VARCHAR,
  JSON: DuckDBVarCharType.create('JSON'),
  'FLOAT[]': new DuckDBListType(DuckDBFloatType.instance),
  FLOAT,
  DOUBLE,
  BIGINT,
  BOOLEAN,
};

/** Statements by the id of the connection they run on. A function registered once serves all connections. */
export type ActiveRuns = ReadonlyMap<number, StatementRun>;

interface BindData {
  readonly connectionId: number;
}

/** Registers the functions on the instance behind a connection; registering a name again replaces it. */
export function registerFunctions(
  connection: DuckDBConnection,
  functions: readonly AiFunction[],
  runs: ActiveRuns,
): void {
  for (const called of functions) {
    connection.registerScalarFunction(
      DuckDBScalarFunction.create({
        name: called.name,
        returnType: TYPES[called.returns],
        varArgsType: ANY,
        specialHandling: true,
        bindFunction: (info) =>
          info.setBindData({ connectionId: Number(info.clientContext.connectionId) } satisfies BindData),
        mainFunction: (info, chunk, output) => {
          const { connectionId } = info.getBindData() as BindData;
          answerChunk(called, runs.get(connectionId), chunk, output);
        },
      }),
    );
  }
}

function answerChunk(
  called: AiFunction,
  run: StatementRun | undefined,
  chunk: DuckDBDataChunk,
  output: DuckDBVector,
): void {
  if (!run) {
    throw new Error(
      `${called.name} was called outside of a duckserve session. Run the statement through duckserve.`,
    );
  }
  try {
    const next = run.nextChunk();
    if (next === 'end') throw run.abandonPass();
    if (next === 'skip') {
      run.sheet.leaveOpen();
      for (let row = 0; row < chunk.rowCount; row++) output.setItem(row, null);
      output.flush();
      return;
    }
    const columns = argumentColumns(chunk);
    if (
      called.local === undefined ||
      !answerLocally(called, called.local, columns, chunk.rowCount, output, run)
    ) {
      answerRows(called, columns, chunk.rowCount, output, run);
    }
    output.flush();
  } catch (error) {
    // Through DuckDB an error becomes text, so the original is kept on the statement for the door.
    if (error instanceof ServingError || !(error instanceof Error)) throw run.fail(toServingError(error));
    throw run.isAbandoned(error) ? error : run.fail(toServingError(error));
  }
}

function answerRows(
  called: AiFunction,
  columns: readonly ArgumentColumn[],
  rowCount: number,
  output: DuckDBVector,
  run: StatementRun,
): void {
  const { sheet } = run;
  const subject = columns[called.subject];
  const shared = columns.filter((column) => column !== subject);
  let group: RowGroup | undefined;
  for (let row = 0; row < rowCount; row++) {
    if (group === undefined || !shared.every((column) => column.isRepeated(row))) {
      group = sheet.group(called, shared.map((column) => column.key(row)).join('\u0000'));
    }
    const value = sheet.look(group, subject?.key(row) ?? '', () =>
      columns.map((column) => column.value(row)),
    );
    writeValue(output, row, value === UNANSWERED ? null : value, called.returns);
  }
  if (run.refusal && sheet.fresh.length > 0) throw run.refuse(run.refusal);
}
