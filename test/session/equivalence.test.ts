// Random statements over AI functions against the same statements over plain SQL macros that compute what the
// scripted models answer: the results are equal, and every distinct input that is not NULL was asked once.
import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Json } from '#core/json.ts';
import { chatText, type Harness, openHarness, rowsOf, say } from './harness.ts';
import { call, create, flag, type Shape, type Side, shape, tables, value } from './random-statements.ts';

const lengthOf = (x: string) => [...x].length;
const featureOf = (input: object) => String((input as { features: readonly Json[] }).features[0]);
const output = { inputs: [], outputs: [{ name: 'y', type: 'double' as const, required: true }] };
const sorted = (rows: readonly unknown[][]) => rows.map((row) => JSON.stringify(row)).sort();

let harness: Harness;
beforeAll(async () => {
  harness = await openHarness(
    {
      upper: { task: 'llm/v1/chat', answer: (input) => say(chatText(input).toUpperCase()) },
      swap: { task: 'llm/v1/chat', answer: (input) => say([...chatText(input)].reverse().join('')) },
      tag: {
        task: 'llm/v1/chat',
        answer: (input) => say(JSON.stringify({ T: [...chatText(input)][0] ?? '', n: '1' })),
      },
      parity: {
        task: 'llm/v1/chat',
        answer: (input) => say(lengthOf(chatText(input)) % 2 === 0 ? '{"label":"even"}' : 'ODD'),
      },
      length: { task: 'llm/v1/chat', answer: (input) => say(`{"result": ${lengthOf(chatText(input))}}`) },
      far: {
        task: 'predict',
        signature: output,
        answer: (input) => ({ prediction: lengthOf(featureOf(input)) }),
      },
      near: {
        task: 'predict',
        signature: output,
        answer: () => ({ prediction: -1 }),
        local: {
          predictColumns: ([column], count) => [
            {
              name: 'y',
              values: Float64Array.from({ length: count }, (_, row) =>
                column?.isNull?.[row] ? -1 : lengthOf(String(column?.values[row])),
              ),
            },
          ],
        },
      },
      emb: {
        task: 'llm/v1/embeddings',
        answer: (input) => ({ embedding: new Float32Array([lengthOf('text' in input ? input.text : '')]) }),
      },
    },
    { chat: 'upper', classify: 'parity', embedding: 'emb' },
  );
});
afterAll(() => harness.close());
beforeEach(() => {
  harness.calls.length = 0;
});

/** One question in short: whom, what, and how. */
const key = (endpoint: string, input: string, parameters = {}) =>
  JSON.stringify([endpoint, input, parameters]);

/** What reached the models since the last time. */
function takeAsked(): { questions: string[]; inputs: Set<string> } {
  const questions: string[] = [];
  const inputs = new Set<string>();
  for (const made of harness.calls.splice(0)) {
    for (const input of made.inputs) {
      const said = 'text' in input ? input.text : 'features' in input ? featureOf(input) : chatText(input);
      questions.push(key(made.endpoint, said, made.parameters));
      inputs.add(key(made.endpoint, said));
    }
  }
  return { questions, inputs };
}

/** Inputs that the calls of a shape have over their rows, by the plain macros. */
async function needed({ uses }: Shape): Promise<Set<string>> {
  const inputs = new Set<string>();
  for (const { expression, column, rows } of uses) {
    for (const { endpoint, argument } of expression.calls) {
      if (endpoint === 'near') continue;
      const sql = `SELECT DISTINCT ${argument(column)} AS input ${rows}`;
      for (const [input] of await rowsOf(harness.other, sql)) {
        if (input !== null) inputs.add(key(endpoint, String(input)));
      }
    }
  }
  return inputs;
}

describe('a statement with AI functions', () => {
  it('gives what plain SQL gives, and asks every distinct input once and nothing else', async () => {
    await fc.assert(
      fc.asyncProperty(tables, shape, async ([t, u], made) => {
        await harness.session.run(`${create('t', t)}; ${create('u', u)}`);
        takeAsked();
        const expected = await rowsOf(harness.other, made.sql('plain'));
        const rows = await rowsOf(harness.session, made.sql('ai'));
        expect(sorted(rows)).toEqual(sorted(expected));
        const { questions, inputs } = takeAsked();
        expect(new Set(questions).size).toBe(questions.length);
        const wanted = await needed(made);
        expect([...inputs].filter((input) => !wanted.has(input))).toEqual([]);
        if (made.isExact) expect([...inputs].sort()).toEqual([...wanted].sort());
      }),
      { numRuns: 150 },
    );
  });

  it('gives what plain SQL gives also where SQL makes something of a NULL; then it may ask more, but nothing twice', async () => {
    const loose = fc.constantFrom(
      (x: string) => `coalesce(${x}, 'none')`,
      (x: string) => `concat('a', ${x})`,
      (x: string) => `CASE WHEN ${x} IS NULL THEN 'n' ELSE ${x} END`,
      (x: string) => `(${x} IS DISTINCT FROM 'A')::VARCHAR`,
    );
    const groups = fc.tuple(call, value, loose).map(([a, b, wrap]) => (side: Side) => {
      const inner = wrap(a[side]('x'));
      return `SELECT g, ${b[side]("string_agg(g || x, ',' ORDER BY id)")}, ${b[side]('count(*)::VARCHAR')} FROM (SELECT id, x, ${inner} AS g FROM t) s GROUP BY g`;
    });
    const rowwise = fc.tuple(call, value, flag, loose).map(
      ([a, b, f, wrap]) =>
        (side: Side) =>
          `SELECT id, ${b[side](wrap(a[side]('x')))} FROM t WHERE (${f[side](wrap('x'))}) IS NOT TRUE OR id > 5`,
    );
    await fc.assert(
      fc.asyncProperty(tables, fc.oneof(groups, rowwise), async ([t], sql) => {
        await harness.session.run(create('t', t));
        takeAsked();
        const expected = await rowsOf(harness.other, sql('plain'));
        expect(sorted(await rowsOf(harness.session, sql('ai')))).toEqual(sorted(expected));
        const { questions } = takeAsked();
        expect(new Set(questions).size).toBe(questions.length);
      }),
      { numRuns: 60 },
    );
  });

  it('writes what plain SQL writes: INSERT, UPDATE, DELETE, CREATE TABLE AS', async () => {
    const write = fc.oneof(
      call.map((a) => (side: Side) => `INSERT INTO t SELECT id + 100, ${a[side]('x')} FROM u`),
      call.map((a) => (side: Side) => `UPDATE t SET x = ${a[side]('x')}`),
      fc.tuple(call, flag).map(
        ([a, f]) =>
          (side: Side) =>
            `UPDATE t SET x = ${a[side]('x')} WHERE ${f[side]('x')}`,
      ),
      flag.map((f) => (side: Side) => `DELETE FROM t WHERE ${f[side]('x')}`),
      call.map((a) => (side: Side) => `CREATE OR REPLACE TABLE t AS SELECT id, ${a[side]('x')} AS x FROM t`),
      call.map(
        (a) => (side: Side) =>
          `MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN UPDATE SET x = ${a[side]('u.x')} WHEN NOT MATCHED THEN INSERT VALUES (u.id, ${a[side]('u.x')})`,
      ),
    );
    await fc.assert(
      fc.asyncProperty(
        tables,
        fc.array(write, { minLength: 1, maxLength: 3 }),
        fc.boolean(),
        async ([t, u], writes, isTransaction) => {
          const run = async (side: Side) => {
            await harness.session.run(`${create('t', t)}; ${create('u', u)}`);
            for (const sql of writes)
              await harness.session.run(isTransaction ? `BEGIN; FROM t; ${sql(side)}; COMMIT` : sql(side));
            return sorted(await rowsOf(harness.session, 'SELECT id, x FROM t'));
          };
          const expected = await run('plain');
          takeAsked();
          expect(await run('ai')).toEqual(expected);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('gives the same over many chunks as over few rows', async () => {
    await fc.assert(
      fc.asyncProperty(value, flag, async (a, f) => {
        await harness.session.run(
          "CREATE OR REPLACE TABLE t AS SELECT i AS id, CASE WHEN i % 17 <> 0 THEN 'v' || (i * 7919) % 97 END AS x FROM range(5000) t(i)",
        );
        takeAsked();
        const sql = (side: Side) =>
          `SELECT ${a[side]('x')} AS v, count(*) FROM t WHERE ${f[side]('x')} GROUP BY v`;
        const expected = await rowsOf(harness.other, sql('plain'));
        expect(sorted(await rowsOf(harness.session, sql('ai')))).toEqual(sorted(expected));
        const { questions } = takeAsked();
        expect(new Set(questions).size).toBe(questions.length);
      }),
      { numRuns: 8 },
    );
  });
});
