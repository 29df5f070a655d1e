// The tabular runner on real ONNX Runtime: small models written by the test, and the penguin example.
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { ServingError } from '#core/errors.ts';
import type { FeatureColumn, PredictionColumn, Runner } from '#engines/engine.ts';
import { inspectTabularModel, openTabularRunner } from '#engines/onnx/tabular.ts';
import { describeEngine, expectCode } from './contract.ts';
import { node, tensor, writeClassifier, writeMixed, writeModel, writeScores } from './tabular-models.ts';
import { CONTEXT, invoke, targetOf, useModels } from './tabular-runner.ts';

const PENGUINS = fileURLToPath(new URL('../../examples/penguins/penguins.onnx', import.meta.url));

const { place, open } = useModels();
const sidecar = (path: string, signature: object) =>
  writeFile(join(path, '..', 'signature.json'), JSON.stringify(signature));

function column(
  name: string | null,
  values: FeatureColumn['values'] | (string | number | boolean | bigint | null)[],
  nulls: readonly number[] = [],
): FeatureColumn {
  const isNull =
    nulls.length === 0 ? null : Uint8Array.from(values, (_, row) => (nulls.includes(row) ? 1 : 0));
  return { name, values, isNull };
}

function predict(runner: Runner, columns: readonly FeatureColumn[], rowCount: number): PredictionColumn[] {
  const run = runner.local?.predictColumns;
  if (run === undefined) throw new Error('the runner is not local');
  return run(columns, rowCount).map(({ name, values }) => ({
    name,
    values: Array.from<never>(values as never[]),
  }));
}

function thrownBy(work: () => unknown): ServingError {
  try {
    work();
  } catch (thrown) {
    if (thrown instanceof ServingError) return thrown;
    throw thrown;
  }
  throw new Error('nothing was thrown');
}

const ADELIE = { bill_length_mm: 39.1, bill_depth_mm: 18.7, flipper_length_mm: 181, body_mass_g: 3750 };
const GENTOO = { bill_length_mm: 50, bill_depth_mm: 15.2, flipper_length_mm: 218, body_mass_g: 5700 };

describeEngine('tabular onnx', {
  task: 'predict',
  open: () => openTabularRunner(targetOf(PENGUINS), CONTEXT),
  inputs: [{ features: ADELIE }, { features: GENTOO }],
});

describe('the penguin example', () => {
  test('predicts species by name, by position and in any order of names', async () => {
    const runner = await open(PENGUINS);
    const { body_mass_g, ...others } = ADELIE;
    expect(await invoke(runner, [GENTOO, { body_mass_g, ...others }])).toEqual(['Gentoo', 'Adelie']);
    expect(await invoke(runner, [Object.values(ADELIE), [Object.values(GENTOO)]])).toEqual([
      'Adelie',
      'Gentoo',
    ]);
  });

  test('is right for at least 95 % of the rows it was not trained on', async () => {
    const runner = await open(PENGUINS);
    const csv = await readFile(join(PENGUINS, '../penguins.csv'), 'utf8');
    const rows = csv.trim().split('\n').slice(1);
    const tests = rows.map((row) => row.split(',')).filter((row) => row[5] === 'test');
    expect(tests.length).toBeGreaterThan(80);
    const columns = Object.keys(ADELIE).map((name, at) =>
      column(
        name,
        Float64Array.from(tests, (row) => Number(row[at])),
      ),
    );
    const [species] = predict(runner, columns, tests.length);
    const right = tests.filter((row, index) => species?.values[index] === row[4]).length;
    expect(right / tests.length).toBeGreaterThan(0.95);
  });

  test('takes NULL measurements, because its trees know where they go', async () => {
    const runner = await open(PENGUINS);
    expect(await invoke(runner, [{ ...GENTOO, bill_length_mm: null }])).toEqual(['Gentoo']);
    const columns = Object.entries(GENTOO).map(([name, value], at) =>
      column(name, new Float64Array([value, value]), at === 0 ? [1] : []),
    );
    expect(predict(runner, columns, 2)).toEqual([{ name: 'species', values: ['Gentoo', 'Gentoo'] }]);
  });

  test('inspection gives the signature, the hash and what to keep', async () => {
    const inspection = await inspectTabularModel(PENGUINS);
    expect(inspection.signature.inputs.map(({ name, type }) => `${name} ${type}`)).toEqual([
      'bill_length_mm double',
      'bill_depth_mm double',
      'flipper_length_mm double',
      'body_mass_g double',
    ]);
    expect(inspection.signature.outputs).toEqual([{ name: 'species', type: 'string', required: true }]);
    expect(inspection.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(inspection.options).toEqual({ toleratesMissing: true });
  });

  test('what inspection gave is enough when the side-car is gone', async () => {
    const { signature, options } = await inspectTabularModel(PENGUINS);
    const path = await place();
    await cp(PENGUINS, path);
    const runner = await open(path, { signature, options });
    expect(await invoke(runner, [ADELIE])).toEqual(['Adelie']);
  });

  test('gives the same for chunks of any size, one after the other', async () => {
    const runner = await open(PENGUINS);
    for (const rowCount of [2048, 7, 1, 2048, 0, 300]) {
      const columns = Object.keys(ADELIE).map((name) => {
        const key = name as keyof typeof ADELIE;
        return column(
          name,
          Float64Array.from({ length: rowCount }, (_, row) => (row % 2 ? GENTOO : ADELIE)[key]),
        );
      });
      const expected = Array.from({ length: rowCount }, (_, row) => (row % 2 ? 'Gentoo' : 'Adelie'));
      expect(predict(runner, columns, rowCount)).toEqual([{ name: 'species', values: expected }]);
    }
  });
});

describe('without a side-car the signature comes from the model', () => {
  test('scalar inputs and outputs of every type keep their names and types', async () => {
    const { signature } = await inspectTabularModel(await writeMixed(await place()));
    expect(signature.inputs.map(({ name, type }) => `${name} ${type}`)).toEqual([
      'amount float',
      'count long',
      'city string',
      'is_new boolean',
      'weight double',
    ]);
    expect(signature.outputs.map(({ type }) => type)).toEqual([
      'float',
      'long',
      'string',
      'boolean',
      'double',
    ]);
  });

  test('a model with several outputs predicts an object by output name', async () => {
    const runner = await open(await writeMixed(await place()));
    const row = { amount: 1.5, count: 7, city: 'Oslo', is_new: true, weight: 0.1 };
    expect(await invoke(runner, [row])).toEqual([
      { amount_out: 1.5, count_out: 7, city_out: 'Oslo', is_new_out: true, weight_out: 0.1 },
    ]);
    const columns = [
      column('AMOUNT', new Float64Array([1.5, 2.5])),
      column('Count', [7n, 9_007_199_254_740_991n]),
      column('city', ['Oslo', '東京']),
      column('is_new', [true, false]),
      column('weight', new Float64Array([0.1, -1])),
      column('not_a_feature', ['x', 'y']),
    ];
    expect(predict(runner, columns, 2)).toEqual([
      { name: 'amount_out', values: [1.5, 2.5] },
      { name: 'count_out', values: [7, 9_007_199_254_740_991] },
      { name: 'city_out', values: ['Oslo', '東京'] },
      { name: 'is_new_out', values: [true, false] },
      { name: 'weight_out', values: [0.1, -1] },
    ]);
  });

  test('a matrix input has numbered features, and a list output has a width', async () => {
    const path = await writeScores(await place());
    const { signature } = await inspectTabularModel(path);
    expect(signature.inputs.map(({ name }) => name)).toEqual(['features_0', 'features_1', 'features_2']);
    expect(signature.outputs).toEqual([{ name: 'scores', type: 'float', required: true, width: 3 }]);
    const runner = await open(path);
    expect(await invoke(runner, [[1, 2, 3], [[4, 5, 6]], [7, 8, 9]])).toEqual([
      [1, 2, 3],
      [4, 5, 6],
      [7, 8, 9],
    ]);
    expect(await invoke(runner, [{ features: [1, 2, 3] }])).toEqual([[1, 2, 3]]);
  });

  test('a classifier gives its label and its probabilities', async () => {
    const runner = await open(await writeClassifier(await place(), { isZipMap: false }));
    const [prediction] = await invoke(runner, [[3, 1]]);
    expect(prediction).toEqual({
      label: 0,
      probabilities: [expect.closeTo(0.982, 3), expect.closeTo(0.018, 3)],
    });
  });

  test('a model exported for a fixed number of rows is asked in parts', async () => {
    const runner = await open(await writeScores(await place(), 2));
    const rows = [0, 1, 2, 3, 4].map((row) => [row, row + 0.5, -row]);
    expect(await invoke(runner, rows)).toEqual(rows.map((row) => row.map((value) => expect.closeTo(value))));
  });
});

describe('a side-car', () => {
  test('names the columns of a matrix in order', async () => {
    const path = await writeScores(await place());
    await sidecar(path, {
      inputs: ['a', 'b', 'c'].map((name) => ({ name, type: 'double' })),
      outputs: [{ name: 'scores', type: 'double' }],
    });
    expect(await invoke(await open(path), [{ c: 3, A: 1, b: 2 }])).toEqual([[1, 2, 3]]);
  });

  test('says how many features a matrix of open width takes', async () => {
    const path = await writeScores(await place(), 'N', 'K');
    await sidecar(path, { inputs: ['a', 'b', 'c'].map((name) => ({ name, type: 'double' })) });
    expect(await invoke(await open(path), [{ a: 1, b: 2, c: 3 }])).toEqual([[1, 2, 3]]);
  });

  test('picks and renames outputs; one picked output is a plain value', async () => {
    const path = await writeClassifier(await place(), { isZipMap: false });
    await sidecar(path, { outputs: [{ name: 'LABEL', type: 'long' }] });
    expect(await invoke(await open(path), [[3, 1]])).toEqual([0]);
  });

  test('labels turn a class number or the best score into a name', async () => {
    const classifier = await writeClassifier(await place(), { isZipMap: false });
    await sidecar(classifier, { outputs: [{ name: 'label', type: 'string' }], labels: ['ham', 'spam'] });
    const { signature, options } = await inspectTabularModel(classifier);
    expect(signature.outputs).toEqual([{ name: 'label', type: 'string', required: true }]);
    expect(options).toMatchObject({ labels: ['ham', 'spam'] });
    expect(
      await invoke(await open(classifier), [
        [3, 1],
        [1, 3],
      ]),
    ).toEqual(['ham', 'spam']);

    const scores = await writeScores(await place());
    await sidecar(scores, { labels: ['low', 'middle', 'high'] });
    expect(
      await invoke(await open(scores), [
        [1, 5, 2],
        [0, 1, 9],
      ]),
    ).toEqual(['middle', 'high']);
  });

  test('MLflow MLmodel counts as one, also when its JSON is folded over lines', async () => {
    const path = await writeScores(await place());
    const yaml = [
      'flavors:',
      '  onnx: {data: model.onnx}',
      'signature:',
      '  inputs: \'[{"type": "double", "name": "sepal length (cm)", "required": true}, {"type":',
      '    "double", "name": "it\'\'s", "required": true}, {"type": "double", "name": "c", "required": true}]\'',
      '  outputs: \'[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 3]}}]\'',
      '  params: null',
      'utc_time_created: x',
    ];
    await writeFile(join(path, '..', 'MLmodel'), yaml.join('\n'));
    const { signature } = await inspectTabularModel(path);
    expect(signature.inputs.map(({ name }) => name)).toEqual(['sepal length (cm)', "it's", 'c']);
    expect(signature.outputs.map(({ name }) => name)).toEqual(['scores']);
  });

  test('one that does not fit the model is refused with both sides named', async () => {
    const path = await writeScores(await place());
    await sidecar(path, { inputs: [{ name: 'a', type: 'double' }] });
    const count = await expectCode('INVALID_PARAMETER', inspectTabularModel(path));
    expect(count.message).toMatch(/takes 3 features .* names 1 \(a\)/);
    await sidecar(path, {
      outputs: [
        { name: 'x', type: 'double' },
        { name: 'y', type: 'double' },
      ],
    });
    const outputs = await expectCode('INVALID_PARAMETER', inspectTabularModel(path));
    expect(outputs.message).toContain('its outputs are scores, but its signature names x, y');
    await sidecar(path, { inputs: [{ name: 'a', type: 'datetime' }] });
    expect((await expectCode('INVALID_PARAMETER', inspectTabularModel(path))).message).toContain(
      '"datetime"',
    );
  });
});

describe('features that do not fit', () => {
  const three = (...names: string[]) => names.map((name) => column(name, new Float64Array([1])));

  test('a missing feature is named with all that are expected', async () => {
    const runner = await open(PENGUINS);
    const error = thrownBy(() => predict(runner, three('bill_length_mm', 'island'), 1));
    expect(error.code).toBe('SCHEMA_MISMATCH');
    expect(error.message).toContain('"bill_depth_mm", "flipper_length_mm", "body_mass_g" are missing');
    expect(error.message).toContain('It expects 4: bill_length_mm DOUBLE');
  });

  test('too few or too many values by position are refused', async () => {
    const runner = await open(PENGUINS);
    const [error] = await invoke(runner, [[1, 2, 3]]);
    expect(error).toMatchObject({
      code: 'SCHEMA_MISMATCH',
      message: expect.stringContaining('got 3 values by position'),
    });
    expect(await invoke(runner, [[1, 2, 3, 4, 5]])).toMatchObject([{ code: 'SCHEMA_MISMATCH' }]);
  });

  test('a wrong type is shown with its value and the cast', async () => {
    const runner = await open(PENGUINS);
    const columns = Object.keys(ADELIE).map((name, at) => column(name, at === 1 ? [18.7, 'deep'] : [40, 40]));
    const error = thrownBy(() => predict(runner, columns, 2));
    expect(error.code).toBe('SCHEMA_MISMATCH');
    expect(error.message).toContain('"bill_depth_mm" is "deep"');
    expect(error.message).toContain('bill_depth_mm::DOUBLE');
    const mixed = await open(await writeMixed(await place()));
    const row = { amount: 1, count: 1.5, city: 'x', is_new: true, weight: 1 };
    expect(
      await invoke(mixed, [row, { ...row, count: 1, city: 5 }, { ...row, count: 1, is_new: 2 }]),
    ).toMatchObject([
      { message: expect.stringContaining('"count" is 1.5, which is no whole number') },
      { message: expect.stringContaining('"city" is 5, which is no VARCHAR') },
      { message: expect.stringContaining('"is_new" is 2, which is no BOOLEAN') },
    ]);
  });

  test('a NULL is refused by a model that would calculate with it, naming the column and the way out', async () => {
    const runner = await open(await writeScores(await place()));
    const columns = [column(null, new Float64Array([1, 2])), column(null, new Float64Array([1, 2]), [1])];
    const error = thrownBy(() => predict(runner, [...columns, column(null, [1, 2])], 2));
    expect(error.code).toBe('SCHEMA_MISMATCH');
    expect(error.message).toContain('"features_1" of model "demo" is NULL');
    expect(error.message).toContain('coalesce(features_1, ...)');
  });

  test('one bad row fails alone; its neighbours are answered', async () => {
    const runner = await open(PENGUINS);
    const { body_mass_g: _, ...incomplete } = ADELIE;
    const answers = await invoke(runner, [ADELIE, incomplete, { ...GENTOO, body_mass_g: 'heavy' }, GENTOO]);
    expect(answers).toMatchObject([
      'Adelie',
      { code: 'SCHEMA_MISMATCH' },
      { code: 'SCHEMA_MISMATCH' },
      'Gentoo',
    ]);
  });
});

describe('models that cannot be served', () => {
  test('a sequence that no ZipMap makes is refused, unless other outputs are named', async () => {
    const sequence = {
      name: 'parts',
      type: { sequenceType: { elemType: tensor('', 'float', []).type ?? {} } },
    };
    const path = await writeModel(await place(), {
      inputs: [tensor('x', 'float', ['N', 2])],
      outputs: [tensor('y', 'float', ['N', 2]), sequence],
      nodes: [node('Identity', ['x'], ['y']), node('SequenceConstruct', ['x'], ['parts'])],
    });
    const error = await expectCode('INVALID_PARAMETER', inspectTabularModel(path));
    expect(error.message).toContain('"parts" is a sequence or map');
    await sidecar(path, { outputs: [{ name: 'y', type: 'double' }] });
    expect(await invoke(await open(path), [[3, 1]])).toEqual([[3, 1]]);
  });

  test('a missing file and a file that is no model are MODEL_NOT_AVAILABLE', async () => {
    const path = await place();
    expect((await expectCode('MODEL_NOT_AVAILABLE', inspectTabularModel(path))).message).toContain(path);
    await writeFile(path, 'not a model');
    await expectCode('MODEL_NOT_AVAILABLE', open(path));
  });

  test('an input without a dimension for rows is refused', async () => {
    const path = await writeModel(await place(), {
      inputs: [tensor('x', 'float', [])],
      outputs: [tensor('y', 'float', [])],
      nodes: [node('Identity', ['x'], ['y'])],
    });
    expect((await expectCode('INVALID_PARAMETER', inspectTabularModel(path))).message).toContain(
      '[N] or [N, k]',
    );
  });
});
