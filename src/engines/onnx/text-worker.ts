// Thread of the text runner: tokenises, runs the model and pools. `run` of the ONNX runtime blocks its thread, which
// must not be the one that serves. Knows no queue: it does one job after the other, in the order they arrive.
import { readFile } from 'node:fs/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { checkModelFile } from './model-file.ts';
import type { TextModel } from './text-model.ts';
import { normalise, planRuns, pool } from './text-pooling.ts';

/** To the worker: a job, or null to release the model and end. */
export type TextJob = readonly string[] | null;
/** From the worker: the model is loaded or cannot be; then one reply to each job, in order. */
export type TextReply =
  | { readonly type: 'ready' }
  | { readonly type: 'unloadable'; readonly reason: string }
  | { readonly type: 'done'; readonly vectors: Float32Array; readonly tokenCounts: Int32Array }
  | { readonly type: 'failed'; readonly reason: string };

/** A word longer than this is one unknown token, so what lies beyond `maxTokens` of them is not read at all. */
const MAX_CHARS_PER_TOKEN = 100;

const port = parentPort;
if (port === null) throw new Error('text-worker.ts is a thread of the text runner and is not run by itself');
const model = workerData as TextModel;
const reply = (message: TextReply, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

try {
  const embed = await loadModel();
  port.on('message', async (job: TextJob) => {
    if (job === null) {
      await embed.release();
      port.close();
      return;
    }
    try {
      const { vectors, tokenCounts } = await embed.run(job);
      reply({ type: 'done', vectors, tokenCounts }, [vectors.buffer, tokenCounts.buffer] as ArrayBuffer[]);
    } catch (error) {
      reply({ type: 'failed', reason: textOf(error) });
    }
  });
  reply({ type: 'ready' });
} catch (error) {
  reply({ type: 'unloadable', reason: textOf(error) });
}

async function loadModel() {
  const [{ Tokenizer }, { InferenceSession, Tensor }] = await Promise.all([
    import('@huggingface/tokenizers'),
    import('onnxruntime-node'),
  ]);
  const tokenizer = new Tokenizer(JSON.parse(await readFile(model.tokenizerPath, 'utf8')) as object, {});
  await checkModelFile(model.modelPath);
  const session = await InferenceSession.create(model.modelPath, {
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
    executionMode: 'sequential',
  });
  const hasTypes = session.inputNames.includes('token_type_ids');
  const outputName = session.outputNames[0] ?? 'last_hidden_state';
  const idsOf = (text: string): number[] => tokenizer.encode(text).ids;
  const suffix = endingOf(idsOf('a'), tokenizer.encode('a', { add_special_tokens: false }).ids.length);

  function tokenise(text: string): number[] {
    const ids = idsOf((model.prefix + text).slice(0, model.maxTokens * MAX_CHARS_PER_TOKEN));
    if (ids.length <= model.maxTokens) return ids;
    return [...ids.slice(0, model.maxTokens - suffix.length), ...suffix];
  }

  async function runModel(rows: readonly number[][]): Promise<Float32Array[]> {
    const width = Math.max(...rows.map((ids) => ids.length));
    const dims = [rows.length, width];
    const ids = new BigInt64Array(rows.length * width);
    const mask = new BigInt64Array(rows.length * width);
    for (const [row, tokens] of rows.entries()) {
      for (const [column, id] of tokens.entries()) ids[row * width + column] = BigInt(id);
      mask.fill(1n, row * width, row * width + tokens.length);
    }
    const output = await session.run({
      input_ids: new Tensor('int64', ids, dims),
      attention_mask: new Tensor('int64', mask, dims),
      ...(hasTypes ? { token_type_ids: new Tensor('int64', new BigInt64Array(ids.length), dims) } : {}),
    });
    const states = output[outputName];
    if (states === undefined || !(states.data instanceof Float32Array)) {
      throw new Error(`the output ${outputName} of the model is not a tensor of float32`);
    }
    const { data } = states;
    const size = states.dims.at(-1) ?? 0;
    // Two dimensions: the model has pooled already.
    const isPooled = states.dims.length === 2;
    return rows.map((tokens, row) => {
      const vector = isPooled
        ? data.slice(row * size, (row + 1) * size)
        : pool(data, row * width * size, tokens.length, size, model.pooling);
      if (model.normalize) normalise(vector);
      return vector;
    });
  }

  return {
    async run(texts: readonly string[]) {
      const tokens = texts.map(tokenise);
      const tokenCounts = Int32Array.from(tokens, (ids) => ids.length);
      let vectors = new Float32Array(0);
      for (const run of planRuns([...tokenCounts], model.rowsPerRun)) {
        const rows = await runModel(run.map((index) => tokens[index] ?? []));
        for (const [at, row] of rows.entries()) {
          if (vectors.length === 0) vectors = new Float32Array(texts.length * row.length);
          vectors.set(row, (run[at] ?? 0) * row.length);
        }
      }
      return { vectors, tokenCounts };
    },
    release: () => session.release(),
  };
}

/** Special tokens that follow a text of `length` tokens, e.g. [SEP]: after [CLS] and the text comes the rest. */
function endingOf(ids: readonly number[], length: number): readonly number[] {
  // Models put at most one token before the text; a lone one stands there, not behind.
  const before = ids.length > length ? 1 : 0;
  return ids.slice(before + length);
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
