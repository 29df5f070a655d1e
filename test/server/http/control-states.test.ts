// States of an endpoint over HTTP: making ready, updating, failing, stopping; and configurations that are refused.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BASE, type Control, endpointOf, external, openControl, registerModel } from './control-support.ts';

let control: Control;
beforeEach(async () => {
  control = await openControl();
});
afterEach(() => control.close());

const create = (body: unknown) => control.ask('POST', BASE, body);
const get = async (name: string) => (await control.ask('GET', `${BASE}/${name}`)).body;

/** A promise that the test ends. */
function gate() {
  let open: () => void = () => {};
  let fail: (error: Error) => void = () => {};
  const passed = new Promise<void>((resolve, reject) => {
    open = resolve;
    fail = reject;
  });
  passed.catch(() => {});
  return { passed, open, fail };
}

describe('the state of an endpoint', () => {
  it('is NOT_READY and IN_PROGRESS while its model loads, and READY then', async () => {
    await registerModel(control, 'm');
    const loading = gate();
    control.load = () => loading.passed.then(() => () => {});
    const created = await create({ name: 'e', config: { served_entities: [{ entity_name: 'm' }] } });
    expect(created.body.state).toEqual({ ready: 'NOT_READY', config_update: 'IN_PROGRESS' });
    expect(created.body.config.served_entities[0].state.deployment).toBe('DEPLOYMENT_CREATING');
    expect((await control.ask('GET', `${BASE}/e/openapi`)).status).toBe(409);
    loading.open();
    await control.registry.settled('e');
    expect((await get('e')).state).toEqual({ ready: 'READY', config_update: 'NOT_UPDATING' });
  });

  it('says what is in the way when it cannot be made ready, and is made ready by starting it again', async () => {
    const body = endpointOf('e', external({ openai_config: { openai_api_key: '{{secrets/my/key}}' } }));
    const created = await create(body);
    expect(created.status).toBe(200);
    expect(created.body.state).toEqual({ ready: 'NOT_READY', config_update: 'UPDATE_FAILED' });
    const { state } = created.body.config.served_entities[0];
    expect(state.deployment).toBe('DEPLOYMENT_FAILED');
    expect(state.deployment_state_message).toContain('{{secrets/my/key}}');
    expect(state.deployment_state_message).toContain('SECRET_NOT_FOUND');
    await control.secrets.setSecret('my', 'key', 'x');
    const started = await control.ask('POST', `${BASE}/e/config:start`);
    expect(started.body.state).toEqual({ ready: 'READY', config_update: 'NOT_UPDATING' });
  });

  it('serves the old configuration while the new one loads, refuses a second update, then swaps', async () => {
    await registerModel(control, 'm');
    await registerModel(control, 'm');
    await create({
      name: 'e',
      config: { served_entities: [{ name: 'a', entity_name: 'm', entity_version: '1' }] },
    });
    const loading = gate();
    const released: string[] = [];
    control.load = (targets) =>
      loading.passed.then(() => () => void released.push(...targets.map(({ model }) => model)));
    const update = { served_entities: [{ name: 'a', entity_name: 'm', entity_version: '2' }] };
    const answered = await control.ask('PUT', `${BASE}/e/config`, update);
    expect(answered.body.state).toEqual({ ready: 'READY', config_update: 'IN_PROGRESS' });
    expect(answered.body.config).toMatchObject({
      config_version: 1,
      served_entities: [{ entity_version: '1' }],
    });
    expect(answered.body.pending_config).toMatchObject({
      config_version: 2,
      start_time: expect.any(Number),
      served_entities: [{ entity_version: '2', state: { deployment: 'DEPLOYMENT_CREATING' } }],
      traffic_config: { routes: [{ served_entity_name: 'a', traffic_percentage: 100 }] },
    });
    expect(control.registry.resolve('e').target.modelVersion?.version).toBe('1');
    expect(await control.ask('PUT', `${BASE}/e/config`, update)).toMatchObject({
      status: 409,
      body: { error_code: 'RESOURCE_CONFLICT' },
    });
    // What is not about the configuration may change meanwhile, and stays.
    await control.ask('PATCH', `${BASE}/e/tags`, { add_tags: [{ key: 'k', value: 'v' }] });
    await control.ask('PUT', `${BASE}/e/ai-gateway`, {
      rate_limits: [{ calls: 5, key: 'endpoint', renewal_period: 'minute' }],
    });
    loading.open();
    await control.registry.settled('e');
    const read = await get('e');
    expect(read.state).toEqual({ ready: 'READY', config_update: 'NOT_UPDATING' });
    expect(read.pending_config).toBeUndefined();
    expect(read.config).toMatchObject({ config_version: 2, served_entities: [{ entity_version: '2' }] });
    expect(read.config.served_entities[0].id).toBe(answered.body.config.served_entities[0].id);
    expect([read.tags, read.ai_gateway.rate_limits.length]).toEqual([[{ key: 'k', value: 'v' }], 1]);
    expect(released).toEqual(['m@2']);
  });

  it('goes on with the old configuration when the new one cannot be loaded', async () => {
    await registerModel(control, 'm');
    await create({ name: 'e', config: { served_entities: [{ name: 'a', entity_name: 'm' }] } });
    control.load = async () => {
      throw new Error('the file is broken');
    };
    await control.ask('PUT', `${BASE}/e/config`, { served_entities: [{ name: 'b', entity_name: 'm' }] });
    await control.registry.settled('e');
    const read = await get('e');
    expect(read.state).toEqual({ ready: 'READY', config_update: 'UPDATE_FAILED' });
    expect(read.config.served_entities[0].name).toBe('a');
    expect(read.pending_config.served_entities[0].state).toMatchObject({
      deployment: 'DEPLOYMENT_FAILED',
      deployment_state_message: expect.stringContaining('the file is broken'),
    });
    expect(control.registry.resolve('e').target.servedEntity).toBe('a');
    const logs = await control.ask('GET', `${BASE}/e/served-models/a/logs`);
    expect(logs.body.logs).toContain('is ready');
    control.load = async () => () => {};
    const fixed = await control.ask('PUT', `${BASE}/e/config`, {
      served_entities: [{ name: 'b', entity_name: 'm' }],
    });
    await control.registry.settled('e');
    expect(fixed.status).toBe(200);
    expect((await get('e')).config).toMatchObject({ config_version: 2, served_entities: [{ name: 'b' }] });
  });

  it('of a deleted endpoint means nothing for the next one of its name', async () => {
    await registerModel(control, 'm');
    await create({ name: 'e', config: { served_entities: [{ name: 'a', entity_name: 'm' }] } });
    const loading = gate();
    control.load = () => loading.passed.then(() => () => {});
    await control.ask('PUT', `${BASE}/e/config`, { served_entities: [{ name: 'late', entity_name: 'm' }] });
    expect((await control.ask('DELETE', `${BASE}/e`)).body).toEqual({});
    control.load = async () => () => {};
    await create({ name: 'e', config: { served_entities: [{ name: 'next', entity_name: 'm' }] } });
    loading.open();
    await loading.passed;
    await new Promise(setImmediate);
    await control.registry.settled('e');
    expect((await get('e')).config).toMatchObject({ config_version: 1, served_entities: [{ name: 'next' }] });
  });

  it('is stopped and started by hand, and stopping cancels an update', async () => {
    await registerModel(control, 'm');
    await create({ name: 'e', config: { served_entities: [{ name: 'a', entity_name: 'm' }] } });
    const stopped = await control.ask('POST', `${BASE}/e/config:stop`);
    expect(stopped.body.state).toEqual({ ready: 'NOT_READY', config_update: 'NOT_UPDATING' });
    expect(control.registry.getEndpoint('e').isStopped).toBe(true);
    const started = await control.ask('POST', `${BASE}/e/config:start`);
    expect(started.status).toBe(200);
    await control.registry.settled('e');
    expect((await get('e')).state).toEqual({ ready: 'READY', config_update: 'NOT_UPDATING' });
    const loading = gate();
    control.load = () => loading.passed.then(() => () => {});
    await control.ask('PUT', `${BASE}/e/config`, { served_entities: [{ name: 'b', entity_name: 'm' }] });
    const cancelled = await control.ask('POST', `${BASE}/e/config:stop`);
    expect(cancelled.body.state).toEqual({ ready: 'NOT_READY', config_update: 'UPDATE_CANCELED' });
    loading.open();
    await loading.passed;
    await new Promise(setImmediate);
    expect((await get('e')).config.served_entities[0].name).toBe('a');
  });
});

describe('PUT config', () => {
  it('changes the traffic alone', async () => {
    const served_entities = ['a', 'b'].map((name) => ({ name, external_model: external({ name }) }));
    const split = (a: number, b: number) => ({
      routes: [
        { served_entity_name: 'a', traffic_percentage: a },
        { served_entity_name: 'b', traffic_percentage: b },
      ],
    });
    await create({ name: 'e', config: { served_entities, traffic_config: split(100, 0) } });
    const changed = await control.ask('PUT', `${BASE}/e/config`, { traffic_config: split(10, 90) });
    expect(changed.body.config).toMatchObject({ config_version: 2, traffic_config: split(10, 90) });
    expect(control.registry.resolve('e', { random: 0.5 }).target.servedEntity).toBe('b');
  });

  it.each<[string, object, string[]]>([
    ['nothing', {}, ['nothing to change']],
    ['another kind of model', { served_entities: [{ entity_name: 'm' }] }, ['serves external models']],
    [
      'another task',
      { served_entities: [{ external_model: external({ task: 'llm/v1/completions' }) }] },
      ['llm/v1/completions'],
    ],
    ['a field that is not known', { served_entites: [] }, ["'served_entites'"]],
  ])('refuses %s', async (_, body, parts) => {
    await registerModel(control, 'm');
    await create(endpointOf('e', external()));
    const refused = await control.ask('PUT', `${BASE}/e/config`, body);
    expect(refused.status).toBe(400);
    for (const part of parts) expect(refused.body.message).toContain(part);
    expect((await get('e')).config.config_version).toBe(1);
  });

  it('and every other change is refused for what is built in', async () => {
    for (const [method, path, body] of [
      ['PUT', 'config', { served_entities: [{ entity_name: 'echo' }] }],
      ['PUT', 'ai-gateway', {}],
      ['PATCH', 'tags', {}],
      ['POST', 'config:stop', {}],
    ] as const) {
      const { status } = await control.ask(method, `${BASE}/echo-chat/${path}`, body);
      expect([path, [403, 409].includes(status)]).toEqual([path, true]);
    }
  });
});
