// Processes of Python that die while they are asked, rows that they cannot take, and the start from nothing.
import { afterEach, describe, expect, it } from 'vitest';
import type { Json } from '#core/json.ts';
import { until } from '../app/support.ts';
import { workersOf } from './processes.ts';
import { get, invocations, post, predict, stage } from './stage.ts';

const { python, pid } = stage();
const withPython = describe.skipIf('reason' in python || process.platform !== 'linux');
const KILLS = 10;
const CALLERS = 16;
const ENDPOINT = 'pyfunc-odd';

const squares = (numbers: readonly number[]): Json => ({
  dataframe_split: { columns: ['x'], data: numbers.map((x) => [x]) },
});

/** Numbers that nobody else asks about: calls that ask the same would be answered together. */
let asked = 1_000;
const unique = () => asked++ + 0.25;

interface Told {
  readonly status: number;
  readonly isRight: boolean;
  readonly code: string;
  readonly message: string;
}

/** One call: an answer, or an error by its code. What is neither is thrown, and fails the test. */
async function ask(numbers: readonly number[]): Promise<Told> {
  const { status, text } = await post(invocations(ENDPOINT), squares(numbers));
  const body = JSON.parse(text) as { predictions?: number[]; error_code?: string; message?: string };
  const wanted = JSON.stringify(numbers.map((x) => x * x));
  return {
    status,
    isRight: JSON.stringify(body.predictions) === wanted,
    code: body.error_code ?? '',
    message: body.message ?? '',
  };
}

withPython('a worker of Python', () => {
  let isOver = false;
  afterEach(() => {
    isOver = true;
  });

  // Ten starts of a process that loads MLflow, some seconds each, on cores that its callers use as well.
  const patience = { timeout: 600_000 };
  it(
    `killed ${KILLS} times under load loses no call: each has its answer or a typed error`,
    patience,
    async () => {
      await predict(ENDPOINT, squares([unique()]));
      isOver = false;
      const told: Told[] = [];
      const callers = Array.from({ length: CALLERS }, async () => {
        while (!isOver) told.push(await ask([unique(), unique()]));
      });
      const killed = new Set<number>();
      const answered = () => told.filter(({ status }) => status === 200).length;
      for (let round = 0; round < KILLS; round++) {
        const before = answered();
        // Only one that has answered since the last kill: it is under load, not starting.
        await until(
          () => answered() > before + CALLERS && workersOf(pid).some((one) => !killed.has(one)),
          60_000,
        );
        for (const worker of workersOf(pid)) {
          if (killed.has(worker)) continue;
          killed.add(worker);
          process.kill(worker, 'SIGKILL');
        }
      }
      const before = answered();
      await until(() => answered() > before + CALLERS, 60_000);
      isOver = true;
      await Promise.all(callers);

      const failed = told.filter(({ status }) => status !== 200);
      const codes = [...new Set(failed.map(({ status, code }) => `${status} ${code}`))];
      console.log(
        `${told.length} calls, ${killed.size} kills, ${failed.length} typed errors (${codes.join(', ')})`,
      );
      expect(killed.size).toBeGreaterThanOrEqual(KILLS);
      expect(told.filter(({ status, isRight }) => status === 200 && !isRight)).toEqual([]);
      expect(failed.filter(({ code, message }) => code === '' || message === '')).toEqual([]);
      expect(failed.filter(({ status }) => status < 429 || status === 500)).toEqual([]);
    },
  );

  it('that ends while it predicts fails its call with a typed error, and the next call is answered', async () => {
    const crashed = await ask([666]);
    expect(crashed).toMatchObject({ isRight: false, code: expect.stringMatching(/^[A-Z_]+$/) });
    expect(crashed.status).toBeGreaterThanOrEqual(400);
    await expect
      .poll(async () => (await ask([unique()])).isRight, { timeout: 60_000, interval: 200 })
      .toBe(true);
  });

  it('tells what Python raised for a row, and nothing of other rows', async () => {
    const { status, message } = await ask([13]);
    expect(status).toBe(400);
    expect(message).toContain('ValueError: thirteen cannot be squared here');
    expect(message).not.toContain('Traceback');
  });

  it('names a feature that is missing or has the wrong type, with its row, and shows no other cell', async () => {
    const columns = ['sepal_length', 'sepal_width', 'petal_length', 'petal_width'];
    const missing = await post(invocations('sklearn-classifier'), {
      dataframe_split: { columns: columns.slice(1), data: [[1.25, 2.25, 3.25]] },
    });
    expect(missing.status).toBe(400);
    expect(missing.text).toContain('sepal_length');
    const wrong = await post(invocations('sklearn-classifier'), {
      dataframe_split: { columns, data: [[5.5, 'wide', 4.75, 8.125]] },
    });
    expect(wrong.status).toBe(400);
    expect(wrong.text).toContain('sepal_width');
    expect(wrong.text).toContain('wide');
    expect(wrong.text).not.toMatch(/5\.5|4\.75|8\.125/);
  });
});

withPython('an endpoint that is scaled to zero', () => {
  it('ends its process when nobody asks, and answers the next call after a cold start', async () => {
    await predict('sklearn-regressor', patient());
    const entity = { name: 'current', entity_name: 'sklearn-regressor', entity_version: '1' };
    const scaling = { min_replicas: 0, max_replicas: 1, idle_seconds: 1 };
    const set = await post(
      '/api/2.0/serving-endpoints/sklearn-regressor/config',
      { served_entities: [{ ...entity, scaling }] },
      { method: 'PUT' },
    );
    expect({ status: set.status, text: set.status === 200 ? '' : set.text }).toEqual({
      status: 200,
      text: '',
    });
    await predict('sklearn-regressor', patient());
    const before = new Set(workersOf(pid));
    // Its own process is the only one that may end: the others are kept.
    await until(() => workersOf(pid).length < before.size, 60_000);
    const state = JSON.stringify(await get('/api/2.0/serving-endpoints/sklearn-regressor'));
    expect(state).toContain('"READY"');
    const startedAt = performance.now();
    const cold = await predict('sklearn-regressor', patient());
    const seconds = (performance.now() - startedAt) / 1_000;
    console.log(`cold start of a scikit-learn model from zero replicas: ${seconds.toFixed(2)} s`);
    expect(cold).toEqual([expect.any(Number)]);
    expect(workersOf(pid).length).toBeGreaterThanOrEqual(before.size);
  });
});

const patient = (): Json => ({
  dataframe_split: {
    columns: ['age', 'sex', 'bmi', 'bp', 's1', 's2', 's3', 's4', 's5', 's6'],
    data: [[unique(), 0.05, 0.061, 0.021, -0.044, -0.034, -0.043, -0.002, 0.019, -0.017]],
  },
});
