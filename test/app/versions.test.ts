// A model gets a second version while it is asked: by many callers over HTTP and by statements. Traffic is shifted by
// configuration, then by alias, and the first version is deleted; nobody notices but by the answers.
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { App } from '../../src/app.ts';
import { serve } from '../../src/serve.ts';
import { NO_PYTHON, writeModel as writePythonModel } from '../engines/python-models.ts';
import { floats, node, tensor, writeModel } from '../engines/tabular-models.ts';
import { rowsOf, until, Workplace } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

const CALLERS = 64;

/** Write a model that answers its version, whatever it is asked. */
type WriteVersion = (directory: string, version: number) => Promise<string>;

async function writeOnnx(directory: string, version: number): Promise<string> {
  return await writeModel(join(directory, `v${version}.onnx`), {
    inputs: [tensor('x', 'float', ['N', 1])],
    outputs: [tensor('y', 'float', ['N', 1])],
    nodes: [node('Mul', ['x', 'zero'], ['nothing']), node('Add', ['nothing', 'version'], ['y'])],
    weights: [floats('zero', [1, 1], [0]), floats('version', [1, 1], [version])],
  });
}

async function askOnce(url: string, x: number): Promise<number> {
  const response = await fetch(`${url}/serving-endpoints/scores/invocations`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ dataframe_records: [{ x }] }),
  });
  const text = await response.text();
  const { predictions } = JSON.parse(text) as { predictions?: readonly number[] };
  if (response.status !== 200 || typeof predictions?.[0] !== 'number') throw new Error(text);
  return predictions[0];
}

async function writePython(directory: string, version: number): Promise<string> {
  return await writePythonModel(directory, {
    predict: `return [${version}.0 for _ in data["x"]]`,
    signature: {
      inputs: [{ type: 'double', name: 'x', required: true }],
      outputs: [{ type: 'double', name: 'y', required: true }],
    },
  });
}

class Load {
  readonly counts = new Map<number, number>();
  readonly failures: unknown[] = [];
  statements = 0;
  #isOver = false;
  readonly #running: Promise<void>[] = [];

  constructor(app: App, url: string) {
    for (let caller = 0; caller < CALLERS; caller++) this.#running.push(this.#call(url, caller));
    this.#running.push(this.#ask(app));
  }

  get all(): number {
    return [...this.counts.values()].reduce((sum, count) => sum + count, 0);
  }

  of(version: number): number {
    return this.counts.get(version) ?? 0;
  }

  async more(answers: number): Promise<void> {
    const [calls, statements] = [this.all + answers, this.statements + 1];
    await until(
      () => this.failures.length > 0 || (this.all >= calls && this.statements >= statements),
      170_000,
    );
    expect(this.failures).toEqual([]);
  }

  async end(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#running);
  }

  async #call(url: string, caller: number): Promise<void> {
    for (let turn = 0; !this.#isOver; turn++) {
      try {
        const version = await askOnce(url, caller * 1e4 + turn);
        this.counts.set(version, (this.counts.get(version) ?? 0) + 1);
      } catch (error) {
        this.failures.push(error);
      }
    }
  }

  async #ask(app: App): Promise<void> {
    const session = await app.openSession({ origin: 'sql' });
    while (!this.#isOver) {
      try {
        const [row] = await rowsOf(
          session,
          "SELECT count(*)::INTEGER, count(predict('scores', i::FLOAT))::INTEGER FROM range(1000) t(i)",
        );
        if (row?.[0] !== 1_000 || row[1] !== 1_000) this.failures.push(row);
        this.statements++;
      } catch (error) {
        this.failures.push(error);
      }
    }
    await session.close();
  }
}

describe('versions of a model', () => {
  const models: [string, WriteVersion, string | undefined][] = [
    ['in this process', writeOnnx, undefined],
    ['in processes of Python', writePython, NO_PYTHON],
  ];
  it.for(models)(
    '%s are shifted, switched and deleted under load: no request fails, and what is replaced is closed',
    { timeout: 180_000 },
    async ([_, writeVersion, reason], { skip }) => {
      if (reason !== undefined) skip(reason);
      const directory = workplace.directory();
      const app = await workplace.app({ dataDir: join(directory, 'data') });
      const register = async (version: number) =>
        await app.registry.registerModel('own', await writeVersion(directory, version), {
          createsEndpoint: false,
          allowCode: true,
        });
      await register(1);
      await app.registry.setAlias('own', 'champion', '1');
      const scaling = { maxReplicas: 1 };
      const entity = (name: string, entityVersion: string) => ({
        name,
        entityName: 'own',
        entityVersion,
        scaling,
      });
      await app.registry.createEndpoint(
        { name: 'scores', servedEntities: [entity('old', '1')] },
        LOCAL_OWNER,
      );
      const served = await serve(
        app,
        { addresses: { allow: [], trustedProxies: [] }, host: '127.0.0.1', port: 0, drainMs: 1_000 },
        { log: SILENT_LOG, version: '0', env: {} },
      );
      workplace.onClear(() => served.close());
      const load = new Load(app, served.url);
      workplace.onClear(() => load.end());
      await load.more(200);
      expect([...load.counts.keys()]).toEqual([1]);

      await register(2);
      await app.registry.updateEndpointAndWait('scores', {
        servedEntities: [entity('old', '1'), entity('new', '2')],
        routes: [
          { servedEntityName: 'old', trafficPercentage: 90 },
          { servedEntityName: 'new', trafficPercentage: 10 },
        ],
      });
      const before = [load.of(1), load.of(2)] as const;
      await load.more(1_200);
      const drawn = [load.of(1) - before[0], load.of(2) - before[1]] as const;
      const total = drawn[0] + drawn[1];
      // Six standard deviations: by chance once in some hundred million runs. Calls under way were drawn before.
      expect(Math.abs(drawn[1] - total * 0.1)).toBeLessThan(6 * Math.sqrt(total * 0.1 * 0.9) + CALLERS / 4);

      await app.registry.updateEndpointAndWait('scores', { servedEntities: [entity('only', 'champion')] });
      await load.more(200);
      await app.registry.setAlias('own', 'champion', '2');
      await app.registry.deleteModelVersion('own', '1');
      // Whoever was on the way has its answer.
      await load.more(CALLERS);
      const settled = load.of(1);
      await load.more(300);
      await load.end();
      expect(load.failures).toEqual([]);
      expect(load.of(1)).toBe(settled);
      expect(load.statements).toBeGreaterThan(4);

      const session = await app.openSession();
      await until(() => app.serving.queueDepths().every(({ target }) => target === 'scores/only'));
      expect(
        await rowsOf(
          session,
          "SELECT served_entity, ready, starting, draining FROM duckserve.replicas WHERE endpoint = 'scores'",
        ),
      ).toEqual([['only', 1, 0, 0]]);
      const left = [...app.serving.replicas()].filter(({ target }) => target.startsWith('scores/'));
      expect(left.map(({ target, state }) => [target, state.ready, state.draining])).toEqual(
        expect.arrayContaining([
          ['scores/old', 0, 0],
          ['scores/only', 1, 0],
        ]),
      );
      await session.close();
    },
  );
});
