// Columns of rewritten calls in a real DuckDB: they have the type that the call promises, in every clause.
import { afterEach, describe, expect, it } from 'vitest';
import type { SignatureColumn } from '#core/endpoint.ts';
import { chatText, type Harness, openHarness, rowsOf, type ScriptedModel, say } from './harness.ts';

const output = (name: string, type: SignatureColumn['type'], width?: number): SignatureColumn => ({
  name,
  type,
  required: true,
  ...(width === undefined ? {} : { width }),
});

describe('in a real DuckDB', () => {
  let harness: Harness;
  afterEach(() => harness.close());
  const echo: ScriptedModel = { task: 'llm/v1/chat', answer: (input) => say(chatText(input)) };
  const open = async () => {
    harness = await openHarness({
      echo,
      emb: { task: 'llm/v1/embeddings', answer: () => ({ embedding: new Float32Array([1, 0.5]) }) },
      two: {
        task: 'predict',
        answer: () => ({ prediction: { label: 'spam', 'p "x"': [0.25, 0.75] } }),
        signature: { inputs: [], outputs: [output('label', 'string'), output('p "x"', 'double', 2)] },
      },
    });
    return harness.session;
  };

  it.each([
    ['INT', '41', 'INTEGER', 41],
    ['BIGINT', '"9007199254740993"', 'BIGINT', '9007199254740993'],
    ['HUGEINT', '{"result": 7}', 'HUGEINT', 7],
    ['DECIMAL(6,2)', '1234.5', 'DECIMAL(6,2)', 1234.5],
    ['DOUBLE', '```json\n{"result": 2.5}\n```', 'DOUBLE', 2.5],
    ['BOOLEAN', 'yes', 'BOOLEAN', true],
    ['DATE', '2026-02-28', 'DATE', '2026-02-28'],
    ['TIMESTAMP', '2026-02-28T10:00Z', 'TIMESTAMP', '2026-02-28 10:00:00'],
    ['TIME', '9:05', 'TIME', '09:05:00'],
    ['ARRAY<STRING>', '["a", null]', 'VARCHAR[]', ['a', null]],
    ['INT[2]', '{"result": [1, 2]}', 'INTEGER[2]', [1, 2]],
    ['MAP<STRING, DECIMAL(4,1)>', '{"a": 1.5, "b": null}', 'MAP(VARCHAR, DECIMAL(4,1))', { a: 1.5, b: null }],
    ['MAP<DATE, INT>', '{"2026-01-01": 1}', 'MAP(DATE, INTEGER)', { '2026-01-01': 1 }],
    [
      'STRUCT<who: STRUCT<name: STRING, born: DATE>, tags: ARRAY<STRUCT<t: STRING, n: INT>>>',
      '{"who": {"name": "Ada", "born": "1815-12-10"}, "tags": [{"t": "x", "n": "3"}, {"t": "y"}]}',
      'STRUCT("who" STRUCT("name" VARCHAR, "born" DATE), "tags" STRUCT("t" VARCHAR, "n" INTEGER)[])',
      {
        who: { name: 'Ada', born: '1815-12-10' },
        tags: [
          { t: 'x', n: 3 },
          { t: 'y', n: null },
        ],
      },
    ],
    ['JSON', '{"free": [1]}', 'JSON', '{"free":[1]}'],
    ['STRING', '{"a": 1}', 'VARCHAR', '{"a": 1}'],
  ])('a call with returnType %s has a column of that type', async (type, answer, column, value) => {
    const session = await open();
    const literal = answer.replaceAll("'", "''");
    const [plain, tried] = await session.run(
      `SELECT ai_query('echo', '${literal}', returnType => '${type}') AS x; SELECT ai_query('echo', '${literal}', '${type}', false) AS x`,
    );
    expect(plain?.columns).toEqual([{ name: 'x', type: column }]);
    expect([...(plain?.rows() ?? [])]).toEqual([[value]]);
    expect([...(tried?.rows() ?? [])]).toEqual([[{ response: value, result: value, errorMessage: null }]]);
  });

  it.each(['TINYINT', 'DECIMAL(3,1)', 'DATE', 'FLOAT', 'INT[1]', 'MAP<INT, INT>', 'STRUCT<a: INT>'])(
    'an answer that does not fit %s is a value under failOnError => false and no error of the cast',
    async (type) => {
      const session = await open();
      const rows = await rowsOf(
        session,
        `SELECT r.response IS NULL, r.errorMessage[:16] FROM (SELECT ai_query('echo', x, '${type}', false) AS r FROM (VALUES ('1e300'), ('{"x": 1}')) v(x)) WHERE r.errorMessage IS NOT NULL`,
      );
      expect(rows[0]).toEqual([true, 'INVALID_RESPONSE']);
    },
  );

  it('several outputs of a model are a STRUCT, a vector is FLOAT[]', async () => {
    const session = await open();
    const [result] = await session.run(
      "SELECT predict('two', 1), predict('two', {'a': 1}).label AS l, ai_query('emb', 'x') AS e",
    );
    expect(result?.columns).toEqual([
      { name: 'predict', type: 'STRUCT("label" VARCHAR, "p ""x""" DOUBLE[])' },
      { name: 'l', type: 'VARCHAR' },
      { name: 'e', type: 'FLOAT[]' },
    ]);
    expect([...(result?.rows() ?? [])]).toEqual([
      [{ label: 'spam', 'p "x"': [0.25, 0.75] }, 'spam', [1, 0.5]],
    ]);
  });

  it('calls work in every clause, and equal ones count as equal', async () => {
    const session = await open();
    const n = "ai_query('echo', x, returnType => 'INT')";
    const rows = await rowsOf(
      session,
      `WITH t(x) AS (VALUES ('3'), ('1'), ('2'), ('2'))
       SELECT ${n}, count(*), (SELECT max(${n}) FROM t) FROM t WHERE ${n} < 3 AND ${n} IN (SELECT ${n} FROM t)
       GROUP BY ${n} HAVING sum(${n}) > 0 QUALIFY row_number() OVER (ORDER BY ${n}) < 9 ORDER BY ${n} DESC`,
    );
    expect(rows).toEqual([
      [2, 2, 3],
      [1, 1, 3],
    ]);
    expect(
      await rowsOf(
        session,
        `CREATE TABLE u AS VALUES ('5'); INSERT INTO u SELECT ${n} FROM (SELECT '6' AS x); UPDATE u SET col0 = ${n.replace('x', 'col0')} + 1; FROM u ORDER BY ALL`,
      ),
    ).toEqual([['6'], ['7']]);
  });

  it('named_struct gives the fields of Spark', async () => {
    const session = await open();
    expect(await rowsOf(session, "SELECT named_struct('a b', 1, 'n', named_struct('x', [1, 2]))")).toEqual([
      [{ 'a b': 1, n: { x: [1, 2] } }],
    ]);
  });
});
