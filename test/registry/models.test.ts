import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { sha256Hex } from '#core/fingerprint.ts';
import {
  create,
  directory,
  expectRefusal,
  gpt,
  moveDirectory,
  registry,
  reopen,
  writeModel,
} from './fixture.ts';

describe('models', () => {
  it('are copied with what lies beside them, get numbers, and are served at once under their name', async () => {
    const path = writeModel('penguins.onnx', 'model 1', {
      'signature.json': '{}',
      'notes.txt': 'not part of it',
      'labels.txt': 'a',
    });
    const version = await registry.registerModel('penguins', path, { alias: 'champion', description: 'd' });
    expect(version).toMatchObject({
      model: 'penguins',
      version: '1',
      engine: 'onnx',
      task: 'predict',
      sha256: sha256Hex('model 1'),
      sizeBytes: 'model 1'.length + 3,
      options: { labels: ['a', 'b'] },
      description: 'd',
    });
    rmSync(dirname(path), { recursive: true });
    expect(readFileSync(version.source, 'utf8')).toBe('model 1');
    expect(readdirSync(dirname(version.source)).sort()).toEqual([
      'labels.txt',
      'penguins.onnx',
      'signature.json',
    ]);
    expect(registry.resolve('penguins', { task: 'predict' }).target).toMatchObject({
      model: 'penguins@1',
      engine: 'onnx',
      modelVersion: version,
    });
    await reopen();
    expect(registry.getModelVersion('penguins', 'champion')).toEqual(version);
    expect(registry.resolve('penguins').target.modelVersion).toEqual(version);
  });

  it('of one file only lie in a directory named by their SHA-256, and nothing else is left behind', async () => {
    const version = await registry.registerModel('m', writeModel('m.onnx', 'alone'));
    expect(basename(dirname(version.source))).toBe(sha256Hex('alone'));
    await registry.registerModel('again', writeModel('m.onnx', 'alone'));
    expect(readdirSync(join(directory, 'artifacts'))).toEqual([sha256Hex('alone')]);
  });

  it('stay with their files when the data directory is moved', async () => {
    await registry.registerModel('m', writeModel('m.onnx', 'moved'));
    await moveDirectory();
    expect(readFileSync(registry.getModelVersion('m').source, 'utf8')).toBe('moved');
  });

  it('may be folders; links are followed, hidden files are not copied, the main file is found', async () => {
    const folder = join(directory, 'minilm');
    mkdirSync(join(folder, 'onnx'), { recursive: true });
    mkdirSync(join(folder, '.cache'));
    writeFileSync(join(directory, 'blob'), 'weights');
    symlinkSync(join(directory, 'blob'), join(folder, 'onnx', 'model.onnx'));
    writeFileSync(join(folder, 'onnx', 'a.onnx'), 'another');
    writeFileSync(join(folder, 'tokenizer.json'), '{}');
    const version = await registry.registerModel('minilm', folder);
    expect(version).toMatchObject({ task: 'llm/v1/embeddings', dimensions: 4, sha256: sha256Hex('weights') });
    expect(version.source.endsWith('/onnx/model.onnx')).toBe(true);
    rmSync(join(directory, 'blob'));
    expect(readFileSync(version.source, 'utf8')).toBe('weights');
    expect(existsSync(join(dirname(dirname(version.source)), '.cache'))).toBe(false);
  });

  it('serve their newest version unless an endpoint names one, by number or alias', async () => {
    const first = await registry.registerModel('m', writeModel('m.onnx', '1'));
    await create({ name: 'fixed', servedEntities: [{ entityName: 'm', entityVersion: 1 }] });
    const best = { name: 'best', servedEntities: [{ entityName: 'm', entityVersion: 'best' }] };
    await expectRefusal(create(best), 'NOT_FOUND', "'best'");
    await registry.setAlias('m', 'best', '1');
    await create(best);
    await registry.registerModel('m', writeModel('m.onnx', '2'));
    const served = () => ['m', 'fixed', 'best'].map((name) => registry.resolve(name).target.model);
    expect(served()).toEqual(['m@2', 'm@1', 'm@1']);
    await registry.setAlias('m', 'best', '2');
    expect(served()).toEqual(['m@2', 'm@1', 'm@2']);
    expect(registry.resolve('fixed').target.fingerprint).not.toBe(registry.resolve('m').target.fingerprint);
    expect(first.version).toBe('1');
  });

  it('with the same content have the same fingerprint under any name', async () => {
    await registry.registerModel('m', writeModel('m.onnx', 'same'));
    await registry.registerModel('n', writeModel('m.onnx', 'same'));
    expect(registry.resolve('m').target.fingerprint).toBe(registry.resolve('n').target.fingerprint);
  });

  it('keep versions that are served, and do not use a number twice', async () => {
    await registry.registerModel('m', writeModel('m.onnx', '1'));
    await expectRefusal(registry.deleteModelVersion('m', '1'), 'RESOURCE_CONFLICT', "endpoint 'm'");
    const second = await registry.registerModel('m', writeModel('m.onnx', '2'), { alias: 'b' });
    await create({ name: 'fixed', servedEntities: [{ entityName: 'm', entityVersion: '1' }] });
    await expectRefusal(registry.deleteModelVersion('m', '1'), 'RESOURCE_CONFLICT', "endpoint 'fixed'");
    await registry.deleteModelVersion('m', '2');
    expect(existsSync(second.source)).toBe(false);
    expect(registry.listModels().find(({ model }) => model.name === 'm')?.model.aliases).toEqual({});
    expect(registry.resolve('m').target.model).toBe('m@1');
    expect((await registry.registerModel('m', writeModel('m.onnx', '3'))).version).toBe('3');
    await registry.deleteEndpoint('fixed');
    await registry.deleteEndpoint('m');
    await registry.deleteModelVersion('m', '1');
    await registry.deleteModelVersion('m', '3');
    await expectRefusal(() => registry.getModelVersion('m'), 'NOT_FOUND', "'m'");
    expect(readdirSync(join(directory, 'artifacts'))).toEqual([]);
    await reopen();
    expect(registry.listModels().map(({ model }) => model.name)).not.toContain('m');
  });

  it('keep one task over all versions', async () => {
    await registry.registerModel('m', writeModel('m.onnx', '1'));
    await expectRefusal(
      registry.registerModel('m', writeModel('m.gguf', '2')),
      'INVALID_PARAMETER',
      'predict',
      'llm/v1/chat',
    );
    expect(registry.listModels().find(({ model }) => model.name === 'm')?.versions).toHaveLength(1);
  });

  it('leave an endpoint of their name alone', async () => {
    await create({ name: 'm', servedEntities: [{ externalModel: gpt() }] });
    await registry.registerModel('m', writeModel('m.onnx', '1'));
    expect(registry.getEndpoint('m').task).toBe('llm/v1/chat');
  });

  it('are refused with a name, an alias or a path that cannot be', async () => {
    const path = writeModel('m.onnx', '1');
    await expectRefusal(registry.registerModel('a.b', path), 'INVALID_PARAMETER', '"a.b"');
    await expectRefusal(registry.registerModel('m', path, { alias: '3' }), 'INVALID_PARAMETER', "'3'");
    await expectRefusal(registry.registerModel('echo', path), 'RESOURCE_CONFLICT', 'built in');
    await expectRefusal(
      registry.registerModel('m', join(directory, 'none.onnx')),
      'INVALID_PARAMETER',
      'none.onnx',
    );
    await expectRefusal(registry.setAlias('m', 'a', '1'), 'NOT_FOUND');
    await expectRefusal(() => registry.getModelVersion('ech'), 'NOT_FOUND', "Did you mean 'echo'?");
    await expectRefusal(() => registry.getModelVersion('echo', '9'), 'NOT_FOUND', 'chat');
  });
});

describe('settings', () => {
  it('name the endpoint to use where none is named, with a default for embeddings', async () => {
    expect(registry.getSetting('default_embedding_endpoint')).toBe('embedded-all-minilm-l6-v2');
    expect(registry.getSetting('default_chat_endpoint')).toBeUndefined();
    await registry.setSetting('default_chat_endpoint', 'echo-chat');
    await reopen();
    expect(registry.getSetting('default_chat_endpoint')).toBe('echo-chat');
    await registry.setSetting('default_chat_endpoint', '');
    expect(registry.getSetting('default_chat_endpoint')).toBeUndefined();
  });

  it('take only endpoints that exist and do the task, and keep them from being deleted', async () => {
    await expectRefusal(registry.setSetting('default_chat_endpoint', 'nope-nope'), 'ENDPOINT_NOT_FOUND');
    await expectRefusal(registry.setSetting('default_chat_endpoint', 'echo-embeddings'), 'WRONG_TASK');
    await expectRefusal(() => registry.getSetting('color'), 'INVALID_PARAMETER', 'default_chat_endpoint');
    await registry.setSetting('default_classify_endpoint', 'echo-embeddings');
    await create({ name: 'chat', servedEntities: [{ externalModel: gpt() }] });
    await registry.setSetting('default_chat_endpoint', 'chat');
    await expectRefusal(registry.deleteEndpoint('chat'), 'RESOURCE_CONFLICT', 'default_chat_endpoint');
  });
});
