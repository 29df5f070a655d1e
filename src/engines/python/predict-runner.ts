// Runs rows of features through a worker: tables go to it, predictions come back. One runner has one worker; when
// that is lost the runner answers no more, and says so.
import type { FeatureInput } from '#core/call.ts';
import type { Signature, Target } from '#core/endpoint.ts';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { Batch, BatchAnswer, RunItem, Runner, RunnerLimits } from '../engine.ts';
import { enforceParams } from '../signature/params.ts';
import { requireTask } from '../text-input.ts';
import { type FeatureTable, toTables } from './features.ts';
import type { PythonOptions } from './options.ts';
import { toItems } from './predictions.ts';
import type { Worker } from './worker.ts';
import { startWorker } from './worker-start.ts';

export class PredictRunner implements Runner {
  readonly limits: RunnerLimits;
  readonly signature?: Signature;
  readonly lost: Promise<ServingError>;
  readonly #target: Target;
  readonly #worker: Worker;
  readonly #timeoutMs: number;

  constructor(target: Target, worker: Worker, options: PythonOptions, signature: Signature | undefined) {
    this.#target = target;
    this.#worker = worker;
    this.#timeoutMs = options.timeoutSeconds * 1_000;
    this.lost = worker.lost;
    if (signature !== undefined) this.signature = signature;
    this.limits = {
      maxInputs: options.maxInputs,
      maxTokens: options.maxInputs,
      maxConcurrency: options.maxConcurrency,
      isAdaptive: false,
      isPadded: false,
    };
  }

  countTokens(): number {
    return 1;
  }

  /** Of the process; for tests, which end it. */
  get pid(): number | undefined {
    return this.#worker.pid;
  }

  async invoke({ task, inputs, parameters, signal }: Batch): Promise<BatchAnswer> {
    requireTask(this.#target, task);
    throwIfAborted(signal);
    const { model } = this.#target;
    const { extra = {} } = parameters;
    // Without a signature nothing is known of them: the model says whether it takes them.
    const params = this.signature === undefined ? extra : enforceParams(model, this.signature, extra);
    const { tables, errors } = toTables(model, this.signature, inputs.map(requireFeatures));
    const items: (RunItem | undefined)[] = new Array(inputs.length);
    for (const [row, error] of errors) items[row] = { ok: false, error };
    await Promise.all(
      tables.map(async (table) => {
        const answered = await this.#predict(table, params, signal);
        for (const [at, row] of table.rows.entries()) items[row] = answered[at];
      }),
    );
    return { items: items.map((item) => item ?? { ok: false, error: unanswered(model) }) };
  }

  async #predict(
    { rows, form, columns, buffers }: FeatureTable,
    params: JsonObject,
    signal: AbortSignal,
  ): Promise<RunItem[]> {
    const header = { rows: rows.length, form, columns, params };
    const frame = await this.#worker.request('predict', {
      header,
      buffers,
      signal,
      timeoutMs: this.#timeoutMs,
    });
    return toItems(this.#target.model, this.signature, frame, rows.length, (text) =>
      this.#worker.output.redact(text),
    );
  }

  close(): Promise<void> {
    return this.#worker.close();
  }
}

export async function openPredictRunner(
  ...[target, context]: Parameters<typeof startWorker>
): Promise<Runner> {
  const { worker, options, signature } = await startWorker(target, context);
  return new PredictRunner(target, worker, options, signature);
}

function requireFeatures(input: Batch['inputs'][number]): FeatureInput {
  if ('features' in input) return input;
  throw new ServingError('INTERNAL', 'A model that predicts was asked something that has no features.');
}

function unanswered(model: string): ServingError {
  return new ServingError('INVALID_RESPONSE', `Model "${model}" gave no prediction for this row.`);
}
