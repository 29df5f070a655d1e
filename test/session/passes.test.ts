// The passes: what a statement asks, how often, and what is left behind when something goes wrong.
import { afterEach, describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { chatText, type Harness, openHarness, rowsOf, type ScriptedModel, say } from './harness.ts';

let harness: Harness;
afterEach(() => harness.close());

const upper: ScriptedModel = { task: 'llm/v1/chat', answer: (input) => say(chatText(input).toUpperCase()) };
const label: ScriptedModel = {
  task: 'llm/v1/chat',
  answer: (input) =>
    say(JSON.stringify({ label: Number(chatText(input).replace(/\D/g, '')) % 3 === 0 ? 'fizz' : 'other' })),
};
const broken: ScriptedModel = {
  task: 'llm/v1/chat',
  answer: (input) => {
    if (chatText(input).includes('bad')) throw new ServingError('UPSTREAM_ERROR', 'it broke');
    return say(chatText(input));
  },
};
const open = (models: Record<string, ScriptedModel> = {}) =>
  openHarness({ upper, label, broken, ...models }, { chat: 'upper', classify: 'label' }).then((opened) => {
    harness = opened;
    return opened;
  });

describe('what is asked', () => {
  it('asks equal requests once, whatever the number of rows', async () => {
    const { session, asked } = await open();
    const rows = await rowsOf(
      session,
      "SELECT count(*), count(DISTINCT a) FROM (SELECT ai_query('upper', 'x' || (i % 10)) AS a FROM range(10000) t(i))",
    );
    expect(rows).toEqual([[10000, 10]]);
    expect(asked).toHaveLength(10);
  });

  it('asks nothing for NULL and gives NULL', async () => {
    const { session, asked } = await open();
    expect(
      await rowsOf(session, "SELECT ai_query('upper', NULL), ai_gen(NULL), ai_classify(NULL, ['a','b'])"),
    ).toEqual([[null, null, null]]);
    expect(asked).toEqual([]);
  });

  it('takes the endpoint from a column, each row to its own', async () => {
    const { session, calls } = await open();
    const rows = await rowsOf(session, "SELECT ai_query(e, 'hi') FROM (VALUES ('upper'), ('broken')) t(e)");
    expect(rows).toEqual([['HI'], ['hi']]);
    expect(calls.map((call) => call.endpoint).sort()).toEqual(['broken', 'upper']);
  });

  it('answers a call inside a call', async () => {
    const { session, asked } = await open();
    expect(await rowsOf(session, "SELECT ai_query('upper', 'b' || ai_query('upper', 'a'))")).toEqual([
      ['BA'],
    ]);
    expect(asked).toEqual(['a', 'bA']);
  });

  it('asks a doubling number of questions when LIMIT could end the statement early', async () => {
    const { session, asked } = await open();
    const rows = await rowsOf(
      session,
      "SELECT i FROM range(500000) t(i) WHERE ai_classify('n' || i, ['fizz','other']) = 'fizz' LIMIT 5",
    );
    expect(rows).toHaveLength(5);
    expect(asked.length).toBeLessThanOrEqual(4_096);
  });

  it('ends at LIMIT with few questions when any rows will do', async () => {
    const { session, asked } = await open();
    const rows = await rowsOf(
      session,
      "SELECT i FROM range(9000) t(i) WHERE ai_classify('n' || i, ['fizz','other']) = 'fizz' LIMIT 5",
    );
    expect(rows).toHaveLength(5);
    expect(rows.every(([i]) => Number(i) % 3 === 0)).toBe(true);
    await session.run('CREATE TABLE t AS SELECT i FROM range(9000) t(i)');
    asked.length = 0;
    const found = await rowsOf(
      session,
      "SELECT i FROM t WHERE ai_classify('m' || i, ['fizz','other']) = 'fizz' AND i > 100 LIMIT 4",
    );
    expect(found).toHaveLength(4);
    expect(found.every(([i]) => Number(i) > 100 && Number(i) % 3 === 0)).toBe(true);
    expect(asked.length).toBeLessThanOrEqual(128);
  });

  it('is not fooled by a macro that hides a call and turns a missing answer into a match', async () => {
    const { session } = await open();
    await session.run(
      "CREATE MACRO m(x) AS coalesce(ai_gen(x), 'Q1'); CREATE TABLE t AS SELECT i FROM range(40) t(i)",
    );
    const rows = await rowsOf(
      session,
      "SELECT i FROM t WHERE m('q' || i) = 'Q1' AND ai_classify('n' || i, ['fizz','other']) = 'other' LIMIT 1",
    );
    expect(rows).toEqual([[1]]);
  });

  it('copies a view to a file only with answers', async () => {
    const { session } = await open();
    const file = `${process.env.TMPDIR ?? '/tmp'}/duckserve-view-${process.pid}.csv`;
    await session.run(
      `CREATE VIEW v AS SELECT ai_gen('v' || i) AS a FROM range(3) t(i); COPY v TO '${file}'`,
    );
    expect(await rowsOf(session, `SELECT a FROM '${file}' ORDER BY a`)).toEqual([['V0'], ['V1'], ['V2']]);
  });

  it('works through views and prepared statements', async () => {
    const { session } = await open();
    await session.run(
      "CREATE VIEW v AS SELECT ai_gen('q' || i) AS a FROM range(3) t(i); PREPARE p AS SELECT ai_gen($1) AS a, ai_gen('constant') AS b",
    );
    expect(await rowsOf(session, 'SELECT * FROM v ORDER BY a')).toEqual([['Q0'], ['Q1'], ['Q2']]);
    expect(await rowsOf(session, "EXECUTE p('mine')")).toEqual([['MINE', 'CONSTANT']]);
  });

  it('passes values for parameters', async () => {
    const { session } = await open();
    const [result] = await session.run('SELECT ai_gen($1)', { parameters: ['hello'] });
    expect([...(result?.rows() ?? [])]).toEqual([['HELLO']]);
  });

  it('does not ask for an EXPLAIN', async () => {
    const { session, asked } = await open();
    await session.run("EXPLAIN SELECT ai_gen('x')");
    expect(asked).toEqual([]);
  });
});

describe('errors', () => {
  it('fails the statement with the original error of the model', async () => {
    const { session } = await open();
    await expect(session.run("SELECT ai_query('broken', 'bad')")).rejects.toMatchObject({
      code: 'UPSTREAM_ERROR',
      message: 'it broke',
    });
  });

  it('gives the error as a value under failOnError => false', async () => {
    const { session } = await open();
    const rows = await rowsOf(
      session,
      "SELECT r.response, r.result, r.errorMessage FROM (SELECT ai_query('broken', x, failOnError => false) AS r FROM (VALUES ('good'), ('bad')) t(x))",
    );
    expect(rows).toEqual([
      ['good', 'good', null],
      [null, null, 'UPSTREAM_ERROR: it broke'],
    ]);
  });

  it('never lets a row through a filter on an error', async () => {
    const { session } = await open();
    const rows = await rowsOf(
      session,
      "SELECT x FROM (VALUES ('good'), ('bad')) t(x) WHERE ai_query('broken', x, failOnError => false).response = x",
    );
    expect(rows).toEqual([['good']]);
  });

  it('does not take an error that a missing answer caused for final', async () => {
    const { session } = await open({ numbers: { task: 'llm/v1/chat', answer: () => say('7') } });
    expect(
      await rowsOf(
        session,
        "SELECT CASE WHEN ai_query('numbers', 'x') IS NULL THEN error('no answer') ELSE 'fine' END",
      ),
    ).toEqual([['fine']]);
  });

  it('reports the error of DuckDB as SQL_ERROR', async () => {
    const { session } = await open();
    await expect(session.run('SELECT nothing FROM nowhere')).rejects.toMatchObject({ code: 'SQL_ERROR' });
  });

  it('says that an endpoint does not exist', async () => {
    const { session } = await open();
    await expect(session.run("SELECT ai_query('nope', 'x')")).rejects.toMatchObject({
      code: 'ENDPOINT_NOT_FOUND',
    });
  });

  it('notices prompts that change with every pass instead of asking for ever', async () => {
    const { session, asked } = await open();
    await expect(session.run('SELECT ai_gen(random()::VARCHAR)')).rejects.toMatchObject({
      code: 'STATEMENT_NOT_SETTLING',
    });
    expect(asked.length).toBeLessThanOrEqual(3);
  });

  it('keeps now() the same for all passes of a read', async () => {
    const { session } = await open();
    expect(await rowsOf(session, "SELECT ai_gen(now()::VARCHAR || ai_gen('x')) IS NOT NULL")).toEqual([
      [true],
    ]);
  });
});

describe('writes', () => {
  it('writes each row once with its answer', async () => {
    const { session } = await open();
    await session.run(
      "CREATE TABLE t AS SELECT i, ai_gen('r' || i) AS a FROM range(3) t(i); INSERT INTO t SELECT i + 3, ai_gen('s' || i) FROM range(2) t(i)",
    );
    expect(await rowsOf(session, 'SELECT i, a FROM t ORDER BY i')).toEqual([
      [0, 'R0'],
      [1, 'R1'],
      [2, 'R2'],
      [3, 'S0'],
      [4, 'S1'],
    ]);
  });

  it('updates and deletes by answers', async () => {
    const { session } = await open();
    await session.run(
      "CREATE TABLE t AS SELECT i FROM range(9) t(i); DELETE FROM t WHERE ai_classify('n' || i, ['fizz','other']) = 'fizz'; UPDATE t SET i = 100 WHERE ai_gen('u' || i) = 'U1'",
    );
    expect(await rowsOf(session, 'SELECT list(i ORDER BY i) FROM t')).toEqual([[[2, 4, 5, 7, 8, 100]]]);
  });

  it('leaves nothing behind when the model fails', async () => {
    const { session } = await open();
    await session.run('CREATE TABLE t (a VARCHAR)');
    await expect(
      session.run("INSERT INTO t SELECT ai_query('broken', x) FROM (VALUES ('good'), ('bad')) v(x)"),
    ).rejects.toMatchObject({ code: 'UPSTREAM_ERROR' });
    expect(await rowsOf(session, 'SELECT count(*) FROM t')).toEqual([[0]]);
  });

  it('works as the first write of a transaction and is refused after another write', async () => {
    const { session } = await open();
    await session.run(
      "CREATE TABLE t (a VARCHAR); BEGIN; SELECT count(*) FROM t; INSERT INTO t SELECT ai_gen('first')",
    );
    await expect(session.run("INSERT INTO t SELECT ai_gen('second')")).rejects.toMatchObject({
      code: 'AI_IN_TRANSACTION',
    });
    await session.run('ROLLBACK');
    await session.run("BEGIN; INSERT INTO t SELECT ai_gen('again'); COMMIT");
    expect(await rowsOf(session, 'SELECT a FROM t')).toEqual([['AGAIN']]);
  });

  it('reads in a transaction after a write, and sees that write', async () => {
    const { session } = await open();
    const rows = await rowsOf(
      session,
      "CREATE TABLE t (a VARCHAR); BEGIN; INSERT INTO t VALUES ('mine'); SELECT ai_gen(a) FROM t",
    );
    expect(rows).toEqual([['MINE']]);
    await session.run('COMMIT');
    expect(await rowsOf(session, 'SELECT a FROM t')).toEqual([['mine']]);
  });

  it('copies to a file only with answers', async () => {
    const { session } = await open();
    const file = `${process.env.TMPDIR ?? '/tmp'}/duckserve-copy-${process.pid}.csv`;
    await session.run(`COPY (SELECT ai_gen('c' || i) AS a FROM range(3) t(i)) TO '${file}'`);
    expect(await rowsOf(session, `SELECT a FROM '${file}' ORDER BY a`)).toEqual([['C0'], ['C1'], ['C2']]);
  });
});

describe('typed results', () => {
  it('gives STRUCT, LIST and DOUBLE columns from returnType and responseFormat', async () => {
    const { session } = await open({
      json: { task: 'llm/v1/chat', answer: (input) => say(chatText(input)) },
    });
    const [result] = await session.run(`SELECT
      ai_query('json', '{"name":"Ada","age":"36"}', returnType => 'STRUCT<name: STRING, age: INT>') AS s,
      ai_query('json', '["a","b"]', 'ARRAY<STRING>') AS l,
      ai_query('json', '2.5', returnType => 'DOUBLE') AS d,
      ai_query('json', '{"city":"Rome"}', responseFormat => 'STRUCT<city: STRING>').city AS c`);
    expect(result?.columns.map((column) => column.type)).toEqual([
      'STRUCT("name" VARCHAR, "age" INTEGER)',
      'VARCHAR[]',
      'DOUBLE',
      'VARCHAR',
    ]);
    expect([...(result?.rows() ?? [])]).toEqual([[{ name: 'Ada', age: 36 }, ['a', 'b'], 2.5, 'Rome']]);
  });

  it('fails, or gives the error as a value, when an answer does not fit the type', async () => {
    const { session } = await open();
    await expect(session.run("SELECT ai_query('upper', 'abc', returnType => 'INT')")).rejects.toMatchObject({
      code: 'INVALID_RESPONSE',
    });
    const rows = await rowsOf(
      session,
      "SELECT ai_query('upper', 'abc', returnType => 'INT', failOnError => false).errorMessage LIKE 'INVALID_RESPONSE%'",
    );
    expect(rows).toEqual([[true]]);
  });

  it('understands named_struct for model parameters', async () => {
    const { session, calls } = await open();
    await session.run(
      "SELECT ai_query('upper', 'x', modelParameters => named_struct('max_tokens', 5, 'temperature', 0.5))",
    );
    expect(calls[0]?.parameters).toEqual({ maxTokens: 5, temperature: 0.5 });
  });
});

describe('other sessions and cancelling', () => {
  it('answers another session while a statement waits for a model', async () => {
    let release = () => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    let isAsked = () => {};
    const asked = new Promise<void>((resolve) => {
      isAsked = resolve;
    });
    const { session, other } = await open({
      slow: {
        task: 'llm/v1/chat',
        answer: async () => {
          isAsked();
          await gate;
          return say('done');
        },
      },
    });
    const long = rowsOf(session, "SELECT ai_query('slow', 'x')");
    await asked;
    expect(await rowsOf(other, 'SELECT 42')).toEqual([[42]]);
    release();
    expect(await long).toEqual([['done']]);
  });

  it('stops a statement and its calls when it is cancelled', async () => {
    const controller = new AbortController();
    let aborted = false;
    const { session } = await open({
      slow: {
        task: 'llm/v1/chat',
        answer: (_input, call) =>
          new Promise((_resolve, reject) => {
            call.signal?.addEventListener('abort', () => {
              aborted = true;
              reject(new ServingError('CANCELLED', 'cancelled'));
            });
            controller.abort();
          }),
      },
    });
    await expect(
      session.run("SELECT ai_query('slow', 'x')", { signal: controller.signal }),
    ).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(aborted).toBe(true);
    expect(await rowsOf(session, 'SELECT 1')).toEqual([[1]]);
  });
});
