// Creating endpoints over HTTP: what a Databricks client sends, what comes back, what is refused.
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BASE, type Control, endpointOf, external, openControl, registerModel } from './control-support.ts';

let control: Control;
beforeEach(async () => {
  control = await openControl();
});
afterEach(() => control.close());

const create = (body: unknown) => control.ask('POST', BASE, body);
const get = async (name: string) => (await control.ask('GET', `${BASE}/${name}`)).body;

describe('POST /api/2.0/serving-endpoints', () => {
  it('creates an endpoint from what a Databricks client sends, and GET gives it back as it was set', async () => {
    await registerModel(control, 'turbine_failure');
    const entity = {
      name: 'current',
      entity_name: 'turbine_failure',
      entity_version: '1',
      workload_size: 'Small',
      workload_type: 'CPU',
      scale_to_zero_enabled: true,
      environment_vars: { MODE: 'fast' },
      instance_profile_arn: 'arn:aws:iam::1:role/x',
    };
    const body = {
      name: 'turbines',
      description: 'which one fails next',
      config: {
        served_entities: [{ ...entity, burst_scaling_enabled: true }],
        traffic_config: { routes: [{ served_model_name: 'current', traffic_percentage: 100 }] },
      },
      tags: [{ key: 'team', value: 'a' }, { key: 'bare' }],
      route_optimized: true,
      budget_policy_id: 'b-1',
      email_notifications: { on_update_failure: ['a@b.c'] },
    };
    const created = await create(body);
    expect(created.status).toBe(200);
    const read = await get('turbines');
    expect(read).toEqual({
      name: 'turbines',
      id: expect.stringMatching(/^[0-9a-f]{32}$/),
      creator: 'local',
      creator_display_name: 'local',
      creator_kind: 'User',
      description: 'which one fails next',
      creation_timestamp: expect.any(Number),
      last_updated_timestamp: expect.any(Number),
      state: { ready: 'READY', config_update: 'NOT_UPDATING' },
      tags: body.tags,
      endpoint_type: 'CUSTOM_MODEL',
      route_optimized: true,
      budget_policy_id: 'b-1',
      email_notifications: { on_update_failure: ['a@b.c'] },
      permission_level: 'CAN_MANAGE',
      endpoint_url: 'http://localhost/serving-endpoints/turbines/invocations',
      config: {
        config_version: 1,
        served_entities: [
          {
            ...entity,
            id: expect.stringMatching(/^[0-9a-f]{32}$/),
            state: { deployment: 'DEPLOYMENT_READY', deployment_state_message: '' },
            creator: 'local',
            creation_timestamp: read.creation_timestamp,
          },
        ],
        served_models: [
          expect.objectContaining({ name: 'current', model_name: 'turbine_failure', model_version: '1' }),
        ],
        traffic_config: {
          routes: [{ served_model_name: 'current', served_entity_name: 'current', traffic_percentage: 100 }],
        },
      },
    });
    expect(read.creation_timestamp).toBeGreaterThan(1_700_000_000_000);
    const list = (await control.ask('GET', BASE)).body.endpoints;
    const listed = list.find(({ name }: { name: string }) => name === 'turbines');
    expect(listed.config).toEqual({
      served_entities: [{ name: 'current', entity_name: 'turbine_failure', entity_version: '1' }],
    });
  });

  it('names entities after their model, gives one alone all the traffic, and takes the older names', async () => {
    await registerModel(control, 'turbine_failure');
    const models = [{ model_name: 'turbine_failure', model_version: 1, workload_size: 'Small' }];
    await create({ name: 'old', config: { served_models: models } });
    expect((await get('old')).config).toMatchObject({
      served_entities: [
        {
          name: 'turbine_failure-1',
          entity_name: 'turbine_failure',
          entity_version: '1',
          workload_size: 'Small',
        },
      ],
      traffic_config: { routes: [{ served_entity_name: 'turbine_failure-1', traffic_percentage: 100 }] },
    });
    await create(endpointOf('ext', external({ name: 'gpt-4.1:mini' })));
    const read = await get('ext');
    expect(read.config.served_entities[0].name).toBe('gpt-4-1-mini');
    expect(read).toMatchObject({ task: 'llm/v1/chat', endpoint_type: 'EXTERNAL_MODEL' });
    expect(read.config.served_models).toBeUndefined();
  });

  const openai = (config: object) => external({ openai_config: config });
  const config = (name: string, ...entities: object[]) => ({ name, config: { served_entities: entities } });
  it.each<[string, () => unknown, number, string[]]>([
    ['a name with a blank', () => endpointOf('a b', external()), 400, ["'name'", 'letters, digits', '"a b"']],
    [
      'a name of the platform',
      () => endpointOf('databricks-x', external()),
      400,
      ["'databricks-x'", 'reserved'],
    ],
    ['no name', () => ({ config: {} }), 400, ["'name'", 'missing']],
    ['no config', () => ({ name: 'x' }), 400, ["'config' is missing"]],
    ['a misspelt field', () => ({ ...endpointOf('x', external()), ai_gatway: {} }), 400, ["'ai_gatway'"]],
    ['no entity', () => config('x'), 400, ['config.served_entities']],
    [
      'eleven entities',
      () =>
        config('x', ...Array.from({ length: 11 }, (_, i) => ({ name: `e${i}`, external_model: external() }))),
      400,
      ['at most 10'],
    ],
    [
      'both kinds of model',
      () => ({
        name: 'x',
        config: {
          served_entities: [{ external_model: external() }, { entity_name: 'm' }],
          traffic_config: { routes: [{ served_entity_name: 'm', traffic_percentage: 100 }] },
        },
      }),
      400,
      ["'gpt-4o-mini' is an external model and 'm' a registered one"],
    ],
    [
      'several tasks',
      () => ({
        name: 'x',
        config: {
          served_entities: [
            { external_model: external() },
            { external_model: external({ name: 'e', task: 'llm/v1/embeddings' }) },
          ],
          traffic_config: { routes: [{ served_entity_name: 'e', traffic_percentage: 100 }] },
        },
      }),
      400,
      ['llm/v1/embeddings', 'task'],
    ],
    [
      'several entities without traffic',
      () => config('x', { external_model: external() }, { external_model: external({ name: 'b' }) }),
      400,
      ['needs routes'],
    ],
    [
      'traffic that does not add up',
      () => ({
        name: 'x',
        config: {
          served_entities: [{ name: 'a', external_model: external() }],
          traffic_config: { routes: [{ served_entity_name: 'a', traffic_percentage: 99 }] },
        },
      }),
      400,
      ['add up to 99'],
    ],
    [
      'traffic over a hundred',
      () => ({
        name: 'x',
        config: {
          served_entities: [{ name: 'a', external_model: external() }],
          traffic_config: { routes: [{ served_entity_name: 'a', traffic_percentage: 101 }] },
        },
      }),
      400,
      ['config.traffic_config.routes[0].traffic_percentage', 'got 101'],
    ],
    [
      'a model that does not exist',
      () => config('x', { entity_name: 'gone', entity_version: '1' }),
      404,
      ["'gone'"],
    ],
    [
      'sizes of an external model',
      () => config('x', { external_model: external(), workload_size: 'Small' }),
      400,
      ["'workload_size'"],
    ],
    [
      'two kinds of size',
      () => config('x', { entity_name: 'm', workload_size: 'Small', min_provisioned_concurrency: 4 }),
      400,
      ['exclude each other'],
    ],
    [
      'a provider nobody knows',
      () => endpointOf('x', external({ provider: 'acme' })),
      400,
      ['"acme"', 'amazon-bedrock'],
    ],
    [
      'a provider that is gone',
      () => endpointOf('x', external({ provider: 'palm' })),
      501,
      ['"palm"', 'google-cloud-vertex-ai'],
    ],
    [
      'another retired provider',
      () => endpointOf('x', external({ provider: 'ai21labs', ai21labs_config: {} })),
      501,
      ['ai21labs', 'custom'],
    ],
    [
      'settings of another provider',
      () => endpointOf('x', external({ cohere_config: { cohere_api_key: '{{env/SET}}' } })),
      400,
      ["'external_model.cohere_config'", 'openai_config'],
    ],
    [
      'a misspelt setting',
      () => endpointOf('x', openai({ api_base: 'http://x' })),
      400,
      ["'api_base'", 'openai_config'],
    ],
    [
      'an address that is none',
      () => endpointOf('x', openai({ openai_api_base: 'nowhere' })),
      400,
      ["'config.served_entities[0].external_model.openai_config.openai_api_base'", '"nowhere"'],
    ],
    [
      'no address',
      () => endpointOf('x', external({ provider: 'custom', custom_provider_config: {} })),
      400,
      ['custom_provider_url'],
    ],
    [
      'two ways to send a key',
      () =>
        endpointOf(
          'x',
          external({
            provider: 'custom',
            custom_provider_config: {
              custom_provider_url: 'http://x',
              bearer_token_auth: { token: '{{env/SET}}' },
              api_key_auth: { key: 'x-key', value: '{{env/SET}}' },
            },
          }),
        ),
      400,
      ['exactly one of them'],
    ],
    [
      'a key twice',
      () => endpointOf('x', openai({ openai_api_key: '{{env/SET}}', openai_api_key_plaintext: 'sk-1' })),
      400,
      ['openai_config.openai_api_key', 'exactly one of them'],
    ],
    [
      'half a key',
      () =>
        endpointOf(
          'x',
          external({
            provider: 'amazon-bedrock',
            amazon_bedrock_config: {
              aws_region: 'us-east-1',
              bedrock_provider: 'amazon',
              aws_access_key_id: '{{env/SET}}',
            },
          }),
        ),
      400,
      ['amazon_bedrock_config.aws_secret_access_key'],
    ],
    [
      'a role of a cloud',
      () =>
        endpointOf(
          'x',
          external({
            provider: 'amazon-bedrock',
            amazon_bedrock_config: {
              aws_region: 'us-east-1',
              bedrock_provider: 'amazon',
              instance_profile_arn: 'arn:x',
            },
          }),
        ),
      501,
      ['instance_profile_arn', 'aws_access_key_id'],
    ],
    [
      'a region that is a host',
      () =>
        endpointOf(
          'x',
          external({
            provider: 'amazon-bedrock',
            amazon_bedrock_config: { aws_region: 'evil.example/', bedrock_provider: 'amazon' },
          }),
        ),
      400,
      ['aws_region', 'region'],
    ],
    [
      'telemetry',
      () => ({ ...endpointOf('x', external()), telemetry_config: {} }),
      501,
      ['telemetry_config'],
    ],
    [
      'automatic capture',
      () => ({
        name: 'x',
        config: { served_entities: [{ external_model: external() }], auto_capture_config: {} },
      }),
      501,
      ['inference_table_config'],
    ],
    [
      'limits in two places',
      () => ({
        ...endpointOf('x', external()),
        rate_limits: [{ calls: 1, renewal_period: 'minute' }],
        ai_gateway: { rate_limits: [] },
      }),
      400,
      ['both given'],
    ],
    [
      'thirty-one variables',
      () =>
        config('x', {
          entity_name: 'm',
          environment_vars: Object.fromEntries(Array.from({ length: 31 }, (_, i) => [`V${i}`, 'x'])),
        }),
      400,
      ['31'],
    ],
  ])('refuses %s', async (_, body, status, parts) => {
    await registerModel(control, 'm');
    const refused = await create(body());
    expect([refused.status, refused.body.message]).toEqual([status, expect.any(String)]);
    for (const part of parts) expect(refused.body.message).toContain(part);
    expect((await control.ask('GET', `${BASE}/x`)).status).toBe(404);
  });

  it('has an answer for whatever is sent, and it is never that the server failed', async () => {
    const field = fc.constantFrom(
      ...[
        'name',
        'config',
        'served_entities',
        'external_model',
        'provider',
        'task',
        'openai_config',
        'tags',
        'key',
      ],
      ...[
        'ai_gateway',
        'rate_limits',
        'traffic_config',
        'routes',
        'openai_api_key_plaintext',
        '__proto__',
        'x',
      ],
    );
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 5 },
        fc.constantFrom('chat', 'openai', 'llm/v1/chat', "'; DROP TABLE x --", 'a\r\nb: c', '{{env/SET}}'),
        fc.jsonValue({ maxDepth: 1 }),
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(field, tie('value'), { maxKeys: 6 }),
      ),
    }));
    const wild = fc.dictionary(field, value, { maxKeys: 8 });
    await create(endpointOf('there', external()));
    await fc.assert(
      fc.asyncProperty(wild, async (body) => {
        const asked = [
          await create(body),
          await create({ name: 'wild', config: { served_entities: [{ external_model: body }] } }),
          await control.ask('PUT', `${BASE}/there/config`, body),
          await control.ask('PUT', `${BASE}/there/ai-gateway`, body),
          await control.ask('PATCH', `${BASE}/there/tags`, body),
        ];
        for (const { status } of asked) expect([200, 400, 404, 409, 501]).toContain(status);
        if (asked[1]?.status === 200) await control.ask('DELETE', `${BASE}/wild`);
      }),
      { numRuns: 150 },
    );
  });

  it('refuses a name that is taken with RESOURCE_ALREADY_EXISTS', async () => {
    await create(endpointOf('once', external()));
    expect(await create(endpointOf('once', external()))).toMatchObject({
      status: 409,
      body: { error_code: 'RESOURCE_ALREADY_EXISTS', message: expect.stringContaining("'once'") },
    });
  });

  it('takes rate limits in their older place and does not give them back there', async () => {
    const rate_limits = [{ calls: 10, key: 'user', renewal_period: 'minute' }];
    await create({ ...endpointOf('limited', external()), rate_limits });
    const read = await get('limited');
    expect(read.rate_limits).toBeUndefined();
    expect(read.ai_gateway).toEqual({ rate_limits });
  });
});

describe('what one can read about an endpoint', () => {
  it('openapi tells what each model takes, by its signature', async () => {
    await registerModel(control, 'm');
    await create({ name: 'e', config: { served_entities: [{ name: 'a', entity_name: 'm' }] } });
    const { body } = await control.ask('GET', `${BASE}/e/openapi`);
    expect(body).toMatchObject({
      openapi: '3.1.0',
      info: { title: 'e', version: '1' },
      servers: [{ url: 'http://localhost/serving-endpoints/e' }],
    });
    const { post } = body.paths['/served-models/a/invocations'];
    const forms = post.requestBody.content['application/json'].schema.oneOf;
    expect(forms.map((form: { required: string[] }) => form.required[0])).toEqual([
      'dataframe_split',
      'dataframe_records',
      'instances',
      'inputs',
    ]);
    const split = forms[0].properties.dataframe_split.properties;
    expect(split.columns.items.enum).toEqual(['length', 'count']);
    expect(split.data.items.prefixItems).toEqual([
      { type: 'number', format: 'double' },
      { type: 'integer', format: 'int64' },
    ]);
    expect(post.responses['200'].content['application/json'].schema.properties.predictions.items).toEqual({
      type: 'string',
    });
    await create(endpointOf('chat', external()));
    const chat = (await control.ask('GET', `${BASE}/chat/openapi`)).body;
    const schema =
      chat.paths['/served-models/gpt-4o-mini/invocations'].post.requestBody.content['application/json']
        .schema;
    expect(schema.required).toEqual(['messages']);
    await registerModel(control, 'p', 'plain.onnx');
    await create({ name: 'p', config: { served_entities: [{ entity_name: 'p' }] } });
    const refused = await control.ask('GET', `${BASE}/p/openapi`);
    expect([refused.status, refused.body.message]).toEqual([400, expect.stringContaining('no signature')]);
  });

  it('logs tell what became of an entity and which requests failed; build logs where its model is from', async () => {
    await registerModel(control, 'm');
    await create({ name: 'e', config: { served_entities: [{ name: 'a', entity_name: 'm' }] } });
    await control.registry.settled('e');
    const failed = { endpoint: 'e', servedEntity: 'a', statusCode: 502, errorCode: 'UPSTREAM_ERROR' };
    for (let index = 0; index < 300; index++) {
      control.deps.emitUsage({ ...failed, errorMessage: `line\nbreak ${index}` });
    }
    const { logs } = (await control.ask('GET', `${BASE}/e/served-models/a/logs`)).body;
    const lines = logs.trimEnd().split('\n');
    expect(lines).toHaveLength(200);
    expect(lines.at(-1)).toContain('UPSTREAM_ERROR (502) line break 299');
    const built = (await control.ask('GET', `${BASE}/e/served-models/a/build-logs`)).body.logs;
    expect(built).toContain('Registered m version 1');
    expect(built).toContain('length double');
    const unknown = await control.ask('GET', `${BASE}/e/served-models/z/logs`);
    expect([unknown.status, unknown.body.message]).toEqual([404, expect.stringContaining('It has: a')]);
  });

  it.each([
    ['PATCH', `${BASE}/e/telemetry-config`],
    ['PATCH', `${BASE}/e/system-metrics-export-state`],
    ['POST', `${BASE}/pt`],
    ['PUT', `${BASE}/pt/e/config`],
    ['POST', '/api/2.0/external-function'],
  ])('%s %s is not offered, and says so', async (method, path) => {
    await create(endpointOf('e', external()));
    const refused = await control.ask(method, path, {});
    expect([refused.status, refused.body.error_code]).toEqual([501, 'NOT_IMPLEMENTED']);
    expect(refused.body.message.length).toBeGreaterThan(40);
  });

  it('a path asked by another method is 405 with what it takes', async () => {
    const refused = await control.ask('DELETE', `${BASE}/e/config:stop`);
    expect([refused.status, refused.body.details[0].reason]).toEqual([405, 'METHOD_NOT_ALLOWED']);
    expect(refused.body.message).toContain('takes POST');
  });
});
