import { describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { fail, invokeOn } from './queue-support.ts';
import {
  answerText,
  bench,
  CountingBudget,
  chats,
  contents,
  deferred,
  ManualClock,
  ScriptedEngine,
  settle,
  targetOf,
  textOf,
} from './support.ts';

describe('cancellation', () => {
  it('drops what waits, aborts what nobody waits for, and settles at once', async () => {
    const aborted: string[] = [];
    const engine = new ScriptedEngine(
      ({ inputs, signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => {
            aborted.push(...inputs.map(textOf));
            reject(new ServingError('CANCELLED', 'Aborted.'));
          });
        }),
      { maxConcurrency: 2 },
    );
    const { serving, usage, call } = bench([engine]);
    const controller = new AbortController();
    const pending = serving.invoke(call(chats('a', 'b', 'c', 'd'), { signal: controller.signal }));
    await settle();
    controller.abort();
    await expect(pending).rejects.toMatchObject({ code: 'CANCELLED' });
    await settle();
    expect(aborted).toEqual(['a', 'b']);
    expect(serving.queueDepths()[0]).toMatchObject({ waiting: 0, inFlight: 0 });
    expect([usage.sum('inputCount'), usage.sum('attempts')]).toEqual([4, 2]);
    expect(new Set(usage.rows.map(({ errorCode }) => errorCode))).toEqual(new Set(['CANCELLED']));
  });

  it('keeps answers that arrive all the same', async () => {
    const gate = deferred();
    const engine = new ScriptedEngine(async (batch, ask) => {
      await gate.promise;
      return answerText(batch, ask);
    });
    const { serving, answers, call } = bench([engine]);
    const controller = new AbortController();
    const pending = serving.invoke(call(chats('a'), { signal: controller.signal }));
    await settle();
    controller.abort();
    await expect(pending).rejects.toMatchObject({ code: 'CANCELLED' });
    gate.resolve();
    await settle();
    expect(answers.count).toBe(1);
  });

  it('wakes a request that waits for its next try', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine(() => fail('UPSTREAM_ERROR'));
    const { serving, usage, call } = bench([engine], { clock });
    const controller = new AbortController();
    const pending = serving.invoke(call(chats('a'), { signal: controller.signal }));
    await settle();
    expect(clock.sleeping).toBe(1);
    controller.abort();
    await expect(pending).rejects.toMatchObject({ code: 'CANCELLED' });
    await settle();
    expect(clock.sleeping).toBe(0);
    expect(usage.sum('inputCount')).toBe(1);
  });
});

describe('a budget', () => {
  const priced = (task: 'llm/v1/chat' | 'llm/v1/embeddings' = 'llm/v1/chat') =>
    targetOf('m', { task }, { price: { inputPerMillion: 1e6, outputPerMillion: 1e6 } });

  it('is reserved before and settled after each request, and what is left is refused', async () => {
    const engine = new ScriptedEngine(answerText, { maxConcurrency: 1 });
    const { serving, answers, usage, call } = bench([engine]);
    const budget = new CountingBudget({ maxCalls: 3 });
    const answer = await serving.invoke(call(chats('a', 'b', 'c', 'd', 'e'), { budget }));
    expect(contents(answer.items)).toEqual(['a!', 'b!', 'c!', 'BUDGET_EXCEEDED', 'BUDGET_EXCEEDED']);
    expect(answers.count).toBe(3);
    expect(budget.settled).toHaveLength(3);
    expect(usage.rows.at(-1)).toMatchObject({
      attempts: 0,
      inputCount: 2,
      errorCode: 'BUDGET_EXCEEDED',
      statusCode: 429,
    });
  });

  it('counts every try', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine((batch, ask) =>
      ask < 3 ? fail('UPSTREAM_ERROR') : answerText(batch, ask),
    );
    const made = bench([engine], { clock });
    const budget = new CountingBudget({ maxCalls: 10 });
    await invokeOn(clock, made, made.call(chats('a'), { budget }));
    expect(budget.calls).toBe(3);
  });

  it('makes its bound on tokens real, without changing the key of an answer', async () => {
    const engine = new ScriptedEngine();
    const { serving, call } = bench([engine], { target: priced() });
    const budget = new CountingBudget({ maxTokens: 1e6 });
    await serving.invoke(call(chats('abc'), { budget }));
    expect(engine.batches[0]?.parameters.maxTokens).toBe(1024);
    expect(budget.reserved[0]).toEqual({ calls: 1, tokens: 3 + 16 + 1024, cost: 3 + 16 + 1024 });
    expect(budget.settled[0]).toEqual({ calls: 1, tokens: 15, cost: 15 });
    await serving.invoke(call(chats('abc')));
    expect(engine.batches).toHaveLength(1);
  });

  it('does not keep an answer that was cut off by its bound alone', async () => {
    const engine = new ScriptedEngine(() => ({
      items: [
        {
          ok: true,
          output: { content: 'long', finishReason: 'length' },
          usage: { inputTokens: 1, outputTokens: 1024 },
        },
      ],
    }));
    const { serving, answers, call } = bench([engine], { target: priced() });
    await serving.invoke(call(chats('a'), { budget: new CountingBudget({ maxTokens: 1e6 }) }));
    expect(answers.count).toBe(0);
    await serving.invoke(call(chats('a')));
    expect(answers.count).toBe(1);
  });

  it('of cost needs a price, and says how to set it', async () => {
    const { serving, call } = bench([new ScriptedEngine()]);
    const budget = new CountingBudget({ maxCost: 1 });
    await expect(serving.invoke(call(chats('a'), { budget }))).rejects.toMatchObject({
      code: 'INVALID_PARAMETER',
      message: expect.stringContaining('--input-price'),
    });
  });

  it('of one call is not the failure of another that waits for the same answer', async () => {
    const gate = deferred();
    const engine = new ScriptedEngine(
      async (batch, ask) => {
        if (ask === 1) await gate.promise;
        return answerText(batch, ask);
      },
      { maxConcurrency: 1 },
    );
    const { serving, usage, call } = bench([engine]);
    const budget = new CountingBudget({ maxCalls: 1 });
    const poor = serving.invoke(call(chats('a', 'b'), { budget }));
    await settle();
    const other = serving.invoke(call(chats('b')));
    await settle();
    gate.resolve();
    expect(contents((await poor).items)).toEqual(['a!', 'BUDGET_EXCEEDED']);
    expect(contents((await other).items)).toEqual(['b!']);
    expect([usage.sum('inputCount'), usage.sum('attempts')]).toEqual([3, 2]);
  });
});
