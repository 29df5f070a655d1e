import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Reservation, Spend } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { createBudget } from '#governance/budget.ts';

const spend = (calls: number, tokens = 0, cost = 0): Spend => ({ calls, tokens, cost });
const NOTHING = spend(0);

async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol('pending');
  return (
    (await Promise.race([
      promise.catch(() => undefined),
      new Promise((resolve) => setImmediate(resolve, pending)),
    ])) === pending
  );
}

async function refusal(promise: Promise<unknown>): Promise<ServingError> {
  return await promise.then(
    () => {
      throw new Error('expected a refusal');
    },
    (error: unknown) => {
      if (error instanceof ServingError) return error;
      throw error;
    },
  );
}

describe('a budget', () => {
  it('holds back what is reserved and counts what was really spent', async () => {
    const budget = createBudget({ maxCalls: 2, maxTokens: 100, maxCost: 1 });
    const first = await budget.reserve(spend(1, 60, 0.5));
    first.settle(spend(1, 30, 0.25));
    expect(budget.spent).toEqual(spend(1, 30, 0.25));
    await budget.reserve(spend(1, 70, 0.75));
  });

  it('refuses what can never fit, naming the limit, what is spent and what was asked', async () => {
    const budget = createBudget({ maxCost: 0.01 });
    (await budget.reserve(spend(1, 10, 0.004))).settle(spend(1, 10, 0.004));
    const error = await refusal(budget.reserve(spend(1, 10, 0.007)));
    expect(error.code).toBe('BUDGET_EXCEEDED');
    expect(error.message).toContain('$0.01');
    expect(error.message).toContain('$0.004000');
    expect(error.message).toContain('$0.007000');
    expect((await refusal(createBudget({ maxCalls: 0 }).reserve(spend(1)))).message).toContain('0 calls');
    expect((await refusal(createBudget({ maxTokens: 5 }).reserve(spend(1, 6)))).message).toContain(
      '5 tokens',
    );
  });

  it('lets callers wait while those in flight may still free enough, in the order they asked', async () => {
    const budget = createBudget({ maxTokens: 100 });
    const first = await budget.reserve(spend(1, 80));
    const large = budget.reserve(spend(1, 90));
    const small = budget.reserve(spend(1, 5));
    expect(await isPending(large)).toBe(true);
    expect(await isPending(small)).toBe(true);
    first.settle(spend(1, 4));
    const reservation = await large;
    await small;
    reservation.settle(NOTHING);
  });

  it('refuses those waiting when what was spent leaves too little, and goes on with the next', async () => {
    const budget = createBudget({ maxTokens: 100 });
    const first = await budget.reserve(spend(1, 80));
    const large = refusal(budget.reserve(spend(1, 90)));
    const small = budget.reserve(spend(1, 5));
    first.settle(spend(1, 80));
    expect((await large).code).toBe('BUDGET_EXCEEDED');
    await small;
  });

  it('lets go of a caller that is cancelled, and of those who waited behind it', async () => {
    const budget = createBudget({ maxTokens: 100 });
    await budget.reserve(spend(1, 50));
    const abort = new AbortController();
    const large = refusal(budget.reserve(spend(1, 90), abort.signal));
    const small = budget.reserve(spend(1, 5));
    abort.abort();
    expect((await large).code).toBe('CANCELLED');
    await small;
    expect((await refusal(budget.reserve(spend(1), abort.signal))).code).toBe('CANCELLED');
  });

  it('is reserved without waiting where that is possible, never past those who wait, with the same errors', async () => {
    const budget = createBudget({ maxTokens: 100 });
    const first = budget.tryReserve?.(spend(1, 80));
    expect(first).toBeDefined();
    expect(budget.tryReserve?.(spend(1, 90))).toBeUndefined();
    const waiting = budget.reserve(spend(1, 90));
    expect(budget.tryReserve?.(spend(1, 5))).toBeUndefined();
    first?.settle(spend(1, 5));
    (await waiting).settle(spend(1, 90));
    expect(budget.tryReserve?.(spend(1, 5))).toBeDefined();
    expect(() => budget.tryReserve?.(spend(1, 6))).toThrow('100 tokens');
    expect(budget.spent).toEqual(spend(2, 95));
  });

  it('can be spent to the last tenth of a cent without drifting', async () => {
    const budget = createBudget({ maxCost: 1 });
    for (let index = 0; index < 1_000; index += 1)
      (await budget.reserve(spend(1, 0, 0.001))).settle(spend(1, 0, 0.001));
    expect(budget.spent.cost).toBe(1);
    expect((await refusal(budget.reserve(spend(1, 0, 0.000_001)))).code).toBe('BUDGET_EXCEEDED');
  });

  it('counts a reservation settled twice once', async () => {
    const budget = createBudget({ maxCalls: 5 });
    const reservation = await budget.reserve(spend(1));
    reservation.settle(spend(1));
    reservation.settle(spend(1));
    expect(budget.spent.calls).toBe(1);
  });

  it('refuses limits that are no limits', () => {
    expect(() => createBudget({ maxCost: Number.NaN })).toThrow(ServingError);
    expect(() => createBudget({ maxCalls: -1 })).toThrow('maxCalls is -1');
  });

  it('is never crossed and forgets nobody, whatever callers do in whatever order', async () => {
    const request = fc.record({
      asked: fc.record({
        calls: fc.constant(1),
        tokens: fc.nat(60),
        cost: fc.nat(60).map((cents) => cents / 100),
      }),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
      isAborted: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(request, { maxLength: 30 }), fc.scheduler(), async (requests, scheduler) => {
        const limits = { maxCalls: 20, maxTokens: 200, maxCost: 2 };
        const budget = createBudget(limits);
        const held = new Set<Spend>();
        const check = () => {
          const all = [budget.spent, ...held];
          const sum = (pick: (each: Spend) => number) => all.reduce((total, each) => total + pick(each), 0);
          expect(sum((each) => each.calls)).toBeLessThanOrEqual(limits.maxCalls);
          expect(sum((each) => each.tokens)).toBeLessThanOrEqual(limits.maxTokens);
          expect(sum((each) => each.cost)).toBeLessThanOrEqual(limits.maxCost + 1e-9);
        };
        const callers = requests.map(async ({ asked, share, isAborted }, index) => {
          await scheduler.schedule(Promise.resolve(), `ask ${index}`);
          const abort = new AbortController();
          const reserving = budget.reserve(asked, abort.signal);
          if (isAborted)
            void scheduler.schedule(Promise.resolve(), `abort ${index}`).then(() => abort.abort());
          let reservation: Reservation;
          try {
            reservation = await reserving;
          } catch (error) {
            expect((error as ServingError).code).toMatch(/^(BUDGET_EXCEEDED|CANCELLED)$/);
            return;
          }
          held.add(asked);
          check();
          await scheduler.schedule(Promise.resolve(), `settle ${index}`);
          held.delete(asked);
          reservation.settle({
            calls: 1,
            tokens: Math.floor(asked.tokens * share),
            cost: asked.cost * share,
          });
          check();
        });
        await scheduler.waitFor(Promise.all(callers));
        expect(held.size).toBe(0);
      }),
      { numRuns: 200 },
    );
  });
});
