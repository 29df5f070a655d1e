// Opens models for the tests of the tabular runner, and asks them in rows and in columns.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll } from 'vitest';
import type { FeatureInput } from '#core/call.ts';
import type { ModelVersion, Target } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { EngineContext, FeatureColumn, Runner } from '#engines/engine.ts';
import { openTabularRunner } from '#engines/onnx/tabular.ts';

export const CONTEXT: EngineContext = {
  log: SILENT_LOG,
  modelCacheDir: '/nowhere',
  resolveSecret: (reference) => reference,
  allowDownload: () => false,
  notify: () => {},
};

export function targetOf(source: string, version: Partial<ModelVersion> = {}): Target {
  const modelVersion: ModelVersion = {
    model: 'demo',
    version: '1',
    engine: 'onnx',
    task: 'predict',
    source,
    sha256: '',
    sizeBytes: 0,
    options: {},
    createdAtMs: 0,
    ...version,
  };
  const names = { endpoint: 'demo', servedEntity: 'demo-1', model: 'demo', fingerprint: 'f' };
  return { ...names, engine: 'onnx', task: 'predict', modelVersion };
}

/** A folder for the models of a test file, and what was opened is closed after each test. */
export function useModels() {
  let folder = '';
  const opened: Runner[] = [];
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'duckserve-onnx-'));
  });
  afterEach(async () => {
    for (const runner of opened.splice(0)) await runner.close();
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  return {
    /** Path of a model in a new folder, so that side-cars do not meet. */
    place: async () => join(await mkdtemp(join(folder, 'model-')), 'model.onnx'),
    open: async (source: string, version?: Partial<ModelVersion>, context = CONTEXT): Promise<Runner> => {
      const runner = await openTabularRunner(targetOf(source, version), context);
      opened.push(runner);
      return runner;
    },
  };
}

/** Predictions; the error where a row has one. */
export async function invoke(
  runner: Runner,
  rows: readonly FeatureInput['features'][],
): Promise<(Json | ServingError | undefined)[]> {
  const inputs = rows.map((features) => ({ features }));
  const signal = new AbortController().signal;
  const answer = await runner.invoke({ task: 'predict', inputs, parameters: {}, signal });
  return answer.items.map((item) => {
    if (!item.ok) return item.error;
    return 'prediction' in item.output ? item.output.prediction : undefined;
  });
}

export function columnOf(name: string | null, values: FeatureColumn['values']): FeatureColumn {
  return { name, values, isNull: null };
}

/** The values of each output, as arrays, by name. */
export function predict(
  runner: Runner,
  columns: readonly FeatureColumn[],
  rowCount: number,
): Readonly<Record<string, unknown[]>> {
  const run = runner.local?.predictColumns;
  if (run === undefined) throw new Error('the runner is not local');
  return Object.fromEntries(run(columns, rowCount).map(({ name, values }) => [name, [...values]]));
}
