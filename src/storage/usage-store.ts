// The ledger in the system database: rows are queued and inserted in batches, so that recording a call costs
// microseconds. It never throws to callers: a call that was answered must not fail for its ledger.
import type { DuckDBConnection, DuckDBPreparedStatement } from '@duckdb/node-api';
import type { Clock } from '#core/clock.ts';
import type { Json } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import type { PastRate, UsageRow, UsageStore } from '#core/stores.ts';

/** Columns of duckserve.usage in table order: name, type in JSON, value of a row. */
const COLUMNS: readonly (readonly [name: string, type: string, value: (row: UsageRow) => Json])[] = [
  ['request_id', 'VARCHAR', (row) => row.requestId],
  ['call_id', 'VARCHAR', (row) => row.callId],
  ['client_request_id', 'VARCHAR', (row) => row.clientRequestId],
  ['request_time', 'BIGINT', (row) => toWhole(row.requestTimeMs * 1_000)],
  ['requester', 'VARCHAR', (row) => row.requester],
  ['origin', 'VARCHAR', (row) => row.origin],
  ['endpoint', 'VARCHAR', (row) => row.endpoint],
  ['served_entity', 'VARCHAR', (row) => row.servedEntity],
  ['model', 'VARCHAR', (row) => row.model],
  ['engine', 'VARCHAR', (row) => row.engine],
  ['task', 'VARCHAR', (row) => row.task],
  ['status_code', 'INTEGER', (row) => row.statusCode],
  ['error_code', 'VARCHAR', (row) => row.errorCode],
  ['error_message', 'VARCHAR', (row) => row.errorMessage],
  ['input_count', 'INTEGER', (row) => row.inputCount],
  ['cached_count', 'INTEGER', (row) => row.cachedCount],
  ['attempts', 'INTEGER', (row) => row.attempts],
  ['input_tokens', 'BIGINT', (row) => toWhole(row.inputTokens)],
  ['output_tokens', 'BIGINT', (row) => toWhole(row.outputTokens)],
  ['cost', 'DOUBLE', (row) => row.cost],
  ['duration_ms', 'DOUBLE', (row) => row.durationMs],
  ['is_streaming', 'BOOLEAN', (row) => row.isStreaming],
  ['usage_context', 'MAP(VARCHAR, VARCHAR)', (row) => row.usageContext],
];

/**
 * Rows travel as one JSON text that DuckDB reads on a thread of its own. Its appender would work on this thread,
 * and every batch would hold up the event loop for some milliseconds.
 */
const INSERT = `INSERT INTO duckserve.main.usage SELECT ${COLUMNS.map(([name]) =>
  name === 'request_time' ? 'make_timestamp(r.request_time)' : `r.${name}`,
).join(
  ', ',
)} FROM (SELECT unnest(from_json($1::JSON, '[{${COLUMNS.map(([name, type]) => `"${name}": "${type}"`).join(', ')}}]')) AS r)`;

/** The last requests that were answered, and the best rate among any fifty of them in a row. */
const PAST_RATE = `
WITH recent AS (
  SELECT epoch_ms(request_time) AS start_ms, epoch_ms(request_time) + duration_ms AS end_ms, duration_ms,
    input_count - cached_count AS inputs
  FROM duckserve.main.usage
  WHERE endpoint = $1 AND model = $2 AND status_code = 200 AND attempts > 0 AND input_count > cached_count
  ORDER BY request_time DESC LIMIT 2000
), rated AS (
  SELECT duration_ms, sum(inputs) OVER w / greatest(0.001, (max(end_ms) OVER w - min(start_ms) OVER w) / 1000) AS rate
  FROM recent WINDOW w AS (ORDER BY start_ms ROWS 49 PRECEDING)
)
SELECT max(rate)::DOUBLE, avg(duration_ms)::DOUBLE FROM rated`;

const INTERVAL_MS = 100;
const BATCH_ROWS = 4_096;
/** Rows kept while the database refuses them; the oldest are given up after that. */
const MAX_QUEUED_ROWS = 500_000;

export class DuckDbUsageStore implements UsageStore {
  readonly #connection: DuckDBConnection;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #closing = new AbortController();
  #queue: UsageRow[] = [];
  #writing: Promise<void> | undefined;
  #insert: DuckDBPreparedStatement | undefined;
  #isWaiting = false;
  #isClosed = false;

  /** `connection`: one of its own (`database.connect()`); closed with the store. */
  constructor(options: { readonly connection: DuckDBConnection; readonly clock: Clock; readonly log: Log }) {
    this.#connection = options.connection;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  add(row: UsageRow): void {
    if (this.#isClosed) {
      this.#log.error({ requestId: row.requestId }, 'usage row after close was not recorded');
      return;
    }
    this.#queue.push(row);
    if (this.#queue.length >= BATCH_ROWS) void this.#write();
    else this.#writeLater();
  }

  async flush(): Promise<void> {
    // The writing under way may have begun before the last row was added.
    await this.#writing;
    await this.#write();
  }

  /** What the ledger says of a model's speed at an endpoint; undefined when it has not answered yet. */
  async pastRate(endpoint: string, model: string): Promise<PastRate | undefined> {
    await this.flush();
    const reader = await this.#connection.runAndReadAll(PAST_RATE, [endpoint, model]);
    const [rate, requestMs] = reader.getRows()[0] ?? [];
    if (typeof rate !== 'number' || typeof requestMs !== 'number') return undefined;
    return { inputsPerSecond: rate, requestMs };
  }

  /** Writes what is queued and closes the connection. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closing.abort();
    await this.flush();
    if (this.#queue.length > 0)
      this.#log.error({ rows: this.#queue.length }, 'usage rows were lost at close');
    this.#insert?.destroySync();
    this.#connection.closeSync();
  }

  #writeLater(): void {
    if (this.#isWaiting || this.#isClosed) return;
    this.#isWaiting = true;
    this.#clock.sleep(INTERVAL_MS, this.#closing.signal).then(
      () => {
        this.#isWaiting = false;
        void this.#write();
      },
      () => {
        // Closing: close() itself writes what is left.
        this.#isWaiting = false;
      },
    );
  }

  #write(): Promise<void> {
    this.#writing ??= this.#writeAll().finally(() => {
      this.#writing = undefined;
    });
    return this.#writing;
  }

  async #writeAll(): Promise<void> {
    while (this.#queue.length > 0) {
      const rows = this.#queue.slice(0, BATCH_ROWS);
      try {
        await this.#append(rows);
        this.#queue = this.#queue.slice(rows.length);
      } catch (error) {
        this.#keepForRetry(error);
        return;
      }
    }
  }

  async #append(rows: readonly UsageRow[]): Promise<void> {
    this.#insert ??= await this.#connection.prepare(INSERT);
    this.#insert.bindVarchar(1, JSON.stringify(rows.map(toObject)));
    await this.#insert.run();
  }

  #keepForRetry(error: unknown): void {
    const surplus = this.#queue.length - MAX_QUEUED_ROWS;
    if (surplus > 0) this.#queue = this.#queue.slice(surplus);
    this.#log.error(
      { err: error, queuedRows: this.#queue.length, lostRows: Math.max(0, surplus) },
      'usage rows could not be written; trying again',
    );
    this.#writeLater();
  }
}

function toObject(row: UsageRow): Json {
  return Object.fromEntries(COLUMNS.map(([name, , value]) => [name, value(row)]));
}

/** A count that is no number must not hold up the rows around it. */
function toWhole(value: number): number {
  return Number.isFinite(value) ? Math.round(value) : 0;
}
