import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Reservation } from '#core/call.ts';
import type { AiGateway, Endpoint } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { SILENT_LOG } from '#core/log.ts';
import { type LeaseChannel, LeasedMeters, LeaseOwner } from '#governance/limits/leases.ts';
import {
  call,
  endpointWith,
  type HandClock,
  openWorld,
  refusal,
  settled,
  spend,
  user,
} from './limits-support.ts';

/** A worker over a channel whose messages take their time, stay in order, and stop when the worker dies. */
function startWorker(owner: LeaseOwner, clock: HandClock, delayMs: () => number, asksAhead = false) {
  const connection = owner.connect();
  let isDead = false;
  let requests = 0;
  let readyMs = 0;
  /** When the owner admitted the reservation that the last request was for. */
  const decidedMs = new Map<number, number>();
  const arrive = async () => {
    readyMs = Math.max(readyMs, clock.now() + delayMs());
    while (clock.now() < readyMs) await clock.sleep(readyMs - clock.now());
  };
  let tail: Promise<unknown> = Promise.resolve();
  const send = <T>(deliver: () => T): Promise<T> => {
    const sent = tail.then(arrive).then(() => {
      if (isDead) return new Promise<never>(() => {});
      return deliver();
    });
    tail = sent.then(
      () => {},
      () => {},
    );
    return sent;
  };
  const channel: LeaseChannel = {
    request: async (message) => {
      requests += 1;
      // A request that waits must not hold up those behind it.
      const answer = await send(() => ({ promise: connection.request(message) }));
      const decided = await answer.promise;
      const { type, id } = message as { type: string; id?: number };
      if (type === 'reserve' && id !== undefined) decidedMs.set(requests, clock.now());
      await clock.sleep(delayMs());
      if (isDead) return await new Promise<never>(() => {});
      return decided;
    },
    notify: (message: Json) => void send(() => connection.notify(message)),
  };
  const meters = new LeasedMeters({ channel, clock, asksAhead });
  return {
    meters,
    get requests() {
      return requests;
    },
    get isDead() {
      return isDead;
    },
    die: () => {
      isDead = true;
      meters.close();
      connection.close();
    },
  };
}

async function openOwner(gateway: AiGateway) {
  const world = await openWorld();
  const endpoint: Endpoint = endpointWith(gateway);
  const owner = new LeaseOwner({
    limits: world.limits,
    findEndpoint: (name) => (name === endpoint.name ? endpoint : undefined),
    clock: world.clock,
    log: SILENT_LOG,
  });
  return { ...world, endpoint, owner };
}

const perMinute = (calls: number): AiGateway => ({
  rateLimits: [{ key: 'endpoint', calls, renewalPeriod: 'minute' }],
});

describe('leases', () => {
  it('let a busy worker admit without asking, and come back when they are not used', async () => {
    const { owner, clock, endpoint, limits } = await openOwner({
      rateLimits: [{ key: 'endpoint', calls: 10_000, tokens: 1_000_000, renewalPeriod: 'minute' }],
      budgets: [{ key: 'user', amount: 10, renewalPeriod: 'day' }],
    });
    const worker = startWorker(owner, clock, () => 1);
    const meter = worker.meters.meterOf(call(user('alice')), endpoint);
    expect(meter?.limits).toEqual({ maxCost: 10 });
    let synchronous = 0;
    for (let index = 0; index < 1_000; index += 1) {
      let reservation = meter?.tryReserve(spend(1, 100, 0.001));
      if (reservation) synchronous += 1;
      else {
        const reserving = meter?.reserve(spend(1, 100, 0.001));
        await clock.pass(2);
        reservation = await reserving;
      }
      reservation?.settle(spend(1, 40, 0.0005));
      await clock.pass(1);
    }
    expect(synchronous).toBeGreaterThan(900);
    expect(worker.requests).toBeLessThan(100);
    await clock.pass(3_000);
    const byType = new Map(limits.readings().map((reading) => [reading.type, reading]));
    expect(byType.get('calls_per_minute')).toMatchObject({ current: 1_000, held: 0 });
    expect(byType.get('tokens_per_minute')).toMatchObject({ current: 40_000, held: 0 });
    expect(byType.get('cost_per_day')).toMatchObject({ current: 0.5, held: 0 });
    expect(clock.sleepers).toBe(0);
  });

  it('are asked for ahead by a worker that leaves to the owner what it has no lease for', async () => {
    const { owner, clock, endpoint, limits } = await openOwner(perMinute(1_000));
    const worker = startWorker(owner, clock, () => 1, true);
    const meter = worker.meters.meterOf(call(user('alice')), endpoint);
    const ownMeter = limits.meterOf(call(user('alice')), endpoint);
    let own = 0;
    let left = 0;
    for (let index = 0; index < 1_100; index += 1) {
      const reservation = meter?.tryReserve(spend(1, 0, 0));
      if (reservation) own += 1;
      else {
        try {
          if (ownMeter?.tryReserve(spend(1, 0, 0))) left += 1;
        } catch {
          // Used up.
        }
      }
      reservation?.settle(spend(1, 0, 0));
      await clock.pass(1);
    }
    expect(own).toBeGreaterThan(700);
    expect(own + left).toBeLessThanOrEqual(1_000);
    await clock.pass(3_000);
    // Not a single one was used twice or lost.
    expect(limits.readings()[0]).toMatchObject({ current: own + left, held: 0 });
  });

  it('refuse in a worker as the owner would, with the same error', async () => {
    const { owner, clock, endpoint } = await openOwner(perMinute(3));
    const workers = [startWorker(owner, clock, () => 0), startWorker(owner, clock, () => 0)];
    const results: string[] = [];
    for (let index = 0; index < 6; index += 1) {
      const meter = workers[index % 2]?.meters.meterOf(call(user('alice')), endpoint);
      const reserving = Promise.resolve(meter?.tryReserve(spend(1)) ?? meter?.reserve(spend(1))).then(
        (reservation) => {
          reservation?.settle(spend(1));
          results.push('admitted');
        },
        (error: ServingError) =>
          results.push(`${error.code} ${error.retryAfterMs} ${error.details.limit_type}`),
      );
      await clock.pass(2_000);
      await reserving;
    }
    expect(results.slice(0, 3)).toEqual(['admitted', 'admitted', 'admitted']);
    expect(
      results.slice(3).every((result) => /^RATE_LIMIT_EXCEEDED \d+ calls_per_minute$/.test(result)),
    ).toBe(true);
  });

  it('of one worker that are not used become room for another within a second', async () => {
    const { owner, clock, endpoint } = await openOwner(perMinute(100));
    const first = startWorker(owner, clock, () => 0);
    const second = startWorker(owner, clock, () => 0);
    const ofFirst = first.meters.meterOf(call(user('alice')), endpoint);
    const ofSecond = second.meters.meterOf(call(user('alice')), endpoint);
    let admitted = 0;
    for (let index = 0; index < 10; index += 1) {
      const reserving = Promise.resolve(ofFirst?.tryReserve(spend(1)) ?? ofFirst?.reserve(spend(1)));
      await clock.pass(1);
      (await reserving)?.settle(spend(1));
      admitted += 1;
    }
    const rest = Promise.allSettled(
      Array.from({ length: 95 }, async () => await ofSecond?.reserve(spend(1))),
    );
    await clock.pass(1_200);
    for (const result of await rest) if (result.status === 'fulfilled') admitted += 1;
    expect(admitted).toBe(100);
  });

  it('of a worker that dies count as used, and for a minute only', async () => {
    const { owner, clock, endpoint, limits } = await openOwner(perMinute(40));
    const worker = startWorker(owner, clock, () => 0);
    const meter = worker.meters.meterOf(call(user('alice')), endpoint);
    for (let index = 0; index < 6; index += 1) {
      const reserving = Promise.resolve(meter?.tryReserve(spend(1)) ?? meter?.reserve(spend(1)));
      await clock.pass(1);
      await reserving;
    }
    const held = limits.readings()[0]?.held ?? 0;
    expect(held).toBeGreaterThan(0);
    const before = (limits.readings()[0]?.current ?? 0) + held;
    worker.die();
    expect(limits.readings()[0]).toMatchObject({ held: 0, current: before });
    await clock.pass(61_000);
    expect(limits.readings()[0]).toMatchObject({ held: 0, current: 0 });
  });

  it('let rows of a statement wait at the owner, and leave when they are cancelled', async () => {
    const { owner, clock, endpoint } = await openOwner(perMinute(1));
    const worker = startWorker(owner, clock, () => 5);
    const meter = worker.meters.meterOf(call(user('alice'), 'sql'), endpoint);
    const abort = new AbortController();
    const first = meter?.reserve(spend(1));
    const cancelled = refusal(() => meter?.reserve(spend(1), abort.signal));
    let isAdmitted = false;
    void meter?.reserve(spend(1)).then(() => (isAdmitted = true));
    await clock.pass(100);
    await first;
    abort.abort();
    await clock.pass(100);
    expect((await cancelled).code).toBe('CANCELLED');
    await clock.pass(50_000);
    expect(isAdmitted).toBe(false);
    await clock.pass(11_000);
    expect(isAdmitted).toBe(true);
  });

  it('need no message where nothing is limited', async () => {
    const { owner, clock } = await openOwner(perMinute(1));
    const worker = startWorker(owner, clock, () => 0);
    expect(worker.meters.meterOf(call(user('alice')), endpointWith(undefined, 'free'))).toBeUndefined();
    worker.meters.setRules({ rate_limits: [{ calls: 5, renewal_period: 'minute' }] });
    expect(worker.meters.meterOf(call(user('alice')), endpointWith(undefined, 'free'))).toBeDefined();
    expect(worker.requests).toBe(0);
  });

  it('never let workers together exceed a limit, whatever is delayed and whoever dies', async () => {
    const step = fc.record({
      worker: fc.nat(2),
      type: fc.constantFrom(
        'call' as const,
        'call' as const,
        'call' as const,
        'burst' as const,
        'die' as const,
      ),
      pauseMs: fc.oneof(fc.nat(30), fc.nat(3_000), fc.nat(30_000)),
      takesMs: fc.oneof(fc.nat(50), fc.nat(5_000)),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 60 }),
        fc.integer({ min: 1, max: 40 }),
        fc.infiniteStream(fc.nat(80)),
        async (steps, calls, delays) => {
          const dollars = 0.02;
          const { owner, clock, endpoint, limits } = await openOwner({
            ...perMinute(calls),
            budgets: [{ key: 'endpoint', amount: dollars, renewalPeriod: 'day' }],
          });
          const start = () => startWorker(owner, clock, () => delays.next().value ?? 0);
          const workers = [start(), start(), start()];
          const takenMs: number[] = [];
          let spentNano = 0;
          const ends: Promise<void>[] = [];
          const ask = async (
            worker: ReturnType<typeof start>,
            { takesMs, share }: (typeof steps)[number],
          ) => {
            const meter = worker.meters.meterOf(call(user('alice')), endpoint);
            let reservation: Reservation | undefined = meter?.tryReserve(spend(1, 0, 0.001));
            // Of those that are asked for the owner decides, in whose window they then are.
            if (reservation) takenMs.push(clock.now());
            const isOwn = reservation !== undefined;
            try {
              reservation ??= await meter?.reserve(spend(1, 0, 0.001));
            } catch (error) {
              expect((error as ServingError).code).toMatch(
                /^(RATE_LIMIT_EXCEEDED|BUDGET_EXCEEDED|CANCELLED)$/,
              );
              return;
            }
            if (!isOwn) takenMs.push(clock.now());
            const nano = 1_000_000;
            spentNano += nano;
            expect(spentNano).toBeLessThanOrEqual(dollars * 1e9);
            await clock.sleep(takesMs);
            if (worker.isDead) return;
            const actual = Math.floor(nano * share);
            spentNano -= nano - actual;
            reservation?.settle(spend(1, 0, actual / 1e9));
          };
          for (const each of steps) {
            await clock.pass(each.pauseMs);
            const worker = workers[each.worker] as ReturnType<typeof start>;
            if (each.type === 'die') {
              worker.die();
              workers[each.worker] = start();
            } else
              for (let index = each.type === 'burst' ? 20 : 1; index > 0; index -= 1)
                ends.push(ask(worker, each));
          }
          await clock.pass(10_000);
          await settled();
          const [slackMs, sorted] = [400, takenMs.toSorted((left, right) => left - right)];
          for (const atMs of sorted) {
            const within = sorted.filter((other) => other >= atMs && other < atMs + 60_000 - slackMs);
            expect(within.length).toBeLessThanOrEqual(calls);
          }
          for (const { held, current, limit } of limits.readings()) {
            expect(held).toBe(0);
            expect(current).toBeGreaterThanOrEqual(0);
            expect(current).toBeLessThanOrEqual(limit);
          }
          const money = limits.readings().find(({ type }) => type === 'cost_per_day');
          // Dead workers' leases count, so the owner may think more is spent, never less.
          expect(Math.round((money?.current ?? 0) * 1e9)).toBeGreaterThanOrEqual(spentNano);
          limits.close();
        },
      ),
      { numRuns: 80 },
    );
  });
});
