// Environments of models in Python: what a directory asks for, which interpreter does, and building one, once.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import { SILENT_LOG } from '#core/log.ts';
import { lockDirectory } from '#engines/python/build-lock.ts';
import { interpreterFor } from '#engines/python/environments.ts';
import { findPython, shortageOf } from '#engines/python/interpreter.ts';
import { pythonEngine } from '#engines/python/python.ts';
import { namedRequirements, readRequirements } from '#engines/python/requirements.ts';
import { ask, contextOf, NO_PYTHON, shown, targetOf, writeModel } from './python-models.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'duckserve-environments-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const place = () => mkdtemp(join(folder, 'place-'));
async function directory(files: Readonly<Record<string, string>>): Promise<string> {
  const where = await place();
  for (const [name, text] of Object.entries(files)) await writeFile(join(where, name), text);
  return where;
}

describe('what a model directory asks for', () => {
  test('python_env.yaml counts first, and includes requirements.txt', async () => {
    const where = await directory({
      'python_env.yaml': "python: 3.11.7\nbuild_dependencies: [pip]\ndependencies: ['-r requirements.txt']\n",
      'conda.yaml': 'dependencies: [python=3.8]\n',
      'requirements.txt':
        '# made by MLflow\nmlflow==2.14.1\nnumpy==1.26.4 \\\n  ; python_version > "3.8"\n\n--extra-index-url https://example.org\n',
    });
    const found = await readRequirements(where);
    expect(found).toEqual({
      pythonVersion: '3.11.7',
      lines: [
        'mlflow==2.14.1',
        'numpy==1.26.4    ; python_version > "3.8"',
        '--extra-index-url https://example.org',
      ],
    });
    expect(namedRequirements(found!)).toHaveLength(2);
  });

  test("then the part of conda.yaml that is pip's, then requirements.txt alone, else nothing", async () => {
    const conda =
      'name: env\nchannels: [conda-forge]\ndependencies:\n- python=3.10.4\n- pip<=23\n- pip:\n  - cloudpickle==3.0.0\n';
    expect(await readRequirements(await directory({ 'conda.yaml': conda }))).toEqual({
      pythonVersion: '3.10.4',
      lines: ['cloudpickle==3.0.0'],
    });
    expect(await readRequirements(await directory({ 'requirements.txt': 'a==1' }))).toEqual({
      lines: ['a==1'],
    });
    expect(await readRequirements(await directory({}))).toBeUndefined();
  });

  test('files outside of the directory are not read, neither by their path nor through a link', async () => {
    await writeFile(join(folder, 'outside.txt'), 'secret==1');
    const above = await directory({ 'requirements.txt': '-r ../outside.txt' });
    await expect(readRequirements(above)).rejects.toMatchObject({
      code: 'INVALID_PARAMETER',
      message: expect.stringContaining('outside of the model'),
    });
    const linked = await directory({ 'requirements.txt': '-r inside.txt' });
    await symlink(join(folder, 'outside.txt'), join(linked, 'inside.txt'));
    await expect(readRequirements(linked)).rejects.toThrow('outside of the model');
    const round = await directory({ 'requirements.txt': '-r requirements.txt' });
    await expect(readRequirements(round)).rejects.toThrow('files of files');
  });

  test.each([
    ['no mapping', { 'python_env.yaml': '- a' }],
    ['no list', { 'python_env.yaml': 'dependencies: mlflow' }],
    ['no YAML', { 'python_env.yaml': '{' }],
  ])('%s: INVALID_PARAMETER with the name of the file', async (_name, files) => {
    await expect(readRequirements(await directory(files))).rejects.toMatchObject({
      code: 'INVALID_PARAMETER',
      message: expect.stringContaining('python_env.yaml'),
    });
  });
});

describe('a lock between processes', () => {
  const quick: Clock = { ...SYSTEM_CLOCK, sleep: () => new Promise((resolve) => setImmediate(resolve)) };

  test('is held by one at a time', async () => {
    const path = join(await place(), 'lock');
    let holders = 0;
    const work = async () => {
      const release = await lockDirectory(path, quick, () => {});
      expect(++holders).toBe(1);
      await new Promise((resolve) => setImmediate(resolve));
      holders--;
      await release();
    };
    await Promise.all([work(), work(), work(), work()]);
    expect(existsSync(path)).toBe(false);
  });

  test('of a process that has died is taken over', async () => {
    const path = join(await place(), 'lock');
    await mkdir(path);
    // Larger than any process id.
    await writeFile(join(path, 'pid'), '999999999');
    const release = await lockDirectory(path, quick, () => {});
    await release();
    expect(await readdir(join(path, '..'))).toEqual([]);
  });
});

describe.skipIf(NO_PYTHON)(`interpreters${NO_PYTHON ? ` (skipped: ${NO_PYTHON})` : ''}`, () => {
  test('one that is configured and does not run is an error that names it; one is found by itself', async () => {
    await expect(findPython({ python: '/no/python' })).rejects.toMatchObject({
      code: 'MODEL_NOT_AVAILABLE',
      message: expect.stringContaining('DUCKSERVE_PYTHON=/no/python'),
    });
    expect((await findPython({}))?.version).toMatch(/^3\./);
  });

  test('says what it has not, and what it has in another version', async () => {
    const python = await findPython({});
    const shortage = await shortageOf(python!.path, [
      'a-package-nobody-has==1',
      'pip==0.0.1',
      "x==1; python_version < '3'",
    ]);
    expect(shortage?.missing).toEqual(['a-package-nobody-has==1']);
    expect(shortage?.differing).toEqual([expect.stringMatching(/^pip==0\.0\.1 \(\d.* is installed\)$/)]);
  });

  // A wheel is a zip with three files of facts in it, so pip needs no network for it.
  const WHEEL = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/tiny_thing-1.0-py3-none-any.whl", "w") as wheel:
    facts = "tiny_thing-1.0.dist-info/"
    wheel.writestr("tiny_thing.py", "VALUE = 42\\n")
    wheel.writestr(facts + "METADATA", "Metadata-Version: 2.1\\nName: tiny-thing\\nVersion: 1.0\\n")
    wheel.writestr(facts + "WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(facts + "RECORD", "")
`;

  test('an environment is built once for two that need it, and the model runs in it', {
    timeout: 120_000,
  }, async () => {
    const source = await writeModel(folder, {
      predict: 'import tiny_thing\nreturn [a + tiny_thing.VALUE for a in data["a"]]',
      signature: { inputs: [{ type: 'double', name: 'a', required: true }] },
      files: { 'requirements.txt': '--no-index\n--find-links .\ntiny-thing==1.0\n' },
    });
    execFileSync('python3', ['-c', WHEEL, source]);
    const environmentsDir = await place();
    const said: string[] = [];
    const context = contextOf(SILENT_LOG, { environmentsDir, notify: (line) => said.push(line) });
    const [one, two] = await Promise.all([
      pythonEngine.open(targetOf(source), context),
      pythonEngine.open(targetOf(source), context),
    ]);
    try {
      expect(shown(await ask(one, [{ a: 1 }]))).toEqual([43]);
      expect(shown(await ask(two, [{ a: 2 }]))).toEqual([44]);
    } finally {
      await Promise.all([one.close(), two.close()]);
    }
    expect(said.filter((line) => line.startsWith('Building'))).toHaveLength(1);
    expect(await readdir(environmentsDir)).toHaveLength(1);
  });

  test("what pip cannot install is MODEL_NOT_AVAILABLE with pip's own words, and leaves nothing", {
    timeout: 120_000,
  }, async () => {
    const source = await directory({ 'requirements.txt': '--no-index\na-package-nobody-has==1\n' });
    const environmentsDir = await place();
    const context = contextOf(SILENT_LOG, { environmentsDir });
    await expect(interpreterFor('demo', source, {}, context)).rejects.toMatchObject({
      code: 'MODEL_NOT_AVAILABLE',
      message: expect.stringMatching(/pip ended with 1[\s\S]*a-package-nobody-has/),
    });
    expect(await readdir(environmentsDir)).toEqual([]);
  });
});
