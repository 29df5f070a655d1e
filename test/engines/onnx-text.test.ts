// Text embeddings through ONNX: the real MiniLM in real threads (skipped, with the reason, where npm cannot deliver
// it), and the rules around them without a model.
import { EventEmitter } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Worker } from 'node:worker_threads';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MINILM_ID, MINILM_SHA256 } from '#core/embedded-models.ts';
import type { Target } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { Batch, EngineContext, Runner } from '#engines/engine.ts';
import { onnxEngine } from '#engines/onnx/onnx.ts';
import { normalise, planRuns, pool } from '#engines/onnx/text-pooling.ts';
import type { TextJob, TextReply } from '#engines/onnx/text-worker.ts';
import { TextWorkers } from '#engines/onnx/text-workers.ts';
import { fetchWeights, weightsDirectory } from '#engines/weights/weights.ts';
import { describeEngine, expectCode } from './contract.ts';

const modelCacheDir = fileURLToPath(new URL('../../.duckserve/test-models', import.meta.url));
const skip = await fetchWeights(MINILM_ID, modelCacheDir).then(
  () => undefined,
  (error: Error) => error.message,
);
if (skip !== undefined) process.stderr.write(`MiniLM tests are skipped: ${skip}\n`);

const contextOf = (overrides: Partial<EngineContext> = {}): EngineContext => ({
  log: SILENT_LOG,
  modelCacheDir,
  resolveSecret: (reference) => reference,
  allowDownload: () => false,
  notify: () => {},
  ...overrides,
});
const targetOf = (options: JsonObject = {}, source = `embedded:${MINILM_ID}`): Target => ({
  endpoint: 'embedded-all-minilm-l6-v2',
  servedEntity: 'current',
  engine: 'onnx',
  task: 'llm/v1/embeddings',
  fingerprint: MINILM_SHA256,
  model: `${MINILM_ID}@1`,
  modelVersion: {
    model: MINILM_ID,
    version: '1',
    engine: 'onnx',
    task: 'llm/v1/embeddings',
    source,
    sha256: MINILM_SHA256,
    sizeBytes: 0,
    dimensions: 384,
    options,
    createdAtMs: 0,
  },
});
const batchOf = (texts: readonly string[], signal = new AbortController().signal): Batch => ({
  task: 'llm/v1/embeddings',
  inputs: texts.map((text) => ({ text })),
  parameters: {},
  signal,
});
const open = (options?: JsonObject) => onnxEngine.open(targetOf(options), contextOf());
async function embed(runner: Runner, texts: readonly string[]): Promise<Float32Array[]> {
  const { items } = await runner.invoke(batchOf(texts));
  return items.map((item) => {
    if (!item.ok || !('embedding' in item.output)) throw new Error('an item failed');
    return item.output.embedding;
  });
}
const similarity = (left: Float32Array | undefined, right: Float32Array | undefined): number =>
  [...(left ?? [])].reduce((sum, value, index) => sum + value * (right?.[index] ?? 0), 0);

describeEngine('onnx text (MiniLM)', {
  task: 'llm/v1/embeddings',
  open,
  inputs: [
    { text: 'A duck swims on the lake.' },
    { text: 'The invoice was paid twice, and support has not answered for a week.' },
    { text: '' },
  ],
  ...(skip === undefined ? {} : { skip: 'npm cannot deliver the weights' }),
});

describe.skipIf(skip !== undefined)('MiniLM', () => {
  let runner: Runner;
  beforeAll(async () => {
    runner = await open();
  });
  afterAll(() => runner?.close());

  test.each([
    [
      'How do I reset my password?',
      'I forgot my login secret and need a new one',
      'The weather is sunny today',
    ],
    ['The delivery arrived late', 'My package was delayed', 'She plays the violin'],
    ['The cat sits on the mat', 'A kitten rests on the rug', 'Interest rates rose again'],
  ])('puts %j nearer to its paraphrase than to something else', async (text, paraphrase, other) => {
    const [a, b, c] = await embed(runner, [text, paraphrase, other]);
    expect(similarity(a, b)).toBeGreaterThan(similarity(a, c) + 0.3);
  });

  test('gives a text the very same vector whatever travels with it', async () => {
    const text = 'The same words, the same numbers.';
    const [alone] = await embed(runner, [text]);
    const [, together] = await embed(runner, ['Something much longer. '.repeat(30), text, 'short']);
    expect(together).toEqual(alone);
  });

  test('counts the word pieces it read, special tokens included, and reads at most 256', async () => {
    const { items } = await runner.invoke(
      batchOf(['hello world', 'duck '.repeat(1000), 'x'.repeat(1_000_000)]),
    );
    expect(items.map((item) => item.ok && item.usage.inputTokens)).toEqual([4, 256, 3]);
  });

  test('cuts a long text to what it reads of it, with its last special token', async () => {
    const [long, cut] = await embed(runner, ['duck '.repeat(1000), 'duck '.repeat(254)]);
    expect(long).toEqual(cut);
  });

  test('keeps order over many batches at once', async () => {
    const texts = Array.from(
      { length: 64 },
      (_, index) => `Number ${index} of the list${' indeed'.repeat(index % 7)}`,
    );
    const halves = await Promise.all([embed(runner, texts.slice(0, 32)), embed(runner, texts.slice(32))]);
    const vectors = halves.flat();
    const [seventh, sixtieth] = await embed(runner, [texts[7] ?? '', texts[60] ?? '']);
    expect(vectors[7]).toEqual(seventh);
    expect(vectors[60]).toEqual(sixtieth);
  });

  test('drops batches that were cancelled before they began', async () => {
    const abort = new AbortController();
    const texts = Array.from({ length: 32 }, (_, index) => `text number ${index}`);
    const kept = Promise.all([runner.invoke(batchOf(texts)), runner.invoke(batchOf(texts))]);
    const dropped = Array.from({ length: 8 }, () => runner.invoke(batchOf(texts, abort.signal)));
    const outcomes = Promise.all(dropped.map((work) => expectCode('CANCELLED', work)));
    abort.abort();
    await outcomes;
    await kept;
  });

  test('refuses dimensions it does not have', async () => {
    const { inputs, signal, task } = batchOf(['a']);
    await expectCode(
      'INVALID_PARAMETER',
      runner.invoke({ inputs, signal, task, parameters: { dimensions: 128 } }),
    );
  });

  test('can share runs between texts when that is asked for, for nearly the same vectors', async () => {
    const sharing = await open({ rowsPerRun: 16 });
    const texts = ['short', 'A sentence of middling length for a run.', 'And a long one. '.repeat(10)];
    const [shared, alone] = [await embed(sharing, texts), await embed(runner, texts)];
    for (const [index, vector] of shared.entries())
      expect(similarity(vector, alone[index])).toBeGreaterThan(0.97);
    expect(sharing.limits.isPadded).toBe(true);
    await sharing.close();
  });

  test('takes pooling, prefix, length and normalisation from the options of the version', async () => {
    const other = await open({ pooling: 'cls', prefix: 'query: ', maxTokens: 8, normalize: false });
    const { items } = await other.invoke(batchOf(['hello', 'duck '.repeat(100)]));
    expect(items.map((item) => item.ok && item.usage.inputTokens)).toEqual([5, 8]);
    const [raw] = await embed(other, ['hello']);
    expect(Math.abs(Math.hypot(...(raw ?? [])) - 1)).toBeGreaterThan(0.01);
    await other.close();
  });

  test('opens a folder of its own and a file with its tokenizer beside it', async () => {
    const folder = weightsDirectory(MINILM_ID, modelCacheDir);
    const [embedded] = await embed(runner, ['duck']);
    for (const source of [folder, join(folder, 'model_quantized.onnx')]) {
      const own = await onnxEngine.open(targetOf({}, source), contextOf());
      expect((await embed(own, ['duck']))[0]).toEqual(embedded);
      await own.close();
    }
  });

  test('cancels what still waits when it is closed', async () => {
    const closing = await open();
    const outcomes = Array.from({ length: 6 }, () =>
      expectCode('CANCELLED', closing.invoke(batchOf(['a', 'b']))),
    );
    await closing.close();
    await Promise.all(outcomes);
    await expectCode('CANCELLED', closing.invoke(batchOf(['a'])));
  });
});

describe('opening a text model', () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'duckserve-text-'));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  test('never downloads without leave, and names the ways out', async () => {
    const context = contextOf({ modelCacheDir: join(directory, 'empty') });
    const error = await expectCode('MODEL_NOT_AVAILABLE', onnxEngine.open(targetOf(), context));
    for (const way of ['models pull', MINILM_SHA256, 'DUCKSERVE_HUB', 'embedded-static-256']) {
      expect(error.message).toContain(way);
    }
  });

  test('says what a folder lacks', async () => {
    const openAt = (source: string) => onnxEngine.open(targetOf({}, source), contextOf());
    expect((await expectCode('MODEL_NOT_AVAILABLE', openAt(join(directory, 'none')))).message).toContain(
      'nothing at',
    );
    expect((await expectCode('MODEL_NOT_AVAILABLE', openAt(directory))).message).toContain('holds none of');
    await writeFile(join(directory, 'model.onnx'), 'not a model');
    expect((await expectCode('MODEL_NOT_AVAILABLE', openAt(directory))).message).toContain(
      'no tokenizer.json',
    );
  });

  test('says why files cannot be loaded', async () => {
    await writeFile(join(directory, 'model.onnx'), 'not a model');
    await writeFile(join(directory, 'tokenizer.json'), 'not json');
    const error = await expectCode(
      'MODEL_NOT_AVAILABLE',
      onnxEngine.open(targetOf({}, directory), contextOf()),
    );
    expect(error.message).toContain('not valid JSON');
    await rm(join(directory, 'tokenizer.json'));
  });

  test.each([
    [{ pooling: 'max' }, 'mean or cls'],
    [{ maxTokens: 1 }, 'whole number from 4'],
    [{ rowsPerRun: 0 }, 'whole number from 1'],
    [{ normalize: 'yes' }, 'true or false'],
    [{ prefix: 1 }, 'a text'],
  ])('refuses the options %j', async (options, wanted) => {
    await writeFile(join(directory, 'model.onnx'), 'not a model');
    await writeFile(join(directory, 'tokenizer.json'), '{}');
    const error = await expectCode(
      'INVALID_PARAMETER',
      onnxEngine.open(targetOf(options, directory), contextOf()),
    );
    expect(error.message).toContain(wanted);
  });

  test('refuses a task that ONNX models do not have', async () => {
    await expectCode('WRONG_TASK', onnxEngine.open({ ...targetOf(), task: 'llm/v1/chat' }, contextOf()));
  });
});

describe('pooling', () => {
  test('means the rows of a text and leaves its padding out', () => {
    const states = Float32Array.of(9, 9, 1, 2, 3, 4, 100, 100);
    expect([...pool(states, 2, 2, 2, 'mean')]).toEqual([2, 3]);
    expect([...pool(states, 2, 2, 2, 'cls')]).toEqual([1, 2]);
  });

  test('scales to length 1 and leaves zeros alone', () => {
    const vector = Float32Array.of(3, 4);
    normalise(vector);
    expect([...vector]).toEqual([Math.fround(0.6), Math.fround(0.8)]);
    const zeros = new Float32Array(2);
    normalise(zeros);
    expect([...zeros]).toEqual([0, 0]);
  });

  test('puts texts of like length into one run, each exactly once', () => {
    expect(planRuns([9, 1, 8, 2, 7], 2)).toEqual([[1, 3], [4, 2], [0]]);
    expect(planRuns([9, 1, 8], 1)).toEqual([[0], [1], [2]]);
    expect(planRuns([], 4)).toEqual([]);
  });
});

/** A thread that does what the test says. */
class ScriptedWorker extends EventEmitter {
  readonly jobs: TextJob[] = [];
  isReferenced = true;
  ref() {
    this.isReferenced = true;
  }
  unref() {
    this.isReferenced = false;
  }
  postMessage(job: TextJob) {
    this.jobs.push(job);
    if (job === null) this.emit('exit', 0);
  }
  async terminate() {
    this.emit('exit', 1);
    return 1;
  }
  say(reply: TextReply) {
    this.emit('message', reply);
  }
}
const DONE: TextReply = { type: 'done', vectors: Float32Array.of(1), tokenCounts: Int32Array.of(1) };

describe('the threads', () => {
  function scripted(count: number) {
    const started: ScriptedWorker[] = [];
    const workers = new TextWorkers(count, () => {
      const worker = new ScriptedWorker();
      started.push(worker);
      return worker as unknown as Worker;
    });
    return { started, workers };
  }

  test('start as they are needed, no more than allowed, and get one job at a time', async () => {
    const { started, workers } = scripted(2);
    expect(started).toHaveLength(0);
    const answers = ['a', 'b', 'c'].map((text) => workers.run([text]));
    expect(started).toHaveLength(2);
    for (const worker of started) worker.say({ type: 'ready' });
    expect(started.map((worker) => worker.jobs)).toEqual([[['a']], [['b']]]);
    started[1]?.say(DONE);
    expect(started[1]?.jobs).toEqual([['b'], ['c']]);
    started[0]?.say(DONE);
    started[1]?.say(DONE);
    await Promise.all(answers);
    expect(started.map((worker) => worker.isReferenced)).toEqual([false, false]);
  });

  test('are not sent a job that was cancelled while it waited', async () => {
    const { started, workers } = scripted(1);
    const abort = new AbortController();
    const first = workers.run(['a']);
    const second = workers.run(['b'], abort.signal);
    started[0]?.say({ type: 'ready' });
    abort.abort();
    await expectCode('CANCELLED', second);
    started[0]?.say(DONE);
    await first;
    expect(started[0]?.jobs).toEqual([['a']]);
  });

  test('give a cancelled caller its answer at once and go on with the next job', async () => {
    const { started, workers } = scripted(1);
    const abort = new AbortController();
    const first = workers.run(['a'], abort.signal);
    const second = workers.run(['b']);
    started[0]?.say({ type: 'ready' });
    abort.abort();
    await expectCode('CANCELLED', first);
    started[0]?.say(DONE);
    started[0]?.say({ ...DONE, vectors: Float32Array.of(2) });
    expect((await second).vectors[0]).toBe(2);
  });

  test('that die fail only their job; the next job starts another', async () => {
    const { started, workers } = scripted(1);
    const [first, second] = [workers.run(['a']), workers.run(['b'])];
    started[0]?.say({ type: 'ready' });
    started[0]?.emit('error', new Error('out of memory'));
    started[0]?.emit('exit', 1);
    expect((await expectCode('INTERNAL', first)).message).toContain('out of memory');
    expect(started).toHaveLength(2);
    started[1]?.say({ type: 'ready' });
    started[1]?.say(DONE);
    await second;
  });

  test('that cannot load fail everything that waits, once, with the reason', async () => {
    const { started, workers } = scripted(1);
    const waiting = [workers.run(['a']), workers.run(['b'])];
    started[0]?.say({ type: 'unloadable', reason: 'no such operator' });
    for (const work of waiting) {
      expect((await expectCode('MODEL_NOT_AVAILABLE', work)).message).toContain('no such operator');
    }
    expect(started).toHaveLength(1);
  });

  test('report the failure of one job and stay', async () => {
    const { started, workers } = scripted(1);
    const work = workers.run(['a']);
    started[0]?.say({ type: 'ready' });
    started[0]?.say({ type: 'failed', reason: 'bad shape' });
    expect((await expectCode('INTERNAL', work)).message).toContain('bad shape');
    const next = workers.run(['b']);
    started[0]?.say(DONE);
    await next;
    expect(started).toHaveLength(1);
  });
});
