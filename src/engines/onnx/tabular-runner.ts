// Answers rows of features by an open model: synchronously inside a DuckDB callback where the runtime allows it, and
// in batches for requests. A row that the model refuses fails alone.
import type { FeatureInput, Output } from '#core/call.ts';
import type { Signature } from '#core/endpoint.ts';
import { ServingError, throwIfAborted, toServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { Batch, BatchAnswer, FeatureColumn, PredictionColumn, RunItem, Runner } from '../engine.ts';
import { FeatureWriter, type Source } from './feature-writer.ts';
import { readOutput } from './output-reader.ts';
import type { Results, TabularSession } from './session.ts';
import { matchColumns } from './tabular-columns.ts';
import { createRowReader, type RowBlock } from './tabular-rows.ts';
import type { Schema } from './tabular-schema.ts';

export interface TabularModel {
  readonly session: TabularSession;
  readonly schema: Schema;
  readonly signature: Signature;
  readonly toleratesMissing: boolean;
}

const MOST_ROWS = 2048;
/** Values of features in one run: 64 MB as doubles. Images by the thousand would not fit the memory. */
const MOST_VALUES = 8 * 1024 * 1024;

export function createRunner(name: string, model: TabularModel): Runner {
  const { session, signature } = model;
  const maxInputs = mostRows(model.schema);
  const predictor = new Predictor(name, model);
  const { predictColumns } = predictor;
  return {
    limits: { maxInputs, maxTokens: maxInputs, maxConcurrency: 1, isAdaptive: false, isPadded: false },
    signature,
    countTokens: () => 1,
    invoke: async ({ task, inputs, signal }: Batch): Promise<BatchAnswer> => {
      if (task !== 'predict') {
        throw new ServingError('WRONG_TASK', `Model "${name}" serves the task "predict", not "${task}".`);
      }
      throwIfAborted(signal);
      const rows = inputs.filter((input): input is FeatureInput => 'features' in input);
      return { items: await predictor.predictRows(rows) };
    },
    ...(predictColumns ? { local: { predictColumns } } : {}),
    ...(session.lost ? { lost: session.lost } : {}),
    close: () => session.close(),
  };
}

function mostRows({ inputs }: Schema): number {
  const values = inputs.reduce((sum, { width }) => sum + (width ?? 1), 0);
  return Math.max(1, Math.min(MOST_ROWS, Math.floor(MOST_VALUES / values)));
}

interface Slice {
  readonly start: number;
  readonly count: number;
  /** Of the run: more than `count` where the model was exported for a fixed number. */
  readonly rows: number;
}

class Predictor {
  /** Present where a run can be waited for. */
  readonly predictColumns:
    | ((columns: readonly FeatureColumn[], rowCount: number) => readonly PredictionColumn[])
    | undefined;
  readonly #name: string;
  readonly #model: TabularModel;
  readonly #outputNames: readonly string[];
  readonly #writer: FeatureWriter;
  readonly #readRows: ReturnType<typeof createRowReader>;

  constructor(name: string, model: TabularModel) {
    this.#name = name;
    this.#model = model;
    this.#outputNames = model.schema.outputs.map(({ tensor }) => tensor);
    this.#writer = this.#createWriter();
    this.#readRows = createRowReader(name, model.schema);
    const { runNow } = model.session;
    this.predictColumns =
      runNow &&
      ((columns, rowCount) => {
        const sources = matchColumns(name, model.schema, columns);
        const parts = this.#slices(0, rowCount).map((slice) => {
          const feeds = this.#writer.write(sources, slice.start, slice.count, slice.rows);
          return this.#read(
            attempt(name, () => runNow(feeds, this.#outputNames)),
            slice,
          );
        });
        return this.#join(parts);
      });
  }

  /** One item for each row, in order. */
  async predictRows(rows: readonly FeatureInput[]): Promise<RunItem[]> {
    const items = new Array<RunItem>(rows.length);
    const { blocks, errors } = this.#readRows(rows);
    for (const [row, error] of errors) items[row] = { ok: false, error };
    for (const block of blocks) await this.#predictBlock(block, 0, block.rows.length, items);
    return items;
  }

  /** When the model refuses, each half is asked by itself, down to the rows that are to blame. */
  async #predictBlock(
    { rows, sources }: RowBlock,
    start: number,
    end: number,
    items: RunItem[],
  ): Promise<void> {
    try {
      const predictions = await this.#predictRange(sources, start, end);
      for (let row = start; row < end; row++) items[rows[row] as number] = toItem(predictions, row - start);
    } catch (thrown) {
      if (end - start === 1) {
        items[rows[start] as number] = { ok: false, error: toServingError(thrown) };
        return;
      }
      const middle = Math.ceil((start + end) / 2);
      await this.#predictBlock({ rows, sources }, start, middle, items);
      await this.#predictBlock({ rows, sources }, middle, end, items);
    }
  }

  async #predictRange(
    sources: readonly (Source | null)[],
    start: number,
    end: number,
  ): Promise<readonly PredictionColumn[]> {
    const { session } = this.#model;
    const parts: PredictionColumn[][] = [];
    for (const slice of this.#slices(start, end)) {
      // Its own writer where the run is awaited: another call may come meanwhile.
      const writer =
        session.isBackground || session.runNow === undefined ? this.#createWriter() : this.#writer;
      const feeds = writer.write(sources, slice.start, slice.count, slice.rows);
      const results = await session.run(feeds, this.#outputNames).catch((cause: unknown) => {
        throw refused(this.#name, cause);
      });
      parts.push(this.#read(results, slice));
    }
    return this.#join(parts);
  }

  #createWriter(): FeatureWriter {
    return new FeatureWriter(this.#name, this.#model.schema, this.#model.toleratesMissing);
  }

  /** The runs of a range: one, or several where the model was exported with a fixed number of rows. */
  #slices(start: number, end: number): Slice[] {
    const size = this.#model.schema.fixedRows ?? end - start;
    const slices: Slice[] = [];
    for (let at = start; at < end; at += size)
      slices.push({ start: at, count: Math.min(size, end - at), rows: size });
    return slices;
  }

  #read(results: Results, { count, rows }: Slice): PredictionColumn[] {
    return this.#model.schema.outputs.map((plan, index) => {
      const result = results[index];
      if (result === undefined) throw new ServingError('INTERNAL', `There is no output "${plan.tensor}".`);
      return { name: plan.name, values: readOutput(plan, result, count, rows) };
    });
  }

  #join(parts: readonly PredictionColumn[][]): readonly PredictionColumn[] {
    const [only] = parts;
    if (parts.length === 1 && only !== undefined) return only;
    return this.#model.schema.outputs.map(({ name }, index) => {
      return { name, values: parts.flatMap((part): Json[] => [...(part[index]?.values ?? [])]) };
    });
  }
}

function attempt<T>(model: string, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    throw refused(model, cause);
  }
}

/** ONNX Runtime refuses values only the model knows to be wrong, such as a category it has not seen. */
function refused(model: string, cause: unknown): ServingError {
  if (cause instanceof ServingError) return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new ServingError('SCHEMA_MISMATCH', `Model "${model}" cannot work with these features: ${reason}`, {
    cause,
  });
}

/** A scalar or list for one output, else an object by output name. JSON has no NaN: null. */
function toItem(columns: readonly PredictionColumn[], row: number): RunItem {
  const [only] = columns;
  const prediction: Json =
    columns.length === 1 && only !== undefined
      ? finite(only.values[row] ?? null)
      : Object.fromEntries(columns.map(({ name, values }) => [name, finite(values[row] ?? null)]));
  const output: Output = { prediction };
  return { ok: true, output, usage: { inputTokens: 0, outputTokens: 0 } };
}

function finite(value: Json): Json {
  if (typeof value === 'number') return Number.isFinite(value) ? value : null;
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item: Json) => finite(item));
  const map = Object.create(null) as Record<string, Json>;
  for (const [key, member] of Object.entries(value)) map[key] = finite(member);
  return map;
}
