// Inference tables: made when the first row for them comes, with Databricks' columns, and filled from the journal.
// A table that cannot be written (its catalog is not attached, its name is taken) is replaced by one in the default
// place, so that nothing is lost.
import type { DuckDBConnection } from '@duckdb/node-api';
import type { Log } from '#core/log.ts';
import type { Segment } from './journal.ts';
import { payloadRowsSql } from './usage-encoding.ts';

interface TableName {
  readonly catalog: string;
  readonly schema: string;
  readonly name: string;
}

const DEFAULT_PLACE = { catalog: 'duckserve', schema: 'inference' };

const COLUMNS = `databricks_request_id VARCHAR, client_request_id VARCHAR, request_date DATE, request_time TIMESTAMP,
  status_code INTEGER, sampling_fraction DOUBLE, execution_duration_ms BIGINT, request VARCHAR, response VARCHAR,
  served_entity_id VARCHAR, requester VARCHAR, logging_error_codes VARCHAR[]`;

/** Each table in a transaction of its own, as DuckDB writes to one database in a transaction. */
export async function importPayloads(
  connection: DuckDBConnection,
  segment: Segment,
  log: Log,
): Promise<void> {
  const { path, text } = segment;
  const rows = payloadRowsSql(path);
  const values = path === null ? [`[${text.trim().replaceAll('\n', ',')}]`] : [];
  const reader = await connection.runAndReadAll(
    `SELECT DISTINCT table_catalog, table_schema, table_name FROM (${rows}) WHERE table_name IS NOT NULL`,
    values,
  );
  for (const [catalog, schema, name] of reader.getRowsJson()) {
    const wanted = { catalog: String(catalog), schema: String(schema), name: String(name) };
    const mark = `${segment.name}/${idOf(wanted)}`;
    const done = await connection.runAndReadAll(
      'SELECT 1 FROM duckserve.main.imported_segments WHERE name = $1',
      [mark],
    );
    if (done.currentRowCount > 0) continue;
    const place = await ensureTable(connection, wanted, log);
    await fill(connection, rows, values, wanted, place);
    await connection.run(
      "INSERT INTO duckserve.main.imported_segments VALUES ($1, now()::TIMESTAMPTZ AT TIME ZONE 'UTC')",
      [mark],
    );
  }
}

async function fill(
  connection: DuckDBConnection,
  rows: string,
  values: readonly string[],
  wanted: TableName,
  place: TableName,
): Promise<void> {
  const count = values.length;
  await connection.run(
    `INSERT INTO ${idOf(place)} SELECT databricks_request_id, client_request_id, make_timestamp(request_time)::DATE,
      make_timestamp(request_time), status_code, sampling_fraction, execution_duration_ms, request, response,
      served_entity_id, requester, logging_error_codes
    FROM (${rows}) WHERE table_catalog = $${count + 1} AND table_schema = $${count + 2} AND table_name = $${count + 3}`,
    [...values, wanted.catalog, wanted.schema, wanted.name],
  );
}

async function ensureTable(connection: DuckDBConnection, wanted: TableName, log: Log): Promise<TableName> {
  const fallback = { ...DEFAULT_PLACE, name: wanted.name };
  for (const place of [wanted, fallback]) {
    try {
      await connection.run(`CREATE SCHEMA IF NOT EXISTS ${quote(place.catalog)}.${quote(place.schema)}`);
      await connection.run(`CREATE TABLE IF NOT EXISTS ${idOf(place)} (${COLUMNS})`);
      // A table of that name with other columns is somebody else's.
      await connection.run(`INSERT INTO ${idOf(place)} SELECT ${NULLS} WHERE false`);
      await connection.run('INSERT OR IGNORE INTO duckserve.main.inference_tables VALUES ($1, $2, $3)', [
        place.catalog,
        place.schema,
        place.name,
      ]);
      return place;
    } catch (error) {
      log.warn({ err: error, table: idOf(place) }, 'an inference table cannot be written');
    }
  }
  throw new Error(`Neither ${idOf(wanted)} nor ${idOf(fallback)} can be written.`);
}

const NULLS = `NULL::VARCHAR, NULL::VARCHAR, NULL::DATE, NULL::TIMESTAMP, NULL::INTEGER, NULL::DOUBLE, NULL::BIGINT,
  NULL::VARCHAR, NULL::VARCHAR, NULL::VARCHAR, NULL::VARCHAR, NULL::VARCHAR[]`;

function idOf({ catalog, schema, name }: TableName): string {
  return `${quote(catalog)}.${quote(schema)}.${quote(name)}`;
}

export function quote(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}
