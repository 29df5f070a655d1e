// The result of one statement as the doors see it: columns, rows as JSON values, and what the models did.
import type { DuckDBDataChunk, DuckDBMaterializedResult, DuckDBType } from '@duckdb/node-api';
import type { Json } from '#core/json.ts';
import { floatsToJson, toJson } from '#storage/values.ts';

export interface ResultColumn {
  readonly name: string;
  /** DuckDB's name of the type, e.g. `VARCHAR`, `STRUCT(a INTEGER)`, `FLOAT[]`. */
  readonly type: string;
}

export interface CallCounts {
  /** Inputs that were sent to a model, failed ones included. */
  readonly asked: number;
  /** Inputs answered from the answer store. */
  readonly cached: number;
  readonly passes: number;
}

export interface StatementResult {
  /** `rows`: a table; `changed`: a number of rows was written; `done`: neither. */
  readonly kind: 'rows' | 'changed' | 'done';
  readonly columns: readonly ResultColumn[];
  readonly rowCount: number;
  readonly changedRows: number | null;
  readonly calls: CallCounts;
  /** Rows in order; may be read more than once. */
  rows(): IterableIterator<readonly Json[]>;
  /** Writes the rows of a read to a file by DuckDB itself. Absent where there is no query behind the rows. */
  copyTo?(path: string, format: 'parquet'): Promise<void>;
}

export const NO_CALLS: CallCounts = { asked: 0, cached: 0, passes: 1 };

export async function toStatementResult(
  result: DuckDBMaterializedResult,
  calls: CallCounts,
): Promise<StatementResult> {
  const returnType = result.returnType;
  const kind = returnType === 3 ? 'rows' : returnType === 1 ? 'changed' : 'done';
  const columns =
    kind === 'rows'
      ? result
          .deduplicatedColumnNames()
          .map((name, index) => ({ name, type: typeName(result.columnType(index)) }))
      : [];
  const chunks = kind === 'rows' ? await result.fetchAllChunks() : [];
  return {
    kind,
    columns,
    rowCount: chunks.reduce((sum, chunk) => sum + chunk.rowCount, 0),
    changedRows: kind === 'changed' ? result.rowsChanged : null,
    calls,
    rows: () => rowsOf(chunks, columns),
  };
}

function typeName(type: DuckDBType): string {
  return type.alias ?? String(type);
}

function* rowsOf(
  chunks: readonly DuckDBDataChunk[],
  columns: readonly ResultColumn[],
): IterableIterator<readonly Json[]> {
  const converters = columns.map(({ type }) => (type.startsWith('FLOAT') ? floatsToJson : toJson));
  for (const chunk of chunks) {
    const values = chunk.getColumns();
    for (let row = 0; row < chunk.rowCount; row++) {
      yield converters.map((convert, index) => convert(values[index]?.[row]));
    }
  }
}

/** A result that did not come from DuckDB: of an ESTIMATE, a CALL of one of our commands, a SET of ours. */
export function tableResult(
  columns: readonly ResultColumn[],
  rows: readonly (readonly Json[])[],
): StatementResult {
  return {
    kind: 'rows',
    columns,
    rowCount: rows.length,
    changedRows: null,
    calls: NO_CALLS,
    rows: () => rows[Symbol.iterator](),
  };
}

export const DONE: StatementResult = { ...tableResult([], []), kind: 'done' };
