// Deletes old rows of usage and of inference tables, once an hour and at the start, a day of rows at a time so that
// nobody waits for it.
import type { DuckDBConnection } from '@duckdb/node-api';
import type { Clock } from '#core/clock.ts';
import type { Log } from '#core/log.ts';
import { quote } from './payload-tables.ts';

const HOUR_MS = 60 * 60 * 1_000;
const DAY_MS = 24 * HOUR_MS;
const USAGE = 'duckserve.main.usage';

export interface Retention {
  /** One round now; gives the rows that were deleted. */
  run(): Promise<number>;
  close(): Promise<void>;
}

/** `connection`: one of its own, closed with this. `retentionMs` infinite: nothing is deleted. */
export function startRetention(options: {
  readonly connection: DuckDBConnection;
  readonly retentionMs: number;
  readonly clock: Clock;
  readonly log: Log;
}): Retention {
  const { connection, retentionMs, clock, log } = options;
  const closing = new AbortController();
  let running: Promise<number> = Promise.resolve(0);
  const run = () => {
    running = running.then(() => deleteOld(connection, clock.now(), retentionMs, closing.signal, log));
    return running;
  };
  if (Number.isFinite(retentionMs)) void repeat(run, clock, closing.signal);
  return {
    run,
    close: async () => {
      closing.abort();
      await running;
      connection.closeSync();
    },
  };
}

async function repeat(run: () => Promise<number>, clock: Clock, signal: AbortSignal): Promise<void> {
  try {
    while (!signal.aborted) {
      await run();
      await clock.sleep(HOUR_MS, signal);
    }
  } catch {
    // Closed while it slept.
  }
}

async function deleteOld(
  connection: DuckDBConnection,
  nowMs: number,
  retentionMs: number,
  signal: AbortSignal,
  log: Log,
): Promise<number> {
  const cutoffMs = nowMs - retentionMs;
  let deleted = 0;
  try {
    const reader = await connection.runAndReadAll(
      'SELECT catalog_name, schema_name, table_name FROM duckserve.main.inference_tables',
    );
    const tables = reader.getRowsJson().map((row) => row.map((name) => quote(String(name))).join('.'));
    for (const table of [USAGE, ...tables]) {
      // Budgets of the running month are restored from usage rows, also on its 31st day.
      const upToMs = table === USAGE ? Math.min(cutoffMs, monthStartMs(nowMs)) : cutoffMs;
      deleted += await deleteFrom(connection, table, upToMs, signal).catch((error: unknown) => {
        log.warn({ err: error, table }, 'old rows could not be deleted');
        return 0;
      });
    }
    if (deleted > 0) log.info({ rows: deleted }, 'old usage rows were deleted');
  } catch (error) {
    log.warn({ err: error }, 'old usage rows could not be deleted');
  }
  return deleted;
}

async function deleteFrom(
  connection: DuckDBConnection,
  table: string,
  cutoffMs: number,
  signal: AbortSignal,
): Promise<number> {
  let deleted = 0;
  while (!signal.aborted) {
    const oldest = await connection.runAndReadAll(`SELECT epoch_ms(min(request_time))::DOUBLE FROM ${table}`);
    const [oldestMs] = oldest.getRows()[0] ?? [];
    if (typeof oldestMs !== 'number' || oldestMs >= cutoffMs) return deleted;
    const upToMs = Math.min(cutoffMs, oldestMs + DAY_MS);
    const result = await connection.run(
      `DELETE FROM ${table} WHERE request_time < make_timestamp(${Math.round(upToMs)}::BIGINT * 1000)`,
    );
    deleted += Number(result.rowsChanged);
    if (upToMs === cutoffMs) return deleted;
  }
  return deleted;
}

function monthStartMs(nowMs: number): number {
  const now = new Date(nowMs);
  return Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1);
}
