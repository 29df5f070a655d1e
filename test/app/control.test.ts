// Endpoints that change while they are asked, with real models: every call is answered, by the old configuration or
// the new one.
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createCall, LOCAL_OWNER } from '#core/call.ts';
import { PENGUINS, rowsOf, stubSpec, Workplace } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

const ROW = { bill_length_mm: 39.1, bill_depth_mm: 18.7, flipper_length_mm: 181, body_mass_g: 3750 };

describe('an endpoint that is updated', () => {
  it('answers every call of several callers through twenty updates and failures between them', async () => {
    const app = await workplace.app({ dataDir: ':memory:' });
    for (const threads of [1, 2]) {
      await app.registry.registerModel('penguins', join(PENGUINS, 'penguins.onnx'), {
        createsEndpoint: false,
        options: { threads },
      });
    }
    // The same model with a file beside it: a directory of its own, which the others do not share.
    const folder = workplace.directory();
    cpSync(join(PENGUINS, 'penguins.onnx'), join(folder, 'penguins.onnx'));
    writeFileSync(join(folder, 'vocab.txt'), '');
    await app.registry.registerModel('penguins', join(folder, 'penguins.onnx'), { createsEndpoint: false });
    const entity = (version: number) => ({
      name: 'e',
      entityName: 'penguins',
      entityVersion: String(version),
    });
    await app.registry.createEndpoint({ name: 'birds', servedEntities: [entity(1)] }, LOCAL_OWNER);
    const lost = app.registry.getModelVersion('penguins', '3');
    rmSync(lost.source);
    let isOver = false;
    const models = new Map<string, number>();
    const caller = async () => {
      while (!isOver) {
        const answer = await app.serving.invoke(
          createCall('birds', 'predict', [{ features: ROW }], { cache: 'off' }),
        );
        expect(answer.items).toEqual([
          expect.objectContaining({ ok: true, output: { prediction: 'Adelie' } }),
        ]);
        models.set(answer.model, (models.get(answer.model) ?? 0) + 1);
        // A local model answers without ever waiting; the updates want a turn too.
        await new Promise(setImmediate);
      }
    };
    const callers = Array.from({ length: 8 }, caller);
    for (let index = 0; index < 20; index++) {
      await app.registry.updateEndpointAndWait('birds', { servedEntities: [entity((index % 2) + 1)] });
      // A model whose file is gone: the one that serves goes on.
      const failed = app.registry.updateEndpointAndWait('birds', { servedEntities: [entity(3)] });
      await expect(failed).rejects.toMatchObject({ code: expect.stringMatching(/^[A-Z_]+$/) });
    }
    isOver = true;
    await Promise.all(callers);
    expect([...models.keys()].sort()).toEqual(['penguins@1', 'penguins@2']);
    expect(app.registry.getEndpoint('birds').configVersion).toBe(21);
  });

  it('of SQL is changed, limited, stopped and started by CALL', async () => {
    const stub = await workplace.stub();
    const app = await workplace.app({ dataDir: ':memory:' });
    await app.registry.createEndpoint(stubSpec('llm', stub), LOCAL_OWNER);
    const session = await app.openSession();
    expect(
      await rowsOf(session, "CALL duckserve_update_endpoint('llm', provider => 'openai', model => 'other')"),
    ).toEqual([[2]]);
    const routes = `{"served_entities": [{"name": "a", "external_model": {"name": "m", "provider": "openai", "task": "llm/v1/chat", "base_url": "${stub.openaiUrl}"}}]}`;
    expect(await rowsOf(session, `CALL duckserve_update_endpoint('llm', config => '${routes}')`)).toEqual([
      [3],
    ]);
    await session.run(`CALL duckserve_set_gateway('llm', '{"fallback_config": {"enabled": true}}')`);
    expect(app.registry.getEndpoint('llm').aiGateway).toEqual({ fallback: { enabled: true } });
    await session.run("CALL duckserve_set_gateway('llm')");
    expect(app.registry.getEndpoint('llm').aiGateway).toBeUndefined();
    await session.run("CALL duckserve_stop_endpoint('llm')");
    await expect(session.run("SELECT ai_query('llm', 'hi')")).rejects.toMatchObject({
      code: 'ENDPOINT_STOPPED',
    });
    await session.run("CALL duckserve_start_endpoint('llm')");
    expect(await rowsOf(session, "SELECT ai_query('llm', 'hi') IS NOT NULL")).toEqual([[true]]);
    await session.close();
  });
});
