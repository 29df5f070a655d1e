// What model directories, files and archives are told to be before they are registered, and which are refused: code
// that was not allowed, damaged and hostile files.
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import { inspectModel } from '#engines/inspect-model.ts';
import { ARCHIVE_LIMITS, unpackArchive } from '#engines/mlflow/archive.ts';
import { tarGzOf, zipOf } from './mlflow-archives.ts';

const PENGUINS = join(import.meta.dirname, '../../examples/penguins/penguins.onnx');
const hasPython = (() => {
  try {
    execFileSync('python3', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

const CONTEXT = { log: SILENT_LOG, notify: () => {} };

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'duckserve-inspect-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function write(files: Readonly<Record<string, string | Buffer>>): string {
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content);
  }
  return folder;
}

async function refusal(attempt: Promise<unknown>): Promise<ServingError> {
  const found = await attempt.then(
    (value) => new Error(`no refusal, but ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  if (found instanceof ServingError) return found;
  throw found;
}

const SKLEARN = `flavors:
  python_function: {loader_module: mlflow.sklearn, model_path: model.pkl, predict_fn: predict}
  sklearn: {pickled_model: model.pkl, serialization_format: cloudpickle, code: null}
signature:
  inputs: '[{"type": "double", "name": "x", "required": true}]'
  outputs: '[{"type": "double", "name": "y", "required": true}]'
`;

describe('a model that is a program', () => {
  it('is refused with what would be run and how to allow it', async () => {
    const error = await refusal(inspectModel(write({ MLmodel: SKLEARN, 'model.pkl': 'not read' })));
    expect(error.code).toBe('INVALID_PARAMETER');
    expect(error.message).toContain('the pickle "model.pkl", which can run any code');
    expect(error.message).toContain('packages that its requirements name');
    expect(error.message).toContain('--allow-code');
  });

  it.each([
    ['{loader_module: my_loader, code: code}', 'its own module "my_loader" as the loader'],
    [
      '{loader_module: mlflow.pyfunc.loaders.code_model, model_code_path: /home/x/agent.py}',
      'the Python file "agent.py"',
    ],
    ['{loader_module: mlflow.pyfunc.model, python_model: python_model.pkl}', 'the pickle "python_model.pkl"'],
    ['{loader_module: mlflow.sklearn, model_path: model.pkl, code: code}', 'the Python files in "code"'],
  ])('%s says what would be run', async (flavour, words) => {
    const error = await refusal(inspectModel(write({ MLmodel: `flavors: {python_function: ${flavour}}` })));
    expect(error.message).toContain(words);
  });

  it.runIf(hasPython)('is served by Python when that is allowed', async () => {
    const path = write({ MLmodel: SKLEARN, 'model.pkl': 'x' });
    expect(await inspectModel(path, { allowCode: true })).toEqual({
      engine: 'python',
      task: 'predict',
      flavour: 'python_function',
      mainFile: 'MLmodel',
      notes: [],
      options: { loaderModule: 'mlflow.sklearn' },
      signature: {
        inputs: [{ name: 'x', type: 'double', required: true }],
        outputs: [{ name: 'y', type: 'double', required: true }],
      },
    });
    expect(await inspectModel(join(path, 'MLmodel'), { allowCode: true })).toMatchObject({
      engine: 'python',
    });
  });

  it.runIf(hasPython).each([
    ['agent/v1/responses', 'responses'],
    ['agent/v2/chat', 'chat_agent'],
    ['agent/v1/chat', 'chat_model'],
  ])('whose metadata says %s is an agent', async (task, agent) => {
    const text = `flavors: {python_function: {loader_module: mlflow.pyfunc.loaders.code_model, model_code_path: a.py}}\nmetadata: {task: ${task}}`;
    expect(await inspectModel(write({ MLmodel: text }), { allowCode: true })).toMatchObject({
      engine: 'python',
      task: 'llm/v1/chat',
      options: { agent },
    });
  });

  it('is refused where the interpreter that is configured does not run, with what to set', async () => {
    const path = write({ MLmodel: SKLEARN, 'model.pkl': 'x' });
    const error = await refusal(
      inspectModel(path, { allowCode: true, context: { ...CONTEXT, python: join(folder, 'no-python') } }),
    );
    expect(error.code).toBe('MODEL_NOT_AVAILABLE');
    expect(error.message).toContain('DUCKSERVE_PYTHON');
  });

  it('in JavaScript is refused in the same way, and taken when that is allowed', async () => {
    const path = join(
      write({ 'agent.mjs': 'throw new Error("run");\nexport function predict() {}' }),
      'agent.mjs',
    );
    expect((await refusal(inspectModel(path))).message).toContain('--allow-code');
    expect(await inspectModel(path, { allowCode: true })).toMatchObject({
      engine: 'module',
      task: 'llm/v1/chat',
    });
  });

  it('as a bare pickle is never taken', async () => {
    for (const name of ['model.pkl', 'model.joblib', 'model.pt']) {
      const path = join(write({ [name]: 'x' }), name);
      expect((await refusal(inspectModel(path, { allowCode: true }))).message).toContain('can run any code');
    }
  });
});

describe('a model with several flavours', () => {
  const onnxAnd = (rest: string) => `flavors:
  onnx: {data: penguins.onnx, onnx_version: 1.16.0}
  python_function: {loader_module: mlflow.onnx, data: penguins.onnx}
${rest}`;

  it('is served without Python where one of them can be', async () => {
    const path = write({ MLmodel: onnxAnd(''), 'penguins.onnx': readFileSync(PENGUINS) });
    expect(await inspectModel(path)).toMatchObject({
      engine: 'onnx',
      task: 'predict',
      flavour: 'onnx',
      mainFile: 'penguins.onnx',
    });
  });

  it('that needs no Python is not converted, with a note', async () => {
    const path = write({ MLmodel: onnxAnd(''), 'penguins.onnx': readFileSync(PENGUINS) });
    const options = { convert: true, unpackInto: join(folder, 'into'), context: CONTEXT };
    expect((await inspectModel(path, options)).notes).toEqual([
      'it needs no Python, so nothing was converted',
    ]);
    expect(existsSync(join(folder, 'into'))).toBe(false);
  });

  it('is served by the engine that is asked for, when it has its flavour', async () => {
    const path = write({ MLmodel: onnxAnd(''), 'penguins.onnx': readFileSync(PENGUINS) });
    expect((await refusal(inspectModel(path, { engine: 'python' }))).message).toContain('--allow-code');
    expect((await refusal(inspectModel(path, { engine: 'trees' }))).message).toContain(
      'the engine trees serves none',
    );
  });

  it.each<[string, Record<string, string | Buffer>]>([
    ['cut off', { 'penguins.onnx': readFileSync(PENGUINS).subarray(0, 600) }],
    ['not there', {}],
    ['something else', { 'penguins.onnx': 'hello' }],
    ['empty', { 'penguins.onnx': '' }],
  ])('whose ONNX file is %s is refused, and the message names Python as a way out', async (_, files) => {
    const error = await refusal(inspectModel(write({ MLmodel: onnxAnd(''), ...files })));
    expect(['INVALID_PARAMETER', 'MODEL_NOT_AVAILABLE']).toContain(error.code);
    expect(error.message).toContain('penguins.onnx');
  });

  it('that nothing here serves is refused with what it has and what is served', async () => {
    const error = await refusal(inspectModel(write({ MLmodel: 'flavors: {spark: {}, mleap: {}}' })));
    expect(error.message).toContain(
      'has the flavours spark, mleap; served are onnx, xgboost, lightgbm and python_function',
    );
  });
});

describe('a file or folder', () => {
  it.each<[string, Record<string, string>, string]>([
    ['nothing', {}, 'no MLmodel'],
    ['notes.md', { 'notes.md': 'x' }, 'no MLmodel'],
  ])('with %s is refused with what can be given', async (_, files, words) => {
    const error = await refusal(inspectModel(write(files)));
    expect(error.message).toContain(words);
    expect(error.message).toContain('.tar.gz');
  });

  it.each(['python', 'trees', 'module'] as const)(
    'is not given to the engine %s when it is for another',
    async (engine) => {
      const path = join(write({ 'm.onnx': readFileSync(PENGUINS) }), 'm.onnx');
      const error = await refusal(inspectModel(path, { engine, allowCode: true }));
      expect(error.message).toContain(`is a model for the engine onnx, and ${engine} cannot run it`);
    },
  );

  it('of another kind is refused with what can be given', async () => {
    const path = join(write({ 'model.h5': 'x' }), 'model.h5');
    expect((await refusal(inspectModel(path))).message).toContain('an MLflow model directory');
    expect((await refusal(inspectModel(join(folder, 'none')))).message).toContain(
      'There is no file or folder',
    );
  });

  it('of GGUF that is cut off or something else is refused', async () => {
    const path = join(folder, 'm.gguf');
    for (const bytes of [Buffer.from('GGUF\u0003\0\0\0'), Buffer.from('<html>not found'), Buffer.alloc(0)]) {
      writeFileSync(path, bytes);
      const error = await refusal(inspectModel(path));
      expect(['INVALID_PARAMETER', 'MODEL_NOT_AVAILABLE']).toContain(error.code);
      expect(error.message).toContain('m.gguf');
    }
  });
});

describe('an archive', () => {
  const archived = async (name: string, bytes: Buffer, limits = ARCHIVE_LIMITS) => {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    const into = join(folder, 'into');
    rmSync(into, { recursive: true, force: true });
    mkdirSync(into);
    return await unpackArchive(path, into, limits);
  };

  it('of either kind gives the folder or file that is alone in it', async () => {
    const files = [
      { name: 'my_model/MLmodel', content: 'a' },
      { name: 'my_model/data/model.onnx', content: 'b' },
    ];
    for (const [name, bytes] of [
      ['m.zip', zipOf({ name: 'my_model/', mode: 0o40755 }, ...files)],
      ['m.tar.gz', tarGzOf({ name: 'my_model/', type: '5' }, ...files)],
      ['m.tgz', tarGzOf(...files)],
    ] as const) {
      const found = await archived(name, bytes);
      expect(found).toBe(join(folder, 'into', 'my_model'));
      expect(readFileSync(join(found, 'data', 'model.onnx'), 'utf8')).toBe('b');
    }
    const alone = await archived('m.zip', zipOf({ name: 'model.onnx', content: 'x' }));
    expect(alone).toBe(join(folder, 'into', 'model.onnx'));
    const flat = await archived('m.zip', zipOf({ name: 'MLmodel' }, { name: '__MACOSX/._x' }));
    expect(flat).toBe(join(folder, 'into'));
  });

  it.each(['../x', '/etc/x', 'a/../../x', 'a\\..\\x', 'C:/x', `a/${'b'.repeat(2_000)}`, 'a\nb'])(
    'with an entry named %j is refused, and nothing is written outside',
    async (name) => {
      for (const [archive, bytes] of [
        ['m.zip', zipOf({ name: 'MLmodel', content: 'a' }, { name, content: 'b' })],
        ...(name.length < 100
          ? [['m.tar.gz', tarGzOf({ name: 'MLmodel', content: 'a' }, { name, content: 'b' })] as const]
          : []),
      ] as const) {
        const error = await refusal(archived(archive, bytes));
        expect(error.code).toBe('INVALID_PARAMETER');
        expect(error.message).toContain(archive);
        expect(readdirSync(folder).filter((each) => !each.startsWith('m.'))).toEqual(['into']);
        expect(existsSync(join(folder, 'x'))).toBe(false);
      }
    },
  );

  it('with links or devices is refused', async () => {
    for (const bytes of [
      zipOf({ name: 'MLmodel', content: '/etc/passwd', mode: 0o120777 }),
      zipOf({ name: 'MLmodel', mode: 0o020666 }),
    ])
      expect((await refusal(archived('m.zip', bytes))).message).toContain('only files and folders');
    for (const type of ['1', '2', '3', '6'])
      expect(
        (await refusal(archived('m.tgz', tarGzOf({ name: 'MLmodel', type, link: '/etc/passwd' })))).message,
      ).toContain('only files and folders');
  });

  it('with the same name twice is refused', async () => {
    const twice = [
      { name: 'a', content: '1' },
      { name: 'a', content: '2' },
    ];
    for (const [name, bytes] of [
      ['m.zip', zipOf(...twice)],
      ['m.tgz', tarGzOf(...twice)],
    ] as const)
      expect((await refusal(archived(name, bytes))).code).toBe('INVALID_PARAMETER');
  });

  it('that unpacks to more than it may is stopped on the way', async () => {
    const zeros = Buffer.alloc(8_000_000);
    for (const [name, bytes] of [
      ['m.zip', zipOf({ name: 'a', content: zeros })],
      ['m.tgz', tarGzOf({ name: 'a', content: zeros })],
    ] as const) {
      const error = await refusal(archived(name, bytes, { ...ARCHIVE_LIMITS, maxBytes: 1_000_000 }));
      expect(error.message).toContain('more than 1000000 bytes; DUCKSERVE_MODEL_MAX_BYTES');
    }
  });

  it('that grows to many times its size is stopped on the way', async () => {
    const zeros = Buffer.alloc(3_000_000);
    for (const [name, bytes] of [
      ['m.zip', zipOf({ name: 'a', content: zeros })],
      ['m.tgz', tarGzOf({ name: 'a', content: zeros })],
    ] as const) {
      expect(await archived(name, bytes)).toBe(join(folder, 'into', 'a'));
      const limits = { ...ARCHIVE_LIMITS, ratioFromBytes: 1_000_000 };
      const error = await refusal(archived(name, bytes, limits));
      expect(error.message).toContain('more than 200 times its size');
    }
  });

  it('with more entries than it may have is refused', async () => {
    const many = Array.from({ length: 20 }, (_, index) => ({ name: `f${index}` }));
    for (const [name, bytes] of [
      ['m.zip', zipOf(...many)],
      ['m.tgz', tarGzOf(...many)],
    ] as const) {
      const error = await refusal(archived(name, bytes, { ...ARCHIVE_LIMITS, maxEntries: 10 }));
      expect(error.message).toContain('more than 10 entries');
    }
  });

  it('that lies about a size, is cut off, empty or no archive is refused', async () => {
    const zip = zipOf({ name: 'MLmodel', content: SKLEARN });
    const tar = tarGzOf({ name: 'MLmodel', content: SKLEARN });
    for (const [name, bytes] of [
      ['m.zip', zipOf({ name: 'MLmodel', content: SKLEARN, claimedSize: 5 })],
      ['m.zip', zip.subarray(0, zip.length - 30)],
      ['m.zip', Buffer.from('PK nothing')],
      ['m.zip', Buffer.alloc(0)],
      ['m.zip', zipOf()],
      ['m.tgz', tar.subarray(0, tar.length / 2)],
      ['m.tgz', Buffer.from('nothing')],
      ['m.tgz', Buffer.alloc(0)],
      ['m.tgz', tarGzOf()],
    ] as const) {
      const error = await refusal(archived(name, bytes));
      expect(error.code).toBe('INVALID_PARAMETER');
      expect(error.message).toContain(`The archive ${join(folder, name)} cannot be used`);
    }
  });

  it('is looked at like what is in it, and messages name the archive', async () => {
    const path = join(folder, 'm.zip');
    writeFileSync(path, zipOf({ name: 'm/MLmodel', content: SKLEARN }, { name: 'm/model.pkl' }));
    const error = await refusal(inspectModel(path, { unpackInto: join(folder, 'a') }));
    expect(error.message).toContain(`in ${path}/m is served by Python`);
    writeFileSync(path, zipOf({ name: 'penguins.onnx', content: readFileSync(PENGUINS) }));
    const into = join(folder, 'b');
    expect(await inspectModel(path, { unpackInto: into })).toMatchObject({
      engine: 'onnx',
      files: join(into, 'archive', 'penguins.onnx'),
    });
    writeFileSync(path, zipOf({ name: 'inner.zip', content: 'x' }));
    expect((await refusal(inspectModel(path, { unpackInto: join(folder, 'c') }))).message).toContain(
      'another archive',
    );
  });
});

describe('a directory with links', () => {
  it('that lead out of it is refused when the link is named by MLmodel', async () => {
    write({ MLmodel: SKLEARN });
    symlinkSync('/etc/hostname', join(folder, 'model.pkl'));
    expect((await refusal(inspectModel(folder, { allowCode: true }))).message).toContain(
      'a link that leads out',
    );
  });
});
