// The ledger on disk: what a crash leaves behind, and what is made of it at the next start.
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { PayloadRow, UsageRow } from '#core/stores.ts';
import { type Database, openDatabase } from '#storage/database.ts';
import { encodePayloadRow, encodeUsageRow } from '#storage/usage-encoding.ts';
import { type DuckDbUsageStore, openUsageStore } from '#storage/usage-store.ts';

/** Nothing happens by itself. */
const clock: Clock = { ...SYSTEM_CLOCK, sleep: () => new Promise(() => {}) };

let directory: string;
let database: Database;
let errors: string[];
let warnings: string[];
const log = {
  ...SILENT_LOG,
  error: (_: object, message: string) => void errors.push(message),
  warn: (_: object, message: string) => void warnings.push(message),
};

beforeEach(async () => {
  errors = [];
  warnings = [];
  directory = await mkdtemp(join(tmpdir(), 'duckserve-journal-'));
  database = await openDatabase({ systemPath: null, userPath: ':memory:', log: SILENT_LOG });
});
afterEach(async () => {
  await database.close();
  await rm(directory, { recursive: true, force: true });
});

const open = async (isDurable = false): Promise<DuckDbUsageStore> =>
  openUsageStore({ connection: await database.connect(), journalDir: directory, clock, log, isDurable });

function row(requestId: string): UsageRow {
  return {
    ...{
      requestId,
      callId: 'c',
      clientRequestId: null,
      requestTimeMs: 0,
      requester: 'alice',
      origin: 'http',
    },
    ...{
      endpoint: 'e',
      servedEntity: 's',
      model: 'm',
      engine: 'openai',
      task: 'llm/v1/chat',
      statusCode: 200,
    },
    ...{ errorCode: null, errorMessage: null, inputCount: 1, cachedCount: 0, attempts: 1, inputTokens: 1 },
    ...{ outputTokens: 2, cost: null, durationMs: 1, isStreaming: false, usageContext: null },
  };
}

function payload(requestId: string, table: Partial<PayloadRow['table']> = {}): PayloadRow {
  return {
    table: { catalog: 'duckserve', schema: 'inference', name: 'chat_payload', ...table },
    requestId,
    clientRequestId: null,
    requestTimeMs: Date.UTC(2026, 0, 2, 3),
    statusCode: 200,
    samplingFraction: 1,
    durationMs: 12,
    request: '{"messages":[]}',
    response: null,
    servedEntityId: 's',
    requester: 'alice',
    loggingErrorCodes: ['MAX_RESPONSE_SIZE_EXCEEDED'],
  };
}

async function query(sql: string) {
  return (await database.system.runAndReadAll(sql)).getRowObjectsJson();
}
const requestIds = async () =>
  (await query('SELECT request_id FROM duckserve.usage ORDER BY 1')).map((found) => found.request_id);

describe('the ledger on disk', () => {
  it('has a row in its file when persist resolves, before any import', async () => {
    const store = await open(true);
    store.add(row('a'));
    await store.persist();
    const [file = ''] = await readdir(directory);
    expect(await readFile(join(directory, file), 'utf8')).toBe(`${encodeUsageRow(row('a'))}\n`);
    expect(await requestIds()).toEqual([]);
    await store.close();
  });

  it('shares one write among all who persist at the same time', async () => {
    const store = await open(true);
    const waiting = Array.from({ length: 50 }, (_, index) => {
      store.add(row(`r${String(index).padStart(2, '0')}`));
      return store.persist();
    });
    expect(new Set(waiting).size).toBe(2);
    await Promise.all(waiting);
    const [file = ''] = await readdir(directory);
    expect((await readFile(join(directory, file), 'utf8')).split('\n')).toHaveLength(51);
    await store.close();
  });

  it('imports at the start what a killed process left, and skips the line it was writing', async () => {
    const cut = encodeUsageRow(row('c')).slice(0, 50);
    const lines = `${encodeUsageRow(row('a'))}\n${encodeUsageRow(row('b'))}\n${cut}`;
    await writeFile(join(directory, 'usage-000000000000001-1-000001.ndjson'), lines);
    await writeFile(
      join(directory, 'payloads-000000000000001-1-000001.ndjson'),
      `${encodePayloadRow(payload('a'))}\n`,
    );
    const store = await open();
    expect(await requestIds()).toEqual(['a', 'b']);
    expect(await query('SELECT databricks_request_id FROM duckserve.inference.chat_payload')).toEqual([
      { databricks_request_id: 'a' },
    ]);
    expect(await readdir(directory)).toEqual([]);
    await store.close();
  });

  it('does not import a piece twice when the process was killed between the commit and its removal', async () => {
    const name = 'usage-000000000000001-1-000001.ndjson';
    await writeFile(join(directory, name), `${encodeUsageRow(row('a'))}\n`);
    await (await open()).close();
    await writeFile(join(directory, name), `${encodeUsageRow(row('a'))}\n`);
    await (await open()).close();
    expect(await requestIds()).toEqual(['a']);
  });

  it('keeps rows and goes on when the directory is taken away, and loses none of them', async () => {
    const store = await open();
    await rm(directory, { recursive: true, force: true });
    store.add(row('a'));
    await store.persist();
    expect(errors).toEqual(['usage rows could not be written; trying again']);
    expect(store.lostRows).toBe(0);
    const { mkdir } = await import('node:fs/promises');
    await mkdir(directory, { recursive: true });
    store.add(row('b'));
    await store.flush();
    expect(await requestIds()).toEqual(['a', 'b']);
    await store.close();
  });
});

describe('inference tables', () => {
  it('are made with the columns of Databricks when their first row comes', async () => {
    const store = await open();
    store.addPayload(payload('a'));
    store.addPayload(payload('b', { schema: 'my "schema"', name: "it's_payload" }));
    await store.flush();
    expect(await query('SELECT * FROM duckserve.inference.chat_payload')).toEqual([
      {
        databricks_request_id: 'a',
        client_request_id: null,
        request_date: '2026-01-02',
        request_time: '2026-01-02 03:00:00',
        status_code: 200,
        sampling_fraction: 1,
        execution_duration_ms: '12',
        request: '{"messages":[]}',
        response: null,
        served_entity_id: 's',
        requester: 'alice',
        logging_error_codes: ['MAX_RESPONSE_SIZE_EXCEEDED'],
      },
    ]);
    expect(await query(`SELECT databricks_request_id FROM duckserve."my ""schema"""."it's_payload"`)).toEqual(
      [{ databricks_request_id: 'b' }],
    );
    await store.close();
  });

  it('may stand in the database of the user', async () => {
    const store = await open();
    store.addPayload(payload('a', { catalog: 'memory', schema: 'main' }));
    await store.flush();
    expect(await query('SELECT count(*)::INT AS n FROM memory.main.chat_payload')).toEqual([{ n: 1 }]);
    await store.close();
  });

  it('stand in the default place, with a warning, where the wanted one cannot be written', async () => {
    await database.system.run('CREATE TABLE duckserve.inference.taken_payload (other INTEGER)');
    const store = await open();
    store.addPayload(payload('a', { catalog: 'nowhere', schema: 's' }));
    await store.flush();
    expect(await query('SELECT count(*)::INT AS n FROM duckserve.inference.chat_payload')).toEqual([
      { n: 1 },
    ]);
    expect(warnings).toEqual(['an inference table cannot be written']);
    await store.close();
  });
});
