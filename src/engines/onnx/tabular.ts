// Custom models as ONNX files: looked at before they are registered, and opened to answer rows of features. What a
// runner does with rows is in tabular-runner.ts. Text models are not opened here.
import { availableParallelism } from 'node:os';
import type { Signature, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { EngineContext, FeatureColumn, Runner } from '../engine.ts';
import { isFloat } from './elements.ts';
import { FeatureWriter, type Source } from './feature-writer.ts';
import { rowDimsOf } from './output-reader.ts';
import { product } from './schema-words.ts';
import type { Results, TabularSession } from './session.ts';
import { readSidecar, type Sidecar } from './tabular-file.ts';
import { createRunner, type TabularModel } from './tabular-runner.ts';
import { planSchema, type Schema, toSignature } from './tabular-schema.ts';
import { openTabularSession, type SessionOptions } from './tabular-session.ts';

export interface TabularInspection {
  readonly signature: Signature;
  /** SHA-256 of the .onnx file. */
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Engine settings to keep with the model version: class labels, whether missing values are allowed. */
  readonly options: JsonObject;
}

/** More threads do not help on rows by the thousand, and DuckDB wants cores too. */
const MOST_THREADS = 4;

/** Looks at a model before it is registered. Throws MODEL_NOT_AVAILABLE, or INVALID_PARAMETER when it is not tabular. */
export async function inspectTabularModel(path: string): Promise<TabularInspection> {
  const sidecar = await readSidecar(path);
  const { session, signature, toleratesMissing } = await loadModel(path, sidecar, { threads: 1 });
  await session.close();
  const options: JsonObject = {
    toleratesMissing,
    ...(sidecar?.labels === undefined ? {} : { labels: sidecar.labels }),
  };
  return { signature, sha256: session.sha256, sizeBytes: session.sizeBytes, options };
}

/** Opens a registered tabular model. `modelVersion.source` is the path of the .onnx file. */
export async function openTabularRunner(target: Target, context: EngineContext): Promise<Runner> {
  const version = target.modelVersion;
  if (version === undefined || target.task !== 'predict') {
    throw new ServingError(
      'WRONG_TASK',
      `Served entity "${target.servedEntity}" has the task "${target.task}"; a tabular model serves "predict".`,
    );
  }
  const path = version.source;
  const sidecar = await storedSidecar(target, path);
  const threads = threadsOf(version.options, context);
  const options = version.sha256 === '' ? { threads } : { threads, sha256: version.sha256 };
  return createRunner(target.model, await loadModel(path, sidecar, options));
}

/** Of one run: as the model version says, as the process says, or one a core. Throws INVALID_PARAMETER. */
function threadsOf({ threads }: JsonObject, { onnxThreads }: EngineContext): number {
  if (threads === undefined || threads === null)
    return onnxThreads ?? Math.min(MOST_THREADS, availableParallelism());
  if (typeof threads === 'number' && Number.isInteger(threads) && threads >= 1 && threads <= 1_024)
    return threads;
  throw new ServingError(
    'INVALID_PARAMETER',
    `The option threads of this model is ${JSON.stringify(threads).slice(0, 40)}; it must be a whole number from 1 to 1024.`,
  );
}

/** What was kept at registration counts; files beside the model are asked only for what was not kept. */
async function storedSidecar({ modelVersion }: Target, path: string): Promise<Sidecar | undefined> {
  const { signature, options } = modelVersion ?? {};
  const labels = Array.isArray(options?.labels) ? { labels: options.labels.map(String) } : {};
  if (signature !== undefined && signature.inputs.length > 0)
    return { ...signature, ...labels, isStrict: true };
  const sidecar = await readSidecar(path);
  return sidecar === undefined && labels.labels === undefined
    ? undefined
    : { isStrict: true, ...sidecar, ...labels };
}

async function loadModel(
  path: string,
  sidecar: Sidecar | undefined,
  options: SessionOptions,
): Promise<TabularModel> {
  const session = await openTabularSession(path, options);
  try {
    const schema = planSchema(session.inputs, session.outputs, sidecar);
    const rowDims = await probe(session, schema);
    const toleratesMissing = canHandleMissing(session.operators) && (await staysFinite(session, schema));
    return { session, schema, toleratesMissing, signature: toSignature(schema, rowDims) };
  } catch (cause) {
    await session.close();
    throw cause;
  }
}

/** Sizes of a row of each output: one run on zeros says what metadata often leaves open. */
async function probe(session: TabularSession, schema: Schema): Promise<(readonly number[])[]> {
  const rows = schema.fixedRows ?? 1;
  try {
    const results = await runOn(session, schema, 0);
    return schema.outputs.map(({ tensor }, index) => {
      const result = results[index];
      return result === undefined ? [] : rowDimsOf(tensor, result, rows);
    });
  } catch {
    // Some models refuse zeros or empty strings (an unknown category); then the metadata has to do.
    return schema.outputs.map(({ tensor }) => {
      const { shape = [] } = session.outputs.find(({ name }) => name === tensor) ?? {};
      return shape.slice(1).map((size) => Math.max(size, 1));
    });
  }
}

/** Trees and imputers decide what a missing value means; everything else would calculate with it. */
function canHandleMissing(operators: ReadonlySet<string>): boolean {
  const names = [...operators];
  if (names.some((name) => name === 'Imputer' || name === 'IsNaN')) return true;
  const isLinear = (name: string) => /^(Gemm|MatMul|Conv|LSTM|GRU|RNN)|^Linear|^SVM/.test(name);
  return names.some((name) => name.startsWith('TreeEnsemble')) && !names.some(isLinear);
}

async function staysFinite(session: TabularSession, schema: Schema): Promise<boolean> {
  try {
    const results = await runOn(session, schema, Number.NaN);
    return results.every(
      ({ data }) => Array.isArray(data) || data.every((value) => !Number.isNaN(Number(value))),
    );
  } catch {
    return false;
  }
}

/** One run with every number set to `value` (zero where it cannot be), every string empty. */
function runOn(session: TabularSession, schema: Schema, value: number): Promise<Results> {
  const rows = schema.fixedRows ?? 1;
  const sources = schema.slots.map(({ input, isWhole }): Source => {
    const { type = 'float32', rowDims = [] } = schema.inputs[input] ?? {};
    const cell = type === 'string' ? '' : isFloat(type) ? value : 0;
    const dims = isWhole ? rowDims.map((size) => Math.abs(size)) : [];
    const values: FeatureColumn['values'] = new Array<string | number>(rows).fill(cell);
    const columns = Array.from({ length: product(dims) }, () => ({ values, isNull: null }));
    return { kind: 'columns', columns, dims };
  });
  const feeds = new FeatureWriter('', schema, true).write(sources, 0, rows, rows);
  return session.run(
    feeds,
    schema.outputs.map(({ tensor }) => tensor),
  );
}
