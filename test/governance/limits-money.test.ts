import { describe, expect, it } from 'vitest';
import type { Reservation } from '#core/call.ts';
import type { MoneyBudget } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { UsageRow } from '#core/stores.ts';
import { openLimits } from '#governance/limits/limits.ts';
import { openDatabase } from '#storage/database.ts';
import { DuckDbRegistryStore } from '#storage/registry-store.ts';
import { readSpent } from '#storage/spent.ts';
import { openUsageStore } from '#storage/usage-store.ts';
import {
  call,
  endpointWith,
  HandClock,
  memoryStore,
  openWorld,
  refusal,
  START_MS,
  settled,
  spend,
  user,
} from './limits-support.ts';

const budget = (more: Partial<MoneyBudget>): MoneyBudget => ({
  key: 'endpoint',
  amount: 1,
  renewalPeriod: 'day',
  ...more,
});
const alice = user('alice');
const bob = user('bob');
const dollars = (cost: number) => spend(1, 0, cost);

async function pay(reserving: Promise<Reservation> | undefined, cost: number): Promise<void> {
  (await reserving)?.settle(dollars(cost));
}

describe('a money budget', () => {
  it('refuses what would cross it, naming what is spent and when it renews', async () => {
    const { limits } = await openWorld();
    const meter = limits.meterOf(
      call(alice),
      endpointWith({ budgets: [budget({ key: 'user', amount: 2 })] }),
    );
    expect(meter?.limits).toEqual({ maxCost: 2 });
    await pay(meter?.reserve(dollars(1.5)), 1.25);
    const error = await refusal(() => meter?.reserve(dollars(0.8)));
    expect(error.code).toBe('BUDGET_EXCEEDED');
    expect(error.message).toBe(
      "Budget exceeded: $2 per day for user 'alice' at endpoint 'llm'; $1.250000 is spent and up to $0.800000 more is asked. It renews at 2026-05-18T00:00:00.000Z; an administrator can raise it.",
    );
    expect(error.retryAfterMs).toBeUndefined();
    expect(error.details).toMatchObject({ limit_type: 'cost_per_day', limit: 2, current: 1.25, key: 'user' });
    await pay(meter?.reserve(dollars(0.75)), 0.75);
    expect(limits.readings()[0]).toMatchObject({ current: 2, held: 0 });
  });

  it('asks to come back where it renews within minutes', async () => {
    const clock = new HandClock(Date.UTC(2026, 4, 17, 23, 55));
    const { limits } = await openWorld({ clock });
    const meter = limits.meterOf(call(alice), endpointWith({ budgets: [budget({ amount: 0 })] }));
    expect((await refusal(() => meter?.reserve(dollars(0.1)))).retryAfterMs).toBe(300_000);
  });

  it('lets callers wait, over HTTP too, while requests in flight could still free enough', async () => {
    const { limits } = await openWorld();
    const meter = limits.meterOf(call(alice), endpointWith({ budgets: [budget({ amount: 1 })] }));
    const first = await meter?.reserve(dollars(0.8));
    expect(meter?.tryReserve(dollars(0.8))).toBeUndefined();
    const second = meter?.reserve(dollars(0.8));
    const third = refusal(() => meter?.reserve(dollars(0.8)));
    // A small one does not overtake: the large would wait for ever.
    expect(meter?.tryReserve(dollars(0.1))).toBeUndefined();
    first?.settle(dollars(0.1));
    (await second)?.settle(dollars(0.7));
    expect((await third).code).toBe('BUDGET_EXCEEDED');
  });

  it('is never crossed by 64 callers at once, whatever their calls turn out to cost', async () => {
    const { limits } = await openWorld();
    const endpoint = endpointWith({ budgets: [budget({ amount: 0.05 })] });
    let seed = 7;
    const random = () => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      return seed / 2 ** 31;
    };
    let spent = 0;
    let refused = 0;
    const caller = async (index: number) => {
      const meter = limits.meterOf(call(user(`u${index}`), index % 2 ? 'http' : 'sql'), endpoint);
      for (let round = 0; round < 20; round += 1) {
        let reservation: Reservation | undefined;
        try {
          reservation = await meter?.reserve(dollars(0.001));
        } catch (error) {
          expect((error as ServingError).code).toBe('BUDGET_EXCEEDED');
          refused += 1;
          return;
        }
        await settled();
        const nano = Math.floor(random() * 1_000_001);
        spent += nano;
        expect(spent).toBeLessThanOrEqual(50_000_000);
        reservation?.settle(dollars(nano / 1e9));
      }
    };
    await Promise.all(Array.from({ length: 64 }, (_, index) => caller(index)));
    expect(refused).toBeGreaterThan(0);
    expect(limits.readings()[0]).toMatchObject({ current: spent / 1e9, held: 0 });
    expect(spent).toBeGreaterThan(49_000_000);
  });

  it('gives back what failed and cancelled calls had reserved', async () => {
    const { limits } = await openWorld();
    const meter = limits.meterOf(call(alice), endpointWith({ budgets: [budget({ amount: 1 })] }));
    for (let index = 0; index < 10; index += 1) await pay(meter?.reserve(dollars(1)), 0);
    const holder = await meter?.reserve(dollars(1));
    const abort = new AbortController();
    const waiting = refusal(() => meter?.reserve(dollars(1), abort.signal));
    abort.abort();
    expect((await waiting).code).toBe('CANCELLED');
    holder?.settle(dollars(1));
    expect(limits.readings()[0]).toMatchObject({ current: 1, held: 0 });
  });

  it('renews at midnight UTC and with the month; what was begun before is of the old period', async () => {
    const clock = new HandClock(Date.UTC(2026, 4, 31, 23, 59, 59));
    const { limits } = await openWorld({ clock });
    const endpoint = endpointWith({
      budgets: [budget({ amount: 1 }), budget({ amount: 5, renewalPeriod: 'month' })],
    });
    const meter = limits.meterOf(call(alice), endpoint);
    const over = await meter?.reserve(dollars(0.9));
    let isAdmitted = false;
    const waiting = meter?.reserve(dollars(0.5)).then((reservation) => {
      isAdmitted = true;
      return reservation;
    });
    await clock.pass(500);
    expect(isAdmitted).toBe(false);
    await clock.pass(600);
    expect(isAdmitted).toBe(true);
    over?.settle(dollars(0.9));
    const used = () => limits.readings().map(({ current, held }) => [current, held]);
    expect(used()).toEqual([
      [0, 0.5],
      [0, 0.5],
    ]);
    (await waiting)?.settle(dollars(0.5));
    expect(used()).toEqual([
      [0.5, 0],
      [0.5, 0],
    ]);
    await refusal(() => meter?.reserve(dollars(0.6)));
  });

  it('is not renewed by a clock that is set back, and is by one that is set a day forward', async () => {
    const { limits, clock } = await openWorld();
    const meter = limits.meterOf(call(alice), endpointWith({ budgets: [budget({ amount: 1 })] }));
    await pay(meter?.reserve(dollars(1)), 1);
    clock.set(START_MS - 24 * 3_600_000);
    await refusal(() => meter?.reserve(dollars(1)));
    clock.set(START_MS + 24 * 3_600_000);
    await pay(meter?.reserve(dollars(1)), 1);
    clock.set(START_MS);
    await refusal(() => meter?.reserve(dollars(1)));
  });

  it('counts for every group of the caller, as money is gone for all of them', async () => {
    const { limits } = await openWorld();
    const endpoint = endpointWith({
      budgets: [
        budget({ key: 'user_group', principal: 'a', amount: 1 }),
        budget({ key: 'user_group', principal: 'b', amount: 5 }),
      ],
    });
    await pay(limits.meterOf(call(user('ab', 'a', 'b')), endpoint)?.reserve(dollars(1)), 1);
    await refusal(() => limits.meterOf(call(user('other', 'a')), endpoint)?.reserve(dollars(0.1)));
    await pay(limits.meterOf(call(user('third', 'b')), endpoint)?.reserve(dollars(4)), 4);
  });
});

describe('the limits of the workspace', () => {
  const document = { budgets: [{ key: 'user', amount: 1, renewal_period: 'month' }] };

  it('count over all endpoints together and are kept', async () => {
    const { limits, store, clock } = await openWorld();
    await limits.setRules(document);
    await pay(limits.meterOf(call(alice), endpointWith(undefined, 'a'))?.reserve(dollars(0.7)), 0.7);
    const other = limits.meterOf(call(alice), endpointWith(undefined, 'b'));
    await refusal(() => other?.reserve(dollars(0.7)));
    expect(limits.meterOf(call(bob), endpointWith(undefined, 'b'))).toBeDefined();
    const again = await openLimits({ store, clock, log: SILENT_LOG, spentSince: async () => [] });
    expect(again.rules).toEqual(limits.rules);
    await limits.setRules({});
    expect(limits.meterOf(call(alice), endpointWith(undefined, 'b'))).toBeUndefined();
    await pay(other?.reserve(dollars(0.7)), 0.7);
  });

  it('are refused with all that is wrong', async () => {
    const { limits } = await openWorld();
    const wrong = {
      rate_limits: [{ key: 'planet', calls: 1, renewal_period: 'hour' }],
      budgets: [{ key: 'user_group', amount: -1, renewal_period: 'day' }],
      more: 1,
    };
    const { code, message } = await refusal(() => limits.setRules(wrong));
    expect(code).toBe('INVALID_PARAMETER');
    for (const part of ['planet', 'hour', 'amount', 'more']) expect(message).toContain(part);
    const twice = { budgets: [document.budgets[0], document.budgets[0]] };
    expect((await refusal(() => limits.setRules(twice))).message).toContain('two for user per month');
    expect(limits.rules).toEqual({ rateLimits: [], budgets: [] });
  });
});

describe('what was spent before', () => {
  it('is counted when a budget is new, by user, group, endpoint and workspace', async () => {
    const asked: number[] = [];
    const { limits } = await openWorld({
      spentSince: async (fromMs) => {
        asked.push(fromMs);
        return [
          { endpoint: 'llm', requester: 'alice', groups: ['g'], cost: 0.75 },
          { endpoint: 'llm', requester: 'bob', groups: [], cost: 0.5 },
          { endpoint: 'other', requester: 'alice', groups: ['g'], cost: 4 },
        ];
      },
    });
    const used = async (more: Partial<MoneyBudget>, principal = alice) => {
      const endpoint = endpointWith({ budgets: [budget({ amount: 100, ...more })] });
      const meter = limits.meterOf(call(principal), endpoint);
      expect(meter?.tryReserve(dollars(0)) ?? (await meter?.reserve(dollars(0)))).toBeDefined();
      const readings = limits.readings().filter(({ key }) => key === (more.key ?? 'endpoint'));
      return readings.find((each) => each.principal === (more.principal ?? each.principal))?.current;
    };
    expect(await used({})).toBe(1.25);
    expect(await used({ key: 'user', principal: 'alice' })).toBe(0.75);
    expect(await used({ key: 'user_group', principal: 'g' }, user('carl', 'g'))).toBe(0.75);
    await limits.setRules({ budgets: [{ amount: 100, renewal_period: 'month' }] });
    await limits.meterOf(call(bob), endpointWith(undefined, 'new'))?.reserve(dollars(0));
    expect(limits.readings().find(({ endpoint }) => endpoint === null)?.current).toBe(5.25);
    expect(new Set(asked)).toEqual(new Set([Date.UTC(2026, 4, 1), Date.UTC(2026, 4, 17)]));
  });

  it('is read again for a budget that was away for a while', async () => {
    let cost = 0.25;
    const { limits } = await openWorld({
      spentSince: async () => [{ endpoint: 'llm', requester: 'alice', cost }],
    });
    const used = async () => {
      await limits
        .meterOf(call(alice), endpointWith({ budgets: [budget({ amount: 9 })] }))
        ?.reserve(dollars(0));
      return limits.readings()[0]?.current;
    };
    expect(await used()).toBe(0.25);
    expect(limits.meterOf(call(alice), endpointWith(undefined))).toBeUndefined();
    cost = 3;
    expect(await used()).toBe(3);
  });

  it('admits nothing where it cannot be read, says so, and is tried again', async () => {
    let isBroken = true;
    const { limits } = await openWorld({
      spentSince: async () => {
        if (isBroken) throw new ServingError('STORAGE_ERROR', 'The disk is gone.');
        return [{ endpoint: 'llm', requester: 'alice', cost: 0.5 }];
      },
    });
    const meter = limits.meterOf(call(alice), endpointWith({ budgets: [budget({ amount: 1 })] }));
    expect((await refusal(() => meter?.reserve(dollars(0.1)))).message).toBe('The disk is gone.');
    isBroken = false;
    await pay(meter?.reserve(dollars(0.1)), 0.1);
    expect(limits.readings()[0]?.current).toBe(0.6);
  });

  it('counts after a restart for the groups that the caller was in', async () => {
    const store = memoryStore();
    const clock = new HandClock();
    const endpoint = endpointWith({ budgets: [budget({ key: 'user_group', principal: 'g' })] });
    const before = await openWorld({ store, clock });
    await pay(before.limits.meterOf(call(user('alice', 'g')), endpoint)?.reserve(dollars(0.9)), 0.9);
    const spentSince = async () => [{ endpoint: 'llm', requester: 'alice', cost: 0.9 }];
    const after = await openWorld({ store, clock, spentSince });
    const error = await refusal(() =>
      after.limits.meterOf(call(user('bob', 'g')), endpoint)?.reserve(dollars(0.2)),
    );
    expect(error.details.current).toBe(0.9);
  });

  it('is what the ledger in the database says, rows not yet written included', async () => {
    const database = await openDatabase({ systemPath: null, userPath: ':memory:', log: SILENT_LOG });
    const clock = new HandClock();
    const usage = await openUsageStore({
      connection: await database.connect(),
      journalDir: null,
      clock,
      log: SILENT_LOG,
    });
    const row = (requester: string, requestTimeMs: number, cost: number | null): UsageRow => ({
      requestId: 'r',
      callId: 'c',
      clientRequestId: null,
      requestTimeMs,
      requester,
      origin: 'http',
      endpoint: 'llm',
      servedEntity: 's',
      model: 'm',
      engine: 'openai',
      task: 'llm/v1/chat',
      statusCode: 200,
      errorCode: null,
      errorMessage: null,
      inputCount: 1,
      cachedCount: 0,
      attempts: 1,
      inputTokens: 1,
      outputTokens: 1,
      cost,
      durationMs: 1,
      isStreaming: false,
      usageContext: null,
    });
    usage.add(row('alice', START_MS, 0.3));
    usage.add(row('alice', START_MS, 0.4));
    usage.add(row('alice', Date.UTC(2026, 4, 17), 0.1));
    usage.add(row('alice', Date.UTC(2026, 4, 16, 23, 59, 59, 999), 50));
    usage.add(row("o'brien; DROP TABLE usage", START_MS, 0.5));
    usage.add(row('bob', START_MS, null));
    const store = new DuckDbRegistryStore(database.system);
    const spentSince = (fromMs: number) => readSpent(database, usage, fromMs);
    const limits = await openLimits({ store, clock, log: SILENT_LOG, spentSince });
    const endpoint = endpointWith({ budgets: [budget({ key: 'user', amount: 1 })] });
    const error = await refusal(() => limits.meterOf(call(alice), endpoint)?.reserve(dollars(0.3)));
    expect(error.details.current).toBe(0.8);
    expect((await readSpent(database, usage, START_MS)).toSorted((a, b) => a.cost - b.cost)).toMatchObject([
      { requester: "o'brien; DROP TABLE usage", cost: 0.5 },
      { requester: 'alice', cost: 0.7 },
    ]);
    limits.close();
    await usage.close();
    await database.close();
  });
});
