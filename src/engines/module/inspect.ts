// What a module of JavaScript or TypeScript is before it is registered: an agent, when it exports `predict`. Reads
// only: whether the module can be loaded shows when it is opened, as nothing of it is run here.
import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { extname, join } from 'node:path';
import type { ModelInspection } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject } from '#core/json.ts';
import { exportedNames } from './exports.ts';

export const MODULE_ENDINGS: readonly string[] = ['.mjs', '.js', '.cjs', '.ts', '.mts'];
/** What a folder is searched for where its package.json names no `main`. */
const MAIN_NAMES = ['agent', 'index'];
/** A bundle with everything in it has a few megabytes. */
const MOST_BYTES = 16 * 1024 * 1024;

/** By its name alone. */
export const isModulePath = (path: string): boolean => MODULE_ENDINGS.includes(extname(path).toLowerCase());

/** The module of a folder, relative to it; undefined where there is none. */
export async function findModule(folder: string): Promise<string | undefined> {
  const named = await readMain(folder);
  if (named !== undefined) return named;
  for (const name of MAIN_NAMES) {
    for (const ending of MODULE_ENDINGS) {
      if (existsSync(join(folder, name + ending))) return name + ending;
    }
  }
  return undefined;
}

/** A module file, or a folder with one. Throws INVALID_PARAMETER for one that exports no `predict`. */
export async function inspectModule(path: string): Promise<ModelInspection> {
  const isFolder = (await stat(path)).isDirectory();
  const mainFile = isFolder ? await findModule(path) : undefined;
  if (isFolder && mainFile === undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The folder ${path} has no agent: neither a package.json with "main" nor ${MAIN_NAMES.map((name) => `${name}.mjs`).join(' nor ')}.`,
    );
  }
  const file = mainFile === undefined ? path : join(path, mainFile);
  const names = exportedNames(await readSource(file));
  if (!['predict', 'predictStream', 'default'].some((name) => names.has(name))) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `${file} is no agent: it exports ${describe(names)} and must export a function predict(request, context), by name or in its default export.`,
    );
  }
  return {
    engine: 'module',
    task: 'llm/v1/chat',
    options: { agent: 'module' },
    ...(mainFile === undefined ? {} : { mainFile }),
  };
}

async function readMain(folder: string): Promise<string | undefined> {
  const path = join(folder, 'package.json');
  if (!existsSync(path)) return undefined;
  let main: unknown;
  try {
    const parsed: unknown = JSON.parse(await readSource(path));
    main = isJsonObject(parsed) ? parsed.main : undefined;
  } catch (cause) {
    if (cause instanceof ServingError) throw cause;
    throw new ServingError('INVALID_PARAMETER', `${path} is no JSON: ${(cause as Error).message}.`, {
      cause,
    });
  }
  if (typeof main !== 'string') return undefined;
  const name = main.replace(/^(\.\/)+/, '');
  const isInside = name !== '' && !name.startsWith('/') && !/(^|[\\/])\.\.([\\/]|$)/.test(name);
  if (isInside && isModulePath(name) && existsSync(join(folder, name))) return name;
  throw new ServingError(
    'INVALID_PARAMETER',
    `${path} names '${main.slice(0, 200)}' as "main"; it must be a module (${MODULE_ENDINGS.join(', ')}) in the same folder.`,
  );
}

async function readSource(path: string): Promise<string> {
  const { size } = await stat(path);
  if (size > MOST_BYTES) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `${path} has ${size} bytes; a module of an agent has at most ${MOST_BYTES}.`,
    );
  }
  return readFile(path, 'utf8');
}

function describe(names: ReadonlySet<string>): string {
  const shown = [...names].slice(0, 8).join(', ');
  return shown === '' ? 'nothing' : shown;
}
