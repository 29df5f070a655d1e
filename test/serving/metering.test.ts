import { describe, expect, it } from 'vitest';
import { type Budget, LOCAL_OWNER, type Reservation, type Spend } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { combineBudgets } from '#serving/combined-budget.ts';
import { EMBEDDING, fail, invokeOn, numbered, sizes } from './queue-support.ts';
import {
  answerText,
  bench,
  CountingBudget,
  CountingMeter,
  chats,
  contents,
  deferred,
  embeddings,
  ManualClock,
  meterOf,
  ScriptedEngine,
  settle,
  targetOf,
} from './support.ts';

const http = { origin: 'http' as const };

describe('a budget and a meter together', () => {
  it('are one object for each pair, and the tighter limits of both', () => {
    const own = new CountingBudget({ maxCalls: 5, maxCost: 2 });
    const meter = new CountingMeter({ maxCost: 1, maxTokens: 7 });
    const both = combineBudgets(own, meter);
    expect(both?.limits).toEqual({ maxCalls: 5, maxCost: 1, maxTokens: 7 });
    expect(combineBudgets(own, meter)).toBe(both);
    expect(combineBudgets(own, undefined)).toBe(own);
    expect(combineBudgets(undefined, meter)).toBe(meter);
    expect(combineBudgets(undefined, undefined)).toBeUndefined();
  });

  it('hold back both or none, and settle both', async () => {
    const spend: Spend = { calls: 1, tokens: 2, cost: 3 };
    for (const way of ['reserve', 'tryReserve'] as const) {
      const own = new CountingMeter({ maxCalls: 2 }, 'BUDGET_EXCEEDED');
      const meter = new CountingMeter({ maxCalls: 1 });
      const both = combineBudgets(own, meter);
      const reservation = await both?.[way]?.(spend);
      reservation?.settle({ calls: 1, tokens: 1, cost: 0 });
      expect([own.settled, meter.settled]).toEqual([
        [{ calls: 1, tokens: 1, cost: 0 }],
        [{ calls: 1, tokens: 1, cost: 0 }],
      ]);
      await expect((async () => both?.[way]?.(spend))()).rejects.toMatchObject({
        code: 'RATE_LIMIT_EXCEEDED',
      });
      expect([own.open, own.calls, meter.open]).toEqual([0, 1, 0]);
    }
  });

  it('hold back nothing where the meter would have to wait', () => {
    const own = new CountingMeter({});
    const waiting: Budget = { limits: {}, reserve: () => new Promise(() => {}), tryReserve: () => undefined };
    expect(combineBudgets(own, waiting)?.tryReserve?.({ calls: 1, tokens: 0, cost: 0 })).toBeUndefined();
    expect([own.reserved.length, own.open]).toEqual([1, 0]);
  });
});

describe('a meter', () => {
  it('counts every request, retries too, and nothing that is stored', async () => {
    const clock = new ManualClock();
    const meter = new CountingMeter({});
    const engine = new ScriptedEngine((batch, ask) =>
      ask < 3 ? fail('UPSTREAM_ERROR') : answerText(batch, ask),
    );
    const made = bench([engine], { clock, meters: meterOf(meter) });
    await invokeOn(clock, made, made.call(chats('a'), http));
    expect(meter.settled.map(({ calls, tokens }) => [calls, tokens])).toEqual([
      [1, 0],
      [1, 0],
      [1, 15],
    ]);
    await invokeOn(clock, made, made.call(chats('a'), http));
    expect(meter.reserved).toHaveLength(3);
  });

  it('that refuses fails the input, at once and for good, with its own error', async () => {
    for (const refusal of ['RATE_LIMIT_EXCEEDED', 'BUDGET_EXCEEDED'] as const) {
      const meter = new CountingMeter({ maxCalls: 1 }, refusal);
      const engine = new ScriptedEngine();
      const { serving, usage, call } = bench([engine], { meters: meterOf(meter) });
      await serving.invoke(call(chats('a'), http));
      const answer = await serving.invoke(call(chats('b'), http));
      expect(answer.items[0]).toMatchObject({ ok: false, error: { code: refusal, message: 'Too often.' } });
      await expect(serving.stream(call(chats('c'), http))).rejects.toMatchObject({ code: refusal });
      expect(engine.batches).toHaveLength(1);
      expect(meter.open).toBe(0);
      expect(usage.rows.map(({ statusCode, attempts }) => [statusCode, attempts])).toEqual([
        [200, 1],
        [429, 0],
        [429, 0],
      ]);
    }
  });

  it('refuses one call and not the others that wait for the same target', async () => {
    const gate = deferred();
    const engine = new ScriptedEngine(
      async (batch, ask) => {
        await gate.promise;
        return answerText(batch, ask);
      },
      { maxConcurrency: 1 },
    );
    const poor = new CountingMeter({ maxCalls: 0 });
    const rich = new CountingMeter({});
    const { serving, call } = bench([engine], {
      meters: { meterOf: ({ principal }) => (principal.name === 'poor' ? poor : rich) },
    });
    const as = (name: string) => ({ ...http, principal: { ...LOCAL_OWNER, id: name, name } });
    const calls = ['rich', 'poor', 'rich'].map((name, at) =>
      serving.invoke(call(chats(`${name} ${at}`), as(name))),
    );
    await settle();
    gate.resolve();
    const answers = await Promise.all(calls);
    expect(answers.map(({ items }) => contents(items)[0])).toEqual([
      'rich 0!',
      'RATE_LIMIT_EXCEEDED',
      'rich 2!',
    ]);
  });

  it('lets as many of several callers of one principal through as fit, though they travel together', async () => {
    const engine = new ScriptedEngine(answerText, { maxInputs: 64 });
    const meter = new CountingMeter({ maxCalls: 5 });
    const { serving, call } = bench([engine], { target: EMBEDDING, meters: meterOf(meter) });
    const answers = await Promise.all(
      numbered(8).map((text) => serving.invoke(call(embeddings(text), { ...http, cache: 'off' }))),
    );
    expect(answers.filter(({ items }) => items[0]?.ok)).toHaveLength(5);
    expect(sizes(engine).reduce((sum, size) => sum + size, 0)).toBe(5);
    expect(meter.open).toBe(0);
  });

  it('that makes a statement wait keeps no place at the target from others', async () => {
    let grant: (() => void) | undefined;
    const held: Spend[] = [];
    const reservation: Reservation = { settle: () => {} };
    const slow: Budget = {
      limits: {},
      tryReserve: () => undefined,
      reserve: (spend) =>
        new Promise((resolve) => {
          held.push(spend);
          grant = () => resolve(reservation);
        }),
    };
    const engine = new ScriptedEngine(answerText, { maxConcurrency: 2 });
    const { serving, call } = bench([engine], {
      meters: { meterOf: ({ origin }) => (origin === 'sql' ? slow : undefined) },
    });
    const statement = serving.invoke(call(chats(...numbered(5)), { origin: 'sql' }));
    await settle();
    // One of its rows asks; the others stay in line.
    expect(held).toHaveLength(1);
    expect(serving.queueDepths()[0]).toMatchObject({ waiting: 5, inFlight: 0 });
    expect(contents((await serving.invoke(call(chats('me'), http))).items)).toEqual(['me!']);
    for (let row = 0; row < 5; row++) {
      grant?.();
      await settle();
    }
    expect(contents((await statement).items)).toEqual(numbered(5).map((text) => `${text}!`));
  });

  it('that waits is let go of when the call is cancelled', async () => {
    const slow: Budget = {
      limits: {},
      reserve: (_spend, signal) =>
        new Promise((_resolve, reject) => {
          signal?.addEventListener('abort', () => reject(signal.reason));
        }),
    };
    const { serving, usage, call } = bench([new ScriptedEngine()], { meters: meterOf(slow) });
    for (const way of ['invoke', 'stream'] as const) {
      const controller = new AbortController();
      const pending = serving[way](call(chats('a'), { signal: controller.signal }));
      await settle();
      controller.abort();
      await expect(pending).rejects.toMatchObject({ code: 'CANCELLED' });
    }
    await settle();
    expect(serving.queueDepths()[0]).toMatchObject({ waiting: 0, inFlight: 0 });
    expect(usage.sum('inputCount')).toBe(2);
  });

  it('of money needs a price, from the endpoint or from the price table', async () => {
    const meter = new CountingMeter({ maxCost: 1 });
    const { serving, resolver, call } = bench([new ScriptedEngine()], { meters: meterOf(meter) });
    await expect(serving.invoke(call(chats('a'), http))).rejects.toMatchObject({ code: 'INVALID_PARAMETER' });
    resolver.set({ ...targetOf('m'), price: { inputPerMillion: 1000, outputPerMillion: 2000 } });
    expect((await serving.invoke(call(chats('a'), http))).cost).toBeCloseTo(0.02);
    expect(meter.settled[0]?.cost).toBeCloseTo(0.02);
  });

  it('counts the rows of a local model before they are answered, and passes its refusal on', async () => {
    const engine = new ScriptedEngine(answerText, {}, 'static');
    engine.local = { embed: (texts) => texts.map(() => Float32Array.of(1)) };
    const target = targetOf('e', { task: 'llm/v1/embeddings', engine: 'static' });
    const meter = new CountingMeter({ maxCalls: 10 });
    const { serving } = bench([engine], { target, meters: meterOf(meter) });
    const local = await serving.openLocal('e', 'llm/v1/embeddings', LOCAL_OWNER, 'sql');
    local?.tryReserve?.(8)?.settle({ calls: 8, tokens: 0, cost: 0 });
    expect(() => local?.tryReserve?.(3)).toThrow('Too often.');
    expect(meter.calls).toBe(8);
  });
});

describe('an endpoint that was stopped', () => {
  it('refuses queries before anything is asked, in every way there is to ask', async () => {
    const engine = new ScriptedEngine();
    const { serving, answers, usage, resolver, call } = bench([engine]);
    await serving.invoke(call(chats('a')));
    resolver.govern('m', {}, { isStopped: true });
    answers.reads = 0;
    const refused = { code: 'ENDPOINT_STOPPED' };
    await expect(serving.invoke(call(chats('a')))).rejects.toMatchObject(refused);
    await expect(serving.stream(call(chats('a')))).rejects.toMatchObject(refused);
    await expect(serving.estimate(call(chats('a')))).rejects.toMatchObject(refused);
    await expect(serving.openLocal('m', 'llm/v1/chat', LOCAL_OWNER, 'sql')).rejects.toMatchObject(refused);
    expect([answers.reads, engine.batches.length]).toEqual([0, 1]);
    expect(usage.rows.slice(1).map(({ errorCode }) => errorCode)).toEqual([
      'ENDPOINT_STOPPED',
      'ENDPOINT_STOPPED',
    ]);
    resolver.govern('m', {}, { isStopped: false });
    expect(contents((await serving.invoke(call(chats('a')))).items)).toEqual(['a!']);
  });

  it('or that the caller may not query gives no local model either, though it is loaded', async () => {
    const engine = new ScriptedEngine(answerText, {}, 'static');
    engine.local = { embed: (texts) => texts.map(() => Float32Array.of(1)) };
    const target = targetOf('e', { task: 'llm/v1/embeddings', engine: 'static' });
    const { serving } = bench([engine], {
      target,
      authorize: ({ isAdmin }) => {
        if (!isAdmin) throw new ServingError('PERMISSION_DENIED', 'No.');
      },
    });
    await serving.openLocal('e', 'llm/v1/embeddings', LOCAL_OWNER, 'sql');
    const guest = { ...LOCAL_OWNER, isAdmin: false };
    expect(() => serving.local('e', 'llm/v1/embeddings', guest, 'sql')).toThrow('No.');
    expect(serving.local('e', 'llm/v1/embeddings', LOCAL_OWNER, 'sql')).toBeDefined();
  });
});
