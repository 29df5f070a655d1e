// MLflow directories and archives as registered models: what is copied, what makes two of them the same, and that a
// refused one leaves nothing behind.
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { ModelInspection } from '#core/endpoint.ts';
import { SILENT_LOG } from '#core/log.ts';
import { inspectModel } from '#engines/inspect-model.ts';
import type { InspectRequest } from '#registry/models.ts';
import { openRegistry, type Registry } from '#registry/registry.ts';
import { packageRoot } from '#storage/package-root.ts';
import { DuckDbRegistryStore } from '#storage/registry-store.ts';
import { tarGzOf, zipOf } from '../engines/mlflow-archives.ts';
import { database, directory, expectRefusal, refusal } from './fixture.ts';

const PENGUINS = readFileSync(join(packageRoot(), 'examples', 'penguins', 'penguins.onnx'));
const MLMODEL = `flavors:
  onnx: {data: model.onnx}
  python_function: {loader_module: mlflow.onnx, data: model.onnx}
`;

let registry: Registry;
let asked: InspectRequest | undefined;

beforeEach(async () => {
  asked = undefined;
  registry = await openRegistry({
    store: new DuckDbRegistryStore(database.system),
    artifactsDir: join(directory, 'artifacts'),
    clock: SYSTEM_CLOCK,
    inspectModel: (path, request) => {
      asked = request;
      return inspectModel(path, { ...request, maxBytes: 10_000_000 });
    },
    log: SILENT_LOG,
  });
});

function modelFolder(name: string, files: Record<string, string | Buffer> = {}): string {
  const folder = join(directory, name);
  const all: Record<string, string | Buffer> = { MLmodel: MLMODEL, 'model.onnx': PENGUINS, ...files };
  for (const [file, content] of Object.entries(all)) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), content);
  }
  return folder;
}

const artifacts = () => {
  const folder = join(directory, 'artifacts');
  return existsSync(folder) ? readdirSync(folder) : [];
};

describe('an MLflow directory', () => {
  it('is copied whole, hidden files included, and its engine opens the file that its flavour names', async () => {
    const folder = modelFolder('model', { 'requirements.txt': 'onnx', 'data/a.bin': 'x', '.hidden/b': 'y' });
    const version = await registry.registerModel('m', folder);
    expect(version).toMatchObject({ engine: 'onnx', task: 'predict' });
    expect(basename(version.source)).toBe('model.onnx');
    rmSync(folder, { recursive: true });
    const copy = dirname(version.source);
    expect(readdirSync(copy).sort()).toEqual([
      '.hidden',
      'MLmodel',
      'data',
      'model.onnx',
      'requirements.txt',
    ]);
    expect(readFileSync(join(copy, 'data', 'a.bin'), 'utf8')).toBe('x');
  });

  it('may be given by its MLmodel', async () => {
    const version = await registry.registerModel('m', join(modelFolder('model'), 'MLmodel'));
    expect(readdirSync(dirname(version.source)).sort()).toEqual(['MLmodel', 'model.onnx']);
  });

  it('is another model when any of its files is another, not only the main one', async () => {
    const first = await registry.registerModel('m', modelFolder('one', { 'code/a.py': '1' }));
    const same = await registry.registerModel('m', modelFolder('two', { 'code/a.py': '1' }));
    const other = await registry.registerModel('m', modelFolder('three', { 'code/a.py': '2' }));
    expect(same.sha256).toBe(first.sha256);
    expect(other.sha256).not.toBe(first.sha256);
    expect(artifacts().sort()).toEqual([first.sha256, other.sha256].sort());
    const moved = await registry.registerModel('m', modelFolder('four', { 'code/b.py': '1' }));
    expect(moved.sha256).not.toBe(first.sha256);
  });

  it.each([
    ['/etc/hostname', 'a link that leads out'],
    ['../../..', 'a link that leads out'],
    ['.', 'a link to a folder'],
    ['nothing-here', 'a link that leads nowhere'],
  ])('with a link to %s is refused, and nothing is left behind', async (target, words) => {
    const folder = modelFolder('model');
    symlinkSync(target, join(folder, 'extra'));
    await expectRefusal(registry.registerModel('m', folder), 'INVALID_PARAMETER', 'extra', words);
    expect(artifacts()).toEqual([]);
    expect(registry.listModels().map(({ model }) => model.name)).not.toContain('m');
  });

  it('with links that stay inside has their files', async () => {
    const folder = modelFolder('model');
    symlinkSync('model.onnx', join(folder, 'again.onnx'));
    const version = await registry.registerModel('m', folder);
    expect(readFileSync(join(dirname(version.source), 'again.onnx'))).toEqual(PENGUINS);
  });

  it.skipIf(process.platform === 'win32')('with something that is no file is refused', async () => {
    const folder = modelFolder('model');
    const server = createServer().listen(join(folder, 'socket'));
    await once(server, 'listening');
    await expectRefusal(
      registry.registerModel('m', folder),
      'INVALID_PARAMETER',
      'socket is neither a file nor a folder',
    );
    server.close();
  });

  it('whose flavour names its file in a roundabout way is opened all the same', async () => {
    const folder = modelFolder('model', { MLmodel: 'flavors: {onnx: {data: .//model.onnx}}' });
    expect(basename((await registry.registerModel('m', folder)).source)).toBe('model.onnx');
  });

  it('that is a program is refused unless that was allowed', async () => {
    const folder = modelFolder('model', {
      MLmodel: 'flavors: {python_function: {loader_module: mlflow.sklearn, model_path: model.pkl}}',
    });
    await expectRefusal(registry.registerModel('m', folder), 'INVALID_PARAMETER', '--allow-code');
    expect(artifacts()).toEqual([]);
    expect(asked).not.toHaveProperty('allowCode');
    await registry.registerModel('m', folder, { allowCode: true }).catch(() => {});
    expect(asked).toMatchObject({ allowCode: true });
  });
});

describe('an identity', () => {
  it('is that of all files of an agent, and of an ONNX file with the weights beside it', async () => {
    const agent = (name: string, library: string) => {
      const folder = modelFolder(name, { 'agent.mjs': 'export function predict() {}', 'lib.mjs': library });
      rmSync(join(folder, 'MLmodel'));
      rmSync(join(folder, 'model.onnx'));
      return registry.registerModel('agent', folder, { allowCode: true });
    };
    expect((await agent('a1', '1')).sha256).not.toBe((await agent('a2', '2')).sha256);
    const onnx = (name: string, weights: string) => {
      const folder = modelFolder(name, { 'model.onnx.data': weights });
      return registry.registerModel('onnx', join(folder, 'model.onnx'));
    };
    expect((await onnx('o1', '1')).sha256).not.toBe((await onnx('o2', '2')).sha256);
  });
});

describe('what a killed process left half copied', () => {
  it('is removed by the next registration when it is a day old', async () => {
    const folder = join(directory, 'artifacts');
    const day = 24 * 60 * 60 * 1000;
    for (const [name, ageMs] of [
      ['.incoming-old', day + 60_000],
      ['.unpacked-old', day + 60_000],
      ['.incoming-new', 0],
      ['kept', 2 * day],
    ] as const) {
      mkdirSync(join(folder, name), { recursive: true });
      const at = new Date(Date.now() - ageMs);
      utimesSync(join(folder, name), at, at);
    }
    const { sha256 } = await registry.registerModel('m', modelFolder('model'));
    expect(artifacts().sort()).toEqual(['.incoming-new', sha256, 'kept'].sort());
  });
});

describe('an archive', () => {
  const files = [
    { name: 'my_model/MLmodel', content: MLMODEL },
    { name: 'my_model/model.onnx', content: PENGUINS },
  ];

  it.each([
    ['m.zip', zipOf(...files)],
    ['m.tar.gz', tarGzOf(...files)],
  ])('%s is the same model as the directory in it', async (name, bytes) => {
    const path = join(directory, name);
    writeFileSync(path, bytes);
    const found: ModelInspection[] = [];
    const version = await registry.registerModel('m', path, { onFound: (each) => found.push(each) });
    const folder = await registry.registerModel('n', modelFolder('model'));
    expect(version.sha256).toBe(folder.sha256);
    expect(version.source).toBe(folder.source);
    expect(found).toMatchObject([{ flavour: 'onnx' }]);
    expect(artifacts()).toEqual([version.sha256]);
  });

  it('with one file in it is that file', async () => {
    const path = join(directory, 'm.zip');
    writeFileSync(path, zipOf({ name: 'penguins.onnx', content: PENGUINS }));
    const version = await registry.registerModel('m', path);
    expect(basename(version.source)).toBe('penguins.onnx');
    expect(artifacts()).toHaveLength(1);
  });

  it.each([
    ['cut off', zipOf(...files).subarray(0, -30)],
    ['leading out', zipOf(...files, { name: '../evil', content: 'x' })],
    ['too large', zipOf(...files, { name: 'zeros', content: Buffer.alloc(11_000_000) })],
  ])('%s is refused, and nothing is left behind', async (_, bytes) => {
    const path = join(directory, 'm.zip');
    writeFileSync(path, bytes);
    await expectRefusal(registry.registerModel('m', path), 'INVALID_PARAMETER', 'm.zip');
    expect(artifacts()).toEqual([]);
    expect(existsSync(join(directory, 'evil'))).toBe(false);
  });

  it('with a model that is cut off is refused, and nothing is left behind', async () => {
    const path = join(directory, 'm.zip');
    const cut = { name: 'model.onnx', content: PENGUINS.subarray(0, PENGUINS.length - 20) };
    writeFileSync(path, zipOf({ name: 'MLmodel', content: MLMODEL }, cut));
    const error = await refusal(registry.registerModel('m', path));
    expect(['INVALID_PARAMETER', 'MODEL_NOT_AVAILABLE']).toContain(error.code);
    expect(error.message).toContain(`${path}/model.onnx`);
    expect(artifacts()).toEqual([]);
  });
});
