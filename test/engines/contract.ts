// What every engine promises, as one suite: an engine's own tests call `describeEngine` with a way to open it.
// Not here: what only one engine does (status mapping, schemas, pooling).
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Input, Output, Parameters, StreamEvent, Task } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { Batch, RunItem, Runner } from '#engines/engine.ts';

export interface EngineContract {
  readonly task: Task;
  readonly open: () => Promise<Runner>;
  /** Two or more different inputs of the task. */
  readonly inputs: readonly Input[];
  /** Merged over `temperature: 0`; `maxTokens` keeps generating engines quick. */
  readonly parameters?: Parameters;
  /** Why the suite cannot run here (weights absent); shown in the title. */
  readonly skip?: string;
}

type GoodItem = Extract<RunItem, { ok: true }>;

/** The suite. Call it at the top level of a test file, or inside a `describe`. */
export function describeEngine(name: string, contract: EngineContract): void {
  const title = `engine contract: ${name}, ${contract.task}`;
  if (contract.skip !== undefined) {
    describe.skip(`${title} (skipped: ${contract.skip})`, () => {
      test('cannot run here', () => {});
    });
    return;
  }
  describe(title, () => {
    const { task, inputs } = contract;
    const isGenerating = task === 'llm/v1/chat' || task === 'llm/v1/completions';
    const parameters: Parameters = { temperature: 0, ...contract.parameters };
    const [first] = inputs;
    if (first === undefined || inputs.length < 2) throw new Error('the contract needs two or more inputs');
    let runner: Runner;

    const batchOf = (batchInputs: readonly Input[], signal = new AbortController().signal): Batch => ({
      task,
      inputs: batchInputs,
      parameters,
      signal,
    });
    /** All inputs in as few invokes as the engine allows, as the queue does it. */
    const invokeAll = async (all: readonly Input[]): Promise<GoodItem[]> => {
      const items: GoodItem[] = [];
      for (let from = 0; from < all.length; from += runner.limits.maxInputs) {
        const part = all.slice(from, from + runner.limits.maxInputs);
        const answer = await runner.invoke(batchOf(part));
        expect(answer.items).toHaveLength(part.length);
        items.push(...answer.items.map(good));
      }
      return items;
    };

    beforeAll(async () => {
      runner = await contract.open();
    }, 180_000);
    afterAll(() => runner?.close());

    test('limits are sane', () => {
      const { limits } = runner;
      for (const value of [limits.maxInputs, limits.maxTokens, limits.maxConcurrency]) {
        expect(Number.isInteger(value) && value >= 1, `limit ${value}`).toBe(true);
      }
      if (task === 'llm/v1/chat') expect(limits.maxInputs).toBe(1);
      expect(typeof limits.isAdaptive).toBe('boolean');
      expect(typeof limits.isPadded).toBe('boolean');
    });

    test('countTokens is a positive whole number for every input', () => {
      for (const input of inputs) expectCount(runner.countTokens(input), 1);
    });

    test('gives one output of the task for each input, in input order', async () => {
      const together = await invokeAll(inputs);
      expect(together).toHaveLength(inputs.length);
      for (const [index, input] of inputs.entries()) {
        const [alone] = await invokeAll([input]);
        const item = together[index];
        expectShape(task, item?.output);
        expectSameOutput(item?.output, alone?.output);
      }
    });

    test('equal inputs give equal outputs at temperature 0', async () => {
      const [left, right] = await invokeAll([first, first]);
      const [again] = await invokeAll([first]);
      expectSameOutput(left?.output, right?.output);
      expectSameOutput(left?.output, again?.output);
    });

    test('reports usage in whole tokens', async () => {
      const isText = task !== 'predict';
      for (const { usage } of await invokeAll(inputs)) {
        expectCount(usage.inputTokens, isText ? 1 : 0);
        expectCount(usage.outputTokens, isGenerating ? 1 : 0);
      }
    });

    test('a call whose signal has fired is CANCELLED and not carried out', async () => {
      await expectCode('CANCELLED', runner.invoke(batchOf([first], AbortSignal.abort())));
      if (isGenerating && runner.stream)
        await expectCode('CANCELLED', collect(runner.stream(batchOf([first], AbortSignal.abort()))));
      await invokeAll([first]); // the runner is still good
    });

    test('a call of another task is refused with WRONG_TASK', async () => {
      const other: Pick<Batch, 'task' | 'inputs'> =
        task === 'predict'
          ? { task: 'llm/v1/embeddings', inputs: [{ text: 'a' }] }
          : { task: 'predict', inputs: [{ features: [1] }] };
      const batch: Batch = { ...batchOf([first]), ...other };
      await expectCode('WRONG_TASK', runner.invoke(batch));
      if (isGenerating && runner.stream) await expectCode('WRONG_TASK', collect(runner.stream(batch)));
    });

    test('a stream says the same as the whole answer and ends exactly once, last', async () => {
      if (!isGenerating || !runner.stream) return;
      const [whole] = await invokeAll([first]);
      const events = await collect(runner.stream(batchOf([first])));
      const text = events.map((event) => (event.type === 'delta' ? event.text : '')).join('');
      expect(text).toBe(textOf(whole?.output));
      expect(events.filter((event) => event.type === 'end')).toHaveLength(1);
      const end = events.at(-1);
      if (end?.type !== 'end') throw new Error('the last event is not `end`');
      expectCount(end.usage.inputTokens, 1);
      expectCount(end.usage.outputTokens, 1);
      expect(end.finishReason).toBe(finishReasonOf(whole?.output));
    });

    if (task === 'llm/v1/embeddings') {
      test('embeddings have unit length and all the same dimension', async () => {
        const vectors = (await invokeAll(inputs)).map(({ output }) => vectorOf(output));
        const dimension = vectors[0]?.length ?? 0;
        expect(dimension).toBeGreaterThan(1);
        for (const vector of vectors) {
          expect(vector).toHaveLength(dimension);
          expect(Math.abs(Math.sqrt(dot(vector, vector)) - 1)).toBeLessThan(1e-3);
        }
      });
    }

    // Last: the runner is not used again.
    test('close can be called more than once', async () => {
      await runner.close();
      await runner.close();
    });
  });
}

/** All events of a stream. */
export async function collect(stream: AsyncIterable<StreamEvent>): Promise<StreamEvent[]> {
  const events: StreamEvent[] = [];
  for await (const event of stream) events.push(event);
  return events;
}

/** Awaits a rejection with a ServingError of this code, and gives it for a closer look. */
export async function expectCode(code: ServingError['code'], work: Promise<unknown>): Promise<ServingError> {
  const thrown = await work.then(
    (value) => new Error(`nothing was thrown; got ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  if (!(thrown instanceof ServingError)) throw thrown;
  expect(thrown.code, thrown.message).toBe(code);
  return thrown;
}

function good(item: RunItem): GoodItem {
  if (!item.ok) throw item.error;
  return item;
}

function expectCount(count: number, least: number): void {
  expect(Number.isInteger(count) && count >= least, `${count} is a whole number of ${least} or more`).toBe(
    true,
  );
}

function expectShape(task: Task, output: Output | undefined): void {
  const member = {
    'llm/v1/chat': 'content',
    'llm/v1/completions': 'text',
    'llm/v1/embeddings': 'embedding',
    predict: 'prediction',
  }[task];
  expect(output).toHaveProperty(member);
}

/** Equal text; vectors and numbers may differ by what padding and batch size do to floating point. */
function expectSameOutput(left: Output | undefined, right: Output | undefined): void {
  if (left === undefined || right === undefined) throw new Error('an output is missing');
  if ('embedding' in left) {
    const other = vectorOf(right);
    expect(other).toHaveLength(left.embedding.length);
    const lengths = Math.sqrt(dot(left.embedding, left.embedding) * dot(other, other));
    expect(dot(left.embedding, other) / lengths).toBeGreaterThan(0.999);
  } else if ('prediction' in left && 'prediction' in right) {
    expectClose(left.prediction, right.prediction);
  } else {
    expect(left).toEqual(right);
  }
}

function expectClose(left: unknown, right: unknown): void {
  if (typeof left === 'number' && typeof right === 'number') {
    expect(Math.abs(left - right)).toBeLessThanOrEqual(1e-4 * Math.max(1, Math.abs(left)));
  } else if (typeof left === 'object' && left !== null && typeof right === 'object' && right !== null) {
    expect(Object.keys(right)).toEqual(Object.keys(left));
    for (const [key, value] of Object.entries(left)) expectClose(value, Reflect.get(right, key));
  } else {
    expect(right).toEqual(left);
  }
}

function textOf(output: Output | undefined): string {
  if (output !== undefined && 'content' in output) return output.content ?? '';
  if (output !== undefined && 'text' in output) return output.text;
  throw new Error('the output has no text');
}

function finishReasonOf(output: Output | undefined): string | undefined {
  return output !== undefined && 'finishReason' in output ? output.finishReason : undefined;
}

function vectorOf(output: Output): Float32Array {
  if (!('embedding' in output)) throw new Error('the output has no embedding');
  return output.embedding;
}

function dot(left: Float32Array, right: Float32Array): number {
  let sum = 0;
  for (const [index, value] of left.entries()) sum += value * (right[index] ?? 0);
  return sum;
}
