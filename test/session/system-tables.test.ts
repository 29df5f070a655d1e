// System tables: what is served from memory, read as tables and views by DuckDB.
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Json } from '#core/json.ts';
import { registerSystemTables, type SystemTable } from '#session/system-tables.ts';

let instance: DuckDBInstance;
let connection: DuckDBConnection;
beforeEach(async () => {
  instance = await DuckDBInstance.create(':memory:');
  connection = await instance.connect();
});
afterEach(() => {
  connection.closeSync();
  instance.closeSync();
});
const read = async (sql: string) => (await connection.runAndReadAll(sql)).getRowsJson();

const columns: SystemTable['columns'] = [
  { name: 's', type: 'VARCHAR' },
  { name: 'b', type: 'BIGINT' },
  { name: 'i', type: 'INTEGER' },
  { name: 'd', type: 'DOUBLE' },
  { name: 'o', type: 'BOOLEAN' },
  { name: 't', type: 'TIMESTAMP' },
  { name: 'j', type: 'JSON' },
];
const table = (name: string, rows: () => Iterable<readonly Json[]>): SystemTable => ({ name, columns, rows });

describe('a system table', () => {
  it('has the types it says, and NULL in each of them', async () => {
    const rows: Json[][] = [
      ['x', 2 ** 52, -5, 0.5, true, Date.UTC(2026, 0, 31, 10, 0, 0, 123), { a: [1] }],
      [null, null, null, null, null, null, null],
      ['', 0, 0, 0, false, 0, 'text'],
    ];
    await registerSystemTables(connection, [table('things', () => rows)], null);
    const result = await connection.runAndReadAll('FROM duckserve_things()');
    expect(result.columnTypes().map((type) => type.alias ?? String(type))).toEqual(
      columns.map(({ type }) => type),
    );
    expect(await read("SELECT s, b, i, d, o, t::VARCHAR, j->>'$.a[0]' FROM duckserve_things()")).toEqual([
      ['x', String(2 ** 52), -5, 0.5, true, '2026-01-31 10:00:00.123', '1'],
      [null, null, null, null, null, null, null],
      ['', '0', 0, 0, false, '1970-01-01 00:00:00', null],
    ]);
  });

  it.each([0, 1, 2_047, 2_048, 2_049, 4_096, 10_000])('gives all of %i rows, each once', async (count) => {
    function* rows(): Iterable<readonly Json[]> {
      for (let row = 0; row < count; row++) yield [`r${row}`, row, row, row / 2, row % 2 === 0, row, { row }];
    }
    await registerSystemTables(connection, [table('many', rows)], null);
    const sum = String((count * (count - 1)) / 2);
    const [counted] = await read(
      "SELECT count(*), count(DISTINCT s), coalesce(sum(b), 0)::VARCHAR, coalesce(sum((j->>'row')::BIGINT), 0)::VARCHAR FROM duckserve_many()",
    );
    expect(counted).toEqual([String(count), String(count), sum, sum]);
  });

  it('reads afresh for each query, also twice in one, and can be joined, filtered and limited', async () => {
    let reads = 0;
    await registerSystemTables(
      connection,
      [
        table('fresh', () => {
          reads++;
          return [['a', reads, 0, 0, true, 0, null]];
        }),
      ],
      null,
    );
    expect(await read('SELECT b FROM duckserve_fresh()')).toEqual([['1']]);
    expect(await read('SELECT count(*) FROM duckserve_fresh() x JOIN duckserve_fresh() y USING (s)')).toEqual(
      [['1']],
    );
    expect(await read("SELECT b FROM duckserve_fresh() WHERE s = 'a' AND o LIMIT 1")).toEqual([['4']]);
  });

  it('is a view of the same name in the system catalog, on every connection', async () => {
    await connection.run("ATTACH ':memory:' AS duckserve");
    const tables = [table('one', () => [['x', 1, 1, 1, true, 1, 1]]), table('two', () => [])];
    await registerSystemTables(connection, tables, 'duckserve');
    await registerSystemTables(connection, tables, 'duckserve');
    const second = await instance.connect();
    expect(
      (
        await second.runAndReadAll('SELECT s FROM duckserve.one UNION ALL SELECT s FROM duckserve.two')
      ).getRowsJson(),
    ).toEqual([['x']]);
    second.closeSync();
  });

  it('passes on an error while it is read', async () => {
    await registerSystemTables(
      connection,
      [
        table('broken', () => {
          throw new Error('the registry is gone');
        }),
      ],
      null,
    );
    await expect(read('FROM duckserve_broken()')).rejects.toThrow('the registry is gone');
  });
});
