// SQL types of returnType and responseFormat: read, spelt for DuckDB, as JSON Schema, and the check of answers.
import { DuckDBInstance } from '@duckdb/node-api';
import { Ajv } from 'ajv';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { conform, parseSqlType, toDuckDbType, toJsonSchema } from '#functions/sql-type.ts';
import { decimal, fitting, scalar, sqlType, toSpark } from './random-types.ts';

let instance: DuckDBInstance;
let connection: Awaited<ReturnType<DuckDBInstance['connect']>>;
beforeAll(async () => {
  instance = await DuckDBInstance.create(':memory:');
  connection = await instance.connect();
});
afterAll(() => {
  connection.closeSync();
  instance.closeSync();
});

describe('reading a type', () => {
  it('understands every spelling of Spark, at any depth', () => {
    fc.assert(
      fc.property(sqlType, fc.nat(), (type, pick) => {
        expect(parseSqlType(toSpark(type, pick))).toEqual(type);
      }),
      { numRuns: 1_000 },
    );
  });

  it("understands DuckDB's own spelling, which DuckDB accepts for a column", async () => {
    await fc.assert(
      fc.asyncProperty(sqlType, async (type) => {
        const spelling = toDuckDbType(type);
        expect(parseSqlType(spelling)).toEqual(type);
        await connection.run(`CREATE OR REPLACE TABLE t (x ${spelling})`);
      }),
      { numRuns: 400 },
    );
  });

  it.each([
    ['a STRING, b INT', 'STRUCT("a" VARCHAR, "b" INTEGER)'],
    ['a: STRING, b: ARRAY<INT>', 'STRUCT("a" VARCHAR, "b" INTEGER[])'],
    ['date DATE', 'STRUCT("date" DATE)'],
    ['date: DATE, text: STRING', 'STRUCT("date" DATE, "text" VARCHAR)'],
    ['list: STRING', 'STRUCT("list" VARCHAR)'],
    ['"a ""b""" STRING', 'STRUCT("a ""b""" VARCHAR)'],
    ['DECIMAL', 'DECIMAL(10, 0)'],
    ['DECIMAL(7)', 'DECIMAL(7, 0)'],
    ['FLOAT[384]', 'FLOAT[384]'],
    ['INT[][3]', 'INTEGER[][3]'],
    ['struct<a:double precision,b:string not null>', 'STRUCT("a" DOUBLE, "b" VARCHAR)'],
    ['  ARRAY < STRUCT < a : INT > >  ', 'STRUCT("a" INTEGER)[]'],
  ])('reads %s as %s', (text, expected) => {
    expect(toDuckDbType(parseSqlType(text))).toBe(expected);
  });

  it.each([
    ['', 'ends too early'],
    ['FOO', '"foo" is not a type'],
    ['STRUCT<a: STRING, b: FOO>', '"foo" is not a type'],
    ['constructor', '"constructor" is not a type'],
    ['STRUCT<a: STRING', 'ends too early'],
    ['STRUCT', 'ends too early'],
    ['STRUCT<>', '">" is not a field name'],
    ['STRUCT<1a: INT>', '"1" is not a field name'],
    ['STRUCT<a: INT, A: STRING>', 'the field "A" is there twice'],
    ["STRUCT<a: INT COMMENT 'x'>", 'COMMENT is not supported'],
    ['STRUCT<``: INT>', 'is not a field name'],
    ['ARRAY STRING', '"<" expected, "STRING" found'],
    ['ARRAY<STRING, INT>', '">" expected, "," found'],
    ['MAP<STRING>', '"," expected, ">" found'],
    ['MAP<ARRAY<INT>, INT>', 'the key of a map must be a scalar type'],
    ['DECIMAL(0)', 'precision of a DECIMAL must be a number from 1 to 38, it is "0"'],
    ['DECIMAL(39, 2)', 'it is "39"'],
    ['DECIMAL(5, 6)', 'scale of a DECIMAL must be a number from 0 to 5, it is "6"'],
    ['DECIMAL(a, 2)', 'it is "a"'],
    ['INT[0]', 'length of a list must be a number from 1 to 100000, it is "0"'],
    ['VARCHAR(', 'ends too early'],
    ['INT INT2', '"int2" is not a type'],
    ['STRING NOT NULL', 'unexpected "NOT"'],
    ['ARRAY<INT>>', 'unexpected ">"'],
  ])('refuses %s and says why: %s', (text, reason) => {
    expect(() => parseSqlType(text)).toThrowError(
      expect.objectContaining({ code: 'UNSUPPORTED_RETURN_TYPE' }),
    );
    expect(() => parseSqlType(text)).toThrow(`The type '${text}' cannot be read`);
    expect(() => parseSqlType(text)).toThrow(reason);
  });

  it('either reads a text or refuses it as UNSUPPORTED_RETURN_TYPE, whatever it is', () => {
    const parts = fc.constantFrom(
      'STRUCT',
      'ARRAY',
      'MAP',
      'DECIMAL',
      '<',
      '>',
      '(',
      ')',
      '[',
      ']',
      ',',
      ':',
      'a',
      '"',
      '`',
      '3',
      'INT',
      ' ',
      'not null',
    );
    fc.assert(
      fc.property(fc.array(parts, { maxLength: 12 }), (tokens) => {
        try {
          parseSqlType(tokens.join(''));
        } catch (error) {
          expect(error).toBeInstanceOf(ServingError);
          expect(error).toMatchObject({ code: 'UNSUPPORTED_RETURN_TYPE' });
        }
      }),
      { numRuns: 3_000 },
    );
  });
});

describe('an answer', () => {
  it('that fits is cast by DuckDB to the type, and says the same twice', async () => {
    await fc.assert(
      fc.asyncProperty(
        sqlType.chain((type) => fc.tuple(fc.constant(type), fitting(type))),
        async ([type, value]) => {
          const conformed = conform(value, type);
          expect(conform(conformed, type)).toEqual(conformed);
          // An answer that is a text is handed over as it is, never through JSON.
          if (type.kind === 'scalar' && type.name === 'VARCHAR') return;
          const reader = await connection.runAndReadAll(
            `SELECT CAST($1::JSON AS ${toDuckDbType(type)}) AS x`,
            [JSON.stringify(conformed)],
          );
          expect(reader.currentRowCount).toBe(1);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('whatever it is, is either refused as INVALID_RESPONSE or cast by DuckDB', async () => {
    const odd = fc.oneof(
      fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<Json>,
      fc.constantFrom<Json>(
        1e300,
        -1e39,
        128,
        1e21,
        '1e5',
        '0x10',
        ' ',
        '',
        '2026-02-31',
        '25:00',
        '24:00:00',
        '99.95',
        99.96,
        -0,
        'Infinity',
        'NaN',
      ),
      fc.constantFrom<Json>(
        '2026-13-01',
        '2026-01-31 garbage',
        '2026-01-31T10',
        '12:60',
        '-infinity',
        '9223372036854775808',
        '1.',
        '00012',
        {},
        [],
      ),
    );
    await fc.assert(
      fc.asyncProperty(fc.oneof(scalar, decimal, sqlType), odd, async (type, value) => {
        let conformed: Json;
        try {
          conformed = conform(value, type);
        } catch (error) {
          expect(error).toMatchObject({ code: 'INVALID_RESPONSE' });
          return;
        }
        if (type.kind === 'scalar' && type.name === 'VARCHAR') return;
        await connection.runAndReadAll(`SELECT CAST($1::JSON AS ${toDuckDbType(type)})`, [
          JSON.stringify(conformed),
        ]);
      }),
      { numRuns: 1_000 },
    );
  });

  it.each<[Json, string, string]>([
    [
      { a: [1, 'x'] },
      'STRUCT<a: ARRAY<INT>>',
      'The answer.a[1] is "x", which is not a whole number (INTEGER).',
    ],
    ['word', 'STRUCT<a: INT>', 'The answer is "word", which is not an object.'],
    [[1, 2], 'INT[3]', 'The answer is [1,2], which is not a list of 3.'],
    [{}, 'ARRAY<INT>', 'which is not a list.'],
    ['maybe', 'BOOLEAN', 'which is not true or false.'],
    [300, 'TINYINT', 'which is not a whole number (TINYINT).'],
    ['9223372036854775808', 'BIGINT', 'which is not a whole number (BIGINT).'],
    [1.5, 'INT', 'which is not a whole number (INTEGER).'],
    [1e300, 'FLOAT', 'which is not a number (FLOAT).'],
    ['', 'DOUBLE', 'which is not a number (DOUBLE).'],
    [99.96, 'DECIMAL(3,1)', 'which is not a number (DECIMAL(3, 1)).'],
    ['', 'DECIMAL(3,1)', 'which is not a number (DECIMAL(3, 1)).'],
    ['2026-02-31', 'DATE', 'which is not a DATE like 2026-01-31.'],
    ['yesterday', 'TIMESTAMP', 'which is not a TIMESTAMP like 2026-01-31.'],
    ['25:00', 'TIME', 'which is not a time like 13:45:00.'],
    [{ x: 1 }, 'MAP<INT, INT>', 'The key in answer is "x", which is not a whole number (INTEGER).'],
    [{ x: 'y' }, 'MAP<STRING, INT>', 'The answer.x is "y", which is not a whole number (INTEGER).'],
  ])('of %j for %s is refused with what is wrong and where', (value, type, message) => {
    expect(() => conform(value, parseSqlType(type))).toThrow(message);
  });

  it('keeps every digit of a large number that came as text', () => {
    expect(conform('9007199254740993', parseSqlType('BIGINT'))).toBe('9007199254740993');
    expect(conform('12345678901234567.89', parseSqlType('DECIMAL(30,2)'))).toBe('12345678901234567.89');
    expect(conform('42', parseSqlType('BIGINT'))).toBe(42);
  });

  it('may name members in another case, leave some out and add others', () => {
    expect(conform({ NAME: 'Ada', extra: 1 }, parseSqlType('STRUCT<name: STRING, age: INT>'))).toEqual({
      name: 'Ada',
      age: null,
    });
    expect(conform({}, parseSqlType('STRUCT<constructor: STRING, toString: INT>'))).toEqual({
      constructor: null,
      toString: null,
    });
  });

  it('that is null is NULL for every type', () => {
    fc.assert(fc.property(sqlType, (type) => conform(null, type) === null));
  });

  it('gives a text for what is not a text where a text is wanted', () => {
    expect(conform({ a: 1 }, parseSqlType('STRING'))).toBe('{"a":1}');
    expect(conform(5, parseSqlType('STRING'))).toBe('5');
  });
});

describe('the JSON Schema of a type', () => {
  it('accepts an answer that fits, and for a struct asks for every field and no other', () => {
    const ajv = new Ajv({ strict: false });
    const type = parseSqlType(
      'STRUCT<name: STRING, n: INT, tags: ARRAY<STRING>, m: MAP<STRING, DOUBLE>, ok: BOOLEAN, d: DATE>',
    );
    const accepts = ajv.compile(toJsonSchema(type));
    const good = { name: 'x', n: 1, tags: ['a'], m: { k: 1.5 }, ok: true, d: '2026-01-31' };
    expect(accepts(good)).toBe(true);
    expect(accepts({ ...good, more: 1 })).toBe(false);
    expect(accepts({ ...good, n: 1.5 })).toBe(false);
    const { ok: _left, ...less } = good;
    expect(accepts(less)).toBe(false);
  });

  it('is valid for every type', () => {
    const ajv = new Ajv({ strict: false });
    fc.assert(
      fc.property(sqlType, (type) => {
        expect(ajv.validateSchema(toJsonSchema(type))).toBe(true);
      }),
      { numRuns: 200 },
    );
  });
});
