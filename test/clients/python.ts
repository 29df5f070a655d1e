// A Python with the clients in it: made once in node_modules/.cache and used again while the versions are the same.
// Not here: what the clients are asked.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot } from '#storage/package-root.ts';
import { PYTHON_PACKAGES } from './packages.ts';

const run = promisify(execFile);
const INSTALL_MS = 480_000;

/** Either the interpreter, or why there is none. */
export type Python = { readonly path: string } | { readonly reason: string };

export async function openPython(): Promise<Python> {
  const wanted = Object.entries(PYTHON_PACKAGES).map(([name, version]) => `${name}==${version}`);
  const places = join(packageRoot(), 'node_modules', '.cache', 'duckserve-clients');
  const name = createHash('sha256').update(wanted.join(' ')).digest('hex').slice(0, 12);
  const venv = join(places, name);
  const path = interpreterOf(venv);
  // The mark is set last: without it the folder is what an interrupted installation left.
  const mark = `${venv}.complete`;
  if (existsSync(mark) && existsSync(path)) return { path };
  try {
    mkdirSync(places, { recursive: true });
    for (const left of readdirSync(places)) rmSync(join(places, left), { recursive: true, force: true });
    await run('python3', ['-m', 'venv', venv]);
    const install = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...wanted];
    await run(path, install, { timeout: INSTALL_MS });
    mkdirSync(`${mark}.new`);
    renameSync(`${mark}.new`, mark);
    return { path };
  } catch (error) {
    const lines = (error as Error).message.trim().split('\n');
    return { reason: `no Python with the clients: ${lines.at(-1) ?? ''}` };
  }
}

function interpreterOf(venv: string): string {
  return process.platform === 'win32' ? join(venv, 'Scripts', 'python.exe') : join(venv, 'bin', 'python');
}
