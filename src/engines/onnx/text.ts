// Runner for text embedding models in ONNX: sends texts to threads and gives vectors back. What a thread does is in
// text-worker.ts, what waits before them in text-workers.ts.
import { availableParallelism } from 'node:os';
import type { Input } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { startWorker } from '#core/worker.ts';
import type { Batch, BatchAnswer, EngineContext, Runner, RunnerLimits } from '../engine.ts';
import { requireTask, requireText } from '../text-input.ts';
import { resolveTextModel, type TextModel } from './text-model.ts';
import { type TextAnswer, TextWorkers } from './text-workers.ts';

const MAX_WORKERS = 2;
const MAX_INPUTS = 32;
/** Padding included, for about 100 MB of activations a thread. */
const MAX_TOKENS = 4096;
const SPECIAL_TOKENS = 2;

/** Opens an embedding model: weights are fetched if they may be, and one thread has loaded it when this resolves. */
export async function openTextRunner(target: Target, context: EngineContext): Promise<Runner> {
  const version = target.modelVersion;
  if (version === undefined) {
    throw new ServingError(
      'INTERNAL',
      `The target "${target.model}" of the ONNX engine has no model version.`,
    );
  }
  const model = await resolveTextModel(version, context);
  const workerCount = Math.max(1, Math.min(MAX_WORKERS, availableParallelism()));
  const workers = new TextWorkers(workerCount, () =>
    startWorker(new URL('./text-worker.ts', import.meta.url), { workerData: model }),
  );
  try {
    // Finds out at once whether the files can be loaded and how long the vectors are.
    const probe = await workers.run(['duck']);
    return new TextRunner(target, model, workers, workerCount, probe.vectors.length);
  } catch (error) {
    await workers.close();
    throw error;
  }
}

class TextRunner implements Runner {
  readonly limits: RunnerLimits;
  readonly #target: Target;
  readonly #model: TextModel;
  readonly #workers: TextWorkers;
  readonly #dimensions: number;

  constructor(
    target: Target,
    model: TextModel,
    workers: TextWorkers,
    workerCount: number,
    dimensions: number,
  ) {
    this.#target = target;
    this.#model = model;
    this.#workers = workers;
    this.#dimensions = dimensions;
    this.limits = {
      maxInputs: MAX_INPUTS,
      maxTokens: Math.max(MAX_TOKENS, model.maxTokens),
      maxConcurrency: 2 * workerCount,
      isAdaptive: false,
      isPadded: model.rowsPerRun > 1,
    };
  }

  /** An estimate from the length, good enough to sort by; the exact count comes back as usage. */
  countTokens(input: Input): number {
    const length = this.#model.prefix.length + requireText(input).length;
    return Math.min(Math.ceil(length / 4) + SPECIAL_TOKENS, this.#model.maxTokens);
  }

  async invoke({ task, inputs, parameters, signal }: Batch): Promise<BatchAnswer> {
    requireTask(this.#target, task);
    if (parameters.dimensions !== undefined && parameters.dimensions !== this.#dimensions) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `dimensions is ${parameters.dimensions}, but vectors of "${this.#target.model}" have ${this.#dimensions} and cannot be shortened. Leave it out.`,
      );
    }
    const { vectors, tokenCounts }: TextAnswer = await this.#workers.run(inputs.map(requireText), signal);
    const size = this.#dimensions;
    const items = inputs.map((_, index) => ({
      ok: true as const,
      output: { embedding: vectors.slice(index * size, (index + 1) * size) },
      usage: { inputTokens: tokenCounts[index] ?? 0, outputTokens: 0 },
    }));
    return { items };
  }

  close(): Promise<void> {
    return this.#workers.close();
  }
}
