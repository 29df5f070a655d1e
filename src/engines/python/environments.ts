// The interpreter that a model runs with: the one its version names, the configured one where it has what the model
// needs, or an environment built for it, kept under the hash of what is in it and shared by all that need the same.
import { spawn } from 'node:child_process';
import { access, mkdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import type { EngineContext } from '../engine.ts';
import { lockDirectory } from './build-lock.ts';
import { findPython, type PythonFound, probe, shortageOf } from './interpreter.ts';
import type { PythonOptions } from './options.ts';
import { toolEnvironment } from './process-environment.ts';
import { namedRequirements, type Requirements, readRequirements } from './requirements.ts';

type Context = Pick<EngineContext, 'python' | 'environmentsDir' | 'notify' | 'log'>;

/** Written last: an environment without it is half built. */
const COMPLETE = 'duckserve-complete';
const LAST_LINES = 15;

/**
 * The interpreter for the model in `folder`; builds an environment where none will do. Throws MODEL_NOT_AVAILABLE
 * with what pip has said last.
 */
export async function interpreterFor(
  model: string,
  folder: string,
  options: Pick<PythonOptions, 'python'>,
  context: Context,
  clock: Clock = SYSTEM_CLOCK,
): Promise<PythonFound> {
  if (options.python !== undefined) {
    const named = await probe(options.python);
    if (named) return named;
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `Model "${model}" names the interpreter ${options.python} (option python), which does not run as Python.`,
    );
  }
  const requirements = await readRequirements(folder);
  const key = JSON.stringify([context.python, context.environmentsDir, folder, requirements]);
  const known = chosen.get(key);
  // Replicas of one model come and go; interpreters are asked once.
  if (known && (await exists(known.path))) return known;
  const python = await choose(model, folder, requirements, context, clock);
  chosen.set(key, python);
  return python;
}

const chosen = new Map<string, PythonFound>();

async function choose(
  model: string,
  folder: string,
  requirements: Requirements | undefined,
  context: Context,
  clock: Clock,
): Promise<PythonFound> {
  const found = await findPython(context, requirements?.pythonVersion);
  if (!found) throw noPython(model, requirements?.pythonVersion);
  if (requirements === undefined || requirements.lines.length === 0) return found;
  if (await isEnough(model, found, requirements, context)) return found;
  return await buildOnce(model, folder, found, requirements, context, clock);
}

export function noPython(model: string, version: string | undefined): ServingError {
  return new ServingError(
    'MODEL_NOT_AVAILABLE',
    `Model "${model}" is run by Python, and there is none on this machine. Install Python${
      version === undefined ? ' 3' : ` ${/^\d+\.\d+/.exec(version)?.[0] ?? version}`
    }, or set DUCKSERVE_PYTHON to an interpreter.`,
  );
}

/**
 * The configured interpreter needs the packages, in whatever versions: who names one has chosen. One that was only
 * found needs the very versions.
 */
async function isEnough(
  model: string,
  found: PythonFound,
  requirements: Requirements,
  context: Context,
): Promise<boolean> {
  const shortage = await shortageOf(found.path, namedRequirements(requirements));
  if (!shortage || shortage.missing.length > 0) return false;
  if (shortage.differing.length === 0) return true;
  if (context.python === undefined) return false;
  const { differing } = shortage;
  context.log.warn(
    { model, python: found.path, differing },
    'A model runs with other versions than it asks for.',
  );
  return true;
}

async function buildOnce(
  model: string,
  folder: string,
  python: PythonFound,
  requirements: Requirements,
  context: Context,
  clock: Clock,
): Promise<PythonFound> {
  const minor = python.version.split('.').slice(0, 2).join('.');
  const isLocal = requirements.lines.some((line) => /^(\.|\/|-e|-c|-f|--find-links|code\/)/.test(line));
  // What lies in the folder of the model is part of the environment then.
  const key = JSON.stringify([minor, [...requirements.lines].sort(), isLocal ? folder : '']);
  const hash = sha256Hex(key).slice(0, 32);
  const parent = context.environmentsDir ?? join(tmpdir(), 'duckserve-environments');
  const home = join(parent, hash);
  const path = join(home, 'bin', 'python');
  const built: PythonFound = { path, version: python.version };
  if (await exists(join(home, COMPLETE))) return built;
  await mkdir(parent, { recursive: true });
  const release = await lockDirectory(`${home}.lock`, clock, (pid) =>
    context.notify(`The environment of model "${model}" is being built by process ${pid}; waiting for it.`),
  );
  try {
    if (await exists(join(home, COMPLETE))) return built;
    await rm(home, { recursive: true, force: true });
    const count = requirements.lines.length;
    context.notify(
      `Building the Python ${minor} environment of model "${model}" (${count} ${count === 1 ? 'requirement' : 'requirements'}) in ${home}`,
    );
    await build(model, folder, home, python, requirements, context);
    await writeFile(join(home, COMPLETE), `${python.version}\n${requirements.lines.join('\n')}\n`);
    context.notify(`The environment of model "${model}" is ready.`);
    return built;
  } catch (thrown) {
    await rm(home, { recursive: true, force: true });
    throw thrown;
  } finally {
    await release();
  }
}

async function build(
  model: string,
  folder: string,
  home: string,
  python: PythonFound,
  { lines }: Requirements,
  context: Context,
): Promise<void> {
  const say = (line: string) => {
    if (/^(Collecting|Downloading|Building|Installing|Successfully)/.test(line.trim())) {
      context.notify(`  ${line.trim().slice(0, 160)}`);
    }
  };
  const fail = (what: string, last: readonly string[]) =>
    new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The environment of model "${model}" could not be built: ${what}. The last lines were:\n${last.join('\n')}`,
    );
  const made = await runTool(python.path, ['-m', 'venv', home], folder, () => {});
  if (made.code !== 0) throw fail(`"python -m venv" ended with ${made.code}`, made.last);
  const list = join(home, 'duckserve-requirements.txt');
  await writeFile(list, `${lines.join('\n')}\n`);
  const arguments_ = ['-m', 'pip', 'install', '--no-input', '--disable-pip-version-check', '-r', list];
  const installed = await runTool(join(home, 'bin', 'python'), arguments_, folder, say);
  if (installed.code !== 0) throw fail(`pip ended with ${installed.code}`, installed.last);
}

/** Lines of both outputs go to `onLine`; the last of them are given back, without what addresses hold of passwords. */
function runTool(
  program: string,
  parameters: readonly string[],
  cwd: string,
  onLine: (line: string) => void,
): Promise<{ readonly code: number | string; readonly last: readonly string[] }> {
  return new Promise((resolve) => {
    const child = spawn(program, [...parameters], {
      cwd,
      env: toolEnvironment(process.env),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const last: string[] = [];
    const read = (line: string) => {
      const shown = line.replaceAll(/(\w+:\/\/)[^/@\s]+@/g, '$1***@').slice(0, 500);
      last.push(shown);
      if (last.length > LAST_LINES) last.shift();
      onLine(shown);
    };
    createInterface({ input: child.stdout }).on('line', read);
    createInterface({ input: child.stderr }).on('line', read);
    child.on('error', (cause) => resolve({ code: cause.message, last }));
    child.on('close', (code, signal) => resolve({ code: code ?? signal ?? 'no code', last }));
  });
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
