// The MLmodel file: what is read out of those that MLflow writes, and what is said of those that somebody else wrote.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { parseMlModel, readMlModel, toSignature } from '#engines/mlflow/mlmodel.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'duckserve-mlmodel-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const PYFUNC = 'flavors:\n  python_function:\n    loader_module: mlflow.sklearn\n';
const parse = (text: string) => parseMlModel(text, '/models/m');
const signed = (signature: Record<string, unknown>) =>
  parse(
    `${PYFUNC}signature:\n${Object.entries(signature)
      .map(([name, value]) => `  ${name}: '${JSON.stringify(value).replaceAll("'", "''")}'\n`)
      .join('')}`,
  );

function refusal(attempt: () => unknown): ServingError {
  try {
    attempt();
  } catch (error) {
    if (error instanceof ServingError) return error;
    throw error;
  }
  throw new Error('expected a refusal');
}

async function readRefusal(text: string): Promise<ServingError> {
  writeFileSync(join(folder, 'MLmodel'), text);
  const found = await readMlModel(folder).catch((error: unknown) => error);
  if (found instanceof ServingError) return found;
  throw new Error('expected a refusal');
}

describe('an MLmodel', () => {
  it('as MLflow writes it gives flavours, signature, input example and metadata', () => {
    const model = parse(`artifact_path: model
flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.sklearn
    model_path: model.pkl
  sklearn:
    code: null
    pickled_model: model.pkl
metadata:
  task: agent/v1/responses
mlflow_version: 3.17.2
model_size_bytes: 2239
saved_input_example_info:
  artifact_path: input_example.json
  pandas_orient: split
  type: dataframe
signature:
  inputs: '[{"type": "double", "name": "sepal_length", "required": true}, {"type":
    "string", "name": "it''s", "required": false}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "str", "shape": [-1]}}]'
  params: null
utc_time_created: '2026-01-01 00:00:00.000000'
`);
    expect(Object.keys(model.flavors)).toEqual(['python_function', 'sklearn']);
    expect(model.flavors.sklearn).toEqual({ code: null, pickled_model: 'model.pkl' });
    expect(model.mlflowVersion).toBe('3.17.2');
    expect(model.metadata).toEqual({ task: 'agent/v1/responses' });
    expect(model.inputExample).toMatchObject({ artifactPath: 'input_example.json', type: 'dataframe' });
    expect(toSignature(model)).toEqual({
      inputs: [
        { name: 'sepal_length', type: 'double', required: true },
        { name: "it's", type: 'string', required: false },
      ],
      outputs: [
        {
          name: 'prediction',
          isUnnamed: true,
          type: 'string',
          required: true,
          shape: [],
          spec: { dtype: 'str', shape: [-1] },
        },
      ],
    });
  });

  it('without a signature has none', () => {
    expect(toSignature(parse(PYFUNC))).toBeUndefined();
  });

  it('may count its columns instead of naming them', () => {
    const model = signed({ inputs: [{ type: 'double' }, { type: 'long' }], outputs: [{ type: 'string' }] });
    expect(toSignature(model)).toEqual({
      inputs: [
        { name: 'input_0', type: 'double', required: true, isUnnamed: true },
        { name: 'input_1', type: 'long', required: true, isUnnamed: true },
      ],
      outputs: [{ name: 'prediction', type: 'string', required: true, isUnnamed: true }],
    });
  });

  it('may have tensors: rows are not part of their shape', () => {
    const tensor = (dtype: string, shape: number[], name?: string) => ({
      type: 'tensor',
      'tensor-spec': { dtype, shape },
      ...(name === undefined ? {} : { name }),
    });
    const model = signed({
      inputs: [tensor('uint8', [-1, 28, 28], 'image'), tensor('int64', [-1], 'length')],
      outputs: [tensor('float32', [-1, 10])],
    });
    expect(toSignature(model)).toMatchObject({
      inputs: [
        { name: 'image', type: 'integer', shape: [28, 28] },
        { name: 'length', type: 'long', shape: [] },
      ],
      outputs: [{ type: 'float', shape: [10], width: 10 }],
    });
  });

  it('may have nested types and parameters', () => {
    const items = { type: 'object', properties: { a: { type: 'string', required: false } } };
    const model = signed({
      inputs: [
        { type: 'array', items, name: 'list' },
        { type: 'map', values: { type: 'any' }, name: 'map', required: false },
      ],
      params: [
        { name: 'top_k', type: 'long', default: 5, shape: null },
        { name: 'stop', type: 'string', default: ['.'], shape: [-1] },
      ],
    });
    expect(toSignature(model)).toEqual({
      inputs: [
        { name: 'list', type: 'json', required: true, spec: { type: 'array', items } },
        { name: 'map', type: 'json', required: false, spec: { type: 'map', values: { type: 'any' } } },
      ],
      outputs: [],
      params: [
        { name: 'top_k', type: 'long', default: 5 },
        { name: 'stop', type: 'string', default: ['.'], isList: true },
      ],
    });
  });

  it.each<[string, string, string]>([
    ['no YAML', 'flavors: [', 'cannot be used'],
    ['a list', '- a', 'not a mapping'],
    ['empty', '', 'it is null'],
    ['without flavours', 'artifact_path: model', '`flavors` is missing'],
    ['with a flavour that is a text', 'flavors:\n  onnx: model.onnx', 'flavour `onnx` is "model.onnx"'],
    ['with an object to build', 'flavors: !!python/object/apply:os.system ["id"]', 'Unresolved tag'],
    ['with a tag of its own', 'flavors: {onnx: !exec {data: x}}', 'Unresolved tag'],
    ['with a name twice', 'flavors: {onnx: {}, onnx: {}}', 'unique'],
    ['with two documents', 'flavors: {onnx: {}}\n---\nflavors: {onnx: {}}', 'multiple documents'],
    ['nested without end', `flavors: ${'['.repeat(20_000)}`, 'nested too deep'],
    ['of bytes', '\u0000\u0001', 'cannot be used'],
  ])('%s is refused', (_, text, words) => {
    const error = refusal(() => parse(text));
    expect(error.code).toBe('INVALID_PARAMETER');
    expect(error.message).toContain('/models/m/MLmodel');
    expect(error.message).toContain(words);
  });

  it('whose aliases would grow without end is refused', () => {
    const lines = Array.from({ length: 12 }, (_, index) =>
      index === 0
        ? 'a0: &a0 [x, x, x, x, x, x, x, x, x, x]'
        : `a${index}: &a${index} [${Array(10)
            .fill(`*a${index - 1}`)
            .join(', ')}]`,
    );
    expect(refusal(() => parse(`${lines.join('\n')}\n${PYFUNC}`)).message).toContain('alias');
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['columns that are no list', { inputs: { a: 1 } }, '`signature.inputs` is {"a":1}, not a list'],
    [
      'an unknown type',
      { inputs: [{ name: 'a', type: 'decimal' }] },
      'the type in `signature.inputs[0]` is "decimal"',
    ],
    ['a name that is no text', { inputs: [{ name: {}, type: 'long' }] }, 'not a text'],
    [
      'a name twice',
      {
        inputs: [
          { name: 'a', type: 'long' },
          { name: 'a', type: 'long' },
        ],
      },
      'names "a" twice',
    ],
    ['some names', { inputs: [{ name: 'a', type: 'long' }, { type: 'long' }] }, 'and others not'],
    ['a tensor without spec', { inputs: [{ type: 'tensor' }] }, 'no `tensor-spec`'],
    [
      'a dtype of no engine',
      { inputs: [{ type: 'tensor', 'tensor-spec': { dtype: 'complex64', shape: [-1] } }] },
      '"complex64"',
    ],
    [
      'a shape that is none',
      { outputs: [{ type: 'tensor', 'tensor-spec': { dtype: 'int64', shape: [-2] } }] },
      'list of sizes',
    ],
    [
      'columns and tensors',
      { inputs: [{ type: 'long' }, { type: 'tensor', 'tensor-spec': { dtype: 'int64', shape: [-1] } }] },
      'mixes columns and tensors',
    ],
    [
      'an array of nothing',
      { inputs: [{ name: 'a', type: 'array' }] },
      '`signature.inputs[0].items` is missing',
    ],
    ['an object without members', { inputs: [{ name: 'a', type: 'object' }] }, '.properties` is missing'],
    ['a parameter of bytes', { params: [{ name: 'p', type: 'binary' }] }, '"binary"'],
  ])('with %s in its signature is refused', (_, signature, words) => {
    expect(refusal(() => signed(signature)).message).toContain(words);
  });

  it('with a signature nested without end, or that is no JSON, is refused', () => {
    const deep = `[${'{"type":"array","items":'.repeat(100)}{"type":"long"}${'}'.repeat(100)}]`;
    expect(refusal(() => parse(`${PYFUNC}signature:\n  inputs: '${deep}'\n`)).message).toContain('32 deep');
    expect(refusal(() => parse(`${PYFUNC}signature:\n  inputs: '[{'\n`)).message).toContain('is no JSON');
    const endless = `${PYFUNC}signature:\n  inputs: '${'[1,'.repeat(100_000)}'\n`;
    expect(refusal(() => parse(endless)).message).toContain('is no JSON');
  });

  it('that is any text is read or refused in words, and nothing else happens', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.json()), (text) => {
        for (const whole of [text, `flavors:\n  x: ${text}`, `${PYFUNC}signature:\n  inputs: ${text}`]) {
          try {
            toSignature(parse(whole));
          } catch (error) {
            expect(error).toBeInstanceOf(ServingError);
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('an MLmodel in a folder', () => {
  it('is absent where there is none', async () => {
    expect(await readMlModel(folder)).toBeUndefined();
    expect(await readMlModel(join(folder, 'nowhere'))).toBeUndefined();
  });

  it('is read', async () => {
    writeFileSync(join(folder, 'MLmodel'), PYFUNC);
    expect((await readMlModel(folder))?.flavors).toEqual({
      python_function: { loader_module: 'mlflow.sklearn' },
    });
  });

  it('that is too large, or a folder, is refused', async () => {
    expect((await readRefusal(`${PYFUNC}#${'x'.repeat(3_000_000)}`)).message).toContain('are read at most');
    rmSync(join(folder, 'MLmodel'));
    mkdirSync(join(folder, 'MLmodel'));
    await expect(readMlModel(folder)).rejects.toThrow('it is not a file');
  });

  it.each([
    ['data: ../../etc/passwd', 'flavors.python_function.data', '../../etc/passwd'],
    ['data: /etc/passwd', 'flavors.python_function.data', '/etc/passwd'],
    ['model_path: a/../../b', 'flavors.python_function.model_path', 'a/../../b'],
    ['pickled_model: C:\\models\\x', 'flavors.python_function.pickled_model', 'C:\\\\models\\\\x'],
    ['code: ..', 'flavors.python_function.code', '".."'],
    ['env: {conda: ../conda.yaml}', 'flavors.python_function.env.conda', '../conda.yaml'],
    ['artifacts: {a: {path: ../secret}}', 'flavors.python_function.artifacts.a', '../secret'],
    ['data: "a\\0b"', 'flavors.python_function.data', 'a\\u0000b'],
  ])('that says %s is refused with the member and the path', async (line, member, path) => {
    const error = await readRefusal(`flavors:\n  python_function:\n    ${line}\n`);
    expect(error.code).toBe('INVALID_PARAMETER');
    expect(error.message).toContain(member);
    expect(error.message).toContain(path);
  });

  it('whose input example lies outside is refused', async () => {
    const error = await readRefusal(`${PYFUNC}saved_input_example_info: {artifact_path: ../x, type: a}\n`);
    expect(error.message).toContain('saved_input_example_info.artifact_path: "../x"');
  });

  it('whose data is a link that leads out is refused, one that stays inside is not', async () => {
    const outside = mkdtempSync(join(tmpdir(), 'duckserve-outside-'));
    writeFileSync(join(outside, 'secret'), 'x');
    symlinkSync(join(outside, 'secret'), join(folder, 'model.onnx'));
    const text = 'flavors:\n  onnx:\n    data: model.onnx\n';
    expect((await readRefusal(text)).message).toContain('a link that leads out');
    rmSync(join(folder, 'model.onnx'));
    writeFileSync(join(folder, 'real.onnx'), 'x');
    symlinkSync('real.onnx', join(folder, 'model.onnx'));
    expect(await readMlModel(folder)).toBeDefined();
    rmSync(outside, { recursive: true });
  });

  it('that is itself a link out of the directory is refused, and nothing of its target is shown', async () => {
    symlinkSync('/etc/passwd', join(folder, 'MLmodel'));
    await expect(readMlModel(folder)).rejects.toThrow(
      `${join(folder, 'MLmodel')} cannot be used: it is a link that leads out of the directory of the model.`,
    );
  });

  it('may say where files once came from: of that only the last part counts', async () => {
    writeFileSync(
      join(folder, 'MLmodel'),
      `flavors:
  python_function:
    loader_module: mlflow.pyfunc.loaders.code_model
    model_code_path: /home/somebody/agent.py
    artifacts: {points: {path: artifacts/points.npy, uri: /home/somebody/points.npy}}
`,
    );
    expect(await readMlModel(folder)).toBeDefined();
  });
});
