// POST /api/2.0/sql/statements without a socket: results, failures, parameters, budgets.
import { beforeEach, describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { createHttpApp } from '../../../src/server/http/app.ts';
import { createFakeDeps, type FakeDeps, readJson, tableOf } from './fake-deps.ts';

let deps: FakeDeps;
let app: ReturnType<typeof createHttpApp>;
beforeEach(() => {
  deps = createFakeDeps();
  app = createHttpApp(deps);
});

describe('POST /api/2.0/sql/statements', () => {
  const run = async (body: object) => {
    const response = await app.request('/api/2.0/sql/statements', {
      method: 'POST',
      body: JSON.stringify(body),
    });
    return { status: response.status, body: await readJson(response) };
  };

  it('answers rows with the schema of the result', async () => {
    deps.runStatement = async () => [
      tableOf([
        [1, '2.50'],
        [2, null],
      ]),
    ];
    const { body } = await run({ statement: 'SELECT 1', wait_timeout: '30s', disposition: 'INLINE' });
    expect(body).toMatchObject({
      status: { state: 'SUCCEEDED' },
      manifest: {
        format: 'JSON_ARRAY',
        schema: {
          column_count: 2,
          columns: [
            { name: 'id', type_text: 'INTEGER', type_name: 'INTEGER', position: 0 },
            { name: 'price', type_text: 'DECIMAL(10,2)', type_name: 'DECIMAL', position: 1 },
          ],
        },
        total_row_count: 2,
        truncated: false,
      },
      result: {
        row_count: 2,
        row_offset: 0,
        data_array: [
          [1, '2.50'],
          [2, null],
        ],
      },
      ai_calls: { asked: 2, cached: 1, passes: 2 },
    });
    expect(deps.openSessions).toBe(0);
  });

  it('cuts at row_limit and says that it did', async () => {
    deps.runStatement = async () => [
      tableOf([
        [1, 'a'],
        [2, 'b'],
        [3, 'c'],
      ]),
    ];
    const { body } = await run({ statement: 'SELECT 1', row_limit: 2 });
    expect(body.result.data_array).toHaveLength(2);
    expect(body.manifest.truncated).toBe(true);
    expect(deps.statements[0]?.options?.maxRows).toBe(3);
  });

  it('answers a write with the number of rows it changed', async () => {
    deps.runStatement = async () => [{ ...tableOf([]), kind: 'changed', columns: [], changedRows: 7 }];
    expect((await run({ statement: 'DELETE FROM t' })).body.result.data_array).toEqual([[7]]);
  });

  it('puts what the statement may spend into its budget', async () => {
    await run({ statement: 'SELECT 1', max_calls: 5, max_cost: 0.5, cache: 'off' });
    expect(deps.statements[0]?.options).toMatchObject({
      cache: 'off',
      budget: { limits: { maxCalls: 5, maxCost: 0.5 } },
    });
  });

  it('reports a failed statement in a good answer, and closes the session', async () => {
    deps.runStatement = () => Promise.reject(new ServingError('SQL_ERROR', 'Table t does not exist'));
    const { status, body } = await run({ statement: 'SELECT * FROM t' });
    expect(status).toBe(200);
    expect(body.status).toEqual({
      state: 'FAILED',
      error: { error_code: 'BAD_REQUEST', message: 'Table t does not exist' },
      sql_state: '42000',
    });
    expect(deps.openSessions).toBe(0);
  });

  it.each([
    ['SELECT ?', [{ value: 1 }], 'SELECT ?', [1]],
    [
      'SELECT :a, $b',
      [
        { name: 'a', value: 1 },
        { name: 'b', value: 'x' },
      ],
      'SELECT $1, $2',
      [1, 'x'],
    ],
    ['SELECT ?, ?', [{ value: '1', type: 'INT' }, { value: 'x' }], 'SELECT CAST($1 AS INT), $2', ['1', 'x']],
    [
      "SELECT ':a', x::a, :a -- :a",
      [{ name: 'a', value: '1.5', type: 'DECIMAL(10, 2)' }],
      "SELECT ':a', x::a, CAST($1 AS DECIMAL(10, 2)) -- :a",
      ['1.5'],
    ],
  ])('binds the parameters of %s', async (statement, parameters, sql, values) => {
    await run({ statement, parameters });
    expect(deps.statements[0]).toMatchObject({ sql, options: { parameters: values } });
  });

  it.each([
    [{ statement: 'SELECT 1', parameters: [{ name: 'a', value: 1 }] }, "Parameter 'a' is given"],
    [
      { statement: 'SELECT ?', parameters: [{ value: 1, type: 'INT); DROP TABLE t' }] },
      'must be a type name',
    ],
    [
      { statement: 'SELECT 1', disposition: 'EXTERNAL_LINKS' },
      'only \'INLINE\' is offered; got "EXTERNAL_LINKS"',
    ],
    [{ sql: 'SELECT 1' }, "'statement': "],
  ])('refuses %j', async (request, message) => {
    const { status, body } = await run(request);
    expect(status).toBe(400);
    expect(body.message).toContain(message);
  });
});
