// DuckDB's values as JSON: how every door shows them.
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Json } from '#core/json.ts';
import { floatsToJson, shortFloat, toJson } from '#storage/values.ts';

let instance: DuckDBInstance;
let connection: DuckDBConnection;
beforeAll(async () => {
  instance = await DuckDBInstance.create(':memory:');
  connection = await instance.connect();
  await connection.run("SET TimeZone = 'UTC'");
});
afterAll(() => {
  connection.closeSync();
  instance.closeSync();
});
const read = async (sql: string) =>
  (await connection.runAndReadAll(sql)).getRows().map((row) => row.map(toJson));

describe('a value of DuckDB', () => {
  it.each<[string, Json]>([
    ['NULL', null],
    ['true', true],
    ["'goo\u0001se 🦆'", 'goo\u0001se 🦆'],
    ['127::TINYINT', 127],
    ['255::UTINYINT', 255],
    ['9007199254740991::BIGINT', 9_007_199_254_740_991],
    ['-9007199254740991::BIGINT', -9_007_199_254_740_991],
    ['9007199254740992::BIGINT', '9007199254740992'],
    ['(-9223372036854775808)::BIGINT', '-9223372036854775808'],
    ['18446744073709551615::UBIGINT', '18446744073709551615'],
    ['5::HUGEINT', 5],
    ["'-170141183460469231731687303715884105728'::HUGEINT", '-170141183460469231731687303715884105728'],
    ['340282366920938463463374607431768211455::UHUGEINT', '340282366920938463463374607431768211455'],
    ["'123456789012345678901234567890'::BIGNUM", '123456789012345678901234567890'],
    ['0.1::DECIMAL(18,3)', 0.1],
    ['-0.05::DECIMAL(4,2)', -0.05],
    ['1234.50::DECIMAL(6,2)', 1234.5],
    ['123456789012345678.99::DECIMAL(38,2)', '123456789012345678.99'],
    ['1.5::FLOAT', 1.5],
    ['1e308::DOUBLE', 1e308],
    ["'NaN'::DOUBLE", 'NaN'],
    ["'Infinity'::FLOAT", 'Infinity'],
    ["'-inf'::DOUBLE", '-Infinity'],
    ["DATE '2026-01-31'", '2026-01-31'],
    ["DATE '0044-03-15 (BC)'", '0044-03-15 (BC)'],
    ["DATE 'infinity'", 'infinity'],
    ["DATE '-infinity'", '-infinity'],
    ["TIME '13:45:00.5'", '13:45:00.5'],
    ["TIME WITH TIME ZONE '13:45:00+02'", '13:45:00+02'],
    ["TIMESTAMP '2026-01-31 10:00:00.123456'", '2026-01-31 10:00:00.123456'],
    ["TIMESTAMP 'infinity'", 'infinity'],
    ["'2026-01-31 10:00:00'::TIMESTAMP_S", '2026-01-31 10:00:00'],
    ["'2026-01-31 10:00:00.5'::TIMESTAMP_MS", '2026-01-31 10:00:00.5'],
    ["'2026-01-31 10:00:00.123456789'::TIMESTAMP_NS", '2026-01-31 10:00:00.123456789'],
    ["TIMESTAMPTZ '2026-01-31 10:00:00+02'", '2026-01-31 08:00:00+00'],
    ["INTERVAL '1 year 2 days 3 seconds'", '1 year 2 days 00:00:03'],
    ["'{00000000-0000-0000-0000-00000000000F}'::UUID", '00000000-0000-0000-0000-00000000000f'],
    ["'\\x00\\xFFab'::BLOB", 'AP9hYg=='],
    ["'010110'::BIT", '010110'],
    ["'b'::ENUM('a', 'b')", 'b'],
    ['[1, NULL, 9007199254740992]', [1, null, '9007199254740992']],
    ['[[1], [], NULL, [2, 3]]', [[1], [], null, [2, 3]]],
    ['[1, 2]::INTEGER[2]', [1, 2]],
    ["['NaN'::DOUBLE, 1]", ['NaN', 1]],
    ["{'a': 1, 'b': {'c': [DATE '2026-01-01']}}", { a: 1, b: { c: ['2026-01-01'] } }],
    ["MAP {'k': 1, 'l': NULL}", { k: 1, l: null }],
    ['MAP {1: [true], 2: []}', { '1': [true], '2': [] }],
    ["MAP {{'x': 1}: 2}", { '{"x":1}': 2 }],
    ['union_value(n := 5)::UNION(n INTEGER, s VARCHAR)', 5],
    ["{'a': NULL::UNION(n INTEGER)}", { a: null }],
    ['\'{"a": [1]}\'::JSON', '{"a": [1]}'],
  ])('%s is %j', async (sql, expected) => {
    expect(await read(`SELECT ${sql}`)).toEqual([[expected]]);
  });

  it('of a time is the text that DuckDB prints, whatever it is', async () => {
    const micros = fc.bigInt({ min: -(2n ** 55n), max: 2n ** 55n });
    await fc.assert(
      fc.asyncProperty(
        fc.array(micros, { minLength: 1, maxLength: 50 }),
        fc.integer({ min: -1200, max: 1200 }),
        async (values, months) => {
          const list = `unnest([${values.map((value) => `${value}::BIGINT`).join(',')}])`;
          for (const expression of [
            'make_timestamp(v)',
            'make_timestamp(v)::DATE',
            'make_timestamp(v)::TIME',
            'make_timestamp(v)::TIMESTAMP_MS',
            'make_timestamp(v)::TIMESTAMP_S',
            'make_timestamp_ns(v)',
            `to_microseconds(v) + to_months(${months}) + to_days(${-months})`,
          ]) {
            for (const [value, text] of await read(
              `SELECT x, x::VARCHAR FROM (SELECT ${expression} AS x FROM (SELECT ${list} AS v))`,
            )) {
              expect(value).toBe(text);
            }
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  it('that is a DECIMAL loses no digit', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.bigInt({ min: -(10n ** 38n) + 1n, max: 10n ** 38n - 1n }),
        fc.integer({ min: 0, max: 38 }),
        fc.integer({ min: 1, max: 38 }),
        async (digits, scale, size) => {
          const value = (digits % 10n ** BigInt(size)).toString();
          const sign = value.startsWith('-') ? '-' : '';
          const plain = value.replace('-', '').padStart(scale + 1, '0');
          const text =
            scale === 0 ? `${sign}${plain}` : `${sign}${plain.slice(0, -scale)}.${plain.slice(-scale)}`;
          const [[json] = []] = await read(`SELECT '${text}'::DECIMAL(38, ${scale})`);
          const [[again] = []] = await read(
            `SELECT '${json}'::DECIMAL(38, ${scale}) = '${text}'::DECIMAL(38, ${scale})`,
          );
          expect([text, json, again]).toEqual([text, json, true]);
        },
      ),
      { numRuns: 150 },
    );
  });

  it('that is a FLOAT is shown no longer than DuckDB prints it, as the same 32-bit number, in a list too', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc
            .float({ noNaN: true, noDefaultInfinity: true })
            .map((value) => (Math.abs(value) < 2 ** -126 ? 0 : value)),
          { minLength: 1, maxLength: 50 },
        ),
        async (floats) => {
          const list = `[${floats.map((value) => `'${value}'::FLOAT`).join(',')}]`;
          const reader = await connection.runAndReadAll(
            `SELECT ${list}, list_transform(${list}, lambda x: x::VARCHAR)`,
          );
          const [[vector, printed] = []] = reader.getRows();
          const shown = floatsToJson(vector) as number[];
          expect(shown.map(Math.fround)).toEqual(floats);
          const texts = toJson(printed) as string[];
          shown.forEach((value, index) => {
            expect(String(value).length).toBeLessThanOrEqual(String(Number(texts[index])).length);
          });
        },
      ),
      { numRuns: 300 },
    );
    expect([shortFloat(Math.fround(0.1)), shortFloat(1), shortFloat(0)]).toEqual([0.1, 1, 0]);
    expect(floatsToJson(Number.NaN)).toBe('NaN');
  });

  it('of every type that DuckDB has becomes JSON that survives a round trip', async () => {
    const rows = await read('FROM test_all_types()');
    expect(rows).toHaveLength(3);
    expect(JSON.parse(JSON.stringify(rows))).toEqual(rows);
    expect(rows[2]?.every((value) => value === null)).toBe(true);
  });
});
