import { describe, expect, it } from 'vitest';
import type { StreamEvent } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { RequestTimes } from '#serving/request-times.ts';
import { numbered } from './queue-support.ts';
import {
  type Bench,
  bench,
  CountingMeter,
  chats,
  contents,
  itemFor,
  ManualClock,
  meterOf,
  type Script,
  ScriptedEngine,
  settle,
  targetOf,
} from './support.ts';

const http = { origin: 'http' as const, cache: 'off' as const };
const RULES = { hedging: { quantile: 0.9, maxExtraPercent: 50 } };

/** Takes as long as `times` says, in order, then 100 ms; hangs up when it is told to. */
function timed(clock: ManualClock, times: (number | 'fail')[] = []) {
  const aborted: number[] = [];
  const script: Script = async ({ inputs, signal }, ask) => {
    const time = times[ask - 1] ?? 100;
    if (time === 'fail') {
      await clock.sleep(400);
      throw new ServingError('UPSTREAM_ERROR', 'Broken.');
    }
    await clock.sleep(time, signal).catch((reason) => {
      aborted.push(ask);
      throw reason;
    });
    return { items: inputs.map((input) => itemFor(input, `answer ${ask}`)) };
  };
  return { script, aborted };
}

/** Twenty usual requests, after which the tail is known. */
async function learn({ serving, call }: Bench, clock: ManualClock): Promise<void> {
  for (const text of numbered(20)) {
    const pending = serving.invoke(call(chats(text), http));
    await clock.advance(100);
    await pending;
  }
}

const usual = (...more: (number | 'fail')[]) => [...new Array<number>(20).fill(100), ...more];

describe('hedging', () => {
  it('asks a second time when the first takes longer than nearly all before it, and the first answer wins', async () => {
    const clock = new ManualClock();
    const { script, aborted } = timed(clock, usual(60_000, 100));
    const engine = new ScriptedEngine(script);
    const meter = new CountingMeter({});
    const made = bench([engine], { clock, meters: meterOf(meter) });
    made.resolver.govern('m', RULES);
    await learn(made, clock);
    const slow = made.serving.invoke(made.call(chats('slow one'), http));
    await clock.advance(99);
    expect(engine.batches).toHaveLength(21);
    await clock.advance(1);
    expect(engine.batches).toHaveLength(22);
    await clock.advance(100);
    expect(contents((await slow).items)).toEqual(['answer 22']);
    expect(aborted).toEqual([21]);
    // Both are in the books: two requests, and the input that the cancelled one has read.
    expect(made.usage.rows.at(-1)).toMatchObject({ attempts: 2, inputCount: 1, inputTokens: 10 + 8 });
    expect(made.usage.sum('attempts')).toBe(engine.batches.length);
    expect(meter.open).toBe(0);
    expect(meter.settled.slice(-2).map(({ calls, tokens }) => [calls, tokens])).toEqual([
      [1, 8],
      [1, 15],
    ]);
    expect(made.serving.queueDepths()[0]).toMatchObject({ inFlight: 0 });
    expect(clock.sleeping).toBe(0);
  });

  it('keeps the first when it is the one that answers', async () => {
    const clock = new ManualClock();
    const { script, aborted } = timed(clock, usual(150, 60_000));
    const made = bench([new ScriptedEngine(script)], { clock });
    made.resolver.govern('m', RULES);
    await learn(made, clock);
    const slow = made.serving.invoke(made.call(chats('slow'), http));
    await clock.advance(150);
    expect(contents((await slow).items)).toEqual(['answer 21']);
    expect(aborted).toEqual([22]);
  });

  it('survives the failure of either, and gives the first error when both fail', async () => {
    for (const [first, second, expected] of [
      ['fail', 1000, 'answer 22'],
      [1000, 'fail', 'answer 21'],
      ['fail', 'fail', 'UPSTREAM_ERROR'],
    ] as const) {
      const clock = new ManualClock();
      const { script } = timed(clock, usual(first, second));
      const engine = new ScriptedEngine(script);
      const made = bench([engine], { clock, retry: { maxTries: 1 } });
      made.resolver.govern('m', RULES);
      await learn(made, clock);
      const slow = made.serving.invoke(made.call(chats('slow'), http));
      await clock.advance(2000);
      expect(contents((await slow).items)).toEqual([expected]);
      expect(made.usage.sum('attempts')).toBe(engine.batches.length);
      expect(made.serving.queueDepths()[0]).toMatchObject({ inFlight: 0 });
    }
  });

  it('adds no more requests than its share, however slow the target gets', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine(timed(clock, usual()).script, { maxConcurrency: 1000 });
    const made = bench([engine], { clock });
    made.resolver.govern('m', { hedging: { quantile: 0.5, maxExtraPercent: 5 } });
    await learn(made, clock);
    engine.script = async ({ inputs, signal }) => {
      await clock.sleep(5000, signal);
      return { items: inputs.map((input) => itemFor(input)) };
    };
    const many = numbered(200, 'slow').map((text) => made.serving.invoke(made.call(chats(text), http)));
    await clock.advance(5000);
    await Promise.all(many);
    const extra = engine.batches.length - 220;
    expect(extra).toBeGreaterThan(0);
    expect(extra).toBeLessThanOrEqual(11);
  });

  it('takes no place that somebody waits for, and nothing that a limit refuses', async () => {
    for (const [maxConcurrency, maxCalls] of [
      [1, 1000],
      [10, 21],
    ] as const) {
      const clock = new ManualClock();
      const engine = new ScriptedEngine(timed(clock, usual(1000)).script, { maxConcurrency });
      const meter = new CountingMeter({ maxCalls });
      const made = bench([engine], { clock, meters: meterOf(meter) });
      made.resolver.govern('m', RULES);
      await learn(made, clock);
      const slow = made.serving.invoke(made.call(chats('slow'), http));
      await clock.advance(1000);
      expect(contents((await slow).items)).toEqual(['answer 21']);
      expect([engine.batches.length, meter.open]).toEqual([21, 0]);
    }
  });

  it('is off unless the endpoint wants it', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine(timed(clock, usual(1000)).script);
    const made = bench([engine], { clock });
    await learn(made, clock);
    const slow = made.serving.invoke(made.call(chats('slow'), http));
    await clock.advance(1000);
    await slow;
    expect(engine.batches).toHaveLength(21);
  });

  it('aborts both when the caller goes away', async () => {
    const clock = new ManualClock();
    const { script, aborted } = timed(clock, usual(60_000, 60_000));
    const meter = new CountingMeter({});
    const made = bench([new ScriptedEngine(script)], { clock, meters: meterOf(meter) });
    made.resolver.govern('m', RULES);
    await learn(made, clock);
    const controller = new AbortController();
    const slow = made.serving.invoke(made.call(chats('slow'), { ...http, signal: controller.signal }));
    slow.catch(() => {});
    await clock.advance(200);
    controller.abort();
    await expect(slow).rejects.toMatchObject({ code: 'CANCELLED' });
    await settle();
    expect(aborted.toSorted()).toEqual([21, 22]);
    expect([meter.open, clock.sleeping]).toEqual([0, 0]);
    expect(made.serving.queueDepths()[0]).toMatchObject({ inFlight: 0 });
  });

  it('of a stream is by the time to its first event', async () => {
    const clock = new ManualClock();
    let asked = 0;
    const engine = new ScriptedEngine();
    engine.stream = async function* ({ signal }): AsyncGenerator<StreamEvent> {
      const ask = ++asked;
      await clock.sleep(ask === 21 ? 60_000 : 100, signal);
      yield { type: 'delta', text: `from ${ask}` };
      await clock.sleep(1000, signal);
      yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 10, outputTokens: 5 } };
    };
    const meter = new CountingMeter({});
    const made = bench([engine], { clock, target: targetOf('m'), meters: meterOf(meter) });
    made.resolver.govern('m', RULES);
    const read = async (text: string) => {
      let said = '';
      const { events } = await made.serving.stream(made.call(chats(text), http));
      for await (const event of events) if (event.type === 'delta') said += event.text;
      return said;
    };
    for (const text of numbered(20)) {
      const pending = read(text);
      await clock.advance(1100);
      await pending;
    }
    const slow = read('slow one');
    await clock.advance(1200);
    expect(await slow).toBe('from 22');
    expect(made.usage.rows.at(-1)).toMatchObject({
      attempts: 2,
      inputCount: 1,
      inputTokens: 10 + 8,
      timeToFirstByteMs: 200,
    });
    expect([meter.open, clock.sleeping]).toEqual([0, 0]);
    expect(made.serving.queueDepths()[0]).toMatchObject({ inFlight: 0 });
  });
});

describe('the times of past requests', () => {
  it('give a quantile once enough is known, and forget what is long ago', () => {
    const times = new RequestTimes();
    for (let ms = 1; ms < 20; ms++) times.note(ms);
    expect(times.quantile(0.5)).toBeUndefined();
    times.note(20);
    expect([times.quantile(0.5), times.quantile(0.95), times.quantile(1), times.quantile(0)]).toEqual([
      10, 19, 20, 1,
    ]);
    for (let count = 0; count < 300; count++) times.note(7);
    expect([times.quantile(0), times.quantile(1)]).toEqual([7, 7]);
  });
});
