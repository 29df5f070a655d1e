// Finds interpreters of Python and asks them what they are and what is installed in them. Installs nothing.
import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json } from '#core/json.ts';
import type { EngineContext } from '../engine.ts';
import { toolEnvironment } from './process-environment.ts';

export interface PythonFound {
  readonly path: string;
  /** Such as `3.11.7`. */
  readonly version: string;
}

const OLDEST = [3, 8] as const;
const ANSWER_MS = 20_000;
const run = promisify(execFile);

/**
 * An interpreter of this machine, of the given version where there is one: the configured one, else by PATH, else
 * those of pyenv. `version` is `3`, `3.11` or `3.11.7`; the last number does not count. Undefined where there is none.
 * Throws MODEL_NOT_AVAILABLE when one is configured and does not run.
 */
export async function findPython(
  context: Pick<EngineContext, 'python'>,
  version?: string,
): Promise<PythonFound | undefined> {
  const minor = /^\d+\.\d+/.exec(version ?? '')?.[0];
  if (context.python !== undefined) {
    const found = await probe(context.python);
    if (found && isOldEnough(found)) return found;
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The interpreter that is configured (DUCKSERVE_PYTHON=${context.python}) ${
        found
          ? `is Python ${found.version}, and ${OLDEST.join('.')} is needed at least`
          : 'does not run as Python'
      }. Set it to the path of a Python interpreter.`,
    );
  }
  const isWanted = ({ version: found }: PythonFound) =>
    minor === undefined || found === minor || found.startsWith(`${minor}.`);
  let first: PythonFound | undefined;
  for (const candidate of await candidates(minor)) {
    const found = await probe(candidate);
    if (!found || !isOldEnough(found)) continue;
    if (isWanted(found)) return found;
    first ??= found;
  }
  return first;
}

async function candidates(minor: string | undefined): Promise<string[]> {
  const names = ['python3', 'python'];
  if (minor === undefined) return names;
  const versions = join(homedir(), '.pyenv', 'versions');
  const installed = await readdir(versions).catch(() => []);
  const pyenv = installed.filter((name) => name.startsWith(`${minor}.`)).toSorted();
  return [`python${minor}`, ...pyenv.map((name) => join(versions, name, 'bin', 'python')), ...names];
}

/** What an interpreter is; undefined where there is none of this name, or it does not run. */
export async function probe(path: string): Promise<PythonFound | undefined> {
  const script = 'import json, sys; print(json.dumps([sys.version.split()[0], sys.executable]))';
  const answer = await askPython(path, script, []);
  const [version, executable] = Array.isArray(answer) ? (answer as readonly Json[]) : [];
  if (typeof version !== 'string') return undefined;
  // A name on the PATH may be a script that looks for the interpreter; the interpreter itself knows where it lies.
  return { path: typeof executable === 'string' && executable !== '' ? executable : path, version };
}

function isOldEnough({ version }: PythonFound): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > OLDEST[0] || (major === OLDEST[0] && minor >= OLDEST[1]);
}

export interface Shortage {
  /** Requirements of which nothing is installed. */
  readonly missing: readonly string[];
  /** Requirements of which another version is installed: `name==1.0 (1.1 is installed)`. */
  readonly differing: readonly string[];
}

// `packaging` reads requirements as pip does; pip brings its own copy of it.
const CHECK = `
import json, re, sys
from importlib import metadata
try:
    from packaging.requirements import Requirement
except ImportError:
    try:
        from pip._vendor.packaging.requirements import Requirement
    except ImportError:
        Requirement = None
IMPORTED_AS = {'scikit-learn': 'sklearn', 'pyyaml': 'yaml', 'pillow': 'PIL', 'opencv-python': 'cv2'}
def version_of(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        # Another distribution may bring the same modules: mlflow-skinny those of mlflow, xgboost-cpu those of xgboost.
        module = IMPORTED_AS.get(name.lower(), name.replace('-', '_'))
        owners = getattr(metadata, 'packages_distributions', dict)().get(module, ())
        return metadata.version(owners[0])
missing, differing = [], []
for line in json.loads(sys.argv[1]):
    try:
        need = Requirement(line) if Requirement else None
    except Exception:
        need = None
    if need is not None and need.marker is not None and not need.marker.evaluate():
        continue
    name = need.name if need else re.split(r'[^A-Za-z0-9._-]', line, maxsplit=1)[0]
    try:
        version = version_of(name)
    except Exception:
        missing.append(line)
        continue
    if need is not None and not need.specifier.contains(version, prereleases=True):
        differing.append(f'{line} ({version} is installed)')
print(json.dumps({'missing': missing, 'differing': differing}))
`;

/** What of the requirements an interpreter does not have. Undefined where it cannot be asked. */
export async function shortageOf(
  python: string,
  requirements: readonly string[],
): Promise<Shortage | undefined> {
  if (requirements.length === 0) return { missing: [], differing: [] };
  const answer = await askPython(python, CHECK, [JSON.stringify(requirements)]);
  if (!isJsonObject(answer)) return undefined;
  const { missing, differing } = answer;
  const texts = (value: Json | undefined) => (Array.isArray(value) ? value.map(String) : []);
  return { missing: texts(missing), differing: texts(differing) };
}

async function askPython(
  path: string,
  script: string,
  parameters: readonly string[],
): Promise<Json | undefined> {
  try {
    // `-I`: neither the current folder nor the user's settings decide what is imported.
    const { stdout } = await run(path, ['-I', '-c', script, ...parameters], {
      env: toolEnvironment(process.env),
      timeout: ANSWER_MS,
      maxBuffer: 1024 * 1024,
    });
    return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Json;
  } catch {
    return undefined;
  }
}
