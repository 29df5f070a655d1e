// Rows of features against a signature: what is taken, what is refused and in which words, and that a bad row harms
// nobody but itself.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ColumnType, SignatureColumn } from '#core/endpoint.ts';
import type { Json, JsonObject } from '#core/json.ts';
import { enforceRows } from '#engines/signature/enforce.ts';
import { enforceParams } from '#engines/signature/params.ts';

const column = (
  name: string,
  type: ColumnType = 'double',
  more: Partial<SignatureColumn> = {},
): SignatureColumn => ({ name, type, required: true, ...more });

const enforce = (inputs: readonly SignatureColumn[], ...rows: (JsonObject | readonly Json[])[]) =>
  enforceRows(
    'm',
    { inputs },
    rows.map((features) => ({ features })),
  );

/** The only block of rows that all fit. */
function only(inputs: readonly SignatureColumn[], ...rows: (JsonObject | readonly Json[])[]) {
  const { blocks, errors } = enforce(inputs, ...rows);
  expect([...errors.values()].map(({ message }) => message)).toEqual([]);
  expect(blocks).toHaveLength(1);
  return blocks[0]!;
}

function refusal(inputs: readonly SignatureColumn[], row: JsonObject | readonly Json[]): string {
  const { errors, blocks } = enforce(inputs, row);
  expect(blocks).toEqual([]);
  const error = errors.get(0);
  expect(error?.code).toBe('SCHEMA_MISMATCH');
  return error?.message ?? '';
}

describe('rows by name', () => {
  const inputs = [column('a'), column('b', 'string')];

  it('become columns of the types of the signature, in its order', () => {
    const { columns, rows } = only(inputs, { b: 'x', a: 1 }, { a: 2.5, b: 'y' });
    expect(rows).toEqual([0, 1]);
    expect(columns.map(({ name, type, values }) => [name, type, [...values]])).toEqual([
      ['a', 'f64', [1, 2.5]],
      ['b', 'utf8', ['x', 'y']],
    ]);
  });

  it('are found without regard to case where no name is equal', () => {
    expect([...only(inputs, { A: 1, B: 'x' }).columns[0]!.values]).toEqual([1]);
    const both = only([column('a')], { A: 1, a: 2 });
    expect([...both.columns[0]!.values]).toEqual([2]);
  });

  it('may bring more columns than the model takes, as tables do', () => {
    expect(only(inputs, { id: 7, a: 1, b: 'x' }).columns).toHaveLength(2);
  });

  it('name what is missing and what was given, never its values', () => {
    const message = refusal(inputs, { a: 1, c: 'secret' });
    expect(message).toBe(
      'The features do not fit model "m": "b" is missing (given: a, c). It expects 2: a DOUBLE, b VARCHAR.',
    );
    expect(refusal([column('a'), column('b')], {})).toContain('"a", "b" are missing (given: nothing)');
  });

  it('show no more than some of a thousand columns', () => {
    const many = Array.from({ length: 1_000 }, (_, index) => column(`c${index}`));
    expect(refusal(many, {}).length).toBeLessThan(2_000);
    expect(refusal(many, {})).toContain('and 970 more');
  });
});

describe('rows by position', () => {
  it('need as many values as there are columns, as a value too many would move the others', () => {
    const inputs = [column('a'), column('b')];
    expect(only(inputs, [1, 2]).columns.map(({ values }) => [...values])).toEqual([[1], [2]]);
    expect(only(inputs, [[1, 2]]).columns.map(({ values }) => [...values])).toEqual([[1], [2]]);
    expect(refusal(inputs, [1, 2, 3])).toContain('got 3 values by position');
    expect(refusal(inputs, [1])).toContain('got 1 value by position');
  });

  it('stand for the columns of a signature without names, also when they come with names', () => {
    const inputs = [
      column('input_0', 'double', { isUnnamed: true }),
      column('input_1', 'long', { isUnnamed: true }),
    ];
    const { columns } = only(inputs, { x: 1, y: 2 }, [3, 4]);
    expect(columns.map(({ name, values }) => [name, [...values]])).toEqual([
      [null, [1, 3]],
      [null, [2n, 4n]],
    ]);
  });
});

describe('a value', () => {
  const one = (type: ColumnType, value: Json, more: Partial<SignatureColumn> = {}) =>
    only([column('x', type, more)], { x: value }).columns[0]!;
  const wrong = (type: ColumnType, value: Json, more: Partial<SignatureColumn> = {}) =>
    refusal([column('x', type, more)], { x: value });

  it('of a number column is a number: whole ones become decimals, texts and booleans do not', () => {
    expect([...one('double', 3).values]).toEqual([3]);
    expect([...one('float', 0.1).values]).toEqual([Math.fround(0.1)]);
    expect([...one('double', 'NaN').values]).toEqual([Number.NaN]);
    expect([...one('double', '-Infinity').values]).toEqual([Number.NEGATIVE_INFINITY]);
    expect(wrong('double', '3')).toContain('"x" is "3", which is no DOUBLE; if the column holds');
    expect(wrong('double', true)).toContain('"x" is true, which is no DOUBLE');
    expect(wrong('float', 1e300)).toContain('too large for a FLOAT');
  });

  it('of an integer column is whole and within its range', () => {
    expect([...one('integer', -5).values]).toEqual([-5]);
    expect(wrong('integer', 1.5)).toContain('"x" is 1.5, which is no whole number');
    expect(wrong('integer', 2 ** 31)).toContain('outside -2147483648 to 2147483647');
    expect(wrong('integer', 'NaN')).toContain('which is no INTEGER');
  });

  it('of a long column keeps all its digits, or is refused', () => {
    expect([...one('long', 2 ** 53 - 1).values]).toEqual([9_007_199_254_740_991n]);
    expect([...one('long', '9223372036854775807').values]).toEqual([2n ** 63n - 1n]);
    expect([...one('long', '-9223372036854775808').values]).toEqual([-(2n ** 63n)]);
    expect(wrong('long', 2 ** 53)).toContain('send it as a text of digits');
    expect(wrong('long', '9223372036854775808')).toContain('which is outside');
    expect(wrong('long', '1e3')).toContain('which is no BIGINT');
  });

  it('that is NULL is missing where floats and texts are, and refused for integers with the way out', () => {
    const doubles = only([column('x')], { x: null }, { x: 1 }).columns[0]!;
    expect([...doubles.values]).toEqual([Number.NaN, 1]);
    expect([...doubles.isNull!]).toEqual([1, 0]);
    expect([...one('string', null).isNull!]).toEqual([1]);
    expect(wrong('long', null)).toContain('is NULL, and this model cannot take missing values there');
    expect(wrong('integer', null)).toContain('give the model a signature with doubles');
    expect(wrong('boolean', null)).not.toContain('signature with doubles');
  });

  it('of a boolean column is true or false, or 1 or 0 as lists of numbers in SQL have them', () => {
    expect(only([column('x', 'boolean')], [true], [0], [1]).columns[0]!.values).toEqual(
      new Uint8Array([1, 0, 1]),
    );
    expect(wrong('boolean', 2)).toContain('which is no BOOLEAN');
    expect(wrong('boolean', 'true')).toContain('which is no BOOLEAN');
  });

  it('of a datetime column is ISO text, counted in microseconds of UTC', () => {
    const at = (text: string) => [...one('datetime', text).values][0];
    expect(at('1970-01-01')).toBe(0n);
    expect(at('2024-02-29T12:30:00.123456Z')).toBe(1_709_209_800_123_456n);
    expect(at('2024-02-29 12:30:00.5')).toBe(1_709_209_800_500_000n);
    expect(at('2024-02-29 14:30:00+02')).toBe(at('2024-02-29T12:30:00Z'));
    expect(at('2024-02-29T12:30:00-05:30')).toBe(at('2024-02-29T18:00:00Z'));
    expect(at('1969-12-31T23:59:59.999999')).toBe(-1n);
    for (const text of ['2023-02-29', '2024-13-01', '2024-01-01T25:00:00', 'yesterday', '20240101'])
      expect(wrong('datetime', text), text).toContain('no date and time such as 2026-01-31');
    expect(wrong('datetime', 1_700_000_000)).toContain('no date and time');
  });

  it('of a binary column is base64', () => {
    expect(one('binary', 'aGk=').values[0]).toEqual(Buffer.from('hi'));
    expect(wrong('binary', 'not base64!')).toContain('sent as base64 text');
    expect(wrong('binary', 'aGk')).toContain('sent as base64 text');
  });

  it('that is wrong is shown cut, and nothing of its row or its neighbours', () => {
    const inputs = [column('x'), column('y', 'string')];
    const { errors } = enforce(
      inputs,
      { x: 1, y: 'first secret' },
      { x: 'a'.repeat(500), y: 'second secret' },
      { x: 2, y: 'third secret' },
    );
    expect([...errors.keys()]).toEqual([1]);
    const { message } = errors.get(1)!;
    expect(message).not.toContain('secret');
    expect(message.length).toBeLessThan(400);
  });
});

describe('optional columns', () => {
  const inputs = [column('a'), column('b', 'long', { required: false })];

  it('may be absent; rows with and without them lie in tables of their own', () => {
    const { blocks, errors } = enforce(inputs, { a: 1 }, { a: 2, b: 5 }, { a: 3 }, { a: 4, b: null });
    expect(errors.size).toBe(0);
    expect(blocks.map(({ rows, columns }) => [rows, columns.map(({ name }) => name)])).toEqual([
      [[0, 2, 3], ['a']],
      [[1], ['a', 'b']],
    ]);
  });

  it('are checked when they are there', () => {
    expect(refusal(inputs, { a: 1, b: 1.5 })).toContain('b BIGINT (optional)');
  });
});

describe('tensors', () => {
  const image = column('image', 'float', { shape: [2, 3], isUnnamed: true });
  const list = column('v', 'double', { shape: [3], width: 3, isUnnamed: true });

  it('are the values of a row, a list in a list, or a list under their name', () => {
    const named = { ...list, isUnnamed: false };
    for (const block of [
      only([list], [1, 2, 3]),
      only([list], [[1, 2, 3]]),
      only([list], { a: 1, b: 2, c: 3 }),
      only([list], { v: [1, 2, 3] }),
      only([named], { v: [1, 2, 3] }),
      only([named], [1, 2, 3]),
    ]) {
      expect([...block.columns[0]!.values]).toEqual([1, 2, 3]);
      expect(block.columns[0]!.shape).toEqual([3]);
    }
  });

  it('lie row after row, the innermost dimension last', () => {
    const { columns } = only(
      [image],
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      [
        [
          [7, 8, 9],
          [10, 11, 12],
        ],
      ],
    );
    expect([...columns[0]!.values]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    expect(columns[0]!.name).toBeNull();
  });

  it('of another size are refused with both sizes', () => {
    expect(refusal([list], [1, 2])).toContain('"v" has the size 2, and 3 is asked for');
    expect(refusal([image], [1, 2])).toContain('"image" has the size 2, and 2x3 is asked for');
    expect(refusal([image], [[1, 2, 3], [4]])).toContain('different lengths');
    expect(refusal([list], [1, [2], 3])).toContain('different lengths');
  });

  it('of open sizes lie in one table only with those of the same size', () => {
    const open = column('v', 'double', { shape: [-1], isUnnamed: true });
    const { blocks } = enforce([open], [1, 2], [1, 2, 3], [3, 4]);
    expect(blocks.map(({ rows, columns }) => [rows, columns[0]!.shape])).toEqual([
      [[0, 2], [2]],
      [[1], [3]],
    ]);
  });

  it('of one number a row take the number', () => {
    const scalar = column('v', 'long', { shape: [], isUnnamed: true });
    expect([...only([scalar], [5], [[6]], { x: 7 }).columns[0]!.values]).toEqual([5n, 6n, 7n]);
  });

  it('keep the range of their dtype', () => {
    const bytes = column('v', 'integer', { shape: [2], spec: { dtype: 'uint8', shape: [-1, 2] } });
    expect([...only([bytes], [0, 255]).columns[0]!.values]).toEqual([0, 255]);
    expect(refusal([bytes], [0, 256])).toContain('"v" is 256, which is outside 0 to 255');
  });
});

describe('nested types', () => {
  const spec = {
    type: 'array',
    items: {
      type: 'object',
      properties: { price: { type: 'double' }, note: { type: 'string', required: false } },
    },
  };
  const inputs = [column('items', 'json', { spec })];

  it('travel as the JSON they came in', () => {
    const { columns } = only(inputs, { items: [{ price: 1 }, { price: 2, note: 'x' }] });
    expect(columns[0]).toMatchObject({
      type: 'json',
      values: ['[{"price":1},{"price":2,"note":"x"}]'],
      isNull: null,
    });
  });

  it('say where in the value the mistake is', () => {
    expect(refusal(inputs, { items: [{ price: 1 }, { price: 'x' }] })).toContain(
      'where [1].price is "x", which is no double',
    );
    expect(refusal(inputs, { items: [{ note: 'x' }] })).toContain('where [0] has no "price"');
    expect(refusal(inputs, { items: [{ price: 1, more: 1 }] })).toContain(
      'where [0] has a member "more" that the type does not have',
    );
    expect(refusal(inputs, { items: { price: 1 } })).toContain('must be a list');
    const map = [column('m', 'json', { spec: { type: 'map', values: { type: 'long' } } })];
    expect(refusal(map, { m: { a: 1, b: 1.5 } })).toContain('where ["b"] is 1.5');
  });

  it('may be anything where the signature says so', () => {
    const any = [column('x', 'json', { spec: { type: 'any' } })];
    expect(only(any, { x: { a: [1, 'b', null] } }).columns[0]!.values).toEqual(['{"a":[1,"b",null]}']);
  });
});

describe('parameters', () => {
  const params = [
    { name: 'top_k', type: 'long', default: 5 },
    { name: 'stop', type: 'string', default: ['.'], isList: true },
    { name: 'seed', type: 'integer', default: null },
  ] as const;

  it('are completed with the defaults of the signature', () => {
    expect(enforceParams('m', { params })).toEqual({ top_k: 5, stop: ['.'], seed: null });
    expect(enforceParams('m', { params }, { top_k: 9, seed: null })).toEqual({
      top_k: 9,
      stop: ['.'],
      seed: null,
    });
    expect(enforceParams('m', undefined)).toEqual({});
  });

  it.each([
    [{ topk: 1 }, `Model "m" has no parameter 'topk'. It takes: top_k (BIGINT, default 5)`],
    [{ top_k: '9' }, `The parameter 'top_k' of model "m" is "9"; it must be BIGINT (default 5).`],
    [{ top_k: 1.5 }, 'is 1.5'],
    [{ top_k: null }, 'is null'],
    [{ stop: 'x' }, 'must be VARCHAR[]'],
    [{ stop: ['x', 1] }, 'is 1;'],
  ])('are refused when they do not fit: %j', (given, message) => {
    expect(() => enforceParams('m', { params }, given as JsonObject)).toThrow(message);
  });

  it('are refused where the model has none', () => {
    expect(() => enforceParams('m', { params: [] }, { a: 1 })).toThrow('It takes none');
  });
});

describe('any rows', () => {
  const types: readonly ColumnType[] = [
    'boolean',
    'integer',
    'long',
    'float',
    'double',
    'string',
    'binary',
    'datetime',
    'json',
  ];
  const columns = fc
    .uniqueArray(fc.record({ name: fc.string(), type: fc.constantFrom(...types), required: fc.boolean() }), {
      minLength: 1,
      maxLength: 5,
      selector: ({ name }) => name.toLowerCase(),
    })
    .map((list) => list.map((each) => column(each.name, each.type, { required: each.required })));
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 3 }) as fc.Arbitrary<Json>,
    fc.double(),
    fc.integer(),
    fc.constantFrom('2024-01-01', 'aGk=', '12', true, null),
  );

  it('each go on or have an error, once, and never throw', () => {
    fc.assert(
      fc.property(columns, fc.array(fc.array(value, { maxLength: 6 }), { maxLength: 8 }), (inputs, table) => {
        const rows = table.map((cells) => ({
          features:
            cells.length % 2 === 0
              ? Object.fromEntries(cells.map((cell, index) => [inputs[index]?.name ?? `x${index}`, cell]))
              : cells,
        }));
        const { blocks, errors } = enforceRows('m', { inputs }, rows);
        const seen = [...blocks.flatMap((block) => block.rows), ...errors.keys()].sort((a, b) => a - b);
        expect(seen).toEqual(rows.map((_, index) => index));
        for (const block of blocks) {
          for (const { values, isNull } of block.columns) {
            expect(values.length).toBe(block.rows.length);
            if (isNull) expect(isNull.length).toBe(block.rows.length);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it('are judged alone: the neighbours of a row change neither its values nor its error', () => {
    fc.assert(
      fc.property(
        columns,
        fc.array(fc.array(value, { maxLength: 5 }), { minLength: 2, maxLength: 6 }),
        (inputs, table) => {
          const rows = table.map((features) => ({ features }));
          const together = enforceRows('m', { inputs }, rows);
          for (const [index, row] of rows.entries()) {
            const alone = enforceRows('m', { inputs }, [row]);
            expect(together.errors.get(index)?.message).toBe(alone.errors.get(0)?.message);
            const block = together.blocks.find((each) => each.rows.includes(index));
            const at = block?.rows.indexOf(index) ?? -1;
            expect(block?.columns.map(({ values }) => values[at])).toEqual(
              alone.blocks[0]?.columns.map(({ values }) => values[0]),
            );
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('of longs come out as the digits that went in', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), (long) => {
        const { columns: found } = only([column('x', 'long')], { x: String(long) });
        expect(found[0]!.values[0]).toBe(long);
      }),
    );
  });
});
