// Custom models: rows of features in, predictions out, for ONNX files with tabular inputs. Answers synchronously
// inside a DuckDB callback where the runtime allows it. Text models are not opened here.
import { availableParallelism } from 'node:os';
import type { FeatureInput, Output } from '#core/call.ts';
import type { Signature, Target } from '#core/endpoint.ts';
import { ServingError, throwIfAborted, toServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import type {
  Batch,
  BatchAnswer,
  EngineContext,
  FeatureColumn,
  PredictionColumn,
  RunItem,
  Runner,
} from '../engine.ts';
import { FeatureWriter, matchColumns, readOutput } from './tabular-columns.ts';
import { readModelFile, readSidecar, type Sidecar } from './tabular-file.ts';
import { toColumns } from './tabular-rows.ts';
import { planSchema, type Schema, toSignature } from './tabular-schema.ts';
import { openTabularSession, type Results, type TabularSession } from './tabular-session.ts';

export interface TabularInspection {
  readonly signature: Signature;
  /** SHA-256 of the .onnx file. */
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Engine settings to keep with the model version: class labels, whether missing values are allowed. */
  readonly options: JsonObject;
}

interface TabularModel {
  readonly session: TabularSession;
  readonly schema: Schema;
  readonly signature: Signature;
  readonly toleratesMissing: boolean;
}

const MAX_ROWS = 2048;
/** More threads do not help on rows by the thousand, and DuckDB wants cores too. */
const MAX_THREADS = 4;

/** Looks at a model before it is registered. Throws MODEL_NOT_AVAILABLE, or INVALID_PARAMETER when it is not tabular. */
export async function inspectTabularModel(path: string): Promise<TabularInspection> {
  const [file, sidecar] = await Promise.all([readModelFile(path), readSidecar(path)]);
  const model = await loadModel(path, sidecar, file.operators, 1);
  await model.session.close();
  const options: JsonObject = {
    toleratesMissing: model.toleratesMissing,
    ...(sidecar?.labels === undefined ? {} : { labels: sidecar.labels }),
  };
  return { signature: model.signature, sha256: file.sha256, sizeBytes: file.sizeBytes, options };
}

/** Opens a registered tabular model. `modelVersion.source` is the path of the .onnx file. */
export async function openTabularRunner(target: Target, _context: EngineContext): Promise<Runner> {
  const version = target.modelVersion;
  if (version === undefined || target.task !== 'predict') {
    throw new ServingError(
      'WRONG_TASK',
      `Served entity "${target.servedEntity}" has the task "${target.task}"; a tabular model serves "predict".`,
    );
  }
  const path = version.source;
  const file = await readModelFile(path);
  const sidecar = await storedSidecar(target, path);
  const threads = version.options.threads;
  const model = await loadModel(
    path,
    sidecar,
    file.operators,
    typeof threads === 'number' ? threads : Math.min(MAX_THREADS, availableParallelism()),
  );
  return createRunner(target.model, model);
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
  operators: ReadonlySet<string>,
  threads: number,
): Promise<TabularModel> {
  const session = await openTabularSession(path, threads);
  try {
    const schema = planSchema(session.inputs, session.outputs, sidecar);
    const widths = await probe(session, schema);
    const toleratesMissing = canHandleMissing(operators) && (await staysFinite(session, schema));
    return { session, schema, toleratesMissing, signature: toSignature(schema, widths) };
  } catch (cause) {
    await session.close();
    throw cause;
  }
}

/** Values a row of each output: one run on zeros says what metadata often leaves open. */
async function probe(session: TabularSession, schema: Schema): Promise<number[]> {
  const rows = schema.fixedRows ?? 1;
  try {
    return (await runOn(session, schema, 0)).map((data) => data.length / rows);
  } catch {
    // Some models refuse zeros or empty strings (an unknown category); then the metadata has to do.
    const shapes = schema.outputs.map(
      ({ tensor }) => session.outputs.find(({ name }) => name === tensor)?.shape,
    );
    return shapes.map((shape = []) => shape.slice(1).reduce((width, size) => width * Math.max(size, 1), 1));
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
      (data) => Array.isArray(data) || data.every((value) => !Number.isNaN(Number(value))),
    );
  } catch {
    return false;
  }
}

/** One run with every number set to `value` (zero where it cannot be), every string empty. */
function runOn(session: TabularSession, schema: Schema, value: number): Promise<Results> {
  const rows = schema.fixedRows ?? 1;
  const columns = schema.places.map(({ input }): FeatureColumn => {
    const type = schema.inputs[input]?.type;
    const cell = type === 'string' ? '' : type === 'float32' || type === 'float64' ? value : 0;
    return { name: null, values: new Array<string | number>(rows).fill(cell), isNull: null };
  });
  const feeds = new FeatureWriter('', schema, true).write(columns, 0, rows, rows);
  return session.run(
    feeds,
    schema.outputs.map(({ tensor }) => tensor),
  );
}

function createRunner(name: string, model: TabularModel): Runner {
  const { session, schema, signature, toleratesMissing } = model;
  const { fixedRows } = schema;
  const outputNames = schema.outputs.map(({ tensor }) => tensor);
  const createWriter = () => new FeatureWriter(name, schema, toleratesMissing);
  const read = (results: Results, count: number, rows: number): PredictionColumn[] =>
    schema.outputs.map((plan, index) => {
      return { name: plan.name, values: readOutput(plan, results[index] ?? [], count, rows) };
    });
  /** The runs of a chunk: one, or several where the model was exported with a fixed number of rows. */
  const slices = (rowCount: number) => {
    const size = fixedRows ?? rowCount;
    return Array.from({ length: rowCount === 0 ? 0 : Math.ceil(rowCount / size) }, (_, index) => {
      return { start: index * size, count: Math.min(size, rowCount - index * size), rows: size };
    });
  };

  const { runNow } = session;
  const sharedWriter = createWriter();
  const predictColumns =
    runNow &&
    ((columns: readonly FeatureColumn[], rowCount: number) => {
      const matched = matchColumns(name, schema.features, columns);
      const parts = slices(rowCount).map(({ start, count, rows }) =>
        read(
          attempt(name, () => runNow(sharedWriter.write(matched, start, count, rows), outputNames)),
          count,
          rows,
        ),
      );
      return joinParts(schema, parts);
    });

  const predictRows = async (inputs: readonly FeatureInput[]): Promise<RunItem[]> => {
    const columns = toColumns(name, schema, inputs);
    if (predictColumns) return toItems(predictColumns(columns, inputs.length), inputs.length);
    const matched = matchColumns(name, schema.features, columns);
    const parts: PredictionColumn[][] = [];
    for (const { start, count, rows } of slices(inputs.length)) {
      // Its own writer: another call may come while this one waits.
      const feeds = createWriter().write(matched, start, count, rows);
      const results = await session.run(feeds, outputNames).catch((cause: unknown) => {
        throw refused(name, cause);
      });
      parts.push(read(results, count, rows));
    }
    return toItems(joinParts(schema, parts), inputs.length);
  };

  return {
    limits: {
      maxInputs: MAX_ROWS,
      maxTokens: MAX_ROWS,
      maxConcurrency: 1,
      isAdaptive: false,
      isPadded: false,
    },
    signature,
    countTokens: () => 1,
    invoke: async ({ task, inputs, signal }: Batch): Promise<BatchAnswer> => {
      if (task !== 'predict') {
        throw new ServingError('WRONG_TASK', `Model "${name}" serves the task "predict", not "${task}".`);
      }
      throwIfAborted(signal);
      const rows = inputs.filter((input): input is FeatureInput => 'features' in input);
      try {
        return { items: await predictRows(rows) };
      } catch (thrown) {
        // One bad row must not fail its neighbours: each is asked alone and has its own answer or error.
        const items: RunItem[] = [];
        for (const row of rows) {
          const error = rows.length === 1 ? thrown : undefined;
          items.push(
            error ? failed(error) : await predictRows([row]).then(([item]) => item ?? failed(thrown), failed),
          );
        }
        return { items };
      }
    },
    ...(predictColumns ? { local: { predictColumns } } : {}),
    close: () => session.close(),
  };
}

function failed(thrown: unknown): RunItem {
  return { ok: false, error: toServingError(thrown) };
}

function attempt<T>(model: string, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    throw cause instanceof ServingError ? cause : refused(model, cause);
  }
}

/** ONNX Runtime refuses values only the model knows to be wrong, such as a category it has not seen. */
function refused(model: string, cause: unknown): ServingError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new ServingError('SCHEMA_MISMATCH', `Model "${model}" cannot work with these features: ${reason}`, {
    cause,
  });
}

function joinParts(schema: Schema, parts: readonly PredictionColumn[][]): PredictionColumn[] {
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) return only;
  return schema.outputs.map(({ name }, index) => {
    return { name, values: parts.flatMap((part) => [...(part[index]?.values ?? [])]) };
  });
}

/** A scalar or list for one output, else an object by output name. JSON has no NaN: null. */
function toItems(columns: readonly PredictionColumn[], rowCount: number): RunItem[] {
  const cell = ({ values }: PredictionColumn, row: number): Json => {
    const value = values[row] ?? null;
    if (typeof value === 'number' && !Number.isFinite(value)) return null;
    return typeof value === 'object' && value
      ? value.map((item) => (Number.isFinite(item) ? item : null))
      : value;
  };
  const [only] = columns;
  return Array.from({ length: rowCount }, (_, row): RunItem => {
    const prediction: Json =
      columns.length === 1 && only !== undefined
        ? cell(only, row)
        : Object.fromEntries(columns.map((column) => [column.name, cell(column, row)]));
    const output: Output = { prediction };
    return { ok: true, output, usage: { inputTokens: 0, outputTokens: 0 } };
  });
}
