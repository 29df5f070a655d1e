// What endpoints carry beside their models: ids, prices, keys in the clear, tags; and that many of them cost nothing.
import { describe, expect, it } from 'vitest';
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { Price } from '#core/endpoint.ts';
import { SILENT_LOG } from '#core/log.ts';
import { closeNames } from '#registry/names.ts';
import { openRegistry, type Registry } from '#registry/registry.ts';
import { DuckDbRegistryStore } from '#storage/registry-store.ts';
import { openSecretStore } from '#storage/secret-store.ts';
import { create, database, directory, expectRefusal, gpt, inspectModel, registry } from './fixture.ts';

async function openWithSecrets(prices: Map<string, Price> = new Map()) {
  const store = new DuckDbRegistryStore(database.system);
  const secrets = await openSecretStore({ store, dataDir: directory, env: {}, clock: SYSTEM_CLOCK });
  const opened = await openRegistry({
    ...{ store, secrets, inspectModel, clock: SYSTEM_CLOCK, log: SILENT_LOG },
    artifactsDir: directory,
    findPrice: (provider, model) => prices.get(`${provider}/${model}`),
  });
  return { registry: opened, secrets };
}
const chat = (name: string, model: object = {}) => ({
  name,
  servedEntities: [{ externalModel: gpt(model) }],
});

describe('endpoints', () => {
  it('have ids that targets carry, and entities keep theirs as long as their name is there', async () => {
    const entities = (...names: string[]) => ({
      servedEntities: names.map((name) => ({ name, externalModel: gpt({ name }) })),
      routes: [{ servedEntityName: names[0], trafficPercentage: 100 }],
    });
    const created = await create({ name: 'e', ...entities('a', 'b') });
    const [a, b] = created.servedEntities.map(({ id }) => id);
    expect([created.id, a, b]).toEqual(Array(3).fill(expect.stringMatching(/^[0-9a-f]{32}$/)));
    expect(registry.resolve('e').target).toMatchObject({
      endpointId: created.id,
      servedEntityId: a,
      configVersion: 1,
    });
    const updated = await registry.updateEndpointConfig('e', entities('b', 'c'));
    expect(updated.servedEntities.map(({ id }) => id === b)).toEqual([true, false]);
    expect(registry.resolve('e').target).toMatchObject({ servedEntityId: b, configVersion: 2 });
    const builtIn = registry.resolve('echo-chat').target;
    expect(builtIn.servedEntityId).toMatch(/^[0-9a-f]{32}$/);
    expect(registry.resolve('echo-chat').target.servedEntityId).toBe(builtIn.servedEntityId);
  });

  it('have the price of their model, else that of the table, anew when the table changes', async () => {
    const listed = { inputPerMillion: 1, outputPerMillion: 2 };
    const own = { inputPerMillion: 3, outputPerMillion: 4 };
    const prices = new Map([['openai/listed', listed]]);
    const { registry: priced } = await openWithSecrets(prices);
    for (const [name, model] of Object.entries({
      table: {},
      own: { price: own },
      unknown: { name: 'other' },
    })) {
      await priced.createEndpoint(chat(name, { name: 'listed', ...model }), LOCAL_OWNER);
    }
    const priceOf = (name: string) => priced.resolve(name).target.price;
    expect([priceOf('table'), priceOf('own'), priceOf('unknown')]).toEqual([listed, own, undefined]);
    prices.set('openai/listed', own);
    expect(priceOf('table')).toEqual(listed);
    const heard: string[] = [];
    priced.onChange(({ kind }) => heard.push(kind));
    priced.pricesChanged();
    expect([priceOf('table'), heard]).toEqual([own, ['price']]);
  });

  it('by the thousand resolve from memory, each time to the very same object', async () => {
    const many = await manyEndpoints(1_000);
    for (let index = 0; index < 1_000; index++) {
      const first = many.resolve(`e${index}`, { random: 0.1 });
      expect(first.target.model).toBe(`m${index}`);
      expect(many.resolve(`e${index}`, { random: 0.1 })).toBe(first);
    }
  });
});

describe('keys in the clear', () => {
  const clear = (name: string) => chat(name, { apiKeyPlaintext: 'CLEAR' });

  it('are refused where there is no store for them', async () => {
    await expectRefusal(create(clear('e')), 'INVALID_PARAMETER', 'no store for secrets');
    await expectRefusal(() => registry.getEndpoint('e'), 'ENDPOINT_NOT_FOUND');
  });

  it('left behind by a crash are swept away at the next start; secrets of the user are not', async () => {
    const first = await openWithSecrets();
    await first.registry.createEndpoint(clear('kept'), LOCAL_OWNER);
    const [kept] = first.secrets.listSecrets();
    await first.secrets.setSecret('endpoints', 'e.m.apiKey.0123456789ab', 'orphan');
    await first.secrets.setSecret('endpoints', 'mine', 'x');
    const second = await openWithSecrets();
    const keys = second.secrets.listSecrets().map(({ key }) => key);
    expect(keys).toEqual([kept?.key, 'mine']);
  });

  it('that another endpoint refers to stay when the first is deleted', async () => {
    const { registry: both, secrets } = await openWithSecrets();
    await both.createEndpoint(clear('one'), LOCAL_OWNER);
    const apiKey = both.getEndpoint('one').servedEntities[0]?.externalModel?.apiKey ?? '';
    await both.createEndpoint(chat('two', { apiKey }), LOCAL_OWNER);
    await both.deleteEndpoint('one');
    expect(secrets.resolve(apiKey)).toBe('CLEAR');
    await both.deleteEndpoint('two');
    expect(secrets.listSecrets()).toEqual([]);
  });

  it('and references of others are kept apart: who is no admin brings none, in any field of any provider', async () => {
    const ann: Principal = { id: 'a', name: 'ann', kind: 'user', isAdmin: false };
    const bedrock = {
      region: 'r',
      modelProvider: 'amazon',
      accessKeyId: '{{env/A}}',
      secretAccessKey: '{{env/B}}',
    };
    const vertex = { projectId: 'p', region: 'r', privateKey: '{{secrets/s/k}}' };
    const entra = { tenantId: 't', clientId: 'c', clientSecret: '{{env/A}}' };
    const azure = { apiType: 'azuread', baseUrl: 'https://x.example', entra };
    for (const model of [
      { apiKey: '{{env/A}}' },
      { provider: 'amazon-bedrock', bedrock },
      { provider: 'google-cloud-vertex-ai', vertex },
      azure,
    ]) {
      await expectRefusal(registry.createEndpoint(chat('x', model), ann), 'PERMISSION_DENIED', "'ann'", '{{');
    }
    await registry.createEndpoint(chat('x'), ann);
    await expectRefusal(
      registry.updateEndpointConfig(
        'x',
        { servedEntities: [{ externalModel: gpt({ apiKey: '{{env/A}}' }) }] },
        ann,
      ),
      'PERMISSION_DENIED',
    );
  });
});

describe('names that somebody may have meant', () => {
  it('are not looked for when what was asked is longer than any name', () => {
    const asked = 'a'.repeat(1_000_000);
    expect(closeNames(asked, ['aaa'])).toEqual([]);
    expect(() => registry.getEndpoint(asked)).toThrow(/There is no endpoint 'a{80}…'/);
  });
});

async function manyEndpoints(count: number): Promise<Registry> {
  const documents = Array.from({ length: count }, (_, index) => ({
    kind: 'endpoint',
    key: `e${index}`,
    updatedAtMs: 0,
    document: {
      ...{ id: `${index}`, name: `e${index}`, task: 'llm/v1/chat', configVersion: 1, description: '' },
      servedEntities: [
        { name: 'a', externalModel: gpt({ name: `m${index}` }) },
        { name: 'b', externalModel: gpt({ name: `n${index}` }) },
      ],
      routes: [
        { servedEntityName: 'a', trafficPercentage: 50 },
        { servedEntityName: 'b', trafficPercentage: 50 },
      ],
      ...{ tags: [], creator: 'local', createdAtMs: 0, updatedAtMs: 0, isEmbedded: false },
    } as never,
  }));
  const store = {
    loadAll: async () => documents,
    put: async () => {},
    delete: async () => {},
    transact: async () => {},
  };
  return await openRegistry({
    ...{ store, inspectModel, clock: SYSTEM_CLOCK, log: SILENT_LOG },
    artifactsDir: directory,
  });
}
