// Conversion at registration, up to the border of Python: what is passed to the interpreter, what is made of its
// result, and why a model stays with Python. The interpreter here is a program that writes what the converter would;
// the converter itself is tested with the real libraries (test/models).
import { existsSync } from 'node:fs';
import { chmod, cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SILENT_LOG } from '#core/log.ts';
import { type Converted, convertForServing, type NotConverted } from '#engines/convert/convert.ts';
import { inspectModel } from '#engines/inspect-model.ts';
import { writeScores } from './tabular-models.ts';

const FIXTURES = fileURLToPath(new URL('./fixtures/trees/', import.meta.url));
const PENGUINS = fileURLToPath(new URL('../../examples/penguins/penguins.onnx', import.meta.url));
const CONTEXT = { log: SILENT_LOG, notify: () => {} };
const COLUMNS = ['bill_length_mm', 'bill_depth_mm', 'flipper_length_mm', 'body_mass_g'];

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duckserve-convert-test-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Model {
  readonly flavor?: string;
  readonly columns?: readonly string[];
  readonly params?: string;
  readonly requirements?: string;
}

async function write({ flavor = 'sklearn', columns = COLUMNS, params, requirements }: Model = {}) {
  const path = await mkdtemp(join(folder, 'model-'));
  const inputs = columns.map((name) => ({ type: 'double', name, required: true }));
  const outputs = [{ type: 'string', name: 'species', required: true }];
  const signature =
    columns.length === 0
      ? {}
      : {
          signature: {
            inputs: JSON.stringify(inputs),
            outputs: JSON.stringify(outputs),
            params: params ?? null,
          },
        };
  const flavors = {
    python_function: { loader_module: `mlflow.${flavor}` },
    [flavor]: { pickled_model: 'model.pkl', model_class: 'lightgbm.sklearn.LGBMClassifier' },
  };
  await writeFile(join(path, 'MLmodel'), JSON.stringify({ flavors, ...signature }));
  await writeFile(join(path, 'model.pkl'), 'never read here');
  if (requirements !== undefined) await writeFile(join(path, 'requirements.txt'), requirements);
  return path;
}

/** A program that says it is Python, and for the converter runs `body` with the arguments in `given`. */
async function interpreter(body: string): Promise<string> {
  const path = join(await mkdtemp(join(folder, 'python-')), 'python');
  const text = `#!${process.execPath}
const { writeFileSync, copyFileSync, readFileSync } = require('node:fs');
if (process.argv.includes('-c')) console.log(JSON.stringify(['3.11.0', process.argv[1]]));
else {
  const [script, model, result, signature] = process.argv.slice(2);
  const finish = (value) => writeFileSync(result + '/result.json', JSON.stringify(value));
  ${body}
}
`;
  await writeFile(path, text);
  await chmod(path, 0o755);
  return path;
}

function converted(result: Converted | NotConverted): Converted {
  if ('reason' in result) throw new Error(result.reason);
  return result;
}

const reasonOf = (result: Converted | NotConverted) =>
  'reason' in result ? result.reason : 'it was converted';

describe('what comes of a conversion', () => {
  test('an ONNX model whose signature keeps the names of the columns, in the folder that was named', async () => {
    const python = await interpreter(`
      const { inputs } = JSON.parse(readFileSync(signature, 'utf8'));
      copyFileSync(${JSON.stringify(PENGUINS)}, result + '/model.onnx');
      finish({ ok: true, kind: 'onnx', outputType: 'string', unused: [], notes: ['equal on ' + inputs.length + ' columns'] });`);
    const into = join(folder, 'made');
    const result = converted(await convertForServing(await write(), CONTEXT, { python, into }));
    expect(result).toEqual({ folder: into, notes: ['equal on 4 columns'] });
    expect((await readdir(into)).sort()).toEqual(['model.onnx', 'signature.json']);
    const signature = JSON.parse(await readFile(join(into, 'signature.json'), 'utf8'));
    expect(signature.outputs).toEqual([{ name: 'species', type: 'string', required: true }]);
    expect(signature.inputs.map(({ name }: { name: string }) => name)).toEqual(COLUMNS);
  });

  test('a text of LightGBM with the classes that were in the pickle only', async () => {
    const python = await interpreter(`
      copyFileSync(${JSON.stringify(join(FIXTURES, 'lgb-binary.txt'))}, result + '/model.txt');
      finish({ ok: true, kind: 'lightgbm', classes: ['no', 'yes'], notes: [] });`);
    const path = await write({ flavor: 'lightgbm', columns: ['a', 'b', 'c', 'd'] });
    const result = converted(await convertForServing(path, CONTEXT, { python }));
    const found = await inspectModel(result.folder);
    expect(found).toMatchObject({ engine: 'trees', mainFile: 'model.txt' });
    expect(found.options).toMatchObject({ predicts: 'classes', labels: ['no', 'yes'] });
    expect(found.signature?.inputs.map(({ name }) => name)).toEqual(['a', 'b', 'c', 'd']);
    expect(found.signature?.outputs[0]?.type).toBe('string');
    await rm(result.folder, { recursive: true });
  });
});

describe('a model stays with Python, and nothing is left behind,', () => {
  const stays = async (model: Model, body: string, timeoutMs?: number) => {
    const into = join(await mkdtemp(join(folder, 'into-')), 'made');
    const python = await interpreter(body);
    const limits = timeoutMs === undefined ? {} : { timeoutMs };
    const result = await convertForServing(await write(model), CONTEXT, { python, into, ...limits });
    expect(existsSync(into)).toBe(false);
    return reasonOf(result);
  };

  test('when the converter says why', async () => {
    const reason = await stays({}, "finish({ ok: false, reason: 'no converter is known' })");
    expect(reason).toBe('no converter is known');
  });

  test('when it takes missing values, and its ONNX form would refuse them', async () => {
    const linear = await writeScores(join(folder, 'linear.onnx'), 'N', COLUMNS.length - 1);
    const make = (needsMissing: boolean) => `
      copyFileSync(${JSON.stringify(linear)}, result + '/model.onnx');
      finish({ ok: true, kind: 'onnx', outputType: 'float', unused: [], needsMissing: ${needsMissing}, notes: [] });`;
    const model = { columns: COLUMNS.slice(1) };
    expect(await stays(model, make(true))).toMatch(/may be missing/);
    const python = await interpreter(make(false));
    const kept = converted(await convertForServing(await write(model), CONTEXT, { python }));
    await rm(kept.folder, { recursive: true });
  });

  test('when what the converter made is no model', async () => {
    const made =
      "writeFileSync(result + '/model.onnx', 'half'); finish({ ok: true, kind: 'onnx', outputType: 'string', notes: [] })";
    expect(await stays({}, made)).toMatch(/model\.onnx|ONNX/);
  });

  test('when the converter crashes, and what it printed is not in the reason', async () => {
    const reason = await stays({}, "console.error('secret row'); process.exit(3)");
    expect(reason).toMatch(/ended without a result/);
    expect(reason).not.toContain('secret');
  });

  test('when the converter does not end', async () => {
    expect(await stays({}, 'setInterval(() => {}, 1000)', 300)).toMatch(/longer than 0.3 s/);
  });

  test('when it is another library, has no signature, or takes parameters', async () => {
    expect(await stays({ flavor: 'pytorch' }, '')).toMatch(/only scikit-learn and LightGBM.*pytorch/);
    expect(await stays({ columns: [] }, '')).toMatch(/no signature/);
    const params = JSON.stringify([{ name: 'depth', type: 'long', default: 1, shape: null }]);
    expect(await stays({ params }, '')).toMatch(/takes parameters \(depth\)/);
  });
});

test('a folder without MLmodel, requirements of its own files and an interpreter that is none are reasons', async () => {
  const empty = await mkdtemp(join(folder, 'empty-'));
  expect(reasonOf(await convertForServing(empty, CONTEXT))).toMatch(/no MLflow model directory/);
  const local = await write({ requirements: 'numpy\n./code/mine.whl\n' });
  expect(reasonOf(await convertForServing(local, CONTEXT))).toMatch(/"\.\/code\/mine\.whl"/);
  const absent = { ...CONTEXT, python: join(folder, 'no-python') };
  expect(reasonOf(await convertForServing(await write(), absent))).toMatch(/DUCKSERVE_PYTHON/);
});

test('the model itself is not changed', async () => {
  const path = await write();
  const before = join(folder, 'before');
  await cp(path, before, { recursive: true });
  await convertForServing(path, CONTEXT, { python: await interpreter('process.exit(1)') });
  expect((await readdir(path)).sort()).toEqual((await readdir(before)).sort());
});
