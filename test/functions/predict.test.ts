// predict: features of a row through a custom model, elsewhere and inside the callback, with the same result.
import { afterEach, describe, expect, it } from 'vitest';
import type { ColumnType, Signature } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';
import type { FeatureColumn } from '#engines/engine.ts';
import {
  predict,
  predictBigint,
  predictBoolean,
  predictDouble,
  predictionType,
  predictVarchar,
  predictVariant,
} from '#functions/predict.ts';
import { type Harness, openHarness, rowsOf, type ScriptedModel } from '../session/harness.ts';
import { contextOf, finish, planOf, predicted } from './context.ts';

const context = contextOf({ tree: 'predict' });
const signature = (...outputs: { name: string; type: ColumnType; width?: number }[]): Signature => ({
  inputs: [],
  outputs: outputs.map((output) => ({ ...output, required: true })),
});

describe('the features of a row', () => {
  it.each<[string, Json[], Json]>([
    ['a struct, by name', [{ a: 1, b: 'x' }], { a: 1, b: 'x' }],
    ['a list, by position', [[1, 2, null]], [1, 2, null]],
    ['several columns, by position', [1, 'x', null], [1, 'x', null]],
    ['one column', [5], [5]],
    ['several structs, by position', [{ a: 1 }, { b: 2 }], [{ a: 1 }, { b: 2 }]],
  ])('are %s', (_name, features, expected) => {
    expect(planOf(predict, ['tree', ...features], context).questions).toMatchObject([
      { task: 'predict', input: { features: expected } },
    ]);
  });

  it('that are NULL as a whole, or for no endpoint, give NULL without a question', () => {
    expect(predict.plan(['tree', null], context)).toEqual({ value: null });
    expect(predict.plan([null, { a: 1 }], context)).toEqual({ value: null });
  });

  it('must be there', () => {
    expect(() => predict.plan(['tree'], context)).toThrowError(
      expect.objectContaining({ code: 'INVALID_PARAMETER' }),
    );
    expect(() => predict.plan([7, 1], context)).toThrow('endpoint must be a text that is not empty, it is 7');
  });
});

describe('a prediction', () => {
  it('is of the type that the function returns', () => {
    expect(finish(predict, ['tree', 1], context, predicted({ a: 1 }))).toEqual({ a: 1 });
    expect(finish(predictDouble, ['tree', 1], context, predicted(1.5))).toBe(1.5);
    expect(finish(predictBigint, ['tree', 1], context, predicted(3))).toBe(3);
    expect(finish(predictVarchar, ['tree', 1], context, predicted('x'))).toBe('x');
    expect(finish(predictVarchar, ['tree', 1], context, predicted(1))).toBe('1');
    expect(finish(predictBoolean, ['tree', 1], context, predicted(true))).toBe(true);
    expect(finish(predictBoolean, ['tree', 1], context, predicted(0))).toBe(false);
    expect(finish(predictDouble, ['tree', 1], context, predicted(null))).toBeNull();
  });

  it('that is NaN is NULL', () => {
    for (const called of [predict, predictDouble, predictBigint, predictBoolean]) {
      expect(finish(called, ['tree', 1], context, predicted(Number.NaN))).toBeNull();
    }
  });

  it('of another type is refused with the value', () => {
    expect(() => finish(predictDouble, ['tree', 1], context, predicted('spam'))).toThrow(
      'predict(\'tree\') answered "spam", which is not a DOUBLE.',
    );
    expect(() => finish(predictBigint, ['tree', 1], context, predicted([1]))).toThrowError(
      expect.objectContaining({ code: 'INVALID_RESPONSE' }),
    );
  });
});

describe('the type of a prediction', () => {
  it('follows from the outputs of the signature', () => {
    expect(predictionType(undefined)).toBeUndefined();
    expect(predictionType(signature())).toBeUndefined();
    expect(predictionType(signature({ name: 'y', type: 'long' }))).toBe('BIGINT');
    expect(predictionType(signature({ name: 'y', type: 'float', width: 3 }))).toBe('FLOAT[]');
    expect(predictionType(signature({ name: 'y', type: 'float', width: -1 }))).toBe('FLOAT');
    expect(
      predictionType(signature({ name: 'a"b', type: 'string' }, { name: 'p', type: 'double', width: 2 })),
    ).toBe('STRUCT("a""b" VARCHAR, "p" DOUBLE[])');
  });

  it('has a private function of its own where DuckDB can take the value as it is', () => {
    expect(
      ['DOUBLE', 'FLOAT', 'BIGINT', 'INTEGER', 'VARCHAR', 'BOOLEAN', 'FLOAT[]', 'STRUCT(a INTEGER)'].map(
        predictVariant,
      ),
    ).toEqual([
      '_predict_double',
      '_predict_double',
      '_predict_bigint',
      '_predict_bigint',
      '_predict_varchar',
      '_predict_boolean',
      undefined,
      undefined,
    ]);
  });
});

/** Adds up the numbers of a row; texts count by their length. `missing`: what a feature that is not there counts. */
function total(features: readonly Json[], missing: number): number {
  return features.reduce<number>(
    (sum, value) =>
      sum + (value === null ? missing : typeof value === 'string' ? value.length : Number(value)),
    0,
  );
}
const featuresOf = (input: object): readonly Json[] => {
  const { features } = input as { features: Json };
  return Array.isArray(features) ? features : Object.values(features as object);
};
function rowsFrom(columns: readonly FeatureColumn[], count: number): Json[][] {
  return Array.from({ length: count }, (_, row) =>
    columns.map((column) => (column.isNull?.[row] ? null : ((column.values[row] ?? null) as Json))),
  );
}

function adder(missing: number): { remote: ScriptedModel; local: ScriptedModel } {
  const remote: ScriptedModel = {
    task: 'predict',
    signature: signature({ name: 'y', type: 'double' }),
    answer: (input) => ({ prediction: total(featuresOf(input), missing) }),
  };
  return {
    remote,
    local: {
      ...remote,
      local: {
        predictColumns: (columns, count) => [
          { name: 'y', values: Float64Array.from(rowsFrom(columns, count), (row) => total(row, missing)) },
        ],
      },
    },
  };
}

describe('in SQL', () => {
  let harness: Harness;
  afterEach(() => harness.close());
  const open = async (models: Record<string, ScriptedModel> = {}) => {
    const { remote, local } = adder(100);
    harness = await openHarness({ remote, local, ...models });
    return harness;
  };

  it.each(['remote', 'local'])(
    'a %s model takes structs, lists, arrays and columns of any numeric type',
    async (endpoint) => {
      const { session } = await open();
      const p = (features: string) => `predict('${endpoint}', ${features})`;
      const rows = await rowsOf(
        session,
        `SELECT ${p("{'a': 1::TINYINT, 'b': 2.5::DECIMAL(4,1), 'c': true, 'd': 'xyz'}")}, ${p('[1, 2, NULL]')}, ${p('[1, 2]::FLOAT[2]')},
              ${p('1::HUGEINT, 2::UTINYINT, 0.5::FLOAT')}, ${p('NULL, 1')}, ${p('7')}`,
      );
      expect(rows).toEqual([[7.5, 103, 3, 3.5, 101, 7]]);
    },
  );

  it('features that are lists inside a struct reach a local model too, row by row', async () => {
    const { session, asked } = await open();
    await rowsOf(session, "SELECT predict('local', {'a': [1, 2], 'b': 3})");
    expect(asked).toEqual(['{"a":[1,2],"b":3}']);
  });

  it.each(['remote', 'local'])(
    'a %s model gives NULL for a NULL struct, list or only column, and sees a missing member',
    async (endpoint) => {
      const { session } = await open();
      const rows = await rowsOf(
        session,
        `SELECT predict('${endpoint}', s), predict('${endpoint}', l), predict('${endpoint}', x) FROM (VALUES
        (1, {'a': 1, 'b': 2}, [1, 2], 5), (2, NULL, NULL, NULL), (3, {'a': 1, 'b': NULL}, [1, NULL], 6)) t(i, s, l, x) ORDER BY i`,
      );
      expect(rows).toEqual([
        [3, 3, 5],
        [null, null, null],
        [101, 101, 6],
      ]);
    },
  );

  it('a local model never sees the features of a row that is NULL as a whole', async () => {
    const { local } = adder(Number.NaN);
    const strict: ScriptedModel = {
      ...local,
      local: {
        predictColumns: (columns, count) => {
          if (columns.some((column) => column.isNull)) throw new Error('a feature is missing');
          return local.local?.predictColumns?.(columns, count) ?? [];
        },
      },
    };
    const { session } = await open({ strict });
    const rows = await rowsOf(
      session,
      "SELECT predict('strict', s), predict('strict', l), predict('strict', x) FROM (VALUES (1, NULL, NULL, NULL), (2, {'a': 1, 'b': 'xy'}, [1, 2], 5), (3, NULL, NULL, NULL)) t(i, s, l, x) ORDER BY i",
    );
    expect(rows).toEqual([
      [null, null, null],
      [3, 3, 5],
      [null, null, null],
    ]);
  });

  it.each(['remote', 'local'])(
    'a %s model sees a NULL without a type as a missing feature',
    async (endpoint) => {
      const { session } = await open();
      const rows = await rowsOf(
        session,
        `SELECT predict('${endpoint}', {'a': NULL, 'b': 1}), predict('${endpoint}', {'a': NULL, 'b': i}), predict('${endpoint}', [NULL]), predict('${endpoint}', NULL, i) FROM range(2) t(i)`,
      );
      expect(rows).toEqual([
        [101, 100, 100, 100],
        [101, 101, 100, 101],
      ]);
    },
  );

  it('both give the same over many chunks with NULLs among them', async () => {
    const { session, asked, localInputs } = await open();
    const rows = await rowsOf(
      session,
      `WITH t AS (SELECT i, CASE WHEN i % 11 <> 0 THEN {'a': i % 13, 'b': CASE WHEN i % 5 <> 0 THEN i % 3 END} END AS s FROM range(7000) t(i))
       SELECT count(*) FROM t WHERE predict('local', s) IS DISTINCT FROM predict('remote', s)`,
    );
    expect(rows).toEqual([[0]]);
    expect(new Set(asked).size).toBe(asked.length);
    expect(localInputs.reduce((sum, count) => sum + count, 0)).toBe(7_000);
  });

  it.each<[ColumnType, string, readonly (string | number | boolean)[], Json]>([
    ['double', 'DOUBLE', [2.5, Number.NaN], [2.5, null]],
    ['float', 'FLOAT', [2.5, Number.NaN], [2.5, null]],
    ['long', 'BIGINT', [3, Number.NaN], [3, null]],
    ['integer', 'INTEGER', [3, -4], [3, -4]],
    ['string', 'VARCHAR', ['spam', 'ham'], ['spam', 'ham']],
    ['boolean', 'BOOLEAN', [true, false], [true, false]],
    ['boolean', 'BOOLEAN', [1, 0], [true, false]],
  ])('an output of type %s is a column of %s, NaN is NULL', async (type, column, values, expected) => {
    const model: ScriptedModel = {
      task: 'predict',
      signature: signature({ name: 'y', type }),
      answer: (input) => ({ prediction: (values[Number(featuresOf(input)[0])] ?? null) as Json }),
    };
    const near: ScriptedModel = {
      ...model,
      local: {
        predictColumns: (columns, count) => [
          { name: 'y', values: rowsFrom(columns, count).map(([index]) => values[Number(index)] ?? null) },
        ],
      },
    };
    const { session } = await open({ far: model, near });
    for (const endpoint of ['far', 'near']) {
      const [result] = await session.run(
        `SELECT predict('${endpoint}', i) AS y FROM range(2) t(i) ORDER BY i`,
      );
      expect(result?.columns).toEqual([{ name: 'y', type: column }]);
      expect([...(result?.rows() ?? [])].map(([y]) => y)).toEqual(expected);
    }
  });

  it('several outputs are a STRUCT by name, a vector is a list', async () => {
    const outputs = signature({ name: 'label', type: 'string' }, { name: 'p', type: 'double', width: 2 });
    const far: ScriptedModel = {
      task: 'predict',
      signature: outputs,
      answer: () => ({ prediction: { label: 'a', p: [0.25, 0.75] } }),
    };
    const near: ScriptedModel = {
      ...far,
      local: {
        predictColumns: (_columns, count) => [
          { name: 'label', values: new Array<string>(count).fill('a') },
          { name: 'p', values: new Array<number[]>(count).fill([0.25, 0.75]) },
        ],
      },
    };
    const { session } = await open({ far, near });
    for (const endpoint of ['far', 'near']) {
      const [result] = await session.run(
        `SELECT predict('${endpoint}', 1) AS x, predict('${endpoint}', 1).p[2] AS p, predict('${endpoint}', {'a': NULL}).label AS l`,
      );
      expect(result?.columns.map(({ type }) => type)).toEqual([
        'STRUCT("label" VARCHAR, "p" DOUBLE[])',
        'DOUBLE',
        'VARCHAR',
      ]);
      expect([...(result?.rows() ?? [])]).toEqual([[{ label: 'a', p: [0.25, 0.75] }, 0.75, 'a']]);
    }
  });

  it('a model without a signature gives JSON', async () => {
    const { session } = await open({ bare: { task: 'predict', answer: () => ({ prediction: { a: [1] } }) } });
    const [result] = await session.run("SELECT predict('bare', 1) AS x, predict('bare', 1)->>'$.a[0]' AS a");
    expect(result?.columns.map(({ type }) => type)).toEqual(['JSON', 'VARCHAR']);
    expect([...(result?.rows() ?? [])]).toEqual([['{"a":[1]}', '1']]);
  });

  it('a local model works in filters, groups and joins', async () => {
    const { session } = await open();
    expect(
      await rowsOf(
        session,
        "SELECT predict('local', a.i) AS p, count(*) FROM range(10) a(i) JOIN range(5) b(i) ON predict('local', a.i) = predict('local', b.i) WHERE predict('local', a.i, 1) > 2 GROUP BY ALL HAVING predict('local', p) < 4 ORDER BY ALL",
      ),
    ).toEqual([
      [2, 1],
      [3, 1],
    ]);
  });

  it('lists of features of unlike lengths are refused', async () => {
    const { session } = await open();
    await expect(
      session.run("SELECT predict('local', l) FROM (VALUES ([1, 2]), ([1])) t(l)"),
    ).rejects.toMatchObject({
      code: 'SCHEMA_MISMATCH',
      message: expect.stringContaining('every row needs the same number'),
    });
  });

  it('a time as a feature is refused with the way out', async () => {
    const { session } = await open();
    await expect(session.run("SELECT predict('local', DATE '2026-01-01')")).rejects.toMatchObject({
      code: 'SCHEMA_MISMATCH',
      message: expect.stringContaining('2026-01-01'),
    });
  });
});
