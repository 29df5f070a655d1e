import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { UsageRow } from '#core/stores.ts';
import { type Database, openDatabase } from '#storage/database.ts';
import { encodeUsageRow } from '#storage/usage-encoding.ts';
import { type DuckDbUsageStore, openUsageStore } from '#storage/usage-store.ts';

let database: Database;
let store: DuckDbUsageStore;
let sleeps: { ms: number; wake: () => void }[];
let errors: string[];

const clock: Clock = {
  ...SYSTEM_CLOCK,
  sleep: (ms) => new Promise((resolve) => sleeps.push({ ms, wake: resolve })),
};
const log = { ...SILENT_LOG, error: (_: object, message: string) => void errors.push(message) };

beforeEach(async () => {
  sleeps = [];
  errors = [];
  database = await openDatabase({ systemPath: null, userPath: ':memory:', log: SILENT_LOG });
  store = await openUsageStore({ connection: await database.connect(), journalDir: null, clock, log });
});
afterEach(async () => {
  await store.close();
  await database.close();
});

function row(index: number, options: Partial<UsageRow> = {}): UsageRow {
  return {
    requestId: `r${index}`,
    callId: `c${index}`,
    clientRequestId: null,
    requestTimeMs: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
    requester: 'local',
    origin: 'sql',
    endpoint: 'e',
    servedEntity: 's',
    model: 'm',
    engine: 'echo',
    task: 'llm/v1/chat',
    statusCode: 200,
    errorCode: null,
    errorMessage: null,
    inputCount: 1,
    cachedCount: 0,
    attempts: 1,
    inputTokens: 10,
    outputTokens: 20,
    cost: 0.25,
    durationMs: 12.5,
    isStreaming: false,
    usageContext: null,
    ...options,
  };
}

async function query(sql: string) {
  return (await database.system.runAndReadAll(sql)).getRowObjectsJson();
}

describe('the usage store', () => {
  it('knows how fast a model has answered, by the best fifty requests in a row', async () => {
    expect(await store.pastRate('e', 'm')).toBeUndefined();
    const startMs = Date.UTC(2026, 0, 1);
    // One request every 10 ms that takes 100 ms; a pause in between must not make the model look slow.
    for (let index = 0; index < 100; index += 1) {
      const pauseMs = index < 50 ? 0 : 3_600_000;
      store.add(row(index, { requestTimeMs: startMs + pauseMs + index * 10, durationMs: 100 }));
    }
    store.add(row(100, { statusCode: 502, durationMs: 1, requestTimeMs: startMs }));
    store.add(row(101, { attempts: 0, cachedCount: 1, durationMs: 1, requestTimeMs: startMs }));
    const past = await store.pastRate('e', 'm');
    expect(past?.inputsPerSecond).toBeCloseTo(50 / 0.59, 3);
    expect(past?.requestMs).toBe(100);
    expect(await store.pastRate('e', 'another')).toBeUndefined();
  });

  it('keeps every column of a row under its snake_case name', async () => {
    store.add(
      row(1, {
        usageContext: { team: 'a', app: 'ü' },
        cost: null,
        errorCode: 'TIMEOUT',
        statusCode: 504,
        endpointId: 'e1',
        servedEntityId: 's1',
        requesterType: 'service_principal',
        apiType: 'openai/v1/chat/completions',
        path: '/v1/chat/completions',
        userAgent: 'curl "8"',
        requestTags: { env: 'dev' },
        timeToFirstByteMs: 3.5,
        inputCharacters: 40,
        outputCharacters: 80,
      }),
    );
    await store.flush();
    expect(await query('SELECT * FROM duckserve.usage')).toEqual([
      {
        request_id: 'r1',
        call_id: 'c1',
        client_request_id: null,
        request_time: '2026-01-02 03:04:05.678',
        requester: 'local',
        origin: 'sql',
        endpoint: 'e',
        served_entity: 's',
        model: 'm',
        engine: 'echo',
        task: 'llm/v1/chat',
        status_code: 504,
        error_code: 'TIMEOUT',
        error_message: null,
        input_count: 1,
        cached_count: 0,
        attempts: 1,
        input_tokens: '10',
        output_tokens: '20',
        cost: null,
        duration_ms: 12.5,
        is_streaming: false,
        usage_context: [
          { key: 'team', value: 'a' },
          { key: 'app', value: 'ü' },
        ],
        endpoint_id: 'e1',
        served_entity_id: 's1',
        requester_type: 'service_principal',
        api_type: 'openai/v1/chat/completions',
        path: '/v1/chat/completions',
        user_agent: 'curl "8"',
        request_tags: [{ key: 'env', value: 'dev' }],
        time_to_first_byte_ms: 3.5,
        input_characters: '40',
        output_characters: '80',
      },
    ]);
    expect(await query("SELECT usage_context['team'] AS team FROM duckserve.usage")).toEqual([{ team: 'a' }]);
  });

  it('writes by itself after 100 milliseconds and imports after a quiet second, with one timer each', async () => {
    for (let index = 0; index < 10; index += 1) store.add(row(index));
    expect(sleeps.map((sleep) => sleep.ms)).toEqual([100]);
    sleeps[0]?.wake();
    await expect.poll(() => sleeps.map((sleep) => sleep.ms)).toEqual([100, 1_000]);
    sleeps[1]?.wake();
    await expect.poll(() => query('SELECT count(*)::INT AS n FROM duckserve.usage')).toEqual([{ n: 10 }]);
  });

  it('puts the import off while rows keep coming, for it would take the time of those who ask', async () => {
    for (let index = 0; index < 1_000; index += 1) store.add(row(index));
    sleeps[0]?.wake();
    await expect.poll(() => sleeps.length).toBe(2);
    sleeps[1]?.wake();
    await expect.poll(() => sleeps.length).toBe(3);
    expect(await query('SELECT count(*)::INT AS n FROM duckserve.usage')).toEqual([{ n: 0 }]);
    sleeps[2]?.wake();
    await expect.poll(() => query('SELECT count(*)::INT AS n FROM duckserve.usage')).toEqual([{ n: 1_000 }]);
  });

  it('takes rows of another process as lines', async () => {
    store.addEncoded(`${encodeUsageRow(row(1))}\n${encodeUsageRow(row(2))}\n`);
    store.add(row(3));
    await store.flush();
    expect(await query('SELECT request_id FROM duckserve.usage ORDER BY 1')).toEqual([
      { request_id: 'r1' },
      { request_id: 'r2' },
      { request_id: 'r3' },
    ]);
  });

  it('keeps the order and every row of large numbers, with flushes in between', async () => {
    const flushes: Promise<void>[] = [];
    for (let index = 0; index < 10_000; index += 1) {
      store.add(row(index, index % 3 === 0 ? { usageContext: { n: String(index) } } : {}));
      if (index % 1_111 === 0) flushes.push(store.flush());
    }
    await Promise.all(flushes);
    await store.flush();
    expect(
      await query('SELECT count(*)::INT AS n, count(DISTINCT request_id)::INT AS d FROM duckserve.usage'),
    ).toEqual([{ n: 10_000, d: 10_000 }]);
    expect(
      await query(
        "SELECT count(*)::INT AS n FROM duckserve.usage WHERE usage_context['n'] = substr(request_id, 2)",
      ),
    ).toEqual([{ n: 3_334 }]);
  });

  it('never throws: a refused write is logged, kept, and written when the table is back', async () => {
    await database.system.run('ALTER TABLE duckserve.main.usage RENAME TO elsewhere');
    store.add(row(1));
    await store.flush();
    expect(errors).toEqual(['usage rows could not be imported; trying again']);
    await database.system.run('ALTER TABLE duckserve.main.elsewhere RENAME TO usage');
    store.add(row(2));
    await store.flush();
    expect(await query('SELECT request_id FROM duckserve.usage ORDER BY 1')).toEqual([
      { request_id: 'r1' },
      { request_id: 'r2' },
    ]);
  });

  it('writes what is queued when it is closed, and records nothing after that', async () => {
    store.add(row(1));
    await store.close();
    store.add(row(2));
    expect(await query('SELECT request_id FROM duckserve.usage')).toEqual([{ request_id: 'r1' }]);
    expect(errors).toEqual(['usage row after close was not recorded']);
  });
});
