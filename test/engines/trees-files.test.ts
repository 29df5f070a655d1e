// What a file or directory of trees is taken for before it is registered, and what is said of files that are broken,
// hostile, or of another kind.
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { inspectTrees, loadTrees } from '#engines/trees/inspect.ts';
import { parseLightgbm } from '#engines/trees/lightgbm.ts';
import { Predictor } from '#engines/trees/predictor.ts';
import { parseUbjson } from '#engines/trees/ubjson.ts';
import { parseXgboost } from '#engines/trees/xgboost.ts';
import { expectCode } from './contract.ts';

const FIXTURES = fileURLToPath(new URL('./fixtures/trees/', import.meta.url));
let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duckserve-trees-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Flavor {
  readonly flavor: 'xgboost' | 'lightgbm';
  readonly data: string;
  readonly modelClass: string;
  readonly inputs?: readonly object[];
  readonly params?: readonly object[];
}

/** An MLflow directory around a fixture, as `log_model` writes it. */
async function mlflow(
  fixture: string,
  { flavor, data, modelClass, inputs, params }: Flavor,
): Promise<string> {
  const path = await mkdtemp(join(folder, 'model-'));
  await cp(join(FIXTURES, fixture), join(path, data));
  const signature =
    inputs === undefined
      ? ''
      : `signature:\n  inputs: '${JSON.stringify(inputs)}'\n  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]'\n  params: ${params === undefined ? 'null' : `'${JSON.stringify(params)}'`}\n`;
  await writeFile(
    join(path, 'MLmodel'),
    `flavors:\n  python_function:\n    data: ${data}\n    loader_module: mlflow.${flavor}\n  ${flavor}:\n    data: ${data}\n    model_class: ${modelClass}\n${signature}`,
  );
  return path;
}

const columns = ['w', 'x', 'y', 'z'].map((name) => ({ type: 'double', name, required: true }));

describe('inspection', () => {
  test('a file of a booster takes as many doubles as it has features and gives what predict gives', async () => {
    const found = await inspectTrees(join(FIXTURES, 'xgb-softprob.json'));
    expect(found).toMatchObject({ engine: 'trees', task: 'predict', mainFile: 'xgb-softprob.json' });
    expect(found?.signature?.inputs.map(({ name, type }) => `${name} ${type}`)).toEqual(
      ['f0', 'f1', 'f2', 'f3'].map((name) => `${name} double`),
    );
    expect(found?.signature?.outputs).toEqual([
      { name: 'prediction', type: 'float', required: true, width: 3 },
    ]);
  });

  test('a column whose categories are in the file is a text', async () => {
    for (const name of ['xgb-categories.json', 'lgb-pandas.txt']) {
      const found = await inspectTrees(join(FIXTURES, name));
      expect(found?.signature?.inputs.map((column) => `${column.name} ${column.type}`)).toEqual([
        'size double',
        'colour string',
        'number double',
      ]);
    }
  });

  test('a classifier that MLflow has logged gives classes, and its signature names the columns', async () => {
    const path = await mlflow('xgb-early-stop.ubj', {
      ...{ flavor: 'xgboost', data: 'model.xgb', modelClass: 'xgboost.sklearn.XGBClassifier' },
      inputs: columns,
    });
    const found = await inspectTrees(path);
    expect(found?.options).toMatchObject({ predicts: 'classes', usesBestIteration: true });
    expect(found?.mainFile).toBe('model.xgb');
    expect(found?.signature?.inputs.map(({ name }) => name)).toEqual(['w', 'x', 'y', 'z']);
    expect(found?.signature?.outputs).toEqual([{ name: 'prediction', type: 'long', required: true }]);
    expect(await inspectTrees(join(path, 'MLmodel'))).toEqual(found);
  });

  test('a booster that MLflow has logged gives probabilities of all its trees', async () => {
    const path = await mlflow('xgb-early-stop.ubj', {
      ...{ flavor: 'xgboost', data: 'model.ubj', modelClass: 'xgboost.core.Booster' },
    });
    const options = (await inspectTrees(path))?.options;
    expect(options).toMatchObject({ predicts: 'values' });
    expect(options).not.toHaveProperty('usesBestIteration');
  });

  test('a pickle of LightGBM is left to python, and never read', async () => {
    const path = await mlflow('lgb-binary.txt', {
      ...{ flavor: 'lightgbm', data: 'model.pkl', modelClass: 'lightgbm.sklearn.LGBMClassifier' },
    });
    expect(await inspectTrees(path)).toBeUndefined();
  });

  test('a directory that only its library can run is left to python; the bare file is refused with the way out', async () => {
    const text = await readFile(join(FIXTURES, 'xgb-dart.json'), 'utf8');
    const other = join(folder, 'other.json');
    await writeFile(other, text.replace('reg:squarederror', 'reg:brandnew'));
    const error = await expectCode('INVALID_PARAMETER', loadTrees(other));
    expect(error.message).toMatch(/reg:brandnew.*--engine python/);
    const path = await mlflow('xgb-dart.json', {
      ...{ flavor: 'xgboost', data: 'model.json', modelClass: 'xgboost.core.Booster' },
    });
    await cp(other, join(path, 'model.json'));
    expect(await inspectTrees(path)).toBeUndefined();
  });

  test('parameters of predict are left to python', async () => {
    const path = await mlflow('xgb-classifier.ubj', {
      ...{ flavor: 'xgboost', data: 'model.ubj', modelClass: 'xgboost.core.Booster' },
      inputs: columns,
      params: [{ name: 'output_margin', type: 'boolean', default: false, shape: null }],
    });
    expect(await inspectTrees(path)).toBeUndefined();
  });

  test('a signature that does not fit the trees is left to python, which knows why', async () => {
    const path = await mlflow('lgb-binary.txt', {
      ...{ flavor: 'lightgbm', data: 'model.lgb', modelClass: 'lightgbm.basic.Booster' },
      inputs: columns.slice(1),
    });
    expect(await inspectTrees(path)).toBeUndefined();
  });

  test('a folder with one model file is that model; other folders and files are none of ours', async () => {
    const path = await mkdtemp(join(folder, 'plain-'));
    expect(await inspectTrees(path)).toBeUndefined();
    await writeFile(join(path, 'config.json'), '{}');
    expect(await inspectTrees(path)).toBeUndefined();
    await cp(join(FIXTURES, 'lgb-binary.txt'), join(path, 'model.txt'));
    expect((await inspectTrees(path))?.mainFile).toBe('model.txt');
    await writeFile(join(folder, 'a.onnx'), 'x');
    expect(await inspectTrees(join(folder, 'a.onnx'))).toBeUndefined();
    expect(await inspectTrees(join(folder, 'absent.json'))).toBeUndefined();
  });
});

describe('files that cannot be used', () => {
  const refusals: [string, string, string | Uint8Array, RegExp][] = [
    ['an empty file', 'a.ubj', '', /is empty/],
    ['a pickle', 'a.bst', Uint8Array.of(0x80, 4, 0x95), /is a pickle.*not read here/],
    [
      'the old binary format of XGBoost',
      'a.bst',
      Uint8Array.of(0, 0, 0, 63, 4, 0),
      /binary format.*save it again/,
    ],
    ['any text', 'a.txt', 'hello', /no model of XGBoost.*none of LightGBM/],
    ['any JSON', 'a.json', '{"a": 1}', /no model of XGBoost.*`learner`/],
    ['half a JSON', 'a.json', '{"learner": {', /not whole JSON/],
    ['half a text of LightGBM', 'a.txt', 'tree\nversion=v4\n', /end of trees/],
  ];
  test.each(refusals)('%s is refused in words', async (_, name, content, words) => {
    const path = join(await mkdtemp(join(folder, 'bad-')), name);
    await writeFile(path, content);
    const error = await expectCode('INVALID_PARAMETER', inspectTrees(path));
    expect(error.message).toMatch(words);
  });

  test('a tree whose nodes go in a circle, or to a node that is not there, is refused', async () => {
    const text = await readFile(join(FIXTURES, 'xgb-squarederror.json'), 'utf8');
    const spoil = (value: string) =>
      parseXgboost(Buffer.from(text.replace(/"left_children":\[[^\]]*\]/, `"left_children":${value}`)));
    expect(() => spoil('[1,0,5,-1,-1,-1,-1]')).toThrow(/Tree 0 .* two parents/);
    expect(() => spoil('[1,99,5,-1,-1,-1,-1]')).toThrow(/Tree 0 .* no node 99/);
    expect(() => spoil('[1,3]')).toThrow(/has 7 values, not 2/);
  });

  test('a count that no model has takes no memory', async () => {
    const text = await readFile(join(FIXTURES, 'xgb-squarederror.json'), 'utf8');
    const spoil = (name: string) =>
      parseXgboost(Buffer.from(text.replace(new RegExp(`"${name}":"\\d"`, 'g'), `"${name}":"2000000000"`)));
    expect(() => spoil('num_feature')).toThrow(/num_feature/);
    expect(() => spoil('num_class')).toThrow(/num_class/);
    const typed = Buffer.from('[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff', 'latin1');
    expect(() => parseUbjson(typed)).toThrow(/UBJSON/);
    expect(() => parseUbjson(Buffer.from('[$Z#L\0\0\0\x7f\xff\xff\xff\xff', 'latin1'))).toThrow(/UBJSON/);
    expect(() => parseUbjson(Buffer.from('['.repeat(100_000)))).toThrow(/nested/);
  });

  test('a file cut off or with other bytes in it is a model or an INVALID_PARAMETER, never another failure', async () => {
    const names = ['xgb-dart.json', 'xgb-one-hot.ubj', 'lgb-pandas.txt', 'lgb-linear.txt'];
    const files = await Promise.all(names.map((name) => readFile(join(FIXTURES, name))));
    const wreck = fc.record({
      file: fc.nat({ max: files.length - 1 }),
      cut: fc.double({ min: 0, max: 1, noNaN: true }),
      isCut: fc.boolean(),
      changes: fc.array(
        fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 0, max: 255 })),
        {
          maxLength: 3,
        },
      ),
    });
    fc.assert(
      fc.property(wreck, ({ file, cut, isCut, changes }) => {
        const bytes = Buffer.from(files[file] ?? []);
        for (const [where, value] of changes) bytes[Math.floor(where * (bytes.length - 1))] = value;
        const part = isCut ? bytes.subarray(0, Math.floor(cut * bytes.length)) : bytes;
        try {
          const model = (file < 2 ? parseXgboost : parseLightgbm)(part);
          const features = model.features.map(() => Float64Array.of(0.5, Number.NaN));
          const predictor = new Predictor(model, { predicts: 'values', usesBestIteration: false });
          expect(predictor.predict(features, 2)).toHaveLength(2);
        } catch (error) {
          expect(error).toBeInstanceOf(ServingError);
          expect((error as ServingError).code).toBe('INVALID_PARAMETER');
        }
      }),
      { numRuns: 600 },
    );
  });
});
