import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cli } from './fake-app.ts';

const EXTERNAL = [
  '--task',
  'llm/v1/chat',
  '--provider',
  'openai',
  '--base-url',
  'http://127.0.0.1:1/v1',
  '--model',
  'm',
];

function specOf(asked: readonly (readonly unknown[])[]): unknown {
  return asked.find(([name]) => name === 'createEndpoint')?.[1];
}

describe('endpoints', () => {
  it('creates an external endpoint from flags, with the key as a reference', async () => {
    const outcome = await cli([
      'endpoints',
      'create',
      'tickets-llm',
      ...EXTERNAL,
      '--api-key-env',
      'OPENAI_API_KEY',
      '--max-concurrency',
      '256',
      '--timeout-ms',
      '5000',
      '--input-price',
      '0.15',
      '--output-price',
      '0.6',
      '--description',
      'tickets',
    ]);
    expect(outcome.code).toBe(0);
    expect(specOf(outcome.asked)).toEqual({
      name: 'tickets-llm',
      task: 'llm/v1/chat',
      servedEntities: [
        {
          externalModel: {
            name: 'm',
            provider: 'openai',
            task: 'llm/v1/chat',
            baseUrl: 'http://127.0.0.1:1/v1',
            apiKey: '{{env/OPENAI_API_KEY}}',
            maxConcurrency: 256,
            timeoutMs: 5000,
            price: { inputPerMillion: 0.15, outputPerMillion: 0.6 },
          },
        },
      ],
      description: 'tickets',
    });
    expect([outcome.stdout, outcome.stderr]).toEqual([
      '',
      'Created endpoint tickets-llm (llm/v1/chat, gpt-4o-mini).\n',
    ]);
  });

  it('creates an endpoint for a registered model, and one whose key is a secret', async () => {
    const registered = await cli([
      'endpoints',
      'create',
      'p',
      '--registered-model',
      'penguins',
      '--model-version',
      'champion',
    ]);
    expect(specOf(registered.asked)).toEqual({
      name: 'p',
      servedEntities: [{ entityName: 'penguins', entityVersion: 'champion' }],
    });
    const secret = await cli(['endpoints', 'create', 'p', ...EXTERNAL, '--api-key-secret', 'openai/main']);
    expect(specOf(secret.asked)).toMatchObject({
      servedEntities: [{ externalModel: { apiKey: '{{secrets/openai/main}}' } }],
    });
  });

  it('refuses flags that do not go together before anything is opened, and never repeats a key', async () => {
    for (const [flags, said] of [
      [[], '--task is missing'],
      [['--registered-model', 'm', '--provider', 'openai'], '--provider is for external models'],
      [['--model-version', '2'], '--model-version needs --registered-model'],
      [
        ['--task', 'predict', '--provider', 'openai', '--model', 'm'],
        '--task predict is for models of your own',
      ],
      [[...EXTERNAL, '--input-price', '1'], '--input-price needs --output-price'],
      [[...EXTERNAL, '--api-key-env', 'sk-abc-123'], 'takes the name of an environment variable'],
      [[...EXTERNAL, '--max-concurrency', '0'], 'whole number of at least 1'],
    ] as const) {
      const outcome = await cli(['endpoints', 'create', 'e', ...flags]);
      expect([outcome.code, outcome.opened, outcome.stdout]).toEqual([2, [], '']);
      expect(outcome.stderr).toContain(said);
      expect(outcome.stderr).not.toContain('sk-abc');
    }
  });

  it('lists when nothing more is said, as a table or JSON', async () => {
    const table = await cli(['endpoints']);
    expect(table.stdout).toContain('│ tickets-llm │ llm/v1/chat │ gpt-4o-mini │ openai   │');
    for (const argv of [
      ['endpoints', '--format', 'json'],
      ['endpoints', 'list', '--format', 'json'],
    ]) {
      expect(JSON.parse((await cli(argv)).stdout)).toMatchObject([
        {
          name: 'tickets-llm',
          served_entities: [{ external_model: { api_key: '{{env/KEY}}' } }],
          created_at_ms: 1,
        },
      ]);
    }
    expect(JSON.parse((await cli(['endpoints', 'get', 'x', '--format', 'json'])).stdout)).toMatchObject({
      name: 'tickets-llm',
    });
    expect((await cli(['endpoints', 'get', 'x'])).stdout).toContain('config_version');
    expect((await cli(['endpoints', 'delete', 'x'])).asked[0]).toEqual(['deleteEndpoint', 'x']);
  });
});

describe('models, secrets, settings and answers', () => {
  it('registers, lists, fetches, names and deletes models', async () => {
    const registered = await cli(['models', 'register', 'penguins', 'p.onnx', '--alias', 'champion']);
    expect(registered.asked[0]).toEqual([
      'registerModel',
      'penguins',
      resolve('p.onnx'),
      { alias: 'champion', onFound: expect.any(Function) },
    ]);
    expect(registered.stderr).toBe('Registered penguins version 2 (onnx, predict, alias champion).\n');
    expect((await cli(['models'])).stdout).toContain(
      '│ penguins │       2 │ theBest │ onnx   │ predict │ 2.0 KiB │',
    );
    expect(JSON.parse((await cli(['models', 'list', '--format', 'json'])).stdout)).toMatchObject([
      {
        name: 'penguins',
        aliases: { theBest: '2' },
        versions: [{ version: '2', size_bytes: 2048, options: { camelCase: 1 } }],
      },
    ]);
    expect((await cli(['models', 'pull', 'embedded/x', '--data', '/d'])).asked).toEqual([
      ['pullWeights', 'embedded/x', '/d'],
    ]);
    const hash = 'a'.repeat(64);
    const pulled = await cli([
      'models',
      'pull',
      'hf:o/r/f.gguf',
      '--as',
      'llm',
      '--sha256',
      hash,
      '--data',
      '/d',
    ]);
    expect(pulled.asked.filter(([name]) => name !== 'app.close')).toEqual([
      ['pullWeights', 'hf:o/r/f.gguf', '/d', { sha256: hash, isRegistered: true }],
      ['registerModel', 'llm', '/pulled/model.gguf', {}],
      ['drop'],
    ]);
    expect((await cli(['models', 'alias', 'm', 'a', '3'])).asked[0]).toEqual(['setAlias', 'm', 'a', '3']);
    expect((await cli(['models', 'delete', 'm', '3'])).asked[0]).toEqual(['deleteModelVersion', 'm', '3']);
  });

  it('takes the value of a secret from standard input only, and never prints it', async () => {
    const outcome = await cli(['secrets', 'set', 'openai', 'main'], { stdin: 'sk-very-secret\n' });
    expect(outcome.asked[0]).toEqual(['setSecret', 'openai', 'main', 'sk-very-secret']);
    expect(outcome.stdout + outcome.stderr).toBe('Stored. Refer to it as {{secrets/openai/main}}.\n');
    expect(await cli(['secrets', 'set', 'a', 'b'], { stdin: '\n' })).toMatchObject({ code: 1, opened: [] });
    const inArguments = await cli(['secrets', 'set', 'a', 'b', 'sk-abc']);
    expect([inArguments.code, inArguments.opened]).toEqual([2, []]);
    expect((await cli(['secrets', 'list'])).stdout).toContain('{{secrets/openai/main}}');
    expect((await cli(['secrets', 'delete', 'a', 'b'])).asked[0]).toEqual(['deleteSecret', 'a', 'b']);
  });

  it('shows and changes settings', async () => {
    expect((await cli(['settings', 'get', 'default_chat_endpoint'])).stdout).toBe('tickets-llm\n');
    expect(await cli(['settings', 'get', 'default_classify_endpoint'])).toMatchObject({
      code: 1,
      stdout: '',
    });
    expect((await cli(['settings', 'set', 'default_chat_endpoint', 'e'])).asked[0]).toEqual([
      'setSetting',
      'default_chat_endpoint',
      'e',
    ]);
    expect((await cli(['settings'])).stdout).toContain('default_embedding_endpoint');
  });

  it('counts and forgets answers', async () => {
    expect((await cli(['answers', 'count'])).stdout).toBe('12\n');
    const cleared = await cli(['answers', 'clear', '--endpoint', 'e']);
    expect([cleared.asked[0], cleared.stderr]).toEqual([['clear', { endpoint: 'e' }], 'Forgot 3 answers.\n']);
    expect((await cli(['answers', 'clear'])).asked[0]).toEqual(['clear', undefined]);
  });
});
