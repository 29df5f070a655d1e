import { describe, expect, it } from 'vitest';
import { create, database, expectRefusal, gpt, refusal, registry, reopen } from './fixture.ts';

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
      ['must be llm/v1/chat; anthropic offers nothing else'],
    ],
    [
      'completions of anthropic',
      {
        name: 'x',
        servedEntities: [{ externalModel: { name: 'c', provider: 'anthropic', task: 'llm/v1/completions' } }],
      },
      ['must be llm/v1/chat; anthropic offers nothing else'],
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
