// The trees engine as serving and DuckDB see it: rows by name and by position, NULL, categories, wrong values, and
// the same answers through both ways in.
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { FeatureInput } from '#core/call.ts';
import type { ModelVersion, SignatureColumn, Target } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { EngineContext, FeatureColumn, RunItem, Runner } from '#engines/engine.ts';
import { inspectTrees } from '#engines/trees/inspect.ts';
import { treesEngine } from '#engines/trees/trees.ts';
import { describeEngine, expectCode } from './contract.ts';

const FIXTURES = fileURLToPath(new URL('./fixtures/trees/', import.meta.url));
const CONTEXT: EngineContext = {
  log: SILENT_LOG,
  modelCacheDir: '/nowhere',
  resolveSecret: (reference) => reference,
  allowDownload: () => false,
  notify: () => {},
};

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duckserve-trees-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function open(fixture: string, changes: Partial<ModelVersion> = {}): Promise<Runner> {
  const source = join(FIXTURES, fixture);
  const found = await inspectTrees(source);
  if (found?.signature === undefined) throw new Error(`${fixture} is no model`);
  const modelVersion: ModelVersion = {
    ...{ model: 'demo', version: '1', engine: 'trees', task: 'predict', source, sha256: '', sizeBytes: 0 },
    ...{ signature: found.signature, options: found.options, createdAtMs: 0 },
    ...changes,
  };
  const names = { endpoint: 'demo', servedEntity: 'demo-1', model: 'demo', fingerprint: 'f' };
  const target: Target = { ...names, engine: 'trees', task: 'predict', modelVersion };
  return treesEngine.open(target, CONTEXT);
}

async function ask(runner: Runner, rows: readonly FeatureInput['features'][], extra?: JsonObject) {
  const { items } = await runner.invoke({
    task: 'predict',
    inputs: rows.map((features) => ({ features })),
    parameters: extra === undefined ? {} : { extra },
    signal: new AbortController().signal,
  });
  return items.map(told);
}

function told(item: RunItem): unknown {
  if (!item.ok) return item.error.message;
  return 'prediction' in item.output ? item.output.prediction : undefined;
}

const column = (name: string | null, values: FeatureColumn['values'], nulls: readonly number[] = []) => ({
  name,
  values,
  isNull: nulls.length === 0 ? null : Uint8Array.from(values, (_, row) => Number(nulls.includes(row))),
});

function chunk(runner: Runner, columns: readonly FeatureColumn[], rowCount: number): unknown[] {
  const [only] = runner.local?.predictColumns?.(columns, rowCount) ?? [];
  return Array.from({ length: rowCount }, (_, row) => only?.values[row]);
}

describeEngine('trees', {
  task: 'predict',
  open: () => open('xgb-softprob.json'),
  inputs: [{ features: [0.1, 0.2, 0.3, 1] }, { features: [2, -2, 0, -1] }, { features: [null, 1, null, 0] }],
});

describe('features', () => {
  test('come by name in any order and case, by position, or as the row of a tensor: the same answers', async () => {
    const runner = await open('lgb-pandas.txt');
    const named = { number: 1, colour: 'red', size: 0.5, more: 'is passed over' };
    const [first, ...others] = await ask(runner, [
      named,
      { SIZE: 0.5, Colour: 'red', NUMBER: 1 },
      [0.5, 'red', 1],
      [[0.5, 'red', 1]],
    ]);
    expect(first).toBeTypeOf('number');
    expect(others).toEqual([first, first, first]);
  });

  test('give the same answers through a chunk of DuckDB as through a request', async () => {
    const runner = await open('xgb-categories.json');
    const colours = ['red', 'green', 'blue', 'pink'];
    const rows = Array.from({ length: 40 }, (_, row) => [
      row % 7 === 0 ? null : row / 10 - 2,
      row % 5 === 0 ? null : (colours[row % 4] ?? null),
      row % 3,
    ]);
    const nulls = (at: number) => rows.flatMap((row, index) => (row[at] === null ? [index] : []));
    const columns = [
      column(
        'number',
        Float64Array.from(rows, (row) => Number(row[2])),
      ),
      column(
        'size',
        Float64Array.from(rows, (row) => Number(row[0])),
        nulls(0),
      ),
      column(
        'colour',
        rows.map((row) => row[1] ?? null),
        nulls(1),
      ),
    ];
    const expected = await ask(runner, rows);
    expect(new Set(expected).size).toBeGreaterThan(3);
    expect(chunk(runner, columns, rows.length)).toEqual(expected);
  });

  test('NULL is missing, and one that is optional may be left out', async () => {
    const runner = await open('xgb-squarederror.json');
    const inputs = runner.signature?.inputs.map((input) => ({ ...input, required: false })) ?? [];
    const optional = await open('xgb-squarederror.json', { signature: { inputs, outputs: [] } });
    const [missing] = await ask(runner, [[null, 0.2, 0.3, 1]]);
    const [zero] = await ask(runner, [[0, 0.2, 0.3, 1]]);
    expect(missing).not.toEqual(zero);
    const rest = { f1: 0.2, f2: 0.3, f3: 1 };
    expect(await ask(optional, [rest])).toEqual([missing]);
    expect(
      chunk(
        optional,
        Object.entries(rest).map(([name, value]) => column(name, Float64Array.of(value))),
        1,
      ),
    ).toEqual([missing]);
  });

  test('that do not fit fail alone, in words that name the column and show the value', async () => {
    const runner = await open('xgb-categories.json');
    const [good, text, colour, few] = await ask(runner, [
      [1, 'red', 2],
      ['large', 'red', 2],
      [1, 'mauve', 2],
      [1, 'red'],
    ]);
    expect(good).toBeTypeOf('number');
    expect(text).toMatch(/"size" is "large", which is no DOUBLE/);
    expect(colour).toMatch(/"colour" is "mauve", which is none of the 5 categories.*"red", "green"/);
    expect(few).toMatch(/got 2 values by position/);
  });

  test('that do not fit in a chunk of DuckDB are refused with SCHEMA_MISMATCH', async () => {
    const runner = await open('xgb-squarederror.json');
    const good = ['f0', 'f1', 'f2', 'f3'].map((name) => column(name, Float64Array.of(1)));
    const refuse = async (columns: readonly FeatureColumn[]) =>
      (await expectCode('SCHEMA_MISMATCH', (async () => chunk(runner, columns, 1))())).message;
    expect(chunk(runner, good, 1)).toHaveLength(1);
    expect(await refuse(good.slice(1))).toMatch(/"f0" is missing \(given: f1, f2, f3\)/);
    expect(await refuse([column('f0', ['x']), ...good.slice(1)])).toMatch(/"f0" is "x", which is no DOUBLE/);
    expect(await refuse(good.slice(1).map((each) => ({ ...each, name: null })))).toMatch(
      /got 3 values by position/,
    );
  });

  test('of whole numbers take no fraction and no NULL, as in MLflow', async () => {
    const inputs = ['f0', 'f1', 'f2', 'f3'].map(
      (name): SignatureColumn => ({ name, type: 'long', required: true }),
    );
    const runner = await open('xgb-squarederror.json', { signature: { inputs, outputs: [] } });
    const answers = await ask(runner, [
      [1, 2, 3, 4],
      [1, 2.5, 3, 4],
      [1, 2, null, 4],
    ]);
    expect(answers[0]).toBeTypeOf('number');
    expect(answers[1]).toMatch(/"f1" is 2.5/);
    expect(answers[2]).toMatch(/"f2".* is NULL.*doubles/);
    const whole = ['f0', 'f1', 'f2'].map((name) => column(name, Float64Array.of(1)));
    expect(() => chunk(runner, [...whole, column('f3', Float64Array.of(0.5))], 1)).toThrow(/"f3" is 0.5/);
    expect(() => chunk(runner, [...whole, column('f3', Float64Array.of(0), [0])], 1)).toThrow(
      /"f3".* is NULL/,
    );
  });

  test('a category that LightGBM has not seen is a missing one, as in the library', async () => {
    const runner = await open('lgb-pandas.txt');
    const [strange, missing] = await ask(runner, [
      [0.5, 'mauve', 1],
      [0.5, null, 1],
    ]);
    expect(strange).toBeTypeOf('number');
    expect(strange).toEqual(missing);
  });
});

describe('what comes out', () => {
  test('is a list for a model with several outputs, and a class where that is asked for', async () => {
    const row = [0.1, 0.2, 0.3, 1];
    const [list] = await ask(await open('xgb-softprob.json'), [row]);
    expect(list).toHaveLength(3);
    const [byClass] = await ask(await open('xgb-softprob.json', { options: { predicts: 'classes' } }), [row]);
    const probabilities = list as number[];
    expect(byClass).toBe(probabilities.indexOf(Math.max(...probabilities)));
    const labelled = { predicts: 'classes', labels: ['low', 'mid', 'high'] };
    const runner = await open('xgb-softprob.json', { options: labelled });
    expect(await ask(runner, [row])).toEqual([labelled.labels[byClass as number]]);
    expect(runner.signature?.outputs[0]).toMatchObject({ name: 'prediction', type: 'string' });
  });

  test('an option that does not exist is refused with those that do', async () => {
    const error = await expectCode(
      'INVALID_PARAMETER',
      open('xgb-softprob.json', { options: { predicts: 'colours' } }),
    );
    expect(error.message).toMatch(/"colours"; it must be one of values, classes, raw/);
  });

  test('infinity is null, as JSON has none', async () => {
    const runner = await open('xgb-linear.json', { options: { predicts: 'raw' } });
    expect(await ask(runner, [[1e300, 0, 0, 0]])).toEqual([null]);
  });
});

test('a model whose file has gone says so', async () => {
  const source = join(folder, 'gone.json');
  await cp(join(FIXTURES, 'xgb-squarederror.json'), source);
  await rm(source);
  await expectCode('MODEL_NOT_AVAILABLE', open('xgb-squarederror.json', { source }));
});
