// External models on the wire: every provider's fields come back as they were set, keys never.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BASE, type Control, endpointOf, external, openControl } from './control-support.ts';

let control: Control;
beforeEach(async () => {
  control = await openControl();
});
afterEach(() => control.close());

const create = (body: unknown) => control.ask('POST', BASE, body);
const get = async (name: string) => (await control.ask('GET', `${BASE}/${name}`)).body;

describe('external models', () => {
  const providers: readonly (readonly [string, string, Record<string, unknown>])[] = [
    [
      'openai',
      'openai_config',
      {
        openai_api_key: '{{secrets/s/k}}',
        openai_api_base: 'https://llm.example/v1',
        openai_organization: 'org',
      },
    ],
    [
      'openai',
      'openai_config',
      {
        openai_api_type: 'azure',
        openai_api_key: '{{env/SET}}',
        openai_api_base: 'https://r.openai.azure.com',
        openai_api_version: '2024-06-01',
        openai_deployment_name: 'd',
      },
    ],
    [
      'openai',
      'openai_config',
      {
        openai_api_type: 'azuread',
        openai_api_base: 'https://r.openai.azure.com',
        openai_api_version: '2024-06-01',
        openai_deployment_name: 'd',
        microsoft_entra_tenant_id: 't',
        microsoft_entra_client_id: 'c',
        microsoft_entra_client_secret: '{{env/SET}}',
      },
    ],
    ['anthropic', 'anthropic_config', { anthropic_api_key: '{{env/SET}}' }],
    ['cohere', 'cohere_config', { cohere_api_key: '{{env/SET}}', cohere_api_base: 'https://c.example' }],
    [
      'amazon-bedrock',
      'amazon_bedrock_config',
      {
        aws_region: 'us-east-1',
        bedrock_provider: 'anthropic',
        aws_access_key_id: '{{env/SET}}',
        aws_secret_access_key: '{{env/SET}}',
        bedrock_api_base: 'http://127.0.0.1:1',
      },
    ],
    [
      'google-cloud-vertex-ai',
      'google_cloud_vertex_ai_config',
      { project_id: 'p-1', region: 'europe-west4', private_key: '{{env/SET}}' },
    ],
    [
      'databricks-model-serving',
      'databricks_model_serving_config',
      { databricks_workspace_url: 'https://w.example', databricks_api_token: '{{env/SET}}' },
    ],
    [
      'custom',
      'custom_provider_config',
      { custom_provider_url: 'https://c.example/v1', bearer_token_auth: { token: '{{env/SET}}' } },
    ],
    [
      'custom',
      'custom_provider_config',
      { custom_provider_url: 'https://c.example/v1', api_key_auth: { key: 'x-key', value: '{{env/SET}}' } },
    ],
    ['custom', 'custom_provider_config', { custom_provider_url: 'https://c.example/v1' }],
  ];

  it.each(providers)('of %s come back as they were set (%s)', async (provider, field, config) => {
    await control.secrets.setSecret('s', 'k', 'secret-in-the-store');
    const model = {
      ...external({ provider }),
      [field]: config,
      max_concurrency: 3,
      timeout_ms: 9_000,
      price: { input_per_million: 1, output_per_million: 2 },
    };
    const created = await create(endpointOf('e', model));
    expect([created.status, created.body.message]).toEqual([200, undefined]);
    expect(created.body.state).toEqual({ ready: 'READY', config_update: 'NOT_UPDATING' });
    const [entity] = (await get('e')).config.served_entities;
    expect(entity.external_model).toEqual(model);
    // What was read can be sent back.
    const again = await control.ask('PUT', `${BASE}/e/config`, (await get('e')).config);
    expect([again.status, again.body.message]).toEqual([200, undefined]);
    expect(again.body.config.served_entities[0].external_model).toEqual(model);
    expect(again.body.config.served_entities[0].id).toBe(entity.id);
  });

  const clear = [
    ['openai', 'openai_config', { openai_api_key_plaintext: 'CLEAR-1' }],
    [
      'openai',
      'openai_config',
      {
        openai_api_type: 'azuread',
        openai_api_base: 'https://r.example',
        microsoft_entra_tenant_id: 't',
        microsoft_entra_client_id: 'c',
        microsoft_entra_client_secret_plaintext: 'CLEAR-2',
      },
    ],
    ['anthropic', 'anthropic_config', { anthropic_api_key_plaintext: 'CLEAR-3' }],
    ['cohere', 'cohere_config', { cohere_api_key_plaintext: 'CLEAR-4' }],
    [
      'amazon-bedrock',
      'amazon_bedrock_config',
      {
        aws_region: 'us-east-1',
        bedrock_provider: 'amazon',
        aws_access_key_id_plaintext: 'CLEAR-5',
        aws_secret_access_key_plaintext: 'CLEAR-6',
      },
    ],
    [
      'google-cloud-vertex-ai',
      'google_cloud_vertex_ai_config',
      { project_id: 'p', region: 'r', private_key_plaintext: 'CLEAR-7' },
    ],
    [
      'databricks-model-serving',
      'databricks_model_serving_config',
      { databricks_workspace_url: 'https://w.example', databricks_api_token_plaintext: 'CLEAR-8' },
    ],
    [
      'custom',
      'custom_provider_config',
      { custom_provider_url: 'https://c.example', bearer_token_auth: { token_plaintext: 'CLEAR-9' } },
    ],
    [
      'custom',
      'custom_provider_config',
      { custom_provider_url: 'https://c.example', api_key_auth: { key: 'x-k', value_plaintext: 'CLEAR-10' } },
    ],
  ] as const;

  it.each(clear)(
    'of %s have keys in the clear kept as secrets, never given back, gone with the endpoint (%s)',
    async (provider, field, config) => {
      const texts = JSON.stringify(config).match(/CLEAR-\d+/g) ?? [];
      const created = await create(endpointOf('e', { ...external({ provider }), [field]: config }));
      expect([created.status, created.body.message]).toEqual([200, undefined]);
      const parked = control.secrets.listSecrets();
      expect(parked.map(({ scope }) => scope)).toEqual(texts.map(() => 'endpoints'));
      const resolved = parked.map(({ scope, key }) => control.secrets.resolve(`{{secrets/${scope}/${key}}}`));
      expect(resolved.sort()).toEqual([...texts].sort());
      await control.ask('GET', `${BASE}/e`);
      await control.ask('GET', BASE);
      await control.ask('GET', `${BASE}/e/served-models/gpt-4o-mini/logs`);
      await control.ask('GET', `${BASE}/e/served-models/gpt-4o-mini/build-logs`);
      const { servedEntities } = control.registry.getEndpoint('e');
      expect(control.said.join() + JSON.stringify(servedEntities)).not.toContain('CLEAR-');
      await control.database.system.run('CHECKPOINT duckserve');
      const files = readdirSync(control.directory, { recursive: true, encoding: 'utf8' });
      for (const file of files.filter((name) => /\.(duckdb|wal|key)/.test(name))) {
        expect(readFileSync(join(control.directory, file)).includes('CLEAR-')).toBe(false);
      }
      // Sent back as it was read, it stays the same key.
      const again = await control.ask('PUT', `${BASE}/e/config`, (await get('e')).config);
      expect(again.status).toBe(200);
      expect(control.secrets.listSecrets()).toHaveLength(texts.length);
      await control.ask('DELETE', `${BASE}/e`);
      expect(control.secrets.listSecrets()).toEqual([]);
    },
  );

  it('have the old key until the new one is in use, and no key stays behind a failed update', async () => {
    const keyed = (key: string, rest: object = {}) =>
      external({ openai_config: { openai_api_key_plaintext: key, ...rest } });
    await create(endpointOf('e', keyed('CLEAR-old')));
    const [before] = control.secrets.listSecrets();
    const { served_entities } = endpointOf('e', keyed('CLEAR-bad', { openai_api_base: 'nowhere' }))
      .config as { served_entities: object[] };
    expect((await control.ask('PUT', `${BASE}/e/config`, { served_entities })).status).toBe(400);
    expect(control.secrets.listSecrets()).toEqual([before]);
    const fine = endpointOf('e', keyed('CLEAR-new')).config;
    expect((await control.ask('PUT', `${BASE}/e/config`, fine)).status).toBe(200);
    const [after, ...rest] = control.secrets.listSecrets();
    expect(rest).toEqual([]);
    expect(control.secrets.resolve(`{{secrets/endpoints/${after?.key}}}`)).toBe('CLEAR-new');
  });

  it('leave no key behind when an update cannot be made ready', async () => {
    await create(endpointOf('e', external({ openai_config: { openai_api_key_plaintext: 'CLEAR-old' } })));
    const before = control.secrets.listSecrets();
    const update = {
      served_entities: [
        { name: 'a', external_model: external({ openai_config: { openai_api_key_plaintext: 'CLEAR-new' } }) },
        { name: 'b', external_model: external({ openai_config: { openai_api_key: '{{env/UNSET}}' } }) },
      ],
      traffic_config: { routes: [{ served_entity_name: 'a', traffic_percentage: 100 }] },
    };
    const answered = await control.ask('PUT', `${BASE}/e/config`, update);
    expect(answered.body.state).toEqual({ ready: 'READY', config_update: 'UPDATE_FAILED' });
    expect(control.secrets.listSecrets()).toEqual(before);
    expect(control.registry.resolve('e').target.servedEntity).toBe('gpt-4o-mini');
  });

  it('repeat no key in a refusal, wherever it was put', async () => {
    for (const config of [
      { openai_api_key: 'CLEAR-1' },
      { openai_api_key_plaintext: { deep: 'CLEAR-1' } },
      { openai_api_key_plaintext: 'CLEAR-1', openai_api_base: 5 },
      { openai_api_key: ['CLEAR-1'] },
    ]) {
      const refused = await create(endpointOf('x', external({ openai_config: config })));
      expect(refused.status).toBe(400);
    }
    expect(control.said.join()).not.toContain('CLEAR-');
    expect(control.secrets.listSecrets()).toEqual([]);
  });
});
