// The peer of `embed`: the ONNX runtime and the tokenizer with nothing around them, texts sorted by length. One
// session with several threads, or several worker threads with a session each.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMainThread, parentPort, type Worker, workerData } from 'node:worker_threads';
import { Tokenizer } from '@huggingface/tokenizers';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { startWorker } from '#core/worker.ts';
import { normalise, pool } from '#engines/onnx/text-pooling.ts';

export interface BareArgs {
  /** Folder of model_quantized.onnx and tokenizer.json. */
  readonly weights: string;
  readonly sentences: readonly string[];
  readonly batch: number;
  readonly workers: number;
  readonly threads: number;
  readonly keepVectors?: boolean;
}
export interface BareResult {
  readonly workers: number;
  readonly threads: number;
  readonly batch: number;
  readonly count: number;
  readonly seconds: number;
  /** In the order of the sentences; empty unless they were to be kept. */
  readonly vectors: readonly (readonly number[])[];
}

const MAX_TOKENS = 256;

export async function embedBare(args: BareArgs): Promise<BareResult> {
  const { sentences, batch, workers, threads, keepVectors } = args;
  const vectors: (readonly number[])[] = [];
  let seconds: number;
  if (workers === 1) {
    const model = await openBare(args.weights, threads);
    await model.embed(sentences.slice(0, 32), batch);
    const startedAt = performance.now();
    await model.embed(
      sentences,
      batch,
      keepVectors ? (index, vector) => (vectors[index] = [...vector]) : undefined,
    );
    seconds = (performance.now() - startedAt) / 1_000;
  } else {
    const running = await Promise.all(Array.from({ length: workers }, () => openWorker(args)));
    const startedAt = performance.now();
    // Every nth sentence each, so that all have about the same work.
    await Promise.all(
      running.map((worker, at) =>
        askWorker(
          worker,
          sentences.filter((_, index) => index % workers === at),
        ),
      ),
    );
    seconds = (performance.now() - startedAt) / 1_000;
    await Promise.all(running.map((worker) => worker.terminate()));
  }
  return { workers, threads, batch, count: sentences.length, seconds, vectors };
}

async function openBare(weights: string, threads: number) {
  const tokenizer = new Tokenizer(
    JSON.parse(readFileSync(join(weights, 'tokenizer.json'), 'utf8')) as object,
    {},
  );
  const session = await InferenceSession.create(join(weights, 'model_quantized.onnx'), {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
  });
  const hasTypes = session.inputNames.includes('token_type_ids');
  const embed = async (
    sentences: readonly string[],
    batch: number,
    visit?: (index: number, vector: Float32Array) => void,
  ) => {
    const tokens = sentences.map((sentence) => tokenizer.encode(sentence).ids.slice(0, MAX_TOKENS));
    const order = [...tokens.keys()].sort(
      (left, right) => (tokens[left]?.length ?? 0) - (tokens[right]?.length ?? 0),
    );
    for (let from = 0; from < order.length; from += batch) {
      const rows = order.slice(from, from + batch);
      const width = Math.max(...rows.map((row) => tokens[row]?.length ?? 0));
      const dims = [rows.length, width];
      const ids = new BigInt64Array(rows.length * width);
      const mask = new BigInt64Array(rows.length * width);
      for (const [at, row] of rows.entries()) {
        for (const [column, id] of (tokens[row] ?? []).entries()) ids[at * width + column] = BigInt(id);
        mask.fill(1n, at * width, at * width + (tokens[row]?.length ?? 0));
      }
      const output = await session.run({
        input_ids: new Tensor('int64', ids, dims),
        attention_mask: new Tensor('int64', mask, dims),
        ...(hasTypes ? { token_type_ids: new Tensor('int64', new BigInt64Array(ids.length), dims) } : {}),
      });
      const states = output[session.outputNames[0] ?? ''];
      const size = states?.dims.at(-1) ?? 0;
      for (const [at, row] of rows.entries()) {
        const vector = pool(
          states?.data as Float32Array,
          at * width * size,
          tokens[row]?.length ?? 0,
          size,
          'mean',
        );
        normalise(vector);
        visit?.(row, vector);
      }
    }
  };
  return { embed };
}

function openWorker(args: BareArgs): Promise<Worker> {
  const data = { bare: { ...args, sentences: args.sentences.slice(0, 32) } };
  const worker = startWorker(new URL('./bare-text.ts', import.meta.url), { workerData: data });
  return new Promise((resolve, reject) => {
    worker.once('message', () => resolve(worker));
    worker.once('error', reject);
  });
}

function askWorker(worker: Worker, sentences: readonly string[]): Promise<void> {
  return new Promise((resolve) => {
    worker.once('message', () => resolve());
    worker.postMessage(sentences);
  });
}

const { bare } = ((isMainThread ? undefined : workerData) ?? {}) as { readonly bare?: BareArgs };
if (bare && parentPort) {
  const port = parentPort;
  const model = await openBare(bare.weights, bare.threads);
  await model.embed(bare.sentences, bare.batch);
  port.on('message', async (sentences: readonly string[]) => {
    await model.embed(sentences, bare.batch);
    port.postMessage('done');
  });
  port.postMessage('ready');
}
