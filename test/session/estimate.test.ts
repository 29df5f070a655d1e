// Estimates: what a statement would ask, before anything is asked, and without leaving anything behind.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import type { Estimate } from '#core/estimate.ts';
import { add } from '#session/estimate.ts';
import { chatText, type Harness, openHarness, rowsOf, say } from './harness.ts';

let harness: Harness;
afterEach(() => harness.close());
const open = async (setup = 'SELECT 1') => {
  harness = await openHarness(
    {
      upper: { task: 'llm/v1/chat', answer: (input) => say(chatText(input).toUpperCase()) },
      emb: {
        task: 'llm/v1/embeddings',
        answer: () => ({ embedding: new Float32Array([1]) }),
        local: { embed: (texts) => texts.map(() => new Float32Array([1])) },
      },
      tree: {
        task: 'predict',
        answer: () => ({ prediction: 1 }),
        local: { predictColumns: (_columns, count) => [{ name: 'y', values: new Float64Array(count) }] },
      },
    },
    { chat: 'upper', classify: 'upper', embedding: 'emb' },
  );
  await harness.session.run(setup);
  return harness;
};

const DEPENDENT =
  'Calls that depend on the answers of other calls are not counted: they are known only when those are answered.';
const EARLY = 'The statement may stop early (LIMIT, EXISTS): this is the most it can ask.';

describe('an estimate', () => {
  it('counts each distinct input once, by endpoint, and asks nothing', async () => {
    const { session, asked } = await open();
    const estimate = await session.estimate(
      "SELECT ai_gen('q' || i % 10), ai_gen('q' || i % 10), ai_similarity('a', 'b' || i % 3) FROM range(1000) t(i)",
    );
    expect(estimate).toMatchObject({ calls: 14, cached: 0, unknown: null });
    expect(estimate.endpoints.map(({ endpoint, model, calls }) => [endpoint, model, calls])).toEqual([
      ['upper', 'upper', 10],
      ['emb', 'emb', 4],
    ]);
    expect(asked).toEqual([]);
  });

  it('adds up the statements of a text, also those of a COPY, and counts none for an EXPLAIN', async () => {
    const { session } = await open();
    expect(
      await session.estimate(
        "SELECT ai_gen('a'); EXPLAIN SELECT ai_gen('b'); COPY (SELECT ai_gen('c')) TO 'never.csv'; SET threads = 1",
      ),
    ).toMatchObject({ calls: 2 });
  });

  it('counts inputs for local models too, and loads none', async () => {
    const { session, localInputs } = await open();
    expect(
      await session.estimate("SELECT ai_embed('x' || i % 2), predict('tree', i) FROM range(5) t(i)"),
    ).toMatchObject({ calls: 7 });
    expect(localInputs).toEqual([]);
  });

  it('is a table when it is asked for in SQL, with a row for each endpoint and the total', async () => {
    const { session, asked } = await open();
    const [result] = await session.run("ESTIMATE SELECT ai_gen('q' || i), ai_embed('x') FROM range(3) t(i)");
    expect(result?.columns.map(({ name, type }) => `${name} ${type}`)).toEqual([
      'endpoint VARCHAR',
      'model VARCHAR',
      'calls BIGINT',
      'cached BIGINT',
      'input_tokens BIGINT',
      'cost DOUBLE',
      'seconds DOUBLE',
      'unknown VARCHAR',
    ]);
    const rows = [...(result?.rows() ?? [])];
    expect(rows.at(-1)).toEqual(['total', null, 4, 0, 4, 0, null, null]);
    expect(new Set(rows.slice(0, -1))).toEqual(
      new Set([
        ['upper', 'upper', 3, 0, 3, 0, null, null],
        ['emb', 'emb', 1, 0, 1, 0, null, null],
      ]),
    );
    expect(asked).toEqual([]);
    await expect(session.run('ESTIMATE')).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  });

  it('fails where the statement would fail by itself', async () => {
    const { session } = await open();
    await expect(session.estimate('SELECT nothing FROM nowhere')).rejects.toMatchObject({
      code: 'SQL_ERROR',
    });
    await expect(session.estimate("SELECT ai_query('nope', 'x')")).rejects.toMatchObject({
      code: 'ENDPOINT_NOT_FOUND',
    });
    await expect(session.estimate("SELECT ai_classify('x', ['one'])")).rejects.toMatchObject({
      code: 'INVALID_PARAMETER',
    });
  });

  it('is not spoilt by an error that a missing answer caused', async () => {
    const { session } = await open();
    expect(
      await session.estimate("SELECT CASE WHEN ai_gen('x') IS NULL THEN error('no answer') END"),
    ).toMatchObject({ calls: 1 });
  });
});

describe('what cannot be known', () => {
  it.each([
    ['SELECT ai_gen(x) FROM t', null],
    ["SELECT ai_gen(x), ai_gen(x || 'y') FROM t", null],
    ['SELECT upper(ai_gen(x)), ai_gen(x) FROM t JOIN t u USING (x)', null],
    ["SELECT x FROM t WHERE ai_gen(x) = 'A'", null],
    ['SELECT ai_gen(x) FROM t UNION ALL SELECT ai_gen(x) FROM t', null],
    ['SELECT ai_gen(ai_gen(x)) FROM t', DEPENDENT],
    ["SELECT ai_gen('b' || upper(ai_gen(x))) FROM t", DEPENDENT],
    ["SELECT ai_gen(x) FROM t WHERE ai_gen(x || '!') = 'A!'", DEPENDENT],
    ['SELECT ai_gen(y) FROM (SELECT ai_gen(x) AS y FROM t)', DEPENDENT],
    ['WITH c AS (SELECT ai_gen(x) AS y FROM t) SELECT ai_gen(y) FROM c', DEPENDENT],
    ['SELECT ai_gen(x) FROM t LIMIT 5', EARLY],
    ["SELECT EXISTS (SELECT 1 FROM t WHERE ai_gen(x) = 'A')", EARLY],
    ['SELECT ai_gen(ai_gen(x)) FROM t LIMIT 5', `${DEPENDENT} ${EARLY}`],
    ["SELECT 'ai_gen(ai_gen(x)) LIMIT 5'", null],
  ])('is said in a sentence: %s', async (sql, sentence) => {
    const { session } = await open("CREATE TABLE t AS SELECT 'a' AS x");
    expect((await session.estimate(sql)).unknown).toBe(sentence);
  });
});

describe('what an estimate leaves behind', () => {
  it.each([
    'INSERT INTO t SELECT ai_gen(x) FROM t',
    "INSERT INTO t VALUES ('plain')",
    'UPDATE t SET x = ai_gen(x)',
    "DELETE FROM t WHERE ai_gen(x) = 'A'",
    'DELETE FROM t',
    "MERGE INTO t USING (SELECT 'b' AS x) u ON t.x = ai_gen(u.x) WHEN NOT MATCHED THEN INSERT VALUES (u.x)",
    "CREATE OR REPLACE TABLE t AS SELECT ai_gen('q')",
    'CREATE TABLE other AS SELECT 1',
    'ALTER TABLE t ALTER x TYPE VARCHAR USING ai_gen(x)',
    'DROP TABLE t',
  ])('is nothing: %s', async (sql) => {
    const { session } = await open("CREATE TABLE t AS SELECT 'a' AS x");
    await session.estimate(sql);
    await session.run(`ESTIMATE ${sql}`);
    expect(await rowsOf(session, 'FROM t')).toEqual([['a']]);
    expect(
      await rowsOf(session, "SELECT table_name FROM duckdb_tables() WHERE table_name = 'other'"),
    ).toEqual([]);
    // No transaction was left open either.
    await session.run('BEGIN; COMMIT');
  });

  it('is no file of a COPY', async () => {
    const { session } = await open();
    const folder = mkdtempSync(join(tmpdir(), 'duckserve-estimate-'));
    const file = join(folder, 'x.csv');
    expect(await session.estimate(`COPY (SELECT ai_gen('x')) TO '${file}'`)).toMatchObject({ calls: 1 });
    expect(existsSync(file)).toBe(false);
    rmSync(folder, { recursive: true });
  });

  it('is the transaction of the user as it was, so that a write in one is refused', async () => {
    const { session } = await open("CREATE TABLE t AS SELECT 'a' AS x; BEGIN; INSERT INTO t VALUES ('mine')");
    expect(await session.estimate('SELECT ai_gen(x) FROM t')).toMatchObject({ calls: 2 });
    await expect(session.estimate('DELETE FROM t')).rejects.toMatchObject({ code: 'AI_IN_TRANSACTION' });
    await session.run('COMMIT');
    expect(await rowsOf(session, 'FROM t ORDER BY ALL')).toEqual([['a'], ['mine']]);
  });
});

describe('a sum of estimates', () => {
  it('adds what is known, takes the longest time, and is unknown where a part is', () => {
    const part: Estimate = { calls: 1, cached: 2, inputTokens: 3, cost: 0.5, seconds: 4 };
    expect(add(part, { ...part, seconds: 9 })).toEqual({
      calls: 2,
      cached: 4,
      inputTokens: 6,
      cost: 1,
      seconds: 9,
    });
    expect(add(part, { ...part, cost: null, seconds: null })).toMatchObject({
      calls: 2,
      cost: null,
      seconds: null,
    });
  });
});
