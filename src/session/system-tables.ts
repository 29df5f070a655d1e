// What duckserve knows, as tables in SQL: table functions over what is served from memory, and views of the
// same names in the attached system catalog. Usage is a real table there and needs nothing from here.
import {
  BIGINT,
  BOOLEAN,
  DOUBLE,
  type DuckDBConnection,
  DuckDBTableFunction,
  DuckDBTimestampValue,
  type DuckDBType,
  type DuckDBValue,
  DuckDBVarCharType,
  INTEGER,
  TIMESTAMP,
  VARCHAR,
} from '@duckdb/node-api';
import type { Json } from '#core/json.ts';

export type SystemColumnType = 'VARCHAR' | 'BIGINT' | 'INTEGER' | 'DOUBLE' | 'BOOLEAN' | 'TIMESTAMP' | 'JSON';

/** One table. Times are epoch milliseconds in the rows. */
export interface SystemTable {
  /** `endpoints` becomes the table function duckserve_endpoints() and the view duckserve.endpoints. */
  readonly name: string;
  readonly columns: readonly { readonly name: string; readonly type: SystemColumnType }[];
  rows(): Iterable<readonly Json[]>;
}

const TYPES: Readonly<Record<SystemColumnType, DuckDBType>> = {
  VARCHAR,
  BIGINT,
  INTEGER,
  DOUBLE,
  BOOLEAN,
  TIMESTAMP,
  JSON: DuckDBVarCharType.create('JSON'),
};
const CHUNK_ROWS = 2_048;

/** Registers the table functions on the instance; `catalog` also gets views of them (null: it is not attached). */
export async function registerSystemTables(
  connection: DuckDBConnection,
  tables: readonly SystemTable[],
  catalog: string | null,
): Promise<void> {
  for (const table of tables) {
    connection.registerTableFunction(toTableFunction(table));
    if (catalog !== null) {
      await connection.run(
        `CREATE OR REPLACE VIEW ${catalog}.${table.name} AS FROM duckserve_${table.name}()`,
      );
    }
  }
}

function toTableFunction(table: SystemTable): DuckDBTableFunction {
  return DuckDBTableFunction.create({
    name: `duckserve_${table.name}`,
    bindFunction: (info) => {
      for (const column of table.columns) info.addResultColumn(column.name, TYPES[column.type]);
    },
    initFunction: (info) => {
      info.setMaxThreads(1);
      info.setInitData({ rows: table.rows()[Symbol.iterator]() });
    },
    mainFunction: (info, chunk) => {
      const { rows } = info.initData as { rows: Iterator<readonly Json[]> };
      const taken: (readonly Json[])[] = [];
      while (taken.length < CHUNK_ROWS) {
        const next = rows.next();
        if (next.done) break;
        taken.push(next.value);
      }
      chunk.rowCount = taken.length;
      if (taken.length === 0) return;
      table.columns.forEach((column, index) => {
        chunk.setColumnValues(
          index,
          taken.map((row) => toCell(row[index] ?? null, column.type)),
        );
      });
    },
  });
}

function toCell(value: Json, type: SystemColumnType): DuckDBValue {
  if (value === null) return null;
  if (type === 'BIGINT') return BigInt(Math.round(Number(value)));
  if (type === 'TIMESTAMP') return new DuckDBTimestampValue(BigInt(Math.round(Number(value))) * 1_000n);
  if (type === 'JSON') return JSON.stringify(value);
  return value as DuckDBValue;
}
