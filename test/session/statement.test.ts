// Statements: of which kind they are, which decides how they are run, undone or refused.
import { DuckDBInstance, StatementType } from '@duckdb/node-api';
import { afterEach, describe, expect, it } from 'vitest';
import { copySource, parseStatement, parseStatements, type StatementKind } from '#session/statement.ts';
import { chatText, type Harness, openHarness, rowsOf, say } from './harness.ts';

const KINDS: Readonly<Record<StatementKind, readonly string[]>> = {
  read: [
    'SELECT 1',
    'select ai_gen(x) from t',
    '(SELECT 1) UNION ALL (SELECT 2)',
    '((SELECT 1))',
    'FROM t',
    'FROM t SELECT x',
    'VALUES (1), (2)',
    'TABLE t',
    'WITH a AS (SELECT 1) SELECT * FROM a',
    'WITH RECURSIVE a(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM a WHERE x < 3) FROM a',
    'WITH a AS MATERIALIZED (INSERT_LIKE()), b AS NOT MATERIALIZED (SELECT 2) SELECT * FROM a, b',
    'WITH "insert" AS (SELECT 1) SELECT * FROM "insert"',
    'WITH update AS (SELECT 1) SELECT * FROM update',
    'WITH a AS (SELECT 1) (SELECT * FROM a)',
    'PIVOT t ON a USING sum(b)',
    'UNPIVOT t ON a, b INTO NAME n VALUE v',
    'PIVOT_WIDER t ON a USING sum(b)',
    'PIVOT_LONGER t ON a, b',
    'SUMMARIZE t',
    'DESCRIBE t',
    'SHOW TABLES',
    'EXPLAIN ANALYZE SELECT ai_gen(x) FROM t',
    'EXPLAIN (ANALYZE) SELECT 1',
    '-- insert\nSELECT 1',
  ],
  write: [
    'INSERT INTO t SELECT ai_gen(x) FROM u',
    'INSERT INTO t VALUES (1) RETURNING x',
    'INSERT OR REPLACE INTO t SELECT 1',
    'UPDATE t SET x = ai_gen(y)',
    "DELETE FROM t WHERE ai_classify(x, ['a', 'b']) = 'a'",
    'MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET b = u.b',
    'WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a',
    'WITH a AS (SELECT 1), b(x) AS (SELECT 2) UPDATE t SET x = 1 FROM a',
    'WITH a AS (SELECT 1) DELETE FROM t',
    'WITH a AS (SELECT 1) MERGE INTO t USING a ON true WHEN MATCHED THEN DELETE',
    'CREATE TABLE t AS SELECT 1',
    'CREATE TABLE t AS FROM u',
    'CREATE OR REPLACE TABLE t AS SELECT 1',
    'CREATE TEMP TABLE t AS SELECT 1',
    'CREATE OR REPLACE TEMPORARY TABLE t AS SELECT 1',
    'CREATE TABLE IF NOT EXISTS s.t AS SELECT 1',
    'CREATE TABLE t(a, b) AS SELECT 1, 2',
    'EXPLAIN ANALYZE INSERT INTO t SELECT ai_gen(x) FROM u',
    'ALTER TABLE t ALTER x TYPE VARCHAR USING ai_gen(x)',
    "EXECUTE p('x')",
    'EXPLAIN (ANALYZE, FORMAT json) DELETE FROM t',
    'EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1',
  ],
  copy: [
    "COPY t TO 'x.csv'",
    "COPY main.t TO 'x.csv' (HEADER)",
    "COPY (SELECT 1) TO 'x.csv'",
    "COPY (FROM t) TO 'x.parquet' (FORMAT parquet)",
  ],
  begin: ['BEGIN', 'BEGIN TRANSACTION', 'BEGIN WORK', 'START TRANSACTION', 'begin transaction read only'],
  commit: ['COMMIT', 'COMMIT WORK', 'END', 'END TRANSACTION'],
  rollback: ['ROLLBACK', 'ROLLBACK TRANSACTION', 'ABORT'],
  explain: [
    'EXPLAIN SELECT ai_gen(x) FROM t',
    'EXPLAIN INSERT INTO t SELECT 1',
    'EXPLAIN (FORMAT json) DELETE FROM t',
  ],
  estimate: ['ESTIMATE SELECT ai_gen(x) FROM t', 'estimate INSERT INTO t SELECT ai_gen(x) FROM u'],
  set: [
    "SET ai_cache = 'off'",
    'SET SESSION ai_max_calls = 5',
    'SET GLOBAL ai_max_cost TO 1',
    'RESET ai_cache',
    'reset session AI_MAX_TOKENS',
  ],
  call: ["CALL duckserve_create_endpoint('x')", 'CALL duckserve_endpoints()'],
  other: [
    'CREATE TABLE t (a INTEGER, b VARCHAR)',
    'CREATE TABLE t (a INTEGER, b INTEGER GENERATED ALWAYS AS (a + 1))',
    'CREATE VIEW v AS SELECT 1',
    'CREATE MACRO f(x) AS x + 1',
    'CREATE MACRO f(x) AS TABLE SELECT x',
    'CREATE INDEX i ON t (a)',
    "COPY t FROM 'x.csv'",
    'CALL pragma_version()',
    'DROP TABLE t',
    "ATTACH 'x.db'",
    'INSTALL json',
  ],
  setting: [
    "SET memory_limit = '1GB'",
    'SET VARIABLE ai_x = 1',
    'RESET threads',
    'PRAGMA database_size',
    'USE x',
    'CHECKPOINT',
    'PREPARE p AS SELECT ai_gen($1)',
  ],
};

describe('the kind of a statement', () => {
  for (const [kind, statements] of Object.entries(KINDS)) {
    it.each(statements)(`is ${kind}: %s`, (text) => {
      expect(parseStatement(text).kind).toBe(kind);
    });
  }

  it('is read or write exactly where DuckDB says that rows are selected or changed', async () => {
    const instance = await DuckDBInstance.create(':memory:');
    const connection = await instance.connect();
    await connection.run(
      'CREATE MACRO ai_gen(x) AS x; CREATE MACRO ai_classify(x, l) AS x; CREATE TABLE t (x INTEGER, a INTEGER, b INTEGER, y INTEGER); CREATE TABLE u (x INTEGER, a INTEGER, b INTEGER)',
    );
    const types = async (text: string) => {
      const extracted = await connection.extractStatements(text);
      if (extracted.count !== 1) return undefined;
      try {
        return (await extracted.prepare(0)).statementType;
      } catch {
        return undefined;
      }
    };
    let seen = 0;
    for (const text of [...KINDS.read, ...KINDS.write, ...KINDS.other]) {
      if (text.startsWith('PRAGMA')) continue; // Rewritten into a SELECT by DuckDB; run as it is all the same.
      const type = await types(text).catch(() => undefined);
      if (type === undefined) continue;
      const { kind } = parseStatement(text);
      seen++;
      if (type === StatementType.SELECT) expect([text, kind]).toEqual([text, 'read']);
      if (type === StatementType.INSERT || type === StatementType.UPDATE || type === StatementType.DELETE) {
        expect([text, kind]).toEqual([text, 'write']);
      }
    }
    expect(seen).toBeGreaterThan(20);
    connection.closeSync();
    instance.closeSync();
  });
});

describe('an early stop', () => {
  it.each([
    ['SELECT x FROM t LIMIT 5', true],
    ['SELECT EXISTS (SELECT 1 FROM t)', true],
    ['SELECT x FROM t FETCH FIRST 5 ROWS ONLY', true],
    ['INSERT INTO t SELECT x FROM u LIMIT 1', true],
    ["SELECT 'limit' FROM t", false],
    ['SELECT "limit" FROM t', false],
    ['SELECT x FROM t -- LIMIT 5', false],
    ['CREATE VIEW v AS SELECT x FROM t LIMIT 5', false],
  ])('is possible in %s: %s', (text, expected) => {
    expect(parseStatement(text).mayStopEarly).toBe(expected);
  });
});

describe('the query of a COPY', () => {
  it('is what stands in the brackets, whatever it contains', () => {
    const [copy] = parseStatements("COPY (SELECT ')' AS a, (1) AS b FROM t -- )\n) TO 'x.csv' (HEADER)");
    expect(copy && copySource(copy).text.trim()).toBe("SELECT ')' AS a, (1) AS b FROM t -- )");
    expect(copy && copySource(copy).kind).toBe('read');
  });
});

describe('a statement that is not a plain write but changes data', () => {
  let harness: Harness;
  afterEach(() => harness.close());
  const open = async (setup: string) => {
    harness = await openHarness(
      {
        upper: { task: 'llm/v1/chat', answer: (input) => say(chatText(input).toUpperCase()) },
        tree: {
          task: 'predict',
          answer: () => ({ prediction: 7 }),
          signature: { inputs: [], outputs: [{ name: 'y', type: 'double', required: true }] },
          local: {
            predictColumns: (_columns, rows) => [{ name: 'y', values: new Float64Array(rows).fill(7) }],
          },
        },
      },
      { chat: 'upper' },
    );
    await harness.session.run(setup);
    return harness;
  };

  it('writes a row once when a prepared INSERT is executed', async () => {
    const { session } = await open(
      "CREATE TABLE t (a VARCHAR); PREPARE p AS INSERT INTO t SELECT ai_gen($1); EXECUTE p('x')",
    );
    expect(await rowsOf(session, 'FROM t')).toEqual([['X']]);
  });

  it('writes a row once, with its answer, when an INSERT is explained and analysed', async () => {
    const { session } = await open(
      "CREATE TABLE t (a VARCHAR); EXPLAIN ANALYZE INSERT INTO t SELECT ai_gen('x')",
    );
    expect(await rowsOf(session, 'FROM t')).toEqual([['X']]);
  });

  it('changes a column to its answers in ALTER ... USING', async () => {
    const { session } = await open(
      "CREATE TABLE t AS VALUES ('x'), ('y'); ALTER TABLE t ALTER col0 TYPE VARCHAR USING ai_gen(col0)",
    );
    expect(await rowsOf(session, 'FROM t ORDER BY ALL')).toEqual([['X'], ['Y']]);
  });

  it('gives rows back from INSERT ... RETURNING, once', async () => {
    const { session, asked } = await open('CREATE TABLE t (a VARCHAR)');
    expect(await rowsOf(session, "INSERT INTO t SELECT ai_gen('x') RETURNING a, ai_gen(a || 'y')")).toEqual([
      ['X', 'XY'],
    ]);
    expect(await rowsOf(session, 'FROM t')).toEqual([['X']]);
    expect(asked).toEqual(['x', 'Xy']);
  });

  it('merges by answers', async () => {
    const { session } = await open(
      "CREATE TABLE t AS SELECT 'A' AS k, 0 AS n; CREATE TABLE u AS SELECT unnest(['a', 'b']) AS k",
    );
    await session.run(
      'MERGE INTO t USING (SELECT ai_gen(k) AS k FROM u) v ON t.k = v.k WHEN MATCHED THEN UPDATE SET n = 1 WHEN NOT MATCHED THEN INSERT VALUES (v.k, 2)',
    );
    expect(await rowsOf(session, 'FROM t ORDER BY ALL')).toEqual([
      ['A', 1],
      ['B', 2],
    ]);
  });

  it('pivots by answers', async () => {
    const { session } = await open("CREATE TABLE t AS SELECT unnest(['a', 'b', 'b']) AS k");
    expect(await rowsOf(session, 'PIVOT (SELECT ai_gen(k) AS k FROM t) ON k USING count(*)')).toEqual([
      [1, 2],
    ]);
  });

  it('explains a query over a local model without failing', async () => {
    const { session, localInputs } = await open('CREATE TABLE t AS SELECT 1.5 AS x');
    await session.run("EXPLAIN SELECT predict('tree', x) FROM t; EXPLAIN SELECT predict('tree', 1.5)");
    expect(localInputs).toEqual([]);
    await session.run("EXPLAIN ANALYZE SELECT predict('tree', x) FROM t");
    expect(localInputs).toEqual([1]);
  });
});
