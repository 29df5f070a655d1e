// The ledger: rows are queued, written to a journal every 100 ms, and imported into DuckDB in large batches, because
// an INSERT costs fifty times what a line does. It never throws to callers: a call that was answered must not fail
// for its ledger. What the rows look like is in usage-encoding.ts, inference tables are in payload-tables.ts.
import type { DuckDBConnection } from '@duckdb/node-api';
import type { Clock } from '#core/clock.ts';
import type { Log } from '#core/log.ts';
import type { PastRate, PayloadRow, UsageRow, UsageStore } from '#core/stores.ts';
import { type Journal, openJournal, type Segment } from './journal.ts';
import { importPayloads } from './payload-tables.ts';
import { encodePayloadRow, encodeUsageRow, INSERT_USAGE } from './usage-encoding.ts';

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

const WRITE_INTERVAL_MS = 100;
/** After this time with little to write, what is in the journal is imported. */
const IMPORT_INTERVAL_MS = 1_000;
const FEW_ROWS = 200;
/** So that a reader never waits for the import of more than this. */
const MAX_UNIMPORTED_ROWS = 250_000;
/** Rows kept while the disk refuses them; the oldest are given up after that. */
const MAX_QUEUED_ROWS = 500_000;
/** The same for rows that come as lines, at 500 characters each. */
const MAX_QUEUED_CHARACTERS = MAX_QUEUED_ROWS * 500;
/** A disk that stays full is tried ten times a second, and spoken of so often. */
const REFUSAL_LOG_MS = 30_000;

export interface UsageStoreOptions {
  /** One of its own (`database.connect()`); closed with the store. */
  readonly connection: DuckDBConnection;
  /** Directory of the journal; null keeps it in memory. */
  readonly journalDir: string | null;
  readonly clock: Clock;
  readonly log: Log;
  /** A call is answered only after its rows are on disk. */
  readonly isDurable?: boolean;
}

/** Imports what an earlier process left in its journal. */
export async function openUsageStore(options: UsageStoreOptions): Promise<DuckDbUsageStore> {
  const { journalDir, clock } = options;
  const store = new DuckDbUsageStore(
    options,
    await openJournal(journalDir, 'usage', clock),
    await openJournal(journalDir, 'payloads', clock),
  );
  await store.flush();
  return store;
}

export class DuckDbUsageStore implements UsageStore {
  readonly isDurable: boolean;
  readonly #connection: DuckDBConnection;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #journal: Journal;
  readonly #payloadJournal: Journal;
  readonly #closing = new AbortController();
  #rows: UsageRow[] = [];
  #encoded = '';
  #payloads: PayloadRow[] = [];
  #writing: Promise<void> | undefined;
  #nextWriting: Promise<void> | undefined;
  #importing: Promise<void> | undefined;
  #isWriteDue = false;
  #isImportDue = false;
  #unimportedRows = 0;
  #addedSinceLook = 0;
  #lostRows = 0;
  #rowsInWriting = 0;
  #refusalLoggedAtMs = Number.NEGATIVE_INFINITY;
  #isClosed = false;

  constructor(options: UsageStoreOptions, journal: Journal, payloadJournal: Journal) {
    this.isDurable = options.isDurable ?? false;
    this.#connection = options.connection;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#journal = journal;
    this.#payloadJournal = payloadJournal;
  }

  get waitingRows(): number {
    return this.#rows.length + countLines(this.#encoded) + this.#rowsInWriting;
  }

  get lostRows(): number {
    return this.#lostRows;
  }

  add(row: UsageRow): void {
    if (this.#isClosed) {
      this.#log.error({ requestId: row.requestId }, 'usage row after close was not recorded');
      return;
    }
    this.#rows.push(row);
    this.#writeLater();
  }

  addEncoded(lines: string): void {
    if (this.#isClosed || lines === '') return;
    this.#encoded += lines;
    this.#writeLater();
  }

  addPayload(row: PayloadRow): void {
    if (this.#isClosed) return;
    this.#payloads.push(row);
    this.#writeLater();
  }

  persist(): Promise<void> {
    if (this.#writing === undefined) {
      this.#writing = this.#write().finally(() => {
        this.#writing = undefined;
      });
      return this.#writing;
    }
    // The writing under way may have begun before the caller's row was added; all who ask now share the next one.
    this.#nextWriting ??= this.#writing.then(() => {
      this.#nextWriting = undefined;
      return this.persist();
    });
    return this.#nextWriting;
  }

  async flush(): Promise<void> {
    await this.persist();
    // One under way may have taken its pieces before the last row was written.
    await this.#importing;
    await this.#import();
  }

  /** What the ledger says of a model's speed at an endpoint; undefined when it has not answered yet. */
  async pastRate(endpoint: string, model: string): Promise<PastRate | undefined> {
    await this.flush();
    const reader = await this.#connection.runAndReadAll(PAST_RATE, [endpoint, model]);
    const [rate, requestMs] = reader.getRows()[0] ?? [];
    if (typeof rate !== 'number' || typeof requestMs !== 'number') return undefined;
    return { inputsPerSecond: rate, requestMs };
  }

  /** Writes and imports what is queued and closes the connection. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#closing.abort();
    await this.flush();
    if (this.#rows.length > 0) this.#log.error({ rows: this.#rows.length }, 'usage rows were lost at close');
    await this.#journal.close();
    await this.#payloadJournal.close();
    this.#connection.closeSync();
  }

  #writeLater(): void {
    if (this.#isWriteDue || this.#isClosed) return;
    this.#isWriteDue = true;
    this.#clock.sleep(WRITE_INTERVAL_MS, this.#closing.signal).then(
      () => {
        this.#isWriteDue = false;
        void this.persist();
      },
      () => {
        // Closing: close() itself writes what is left.
        this.#isWriteDue = false;
      },
    );
  }

  async #write(): Promise<void> {
    const rows = this.#rows;
    const encoded = this.#encoded;
    const payloads = this.#payloads;
    this.#rows = [];
    this.#encoded = '';
    this.#payloads = [];
    const count = rows.length + countLines(encoded);
    this.#rowsInWriting = count;
    try {
      if (count > 0) {
        await this.#journal.append(linesOf(rows, encodeUsageRow) + encoded, this.isDurable);
        this.#unimportedRows += count;
        this.#addedSinceLook += count;
      }
      this.#rowsInWriting = 0;
    } catch (error) {
      this.#rowsInWriting = 0;
      this.#rows = [...rows, ...this.#rows];
      this.#encoded = encoded + this.#encoded;
      this.#payloads = [...payloads, ...this.#payloads];
      this.#keepForRetry(error);
      return;
    }
    try {
      if (payloads.length > 0)
        await this.#payloadJournal.append(linesOf(payloads, encodePayloadRow), this.isDurable);
    } catch (error) {
      this.#payloads = [...payloads, ...this.#payloads];
      this.#keepForRetry(error);
      return;
    }
    this.#refusalLoggedAtMs = Number.NEGATIVE_INFINITY;
    if (count > 0 || payloads.length > 0) this.#importLater();
  }

  #keepForRetry(error: unknown): void {
    let surplus = Math.max(0, this.#rows.length - MAX_QUEUED_ROWS);
    if (surplus > 0) this.#rows = this.#rows.slice(surplus);
    if (this.#encoded.length > MAX_QUEUED_CHARACTERS) {
      const kept = this.#encoded.indexOf('\n', this.#encoded.length - MAX_QUEUED_CHARACTERS) + 1;
      surplus += countLines(this.#encoded.slice(0, kept));
      this.#encoded = this.#encoded.slice(kept);
    }
    this.#payloads = this.#payloads.slice(-MAX_QUEUED_ROWS);
    this.#lostRows += surplus;
    const nowMs = this.#clock.now();
    if (nowMs - this.#refusalLoggedAtMs >= REFUSAL_LOG_MS) {
      this.#refusalLoggedAtMs = nowMs;
      this.#log.error(
        { err: error, queuedRows: this.waitingRows, lostRows: this.#lostRows },
        'usage rows could not be written; trying again',
      );
    }
    this.#writeLater();
  }

  #importLater(): void {
    if (this.#isImportDue || this.#isClosed) return;
    this.#isImportDue = true;
    this.#clock.sleep(IMPORT_INTERVAL_MS, this.#closing.signal).then(
      () => {
        this.#isImportDue = false;
        const isBusy = this.#addedSinceLook > FEW_ROWS;
        this.#addedSinceLook = 0;
        if (isBusy && this.#unimportedRows < MAX_UNIMPORTED_ROWS) this.#importLater();
        else void this.#import();
      },
      () => {
        this.#isImportDue = false;
      },
    );
  }

  #import(): Promise<void> {
    this.#importing ??= this.#importAll().finally(() => {
      this.#importing = undefined;
    });
    return this.#importing;
  }

  async #importAll(): Promise<void> {
    try {
      this.#unimportedRows = 0;
      for (const segment of await this.#journal.seal()) {
        await this.#importSegment(segment);
        await this.#journal.remove(segment);
      }
      for (const segment of await this.#payloadJournal.seal()) {
        await importPayloads(this.#connection, segment, this.#log);
        await this.#payloadJournal.remove(segment);
      }
    } catch (error) {
      // The journal keeps them.
      this.#log.error({ err: error }, 'usage rows could not be imported; trying again');
      this.#importLater();
    }
  }

  /** All of its rows or none, and once: a crash may come between the commit and the removal of the file. */
  async #importSegment({ name, path, text }: Segment): Promise<void> {
    const connection = this.#connection;
    await connection.run('BEGIN TRANSACTION');
    try {
      const known = await connection.runAndReadAll(
        'SELECT 1 FROM duckserve.main.imported_segments WHERE name = $1',
        [name],
      );
      if (known.currentRowCount === 0) {
        if (path === null)
          await connection.run(INSERT_USAGE(null), [`[${text.trim().replaceAll('\n', ',')}]`]);
        else await connection.run(INSERT_USAGE(path));
        await connection.run(
          "INSERT INTO duckserve.main.imported_segments VALUES ($1, now()::TIMESTAMPTZ AT TIME ZONE 'UTC')",
          [name],
        );
      }
      await connection.run('COMMIT');
    } catch (error) {
      await connection.run('ROLLBACK').catch(() => undefined);
      throw error;
    }
  }
}

function linesOf<Row>(rows: readonly Row[], encode: (row: Row) => string): string {
  let lines = '';
  for (const row of rows) lines += `${encode(row)}\n`;
  return lines;
}

function countLines(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) count += 1;
  return count;
}
