import { describe, expect, it } from 'vitest';
import type { StreamEvent } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { Batch } from '#engines/engine.ts';
import {
  bench,
  CountingBudget,
  chats,
  contents,
  ManualClock,
  ScriptedEngine,
  settle,
  targetOf,
} from './support.ts';

const END: StreamEvent = { type: 'end', finishReason: 'stop', usage: { inputTokens: 10, outputTokens: 5 } };
const delta = (text: string): StreamEvent => ({ type: 'delta', text });

function streaming(
  stream: (batch: Batch, ask: number) => AsyncIterable<StreamEvent>,
  limits = {},
): ScriptedEngine {
  const engine = new ScriptedEngine(undefined, limits);
  let asks = 0;
  engine.stream = (batch) => stream(batch, ++asks);
  return engine;
}

async function* words(...texts: string[]): AsyncGenerator<StreamEvent> {
  for (const text of texts) yield delta(text);
  yield END;
}

async function collect(events: AsyncIterable<StreamEvent>): Promise<StreamEvent[]> {
  const collected: StreamEvent[] = [];
  for await (const event of events) collected.push(event);
  return collected;
}

describe('a stream', () => {
  it('passes events on, stores the whole answer and records one row', async () => {
    const { serving, usage, call } = bench([streaming(() => words('Hel', 'lo'))]);
    const { target, events } = await serving.stream(call(chats('a')));
    expect(target.servedEntity).toBe('m-1');
    expect(await collect(events)).toEqual([delta('Hel'), delta('lo'), END]);
    expect(usage.rows).toHaveLength(1);
    expect(usage.rows[0]).toMatchObject({
      isStreaming: true,
      attempts: 1,
      inputCount: 1,
      inputTokens: 10,
      statusCode: 200,
    });
    expect(contents((await serving.invoke(call(chats('a')))).items)).toEqual(['Hello']);
  });

  it('of a stored answer asks nobody', async () => {
    const { serving, usage, call } = bench([new ScriptedEngine()]);
    await serving.invoke(call(chats('a')));
    const { events } = await serving.stream(call(chats('a')));
    expect(await collect(events)).toEqual([delta('a!'), END]);
    expect(usage.rows[1]).toMatchObject({ isStreaming: true, attempts: 0, cachedCount: 1 });
  });

  it('of an engine that cannot stream is the whole answer as one event', async () => {
    const { serving, call } = bench([new ScriptedEngine()]);
    const { events } = await serving.stream(call(chats('a')));
    expect(await collect(events)).toEqual([delta('a!'), END]);
  });

  it('keeps tool calls together', async () => {
    const engine = streaming(async function* () {
      yield { type: 'tool_call', index: 0, id: '1', name: 'f', arguments: '{"a"' };
      yield { type: 'tool_call', index: 0, arguments: ':1}' };
      yield { type: 'end', finishReason: 'tool_calls', usage: { inputTokens: 1, outputTokens: 1 } };
    });
    const { serving, answers, call } = bench([engine]);
    await collect((await serving.stream(call(chats('a')))).events);
    expect([...answers.map.values()][0]?.output).toEqual({
      content: null,
      toolCalls: [{ id: '1', name: 'f', arguments: '{"a":1}' }],
      finishReason: 'tool_calls',
    });
  });

  it('is tried again, then elsewhere, until its first event', async () => {
    const clock = new ManualClock();
    const engine = streaming(() => {
      throw new ServingError('UPSTREAM_ERROR', 'Down.');
    });
    const spare = new ScriptedEngine(undefined, {}, 'echo');
    const { serving, usage, resolver, call } = bench([engine, spare], { clock });
    resolver.set(
      targetOf('m'),
      targetOf('m', { engine: 'echo', servedEntity: 'spare', fingerprint: 'spare' }),
    );
    resolver.govern('m', { fallback: { enabled: true } });
    const opening = serving.stream(call(chats('a')));
    await clock.advance(10_000);
    const { target, events } = await opening;
    expect(target.servedEntity).toBe('spare');
    expect(await collect(events)).toEqual([delta('a!'), END]);
    expect(usage.rows.map(({ engine, attempts, inputCount }) => [engine, attempts, inputCount])).toEqual([
      ['openai', 4, 0],
      ['echo', 1, 1],
    ]);
  });

  it('that fails before its first event throws at once and records one row', async () => {
    const engine = streaming(() => {
      throw new ServingError('UPSTREAM_REJECTED', 'No.');
    });
    const { serving, usage, call } = bench([engine]);
    await expect(serving.stream(call(chats('a')))).rejects.toMatchObject({ code: 'UPSTREAM_REJECTED' });
    expect(usage.rows).toHaveLength(1);
    expect(usage.rows[0]).toMatchObject({ attempts: 1, inputCount: 1, errorCode: 'UPSTREAM_REJECTED' });
    expect(serving.queueDepths()[0]).toMatchObject({ inFlight: 0 });
  });

  it('that breaks off is an error, is not stored, and records what was seen', async () => {
    const engine = streaming(async function* () {
      yield delta('12345678');
    });
    const { serving, answers, usage, call } = bench([engine]);
    const { events } = await serving.stream(call(chats('abc')));
    await expect(collect(events)).rejects.toMatchObject({ code: 'UPSTREAM_ERROR' });
    expect(answers.count).toBe(0);
    expect(usage.rows).toHaveLength(1);
    expect(usage.rows[0]).toMatchObject({ inputTokens: 3, outputTokens: 2, statusCode: 502 });
  });

  it('that nobody reads any more gives its place back and aborts the request', async () => {
    let signal: AbortSignal | undefined;
    const engine = streaming(
      (batch) => {
        signal = batch.signal;
        return words('a', 'b', 'c');
      },
      { maxConcurrency: 1 },
    );
    const { serving, usage, call } = bench([engine]);
    for await (const event of (await serving.stream(call(chats('a')))).events) {
      expect(event).toEqual(delta('a'));
      break;
    }
    expect(signal?.aborted).toBe(true);
    expect(serving.queueDepths()[0]).toMatchObject({ inFlight: 0 });
    expect(usage.rows[0]).toMatchObject({ errorCode: 'CANCELLED', statusCode: 499 });
  });

  it('ends when the caller goes away, also while nobody reads and nothing comes', async () => {
    const engine = streaming(async function* (batch) {
      yield delta('a');
      await new Promise((_resolve, reject) => {
        batch.signal.addEventListener('abort', () => reject(batch.signal.reason));
      });
    });
    const { serving, usage, call } = bench([engine]);
    const controller = new AbortController();
    const { events } = await serving.stream(call(chats('a'), { signal: controller.signal }));
    controller.abort();
    await settle();
    expect(usage.rows).toHaveLength(1);
    await expect(collect(events)).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(usage.rows).toHaveLength(1);
  });

  it('waits for its turn, and may be cancelled while it waits', async () => {
    const engine = streaming(() => words('a'), { maxConcurrency: 1 });
    const { serving, usage, call } = bench([engine]);
    const first = await serving.stream(call(chats('a')));
    const controller = new AbortController();
    const second = serving.stream(call(chats('b'), { signal: controller.signal }));
    const third = serving.stream(call(chats('c')));
    await settle();
    expect(serving.queueDepths()[0]).toMatchObject({ inFlight: 1, waiting: 2 });
    controller.abort();
    await expect(second).rejects.toMatchObject({ code: 'CANCELLED' });
    await collect(first.events);
    await collect((await third).events);
    expect(usage.sum('inputCount')).toBe(3);
    expect(usage.sum('attempts')).toBe(2);
  });

  it('settles its reservation once', async () => {
    const { serving, call } = bench([streaming(() => words('a'))]);
    const budget = new CountingBudget({ maxCalls: 1 });
    await collect((await serving.stream(call(chats('a'), { budget }))).events);
    expect(budget.settled).toEqual([{ calls: 1, tokens: 15, cost: 0 }]);
    await expect(serving.stream(call(chats('b'), { budget }))).rejects.toMatchObject({
      code: 'BUDGET_EXCEEDED',
    });
  });

  it('is for one chat or completion', async () => {
    const { serving, call } = bench([new ScriptedEngine()]);
    await expect(serving.stream(call(chats('a', 'b')))).rejects.toMatchObject({ code: 'INVALID_PARAMETER' });
  });

  it('is cancelled when serving closes', async () => {
    const { serving, usage, call } = bench([streaming(() => words('a', 'b'))]);
    const { events } = await serving.stream(call(chats('a')));
    await serving.close();
    await expect(collect(events)).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(usage.rows).toHaveLength(1);
  });
});
