// A Python with the libraries in it, made once and used again while the versions are the same, and the models that
// make_models.py trains with it. Not here: who registers them.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '#storage/package-root.ts';
import { MODEL_PACKAGES } from './packages.ts';

const run = promisify(execFile);
const INSTALL_MS = 600_000;
const TRAIN_MS = 600_000;

/** Either the interpreter, or why there is none. */
export type Python = { readonly path: string } | { readonly reason: string };

/**
 * `DUCKSERVE_TEST_MODELS_PYTHON`: an interpreter that has the libraries; `DUCKSERVE_TEST_MODELS_CACHE`: where one is
 * made and kept, by itself in node_modules/.cache.
 */
export async function openPython(): Promise<Python> {
  const given = process.env.DUCKSERVE_TEST_MODELS_PYTHON;
  if (given !== undefined && given !== '') return { path: given };
  const wanted = Object.entries(MODEL_PACKAGES).map(([name, version]) => `${name}==${version}`);
  const places =
    process.env.DUCKSERVE_TEST_MODELS_CACHE ??
    join(packageRoot(), 'node_modules', '.cache', 'duckserve-models');
  const venv = join(places, createHash('sha256').update(wanted.join(' ')).digest('hex').slice(0, 12));
  const path = join(venv, 'bin', 'python');
  // The mark is set last: without it the folder is what an interrupted installation left.
  const mark = `${venv}.complete`;
  if (existsSync(mark) && existsSync(path)) return { path };
  try {
    mkdirSync(places, { recursive: true });
    await run('python3', ['-m', 'venv', '--clear', venv]);
    const install = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...wanted];
    await run(path, [...install, '--only-binary', ':all:'], { timeout: INSTALL_MS });
    mkdirSync(`${mark}.new`);
    renameSync(`${mark}.new`, mark);
    return { path };
  } catch (error) {
    const lines = (error as Error).message.trim().split('\n');
    return { reason: `no Python with the libraries: ${lines.at(-1) ?? ''}` };
  }
}

/**
 * Trains and saves all models into `folder`. A library that fails is an error: its models would be missing unseen.
 * `DUCKSERVE_TEST_MODELS` names a folder where they are already.
 */
export async function makeModels(python: string, folder: string): Promise<string> {
  const given = process.env.DUCKSERVE_TEST_MODELS;
  if (given !== undefined && given !== '') return given;
  const script = join(packageRoot(), 'test', 'models', 'make_models.py');
  const { stdout } = await run(python, [script, folder], {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, PYTHONDONTWRITEBYTECODE: '1' },
    timeout: TRAIN_MS,
    maxBuffer: 16 * 1024 * 1024,
  });
  const { failed } = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as { failed: object };
  if (Object.keys(failed).length > 0) throw new Error(`make_models.py: ${JSON.stringify(failed)}`);
  return folder;
}
