// Damaged and hostile model files at the command line: a clear error, nothing run, nothing kept. Needs no Python.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PENGUINS, Workplace } from '../app/support.ts';
import { HOSTILE } from './hostile-files.ts';

const workplace = new Workplace();
const dataDir = workplace.directory();
const register = (name: string, path: string) =>
  workplace.run(['models', 'register', name, path], { dataDir });
let before: readonly string[] = [];
beforeAll(async () => {
  expect(await register('good', join(PENGUINS, 'penguins.onnx'))).toMatchObject({ code: 0 });
  before = modelFiles();
  expect(before.length).toBeGreaterThan(0);
});
afterAll(() => workplace.clear());

/** Files of the data directory in the folders of models and of what is being unpacked, without those of stores. */
function modelFiles(): readonly string[] {
  const data = join(dataDir, 'data');
  return readdirSync(data, { recursive: true, withFileTypes: true })
    .map((entry) => join(entry.parentPath, entry.name).slice(data.length))
    .filter((name) => !name.startsWith('/answers') && name.lastIndexOf('/') > 0)
    .sort();
}

describe('duckserve models register', () => {
  it.each(HOSTILE.map((hostile) => [hostile.title, hostile] as const))(
    'refuses %s with a sentence, runs nothing and leaves nothing',
    async (_title, { make, says }) => {
      const folder = workplace.directory();
      const { code, stdout, stderr } = await register('bad', make(folder));
      expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
      expect(stderr).toMatch(says);
      expect(stderr).toMatch(/INVALID_PARAMETER|MODEL_NOT_AVAILABLE|PAYLOAD_TOO_LARGE/);
      expect(stderr).not.toMatch(/^\s+at /m);
      expect(modelFiles()).toEqual(before);
      expect(existsSync(join(folder, 'was-run'))).toBe(false);
    },
  );

  it('has registered none of them', async () => {
    const { stdout } = await workplace.run(['models', 'list', '--format', 'json'], { dataDir });
    expect(stdout).toContain('"good"');
    expect(stdout).not.toContain('"bad"');
  });
});
