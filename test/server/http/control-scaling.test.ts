// Replicas and variables of served entities over HTTP: what is taken, given back, refused, and what is told of them.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import type { ReplicaState } from '#serving/replicas-state.ts';
import { createMetrics } from '../../../src/server/http/metrics.ts';
import { BASE, type Control, external, openControl, registerModel, tokenOf } from './control-support.ts';

let control: Control;
beforeEach(async () => {
  control = await openControl();
  await registerModel(control, 'm');
});
afterEach(() => control.close());

const configOf = (entity: object) => ({ served_entities: [{ entity_name: 'm', ...entity }] });
async function create(entity: object, headers?: Record<string, string>) {
  const created = await control.ask('POST', BASE, { name: 'e', config: configOf(entity) }, headers);
  if (created.status === 200) await control.registry.settled('e');
  return created;
}
async function change(entity: object) {
  const changed = await control.ask('PUT', `${BASE}/e/config`, configOf(entity));
  await control.registry.settled('e');
  return changed;
}
const get = async () => (await control.ask('GET', `${BASE}/e`)).body;
const targetOf = () => control.registry.resolve('e').target;

const STATE: ReplicaState = {
  ...{ ready: 1, starting: 2, draining: 0, minReplicas: 0, maxReplicas: 4, inFlight: 3, waiting: 7 },
  ...{ opened: 5, coldStarts: 2, coldStartMs: 2_500, lost: 1 },
};

describe('scaling of a served entity', () => {
  it('comes back exactly as it was set, in both lists, and the model is served with it', async () => {
    const scaling = { max_replicas: 4, idle_seconds: 90.5 };
    expect((await create({ scaling })).status).toBe(200);
    const { config } = await get();
    expect(config.served_entities[0].scaling).toEqual(scaling);
    expect(config.served_models[0].scaling).toEqual(scaling);
    expect(targetOf().scaling).toEqual({ maxReplicas: 4, idleSeconds: 90.5 });
    // What was read can be sent back.
    const sent = await control.ask('PUT', `${BASE}/e/config`, { served_entities: config.served_entities });
    expect([sent.status, sent.body.config.served_entities[0].scaling]).toEqual([200, scaling]);
  });

  it('is absent where it was not set, and gone where it is set no more', async () => {
    await create({ scaling: { min_replicas: 0 } });
    await change({});
    expect((await get()).config.served_entities[0]).not.toHaveProperty('scaling');
    expect(targetOf()).not.toHaveProperty('scaling');
  });

  it('does not change which answers are equal, and the environment does', async () => {
    await create({});
    const { fingerprint } = targetOf();
    await change({ scaling: { max_replicas: 9 } });
    expect(targetOf().fingerprint).toBe(fingerprint);
    await change({ environment_vars: { MODE: 'fast' } });
    expect(targetOf()).toMatchObject({ environment: { MODE: 'fast' } });
    expect(targetOf().fingerprint).not.toBe(fingerprint);
  });

  it('to zero is what scale_to_zero_enabled asks for, unless scaling says more', async () => {
    await create({ scale_to_zero_enabled: true, scaling: { idle_seconds: 60 } });
    expect(targetOf().scaling).toEqual({ minReplicas: 0, idleSeconds: 60 });
    await change({ scale_to_zero_enabled: true, scaling: { min_replicas: 1 } });
    expect(targetOf().scaling).toEqual({ minReplicas: 1 });
  });

  it.each([
    ['more at least than at most', { scaling: { min_replicas: 3, max_replicas: 2 } }, 'min_replicas'],
    ['no replica at most', { scaling: { max_replicas: 0 } }, 'max_replicas'],
    ['a part of a replica', { scaling: { max_replicas: 1.5 } }, 'max_replicas'],
    ['a queue for nobody', { scaling: { max_queue: 0 } }, 'max_queue'],
    ['a member that does not exist', { scaling: { replicas: 2 } }, 'replicas'],
    [
      'bounds the wrong way round',
      { min_provisioned_concurrency: 8, max_provisioned_concurrency: 4 },
      'min_provisioned_concurrency',
    ],
    ['a variable without a name', { environment_vars: { '1 X': 'value' } }, '1 X'],
  ])('with %s is refused by name', async (_, entity, part) => {
    const refused = await create(entity);
    expect([refused.status, refused.body.error_code]).toEqual([400, 'INVALID_PARAMETER_VALUE']);
    expect(refused.body.message).toContain(part);
  });

  it.each([
    ['scaling', { scaling: { max_replicas: 2 } }],
    ['environment_vars', { environment_vars: { A: 'b' } }],
  ])('of an external model is refused with the reason: %s', async (field, own) => {
    const refused = await control.ask('POST', BASE, {
      name: 'x',
      config: { served_entities: [{ external_model: external(), ...own }] },
    });
    expect(refused.status).toBe(400);
    expect(refused.body.message).toContain(field);
    expect(refused.body.message).toContain('registered models');
  });
});

describe('variables of a served entity', () => {
  it('come back as they were set, and the secret behind a reference never does', async () => {
    await control.secrets.setSecret('s', 'k', 'the-secret-itself');
    const environment_vars = { API_KEY: '{{secrets/s/k}}', camelCase: 'x', UPPER_CASE: 'y' };
    expect((await create({ environment_vars })).status).toBe(200);
    expect((await get()).config.served_entities[0].environment_vars).toEqual(environment_vars);
    expect(targetOf().environment).toEqual(environment_vars);
    expect(control.said.join()).not.toContain('the-secret-itself');
  });

  it('that refer to nothing keep the endpoint from being ready, and say which', async () => {
    await create({ environment_vars: { API_KEY: '{{secrets/s/missing}}' } });
    const [entity] = (await get()).config.served_entities;
    expect(entity.state.deployment).toBe('DEPLOYMENT_FAILED');
    expect(entity.state.deployment_state_message).toContain('{{secrets/s/missing}}');
  });

  it('with references to secrets are for admins: whoever serves a model of his own would read them', async () => {
    await control.secrets.setSecret('s', 'k', 'the-secret-itself');
    const ann = await tokenOf(control, 'ann', LOCAL_OWNER);
    const refused = await create({ environment_vars: { K: 'a {{secrets/s/k}}' } }, ann);
    expect([refused.status, refused.body.error_code]).toEqual([403, 'PERMISSION_DENIED']);
    expect(refused.body.message).toContain('{{secrets/s/k}}');
    expect((await create({ environment_vars: { K: 'plain' } }, ann)).status).toBe(200);
  });

  it('are not shown where they are refused: they may be secrets', async () => {
    const refused = await create({ environment_vars: { KEY: 42_424_242 } });
    expect(refused.status).toBe(400);
    expect(refused.body.message).toContain('environment_vars');
    expect(control.said.join()).not.toContain('42424242');
  });
});

describe('replicas of a served entity', () => {
  const tell = (state: ReplicaState) =>
    Object.assign(control.deps.serving, {
      replicasOf: (endpoint: string, entity: string) =>
        endpoint === 'e' && entity === 'm' ? state : undefined,
      replicas: () => [{ target: 'e/m', state }],
    });

  it('are in its state, and a model that is scaled to zero is ready', async () => {
    await create({});
    tell({ ...STATE, ready: 0, starting: 0, inFlight: 0, waiting: 0 });
    const { state, config } = await get();
    expect(state.ready).toBe('READY');
    expect(config.served_entities[0].state).toEqual({
      deployment: 'DEPLOYMENT_READY',
      deployment_state_message: '',
      replicas: { ready: 0, starting: 0, draining: 0, min: 0, max: 4, in_flight: 0, waiting: 0 },
    });
  });

  it('that are lost again and again make it recovering, with the reason', async () => {
    await create({});
    tell({ ...STATE, ready: 0, failure: 'It dies.' });
    expect((await get()).config.served_entities[0].state).toMatchObject({
      deployment: 'DEPLOYMENT_RECOVERING',
      deployment_state_message: 'It dies.',
    });
  });

  it('are in /metrics, with cold starts and losses', async () => {
    tell(STATE);
    const { text } = await createMetrics(control.deps).render();
    for (const line of [
      'duckserve_replicas{target="e/m",state="ready"} 1',
      'duckserve_replicas{target="e/m",state="starting"} 2',
      'duckserve_replicas_max{target="e/m"} 4',
      'duckserve_replica_starts_total{target="e/m"} 5',
      'duckserve_cold_starts_total{target="e/m"} 2',
      'duckserve_cold_start_seconds_total{target="e/m"} 2.5',
      'duckserve_replicas_lost_total{target="e/m"} 1',
    ]) {
      expect(text.split('\n')).toContain(line);
    }
  });
});
