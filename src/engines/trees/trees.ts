// The trees engine: XGBoost and LightGBM models from their own files, evaluated here, without Python. Local,
// synchronous and cheap, so it answers inside the DuckDB callback too. Pickles and other libraries are python's.
import type { FeatureInput } from '#core/call.ts';
import type { Signature, Target } from '#core/endpoint.ts';
import { ServingError, throwIfAborted, toServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type {
  Batch,
  BatchAnswer,
  Engine,
  FeatureColumn,
  LocalRunner,
  PredictionColumn,
  RunItem,
  Runner,
  RunnerLimits,
} from '../engine.ts';
import { type Block, enforceRows, type TypedColumn } from '../signature/enforce.ts';
import { enforceParams } from '../signature/params.ts';
import { requireTask } from '../text-input.ts';
import { ColumnReader } from './columns.ts';
import { loadTrees, readOptions, signatureOf } from './inspect.ts';
import { Predictor } from './predictor.ts';

export const treesEngine: Engine = {
  kind: 'trees',
  async open(target) {
    const version = target.modelVersion;
    if (version === undefined || target.task !== 'predict') {
      throw new ServingError(
        'WRONG_TASK',
        `Served entity "${target.servedEntity}" has the task "${target.task}"; a model of trees serves "predict".`,
      );
    }
    const model = await loadTrees(version.source);
    const options = readOptions(version.options, `model "${target.model}"`);
    const own = signatureOf(model, undefined, options);
    // Options may have been given after the inspection, so what comes out is said anew; its name stays.
    const [kept] = version.signature?.outputs ?? [];
    const outputs = own.outputs.map((output) => ({ ...output, name: kept?.name ?? output.name }));
    const signature = { ...own, ...version.signature, outputs };
    const reader = new ColumnReader(target.model, model, signature);
    return new TreesRunner(target, signature, reader, new Predictor(model, options));
  },
};

class TreesRunner implements Runner {
  readonly limits: RunnerLimits = {
    maxInputs: 8192,
    maxTokens: 8192,
    maxConcurrency: 1,
    isAdaptive: false,
    isPadded: false,
  };
  readonly signature: Signature;
  readonly local: LocalRunner = { predictColumns: (columns, rowCount) => this.#predict(columns, rowCount) };
  readonly #target: Target;
  readonly #reader: ColumnReader;
  readonly #predictor: Predictor;
  readonly #output: string;

  constructor(target: Target, signature: Signature, reader: ColumnReader, predictor: Predictor) {
    this.#target = target;
    this.signature = signature;
    this.#reader = reader;
    this.#predictor = predictor;
    this.#output = signature.outputs[0]?.name ?? 'prediction';
  }

  countTokens(): number {
    return 1;
  }

  async invoke({ task, inputs, parameters, signal }: Batch): Promise<BatchAnswer> {
    throwIfAborted(signal);
    requireTask(this.#target, task);
    enforceParams(this.#target.model, this.signature, parameters.extra);
    const rows = inputs.filter((input): input is FeatureInput => 'features' in input);
    const { blocks, errors } = enforceRows(this.#target.model, this.signature, rows);
    const items: RunItem[] = new Array(rows.length);
    for (const [row, error] of errors) items[row] = { ok: false, error };
    for (const block of blocks) this.#answer(block, items);
    return { items };
  }

  async close(): Promise<void> {}

  #predict(columns: readonly FeatureColumn[], rowCount: number): readonly PredictionColumn[] {
    const features = this.#reader.read(columns, rowCount);
    return [{ name: this.#output, values: this.#predictor.predict(features, rowCount) }];
  }

  /** One bad row (a category that nobody knows) must not fail its neighbours: then each is asked alone. */
  #answer({ rows, columns }: Block, items: RunItem[]): void {
    const feature = columns.map(toFeature);
    const answer = (from: number, count: number) => {
      const part = count === rows.length ? feature : feature.map((column) => oneRow(column, from));
      const [column] = this.#predict(part, count);
      for (let at = 0; at < count; at++) items[rows[from + at] ?? 0] = toItem(column?.values[at] ?? null);
    };
    try {
      answer(0, rows.length);
    } catch (thrown) {
      for (const [at, row] of rows.entries()) {
        try {
          if (rows.length === 1) throw thrown;
          answer(at, 1);
        } catch (error) {
          items[row] = { ok: false, error: toServingError(error) };
        }
      }
    }
  }
}

function toFeature({ name, column, type, values, isNull }: TypedColumn): FeatureColumn {
  if (values instanceof Float64Array) return { name: name ?? column.name, values, isNull };
  if (type === 'bool') {
    return { name: name ?? column.name, values: Array.from(values as Uint8Array, Boolean), isNull };
  }
  const isNumeric = type === 'f32' || type === 'i32' || type === 'i64';
  const numbers = isNumeric ? Float64Array.from(values as ArrayLike<number>, Number) : (values as string[]);
  return { name: name ?? column.name, values: numbers, isNull };
}

function oneRow({ name, values, isNull }: FeatureColumn, row: number): FeatureColumn {
  return {
    name,
    values: values.slice(row, row + 1),
    isNull: isNull?.slice(row, row + 1) ?? null,
  };
}

/** JSON has no NaN and no infinity: null. */
function toItem(value: PredictionColumn['values'][number]): RunItem {
  const finite = (number: number) => (Number.isFinite(number) ? number : null);
  let prediction: Json;
  if (typeof value === 'number') prediction = finite(value);
  else prediction = Array.isArray(value) ? value.map(finite) : (value as Json);
  return { ok: true, output: { prediction }, usage: { inputTokens: 0, outputTokens: 0 } };
}
