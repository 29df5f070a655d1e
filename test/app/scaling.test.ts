// Replicas of real models in the whole application: what SQL and HTTP tell of them, what stopping and starting does,
// how a model goes to zero and comes back.
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createCall, LOCAL_OWNER } from '#core/call.ts';
import type { Scaling } from '#core/endpoint.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { App } from '../../src/app.ts';
import { serve } from '../../src/serve.ts';
import { PENGUINS, rowsOf, until, Workplace } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

const ROW = { bill_length_mm: 39.1, bill_depth_mm: 18.7, flipper_length_mm: 181, body_mass_g: 3750 };
const SQL = "SELECT predict('birds', 39.1, 18.7, 181, 3750) AS kind";

async function openBirds(scaling?: Scaling, dataDir = join(workplace.directory(), 'data')): Promise<App> {
  const app = await workplace.app({ dataDir });
  await app.registry.registerModel('penguins', join(PENGUINS, 'penguins.onnx'), { createsEndpoint: false });
  const entity = { name: 'b', entityName: 'penguins', ...(scaling && { scaling }) };
  await app.registry.createEndpoint({ name: 'birds', servedEntities: [entity] }, LOCAL_OWNER);
  return app;
}

const ask = async (app: App) =>
  await app.serving.invoke(
    createCall('birds', 'predict', [{ features: ROW }], { cache: 'off', origin: 'http' }),
  );
const ready = (app: App) => app.serving.replicasOf('birds', 'b')?.ready;

async function serveHttp(app: App) {
  const edge = { host: '127.0.0.1', port: 0, drainMs: 0, addresses: { allow: [], trustedProxies: [] } };
  const served = await serve(app, edge, { log: SILENT_LOG, version: '0', env: {} });
  workplace.onClear(() => served.close());
  return served.url;
}

describe('a registered model', () => {
  it('has its replicas in SQL, before, while and after it is asked', async () => {
    const app = await openBirds({ minReplicas: 2, maxReplicas: 3 });
    const session = await app.openSession();
    const table = async () =>
      await rowsOf(
        session,
        "SELECT served_entity, model, ready, starting, min_replicas, max_replicas, cold_starts, lost, failure FROM duckserve.replicas WHERE endpoint = 'birds'",
      );
    expect(await table()).toEqual([['b', 'penguins', 0, 0, 2, 3, 0, 0, null]]);
    await ask(app);
    await until(() => ready(app) === 2);
    expect(await table()).toEqual([['b', 'penguins', 2, 0, 2, 3, 1, 0, null]]);
    expect(
      await rowsOf(session, "SELECT count(*)::INTEGER FROM duckserve_replicas() WHERE endpoint LIKE 'echo%'"),
    ).not.toEqual([[0]]);
    await session.close();
  });

  it('is closed when its endpoint is stopped, and open again when it has been started', async () => {
    const app = await openBirds();
    await ask(app);
    expect(ready(app)).toBe(1);
    await app.registry.stopEndpoint('birds');
    await until(() => ready(app) === 0);
    await expect(ask(app)).rejects.toMatchObject({ code: 'ENDPOINT_STOPPED' });
    await app.registry.startEndpoint('birds');
    await app.registry.settled('birds');
    expect(ready(app)).toBe(1);
    expect((await ask(app)).items[0]?.ok).toBe(true);
  });

  it('goes to zero when nobody asks, and comes back for callers and for statements', async () => {
    const app = await openBirds({ minReplicas: 0, idleSeconds: 1 });
    const session = await app.openSession();
    for (const comeBack of [() => ask(app), () => rowsOf(session, SQL)]) {
      expect(await comeBack()).toBeDefined();
      expect(ready(app)).toBe(1);
      await until(() => ready(app) === 0);
    }
    expect(await rowsOf(session, SQL)).toEqual([['Adelie']]);
    expect(app.serving.replicasOf('birds', 'b')).toMatchObject({ coldStarts: 3 });
    await session.close();
  });

  it('that is to be kept is opened when a server starts, and no other', async () => {
    const dataDir = join(workplace.directory(), 'data');
    const first = await openBirds({ minReplicas: 1 }, dataDir);
    await first.registry.createEndpoint(
      {
        name: 'later',
        servedEntities: [{ name: 'b', entityName: 'penguins', entityVersion: '1', environment: { A: 'b' } }],
      },
      LOCAL_OWNER,
    );
    await first.close();
    const app = await workplace.app({ dataDir });
    const url = await serveHttp(app);
    await until(() => ready(app) === 1);
    expect(app.serving.replicasOf('later', 'b')).toMatchObject({ ready: 0, starting: 0 });
    const read = await fetch(`${url}/api/2.0/serving-endpoints/birds`);
    const { config } = (await read.json()) as {
      config: { served_entities: { state: object; scaling: object }[] };
    };
    expect(config.served_entities[0]).toMatchObject({
      scaling: { min_replicas: 1 },
      state: { replicas: { ready: 1, starting: 0, min: 1, max: 1, in_flight: 0, waiting: 0 } },
    });
    const metrics = await (await fetch(`${url}/metrics`)).text();
    expect(metrics).toContain('duckserve_replicas{target="birds/b",state="ready"} 1');
    const own = await (await fetch(`${url}/api/2.0/serving-endpoints/birds/metrics`)).text();
    expect(own).toMatch(/provisioned_concurrent_requests_total\{endpoint_name="birds"\} [1-9]/);
  });
});
