// Where models are loaded and run: small ones on the thread that serves, large and slow ones on their own, and each
// file once for all who serve it.
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { openBackgroundSession } from '#engines/onnx/background-session.ts';
import { openNativeSession } from '#engines/onnx/native-session.ts';
import type { Feed } from '#engines/onnx/session.ts';
import { inspectTabularModel } from '#engines/onnx/tabular.ts';
import { openTabularSession } from '#engines/onnx/tabular-session.ts';
import { expectCode } from './contract.ts';
import { external, floats, node, tensor, writeIdentity, writeModel, writeScores } from './tabular-models.ts';
import { CONTEXT, columnOf, invoke, predict, useModels } from './tabular-runner.ts';

const { place, open } = useModels();
const threads: Worker[] = [];
vi.mock('#core/worker.ts', async (importOriginal) => {
  const original = await importOriginal<typeof import('#core/worker.ts')>();
  return {
    startWorker: (...args: Parameters<typeof original.startWorker>) => {
      const worker = original.startWorker(...args);
      threads.push(worker);
      return worker;
    },
  };
});
vi.mock('#engines/onnx/native-session.ts', { spy: true });
beforeEach(() => {
  vi.mocked(openNativeSession).mockClear();
  threads.length = 0;
});

const SIZE = 600;
/** Over a megabyte of weights; row i of the identity is kept but for the first three. */
const writeLarge = async () =>
  writeModel(await place(), {
    inputs: [tensor('x', 'float', ['N', 3]), tensor('name', 'string', ['N'])],
    outputs: [tensor('y', 'float', ['N', 3]), tensor('same', 'string', ['N'])],
    nodes: [
      node('MatMul', ['x', 'in'], ['wide']),
      node('MatMul', ['wide', 'square'], ['middle']),
      node('MatMul', ['middle', 'out'], ['y']),
      node('Identity', ['name'], ['same']),
    ],
    weights: [
      floats('in', [3, SIZE], diagonal(3, SIZE)),
      floats('square', [SIZE, SIZE], diagonal(SIZE, SIZE)),
      floats('out', [SIZE, 3], diagonal(SIZE, 3)),
    ],
  });
const diagonal = (rows: number, columns: number) =>
  Array.from({ length: rows * columns }, (_, at) => (Math.floor(at / columns) === at % columns ? 1 : 0));
const feed = (values: number[]): Feed => ({
  name: 'features',
  type: 'float32',
  data: new Float32Array(values),
  dims: [1, 3],
});

describe('a large model', () => {
  test('runs on a thread of its own and answers rows and columns alike, errors included', async () => {
    const runner = await open(await writeLarge());
    expect(threads).toHaveLength(1);
    expect(openNativeSession).not.toHaveBeenCalled();
    const rows = [
      { x: [1, 2, 3], name: 'ä' },
      { x: [1, 2, 'x'], name: 'b' },
      { x: [4, 5, 6], name: '' },
    ];
    // Awaited and waited for at once: neither takes the answer of the other.
    const asked = invoke(runner, rows);
    const columns = [1, 2, 3].map((at) => columnOf(`x_${at - 1}`, new Float64Array([at, -at])));
    const named = [...columns, columnOf('name', ['p', 'q'])];
    expect(predict(runner, named, 2)).toEqual({
      y: [
        [1, 2, 3],
        [-1, -2, -3],
      ],
      same: ['p', 'q'],
    });
    expect(await asked).toEqual([
      { y: [1, 2, 3], same: 'ä' },
      expect.objectContaining({ code: 'SCHEMA_MISMATCH' }),
      { y: [4, 5, 6], same: '' },
    ]);
    expect(predict(runner, named, 2).same).toEqual(['p', 'q']);
  });

  test('that cannot be loaded says why, and leaves no thread behind', async () => {
    const path = await place();
    await writeFile(path, Buffer.alloc(2 * 1024 * 1024, 'not a model'));
    const error = await expectCode('MODEL_NOT_AVAILABLE', inspectTabularModel(path));
    expect(error.message).toContain('not a whole ONNX model');
    expect(threads.map((thread) => thread.threadId)).toEqual([-1]);
  });

  test('whose thread ends fails its calls with a reason, says that it is lost, and can be opened again', async () => {
    const path = await writeLarge();
    const runner = await open(path);
    expect(await invoke(runner, [{ x: [1, 2, 3], name: 'a' }])).toEqual([{ y: [1, 2, 3], same: 'a' }]);
    // Idle, for a thread that is ended within native code takes the process with it.
    const ending = threads[0]?.terminate();
    const asked = runner.invoke({
      task: 'predict',
      inputs: [{ features: { x: [1, 2, 3], name: 'a' } }],
      parameters: {},
      signal: new AbortController().signal,
    });
    await ending;
    const { items } = await asked;
    const lost = await runner.lost;
    expect(lost).toMatchObject({ code: 'MODEL_NOT_AVAILABLE', message: expect.stringContaining('ended') });
    expect(items).toMatchObject([{ ok: false, error: { code: 'MODEL_NOT_AVAILABLE' } }]);
    const [later] = await invoke(runner, [{ x: [1, 2, 3], name: 'a' }]);
    expect(later).toMatchObject({ code: 'MODEL_NOT_AVAILABLE' });
    const columns = ['x_0', 'x_1', 'x_2'].map((name) => columnOf(name, new Float64Array([1])));
    expect(() => predict(runner, [...columns, columnOf('name', ['a'])], 1)).toThrow('ended');
    const again = await open(path);
    expect(await invoke(again, [{ x: [1, 2, 3], name: 'a' }])).toEqual([{ y: [1, 2, 3], same: 'a' }]);
  });

  test('is released when it is closed, and closing it once more does nothing', async () => {
    const session = await openBackgroundSession(await writeLarge(), 1);
    await session.close();
    await session.close();
    expect(threads.map((thread) => thread.threadId)).toEqual([-1]);
    await expectCode('CANCELLED', session.run([], []));
  });
});

test('a small model is loaded where it is asked, unless its operators take long', async () => {
  await open(await writeScores(await place()));
  expect(openNativeSession).toHaveBeenCalledTimes(1);
  expect(threads).toHaveLength(0);
  const slow = await writeModel(await place(), {
    inputs: [tensor('x', 'float', ['N', 1, 2, 2])],
    outputs: [tensor('y', 'float', ['N', 1, 1, 1])],
    nodes: [node('Conv', ['x', 'w'], ['y'])],
    weights: [floats('w', [1, 1, 2, 2], [1, 1, 1, 1])],
  });
  const runner = await open(slow);
  expect(threads).toHaveLength(1);
  expect(
    await invoke(runner, [
      [
        [
          [1, 2],
          [3, 4],
        ],
      ],
    ]),
  ).toEqual([10]);
});

describe('a file that several serve', () => {
  test('is loaded once, found by its hash under another path, and closed with the last of them', async () => {
    const path = await writeScores(await place());
    const copy = await place();
    await cp(path, copy);
    const options = { threads: 1, sha256: 'the same' };
    const sessions = await Promise.all([path, path, copy].map((each) => openTabularSession(each, options)));
    expect(openNativeSession).toHaveBeenCalledTimes(1);
    await sessions[0]?.close();
    await sessions[0]?.close();
    await sessions[1]?.close();
    const [result] = (await sessions[2]?.run([feed([1, 2, 3])], ['scores'])) ?? [];
    expect(result).toEqual({ data: new Float32Array([1, 2, 3]), dims: [1, 3] });
    await sessions[2]?.close();
    const next = await openTabularSession(path, options);
    expect(openNativeSession).toHaveBeenCalledTimes(2);
    await next.close();
  });

  test('is loaded for each number of threads', async () => {
    const path = await writeScores(await place());
    const sessions = await Promise.all([1, 2].map((each) => openTabularSession(path, { threads: each })));
    expect(
      vi
        .mocked(openNativeSession)
        .mock.calls.map(([, count]) => count)
        .sort(),
    ).toEqual([1, 2]);
    await Promise.all(sessions.map((session) => session.close()));
  });

  test('is not shared by its hash when weights lie beside it, for those may differ', async () => {
    const write = async (weight: number) => {
      const path = await writeModel(await place(), {
        inputs: [tensor('x', 'float', ['N', 1])],
        outputs: [tensor('y', 'float', ['N', 1])],
        nodes: [node('MatMul', ['x', 'w'], ['y'])],
        weights: [external('w', [1, 1], 'weights/w.bin')],
      });
      await mkdir(join(dirname(path), 'weights'));
      await writeFile(
        join(dirname(path), 'weights', 'w.bin'),
        Buffer.from(new Float32Array([weight]).buffer),
      );
      return path;
    };
    const runners = await Promise.all(
      [2, 5].map(async (weight) => open(await write(weight), { sha256: 'of the graph alone' })),
    );
    expect(await Promise.all(runners.map((runner) => invoke(runner, [[10]])))).toEqual([[20], [50]]);
  });

  test('is loaded anew once it was replaced', async () => {
    const path = await writeIdentity(await place(), 'float', ['N', 3]);
    const first = await open(path);
    expect(await invoke(first, [[1, 2, 3]])).toEqual([[1, 2, 3]]);
    await writeIdentity(path, 'float', ['N', 2]);
    expect(await invoke(await open(path), [[1, 2]])).toEqual([[1, 2]]);
  });
});

describe('threads of a run', () => {
  const counts = () => vi.mocked(openNativeSession).mock.calls.map(([, count]) => count);

  test('are those of the model version, else those of the process', async () => {
    const path = await writeScores(await place());
    await open(path, { options: { threads: 3 } });
    await open(path, {}, { ...CONTEXT, onnxThreads: 2 });
    expect(counts()).toEqual([3, 2]);
  });

  test.each([0, 1.5, 'many', 5_000])('%s is refused with the range', async (wrong) => {
    const path = await writeScores(await place());
    const error = await expectCode('INVALID_PARAMETER', open(path, { options: { threads: wrong } }));
    expect(error.message).toContain(JSON.stringify(wrong));
    expect(error.message).toContain('1 to 1024');
  });
});
