// MLflow model directories without MLflow: a loader module in `code/`, which is all that the contract of
// `python_function` asks for, so that the tests need nothing but an interpreter.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import type { ModelVersion, Target } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import type { Batch, EngineContext, RunItem, Runner } from '#engines/engine.ts';

/** Why tests with Python cannot run here; undefined when they can. */
export const NO_PYTHON: string | undefined =
  spawnSync('python3', ['--version']).status === 0 ? undefined : 'there is no python3 on the PATH';

/**
 * An interpreter without any package, whatever the machine has installed: what models are handed depends on it. It
 * is made once and kept among temporary files.
 */
function makeBarePython(): string {
  const home = join(tmpdir(), `duckserve-bare-python-${userInfo().uid}`);
  if (!existsSync(join(home, 'bin', 'python'))) {
    const own = mkdtempSync(join(tmpdir(), 'duckserve-bare-'));
    spawnSync('python3', ['-m', 'venv', '--without-pip', join(own, 'home')]);
    try {
      renameSync(join(own, 'home'), home);
    } catch {
      // Another test was quicker.
    }
    rmSync(own, { recursive: true, force: true });
  }
  return join(home, 'bin', 'python');
}
const BARE_PYTHON = NO_PYTHON === undefined ? makeBarePython() : 'python3';

export interface Line {
  readonly level: keyof Log;
  readonly message: string;
  readonly fields: object;
}

export function recordLog(): { readonly log: Log; readonly lines: Line[] } {
  const lines: Line[] = [];
  const say = (level: keyof Log) => (fields: object, message: string) => {
    lines.push({ level, message, fields });
  };
  return { lines, log: { debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error') } };
}

export function contextOf(log: Log, changes: Partial<EngineContext> = {}): EngineContext {
  return {
    log,
    modelCacheDir: '/nowhere',
    resolveSecret: (reference) => reference.replace(/^\{\{secrets\/(.*)\}\}$/, 'secret-of-$1'),
    allowDownload: () => false,
    notify: () => {},
    python: BARE_PYTHON,
    ...changes,
  };
}

export interface ModelFiles {
  /** Of the class `Model`, indented by none; `data_path` is at hand. */
  readonly predict: string;
  readonly signature?: {
    readonly inputs?: readonly JsonObject[];
    readonly outputs?: readonly JsonObject[];
    readonly params?: readonly JsonObject[];
  };
  readonly files?: Readonly<Record<string, string>>;
}

/** A folder below `parent`. `predict` is the body of `def predict(self, data, params=None):`. */
export async function writeModel(parent: string, { predict, signature, files }: ModelFiles): Promise<string> {
  const folder = await mkdtemp(join(parent, 'model-'));
  await mkdir(join(folder, 'code'));
  const texts = Object.entries(signature ?? {}).map(
    ([side, value]) => `  ${side}: '${JSON.stringify(value).replaceAll("'", "''")}'\n`,
  );
  const mlmodel = `flavors:\n  python_function:\n    loader_module: own_loader\n    data: data.json\n    code: code\n${
    signature === undefined ? '' : `signature:\n${texts.join('')}`
  }`;
  const body = predict
    .split('\n')
    .map((line) => `        ${line}\n`)
    .join('');
  const loader = `import json, os, signal, sys, time
class Model:
    def __init__(self, path):
        with open(path) as file:
            self.settings = json.load(file)
    def predict(self, data, params=None):
${body}
def _load_pyfunc(data_path):
    return Model(data_path)
`;
  await writeFile(join(folder, 'MLmodel'), mlmodel);
  await writeFile(join(folder, 'data.json'), '{"bias": 1}');
  await writeFile(join(folder, 'code', 'own_loader.py'), loader);
  for (const [name, text] of Object.entries(files ?? {})) await writeFile(join(folder, name), text);
  return folder;
}

export function targetOf(source: string, options: JsonObject = {}, changes: Partial<Target> = {}): Target {
  const modelVersion: ModelVersion = {
    model: 'demo',
    version: '1',
    engine: 'python',
    task: 'predict',
    source,
    sha256: '',
    sizeBytes: 0,
    options,
    createdAtMs: 0,
  };
  const names = { endpoint: 'demo', servedEntity: 'demo-1', model: 'demo', fingerprint: 'f' };
  return { ...names, engine: 'python', task: 'predict', modelVersion, ...changes };
}

export async function ask(
  runner: Runner,
  rows: readonly (JsonObject | readonly (number | string | null)[])[],
  changes: Partial<Batch> = {},
): Promise<readonly RunItem[]> {
  const { items } = await runner.invoke({
    task: 'predict',
    inputs: rows.map((features) => ({ features })),
    parameters: {},
    signal: new AbortController().signal,
    ...changes,
  });
  return items;
}

/** Predictions, or `CODE: message` for what failed. */
export const shown = (items: readonly RunItem[]): unknown[] =>
  items.map((item) =>
    item.ok
      ? 'prediction' in item.output && item.output.prediction
      : `${item.error.code}: ${item.error.message}`,
  );
