// ONNX models through the whole application: registered, asked in SQL, with the types their signatures give.
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { resolveSettings } from '#config/settings.ts';
import type { Json } from '#core/json.ts';
import type { App } from '../../src/app.ts';
import { Workplace } from '../app/support.ts';
import { writeClassifier, writeIdentity } from './tabular-models.ts';

const workplace = new Workplace();
let app: App;
let folder = '';
beforeEach(async () => {
  folder = workplace.directory();
  app = await workplace.app({ dataDir: ':memory:' });
});
afterEach(() => workplace.clear());

async function ask(sql: string): Promise<Json[][]> {
  const session = await app.openSession();
  const [result] = await session.run(sql);
  const rows = [...(result?.rows() ?? [])].map((row) => [...row] as Json[]);
  await session.close();
  return rows;
}

test('a classifier with maps gives a struct of its label and JSON by label', async () => {
  await app.registry.registerModel(
    'mail',
    await writeClassifier(join(folder, 'mail.onnx'), { isZipMap: true }),
    {},
  );
  const rows = await ask(`
    SELECT p.label, (p.output_probability->>'0')::DOUBLE > 0.9 AS is_sure, typeof(p) AS type
    FROM (SELECT predict('mail', a, b) AS p FROM (VALUES (3.0, 1.0), (1.0, 3.0)) t(a, b))`);
  expect(rows.map(([label, isSure]) => [Number(label), isSure])).toEqual([
    [0, true],
    [1, false],
  ]);
  expect(rows[0]?.[2]).toBe('STRUCT("label" BIGINT, output_probability JSON)');
});

test('an image is a list of lists, alone or in a struct, and comes back with its type', async () => {
  await app.registry.registerModel(
    'image',
    await writeIdentity(join(folder, 'image.onnx'), 'float', ['N', 2, 3]),
    {},
  );
  const image = '[[1, 2, 3], [4, 5, i]]';
  const rows = await ask(`
    SELECT typeof(predict('image', {'x': ${image}})), predict('image', {'x': ${image}})[2][3],
      predict('image', [1, 2, 3, 4, 5, i])[2][3], predict('image', ${image})[2][3]
    FROM range(2) t(i)`);
  expect(rows).toEqual([
    ['FLOAT[][]', 0, 0, 0],
    ['FLOAT[][]', 1, 1, 1],
  ]);
});

test('threads of the process come from the environment, as a whole number', () => {
  const resolve = (threads: string) => resolveSettings({ env: { DUCKSERVE_ONNX_THREADS: threads } });
  expect(resolve('3').onnxThreads).toBe(3);
  expect(resolve('').onnxThreads).toBeUndefined();
  expect(() => resolve('many')).toThrow('DUCKSERVE_ONNX_THREADS');
});
