import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { type ErrorCode, ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { ModelInspection } from '#registry/models.ts';
import { openRegistry, type Registry } from '#registry/registry.ts';
import { type Database, openDatabase } from '#storage/database.ts';
import { DuckDbRegistryStore } from '#storage/registry-store.ts';

let directory: string;
let database: Database;
let registry: Registry;

const inspectModel = async (path: string): Promise<ModelInspection> => {
  if (path.endsWith('.gguf')) return { engine: 'llama', task: 'llm/v1/chat', options: {} };
  if (path.endsWith('.onnx')) {
    const column = { name: 'x', type: 'double', required: true } as const;
    return {
      engine: 'onnx',
      task: 'predict',
      options: { labels: ['a', 'b'] },
      signature: { inputs: [column], outputs: [column] },
    };
  }
  return { engine: 'onnx', task: 'llm/v1/embeddings', dimensions: 4, options: {} };
};

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'duckserve-registry-'));
  await reopen();
});
afterEach(async () => {
  await database.close();
  rmSync(directory, { recursive: true, force: true });
});

async function reopen(): Promise<void> {
  await database?.close();
  database = await openDatabase({
    systemPath: join(directory, 'system.duckdb'),
    userPath: ':memory:',
    log: SILENT_LOG,
  });
  registry = await openRegistry({
    store: new DuckDbRegistryStore(database.system),
    artifactsDir: join(directory, 'artifacts'),
    clock: SYSTEM_CLOCK,
    inspectModel,
    log: SILENT_LOG,
  });
}

const create = (spec: unknown) => registry.createEndpoint(spec, LOCAL_OWNER);
const gpt = (options: object = {}) => ({
  name: 'gpt-4.1:mini',
  provider: 'openai',
  task: 'llm/v1/chat',
  ...options,
});

async function refusal(attempt: (() => unknown) | Promise<unknown>): Promise<ServingError> {
  try {
    await (typeof attempt === 'function' ? attempt() : attempt);
  } catch (error) {
    if (error instanceof ServingError) return error;
    throw error;
  }
  throw new Error('expected a refusal');
}

async function expectRefusal(
  attempt: (() => unknown) | Promise<unknown>,
  code: ErrorCode,
  ...parts: string[]
) {
  const error = await refusal(attempt);
  expect(error.code).toBe(code);
  for (const part of parts) expect(error.message).toContain(part);
}

function writeModel(name: string, content: string, sidecars: Record<string, string> = {}): string {
  const folder = join(directory, 'models', sha256Hex(name + content).slice(0, 8));
  mkdirSync(folder, { recursive: true });
  for (const [file, text] of Object.entries(sidecars)) writeFileSync(join(folder, file), text);
  writeFileSync(join(folder, name), content);
  return join(folder, name);
}

describe('endpoints', () => {
  it('can be created with the least there is, and are there after opening again', async () => {
    const created = await create({ name: 'chat', servedEntities: [{ externalModel: gpt() }] });
    expect(created).toMatchObject({
      name: 'chat',
      task: 'llm/v1/chat',
      servedEntities: [{ name: 'gpt-4-1-mini' }],
      routes: [{ servedEntityName: 'gpt-4-1-mini', trafficPercentage: 100 }],
      configVersion: 1,
      creator: 'local',
      isEmbedded: false,
    });
    await reopen();
    expect(registry.getEndpoint('chat')).toEqual(created);
  });

  it('resolve to a target with all that an engine needs, always the same object', async () => {
    await create({ name: 'chat', servedEntities: [{ externalModel: gpt({ apiKey: '{{env/KEY}}' }) }] });
    const { target, fallbacks } = registry.resolve('chat', { task: 'llm/v1/chat', random: 0.5 });
    expect(target).toMatchObject({
      endpoint: 'chat',
      servedEntity: 'gpt-4-1-mini',
      engine: 'openai',
      task: 'llm/v1/chat',
      model: 'gpt-4.1:mini',
      externalModel: { apiKey: '{{env/KEY}}' },
    });
    expect(fallbacks).toEqual([]);
    expect(registry.resolve('chat').target).toBe(target);
  });

  it('split traffic as their routes say and offer the others as fallbacks in order', async () => {
    await create({
      name: 'split',
      servedEntities: [
        { name: 'a', externalModel: gpt() },
        { name: 'b', externalModel: gpt({ name: 'b' }) },
        { name: 'c', externalModel: gpt({ name: 'c' }) },
      ],
      routes: [
        { servedEntityName: 'a', trafficPercentage: 70 },
        { servedEntityName: 'b', trafficPercentage: 30 },
      ],
    });
    const at = (random: number) => {
      const { target, fallbacks } = registry.resolve('split', { random });
      return [target.servedEntity, ...fallbacks.map((other) => other.servedEntity)].join('');
    };
    expect([at(0), at(0.6999), at(0.7), at(0.999_999)]).toEqual(['abc', 'abc', 'bac', 'bac']);
    expect(registry.resolve('split', { servedEntity: 'c', random: 0 })).toMatchObject({
      target: { servedEntity: 'c' },
      fallbacks: [],
    });
    await expectRefusal(
      () => registry.resolve('split', { servedEntity: 'x' }),
      'NOT_FOUND',
      "'x'",
      'a, b, c',
    );
  });

  it('that do not exist are refused with names that are close, else with all of the task', async () => {
    await create({ name: 'tickets-llm', servedEntities: [{ externalModel: gpt() }] });
    await expectRefusal(
      () => registry.resolve('ticket-lm'),
      'ENDPOINT_NOT_FOUND',
      "Did you mean 'tickets-llm'?",
    );
    await expectRefusal(
      () => registry.resolve('zzzzzzzzzzz', { task: 'llm/v1/completions' }),
      'ENDPOINT_NOT_FOUND',
      'Endpoints for llm/v1/completions: echo-completions.',
    );
  });

  it('of another task are refused, and those of the task are named', async () => {
    await expectRefusal(
      () => registry.resolve('echo-chat', { task: 'llm/v1/completions' }),
      'WRONG_TASK',
      'llm/v1/chat',
      'echo-completions',
    );
  });

  it('change their served entities, count their versions, and are heard of', async () => {
    await create({ name: 'chat', description: 'd', servedEntities: [{ externalModel: gpt() }] });
    const heard: string[] = [];
    const stop = registry.onChange(({ kind, name }) => heard.push(`${kind} ${name}`));
    const before = registry.resolve('chat').target;
    const updated = await registry.updateEndpointConfig('chat', {
      servedEntities: [{ externalModel: gpt({ name: 'new' }) }],
    });
    expect(updated).toMatchObject({
      configVersion: 2,
      description: 'd',
      routes: [{ servedEntityName: 'new', trafficPercentage: 100 }],
    });
    expect(registry.resolve('chat').target.fingerprint).not.toBe(before.fingerprint);
    stop();
    await registry.deleteEndpoint('chat');
    expect(heard).toEqual(['endpoint chat']);
    await expectRefusal(() => registry.getEndpoint('chat'), 'ENDPOINT_NOT_FOUND');
    await reopen();
    await expectRefusal(() => registry.getEndpoint('chat'), 'ENDPOINT_NOT_FOUND');
  });

  it('have one fingerprint for what gives the same answers: not keys, prices or limits', async () => {
    const fingerprint = async (options: object) => {
      const name = `e${registry.listEndpoints().length}`;
      await create({ name, servedEntities: [{ externalModel: gpt(options) }] });
      return registry.resolve(name).target.fingerprint;
    };
    const plain = await fingerprint({ baseUrl: 'http://localhost:1/v1' });
    const price = { inputPerMillion: 1, outputPerMillion: 2 };
    expect(
      await fingerprint({
        baseUrl: 'http://localhost:1/v1/',
        apiKey: '{{env/K}}',
        price,
        maxConcurrency: 3,
        timeoutMs: 9,
      }),
    ).toBe(plain);
    expect(await fingerprint({ baseUrl: 'http://localhost:2/v1' })).not.toBe(plain);
    expect(await fingerprint({ baseUrl: 'http://localhost:1/v1', apiVersion: '2' })).not.toBe(plain);
    expect(await fingerprint({ baseUrl: 'http://localhost:1/v1', name: 'other' })).not.toBe(plain);
  });

  it.each<[string, unknown, string[]]>([
    [
      'a name with other characters',
      { name: 'a b', servedEntities: [{ externalModel: gpt() }] },
      ['name ("a b")', 'letters, digits'],
    ],
    ['a field that does not exist', { name: 'x', entities: [] }, ['entities']],
    ['no served entity', { name: 'x', servedEntities: [] }, ['servedEntities']],
    [
      'an entity that is neither external nor registered',
      { name: 'x', servedEntities: [{ name: 'a' }] },
      ['either externalModel or entityName'],
    ],
    [
      'an unknown provider',
      { name: 'x', servedEntities: [{ externalModel: gpt({ provider: 'acme' }) }] },
      ['"acme"', 'anthropic'],
    ],
    [
      'a URL that is none',
      { name: 'x', servedEntities: [{ externalModel: gpt({ baseUrl: 'localhost' }) }] },
      ['"localhost"', 'https://'],
    ],
    [
      'embeddings of anthropic',
      {
        name: 'x',
        servedEntities: [{ externalModel: { name: 'c', provider: 'anthropic', task: 'llm/v1/embeddings' } }],
      },
      ['no embeddings'],
    ],
    [
      'entities of different tasks',
      {
        name: 'x',
        servedEntities: [
          { externalModel: gpt() },
          { externalModel: { ...gpt(), name: 'e', task: 'llm/v1/embeddings' } },
        ],
        routes: [{ servedEntityName: 'e', trafficPercentage: 100 }],
      },
      ['share one task'],
    ],
    [
      'several entities without routes',
      { name: 'x', servedEntities: [{ externalModel: gpt() }, { externalModel: gpt({ name: 'b' }) }] },
      ['needs routes'],
    ],
    [
      'two entities of one name',
      { name: 'x', servedEntities: [{ externalModel: gpt() }, { externalModel: gpt() }] },
      ["'gpt-4-1-mini'", 'name of its own'],
    ],
    [
      'routes that do not add up',
      {
        name: 'x',
        servedEntities: [{ name: 'a', externalModel: gpt() }],
        routes: [{ servedEntityName: 'a', trafficPercentage: 99 }],
      },
      ['add up to 99'],
    ],
    [
      'a route to nowhere',
      {
        name: 'x',
        servedEntities: [{ name: 'a', externalModel: gpt() }],
        routes: [{ servedEntityName: 'b', trafficPercentage: 100 }],
      },
      ["'b'"],
    ],
    [
      'another task than its model has',
      { name: 'x', task: 'predict', servedEntities: [{ externalModel: gpt() }] },
      ['predict'],
    ],
    ['nothing at all', undefined, ['not valid']],
  ])('are refused with %s', async (_, spec, parts) => {
    await expectRefusal(create(spec), 'INVALID_PARAMETER', ...parts);
  });

  it.each(['sk-very-secret', '{{env/KEY}} sk-very-secret', '{{nowhere/sk-very-secret}}'])(
    'are refused with a key in plain text, which is not repeated (%#)',
    async (apiKey) => {
      const error = await refusal(
        create({ name: 'x', servedEntities: [{ externalModel: gpt({ apiKey }) }] }),
      );
      expect(error.message).toContain('{{env/NAME}}');
      expect(JSON.stringify([error.message, error.details])).not.toContain('very-secret');
    },
  );

  it('do not repeat a password in a URL', async () => {
    const error = await refusal(
      create({
        name: 'x',
        servedEntities: [{ externalModel: gpt({ baseUrl: 'https://me:very-secret@host/' }) }],
      }),
    );
    expect(error.code).toBe('INVALID_PARAMETER');
    expect(error.message).not.toContain('very-secret');
  });

  it('of one name are created once, however many ask at the same time', async () => {
    const attempts = await Promise.allSettled(
      Array.from({ length: 8 }, () => create({ name: 'once', servedEntities: [{ externalModel: gpt() }] })),
    );
    expect(attempts.filter((attempt) => attempt.status === 'fulfilled')).toHaveLength(1);
    await expectRefusal(
      create({ name: 'once', servedEntities: [{ externalModel: gpt() }] }),
      'ALREADY_EXISTS',
    );
  });

  it('built in are there without configuration and cannot be changed', async () => {
    expect(registry.listEndpoints().map((endpoint) => endpoint.name)).toEqual([
      'echo-chat',
      'echo-completions',
      'echo-embeddings',
      'embedded-all-minilm-l6-v2',
      'embedded-static-256',
      'embedded-tinyllama-1-1b-chat',
    ]);
    for (const { name } of registry.listEndpoints())
      expect(registry.resolve(name).target.modelVersion).toBeDefined();
    expect(registry.resolve('embedded-all-minilm-l6-v2').target).toMatchObject({
      engine: 'onnx',
      model: 'embedded/all-minilm-l6-v2@1',
      modelVersion: { source: 'embedded:embedded/all-minilm-l6-v2', dimensions: 384 },
    });
    expect(registry.resolve('embedded-static-256').target.modelVersion?.sha256).toMatch(/^[0-9a-f]{64}$/);
    await expectRefusal(registry.deleteEndpoint('echo-chat'), 'RESOURCE_CONFLICT', 'built in');
    await expectRefusal(
      registry.updateEndpointConfig('echo-chat', { description: 'x' }),
      'RESOURCE_CONFLICT',
    );
    await expectRefusal(
      create({ name: 'echo-chat', servedEntities: [{ externalModel: gpt() }] }),
      'ALREADY_EXISTS',
    );
  });

  it('change nothing in memory when the store refuses the change', async () => {
    await database.system.run('ALTER TABLE duckserve.main.registry RENAME TO elsewhere');
    await expectRefusal(create({ name: 'x', servedEntities: [{ externalModel: gpt() }] }), 'STORAGE_ERROR');
    await expectRefusal(() => registry.getEndpoint('x'), 'ENDPOINT_NOT_FOUND');
  });
});

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
    await database.close();
    const moved = `${directory}-moved`;
    renameSync(directory, moved);
    directory = moved;
    await reopen();
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
