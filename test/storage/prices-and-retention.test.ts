import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { SILENT_LOG } from '#core/log.ts';
import { type Database, openDatabase } from '#storage/database.ts';
import { openPriceStore } from '#storage/price-store.ts';
import { startRetention } from '#storage/retention.ts';
import { ServedEntityStore } from '#storage/served-entity-store.ts';

/** Noon of the 31st: the 1st of the month is more than 30 days ago. */
const NOW_MS = Date.UTC(2026, 6, 31, 12);
const clock: Clock = { ...SYSTEM_CLOCK, now: () => NOW_MS, sleep: () => new Promise(() => {}) };
let database: Database;

beforeEach(async () => {
  database = await openDatabase({ systemPath: null, userPath: ':memory:', log: SILENT_LOG });
});
afterEach(() => database.close());

async function query(sql: string) {
  return (await database.system.runAndReadAll(sql)).getRowObjectsJson();
}

describe('the price table', () => {
  const row = (provider: string, model: string, inputPerMillion: number) => ({
    ...{ provider, model, inputPerMillion, outputPerMillion: 2 * inputPerMillion, note: null },
  });

  it('finds the price that says most of a model', async () => {
    const prices = await openPriceStore(await database.connect());
    await prices.set(row('*', '*', 9));
    await prices.set(row('openai', 'gpt-4o*', 3));
    await prices.set(row('openai', 'gpt-4o-mini', 1));
    await prices.set(row('openai', 'gpt-4o-mini*', 2));
    const inputOf = (provider: string, model: string) => prices.findPrice(provider, model)?.inputPerMillion;
    expect(inputOf('openai', 'gpt-4o-mini')).toBe(1);
    expect(inputOf('openai', 'gpt-4o-mini-2026')).toBe(2);
    expect(inputOf('openai', 'gpt-4o')).toBe(3);
    expect(inputOf('cohere', 'gpt-4o')).toBe(9);
  });

  it('takes a * for any characters and every other character for itself', async () => {
    const prices = await openPriceStore(await database.connect());
    await prices.set(row('openai', 'a.b(c)+*', 1));
    expect(prices.findPrice('openai', 'a.b(c)+1')).toBeDefined();
    expect(prices.findPrice('openai', 'aXb(c)+1')).toBeUndefined();
    expect(prices.findPrice('openai', 'x a.b(c)+1')).toBeUndefined();
  });

  it('tells who listens after an edit by SQL, and is empty until somebody fills it', async () => {
    const prices = await openPriceStore(await database.connect());
    expect(prices.list()).toEqual([]);
    let changes = 0;
    prices.onChange(() => changes++);
    await database.system.run("INSERT INTO duckserve.prices VALUES ('openai', 'm', 1, 2, 'list price')");
    await prices.reload();
    expect(changes).toBe(1);
    expect(prices.findPrice('openai', 'm')).toMatchObject({ inputPerMillion: 1, outputPerMillion: 2 });
  });

  it('refuses a negative price with its value, and says which price does not exist', async () => {
    const prices = await openPriceStore(await database.connect());
    await expect(prices.set(row('openai', 'm', -1))).rejects.toThrow('The input price is -1');
    await expect(prices.delete('openai', 'nothing')).rejects.toThrow("no price of 'nothing'");
  });
});

describe('retention', () => {
  it('deletes rows past their time, but usage of the running month never: budgets are restored from it', async () => {
    for (const days of [0, 1, 29, 30.3, 31, 45, 400]) {
      await database.system.run(
        `INSERT INTO duckserve.main.usage (request_id, call_id, request_time, requester, origin, endpoint, task, status_code,
          input_count, cached_count, attempts, input_tokens, output_tokens, duration_ms, is_streaming)
         VALUES ('r${days}', 'c', make_timestamp(${Math.round(NOW_MS - days * 86_400_000)}::BIGINT * 1000), 'a', 'http', 'e', 'predict', 200,
          1, 0, 1, 0, 0, 1, false)`,
      );
    }
    await database.system.run('CREATE TABLE duckserve.inference.x_payload (request_time TIMESTAMP)');
    await database.system.run(
      "INSERT INTO duckserve.inference.x_payload VALUES ('2026-01-01'), ('2026-07-01 06:00'), ('2026-07-29')",
    );
    await database.system.run(
      "INSERT INTO duckserve.inference_tables VALUES ('duckserve', 'inference', 'x_payload')",
    );
    await database.system.run(
      "INSERT INTO duckserve.inference_tables VALUES ('duckserve', 'inference', 'gone')",
    );
    const retention = startRetention({
      connection: await database.connect(),
      ...{ retentionMs: 30 * 86_400_000, clock, log: SILENT_LOG },
    });
    await retention.run();
    expect(await query('SELECT request_id FROM duckserve.usage ORDER BY 1')).toEqual([
      { request_id: 'r0' },
      { request_id: 'r1' },
      { request_id: 'r29' },
      { request_id: 'r30.3' },
    ]);
    expect(await query('SELECT count(*)::INT AS n FROM duckserve.inference.x_payload')).toEqual([{ n: 1 }]);
    await retention.close();
  });
});

describe('served_entities', () => {
  it('has one row for each entity of each configuration, and the time the endpoint was deleted', async () => {
    const store = new ServedEntityStore(await database.connect());
    const endpoint: Endpoint = {
      ...{
        id: 'e1',
        name: 'chat',
        task: 'llm/v1/chat',
        routes: [],
        description: '',
        tags: [],
        creator: 'alice',
      },
      servedEntities: [
        { name: 'a', id: 's1', externalModel: { name: 'gpt', provider: 'openai', task: 'llm/v1/chat' } },
        { name: 'b', id: 's2', entityName: 'm', entityVersion: '3' },
      ],
      ...{ configVersion: 1, createdAtMs: 0, updatedAtMs: Date.UTC(2026, 0, 1), isEmbedded: false },
    };
    await store.changed(endpoint);
    await store.changed(endpoint);
    await store.changed({
      ...endpoint,
      configVersion: 2,
      servedEntities: endpoint.servedEntities.slice(0, 1),
    });
    await store.deleted('chat', Date.UTC(2026, 0, 2));
    expect(
      await query(`SELECT served_entity_id, entity_type, entity_name, entity_version, endpoint_config_version AS v,
        external_model_config, endpoint_delete_time FROM duckserve.serving.served_entities ORDER BY ALL`),
    ).toEqual([
      {
        ...{
          served_entity_id: 's1',
          entity_type: 'EXTERNAL_MODEL',
          entity_name: 'gpt',
          entity_version: null,
        },
        ...{
          v: 1,
          external_model_config: { provider: 'openai' },
          endpoint_delete_time: '2026-01-02 00:00:00',
        },
      },
      {
        ...{
          served_entity_id: 's1',
          entity_type: 'EXTERNAL_MODEL',
          entity_name: 'gpt',
          entity_version: null,
        },
        ...{
          v: 2,
          external_model_config: { provider: 'openai' },
          endpoint_delete_time: '2026-01-02 00:00:00',
        },
      },
      {
        ...{ served_entity_id: 's2', entity_type: 'CUSTOM_MODEL', entity_name: 'm', entity_version: '3' },
        ...{ v: 1, external_model_config: null, endpoint_delete_time: '2026-01-02 00:00:00' },
      },
    ]);
    await store.close();
  });
});
