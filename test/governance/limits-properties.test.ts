import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Reservation } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { RateWindow } from '#governance/limits/rate-window.ts';
import { call, endpointWith, openWorld, spend, user } from './limits-support.ts';

interface Admitted {
  readonly atMs: number;
  amount: number;
}

/** The largest sum in any window of 60 seconds. */
function largestWindow(admitted: readonly Admitted[]): number {
  let largest = 0;
  for (const { atMs } of admitted) {
    const sum = admitted
      .filter((other) => other.atMs >= atMs && other.atMs < atMs + 60_000)
      .reduce((total, { amount }) => total + amount, 0);
    largest = Math.max(largest, sum);
  }
  return largest;
}

describe('a window of 60 seconds', () => {
  const step = fc.oneof(
    fc.record({ type: fc.constant('ask' as const), amount: fc.integer({ min: 1, max: 12 }) }),
    fc.record({ type: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 40_000 }) }),
    fc.record({ type: fc.constant('pass' as const), ms: fc.integer({ min: 59_850, max: 60_010 }) }),
    fc.record({
      type: fc.constant('refund' as const),
      index: fc.nat(20),
      share: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  );

  it('never has more admitted in it than the limit, whoever gives back what at whatever time', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.array(step, { maxLength: 120 }), (limit, steps) => {
        const window = new RateWindow(limit);
        const admitted: (Admitted & { number: number })[] = [];
        let now = 1_000_000;
        for (const each of steps) {
          if (each.type === 'pass') now += each.ms;
          else if (each.type === 'ask' && each.amount <= limit && window.fits(now, each.amount)) {
            admitted.push({ atMs: now, amount: each.amount, number: window.charge(now, each.amount) });
          } else if (each.type === 'refund') {
            const entry = admitted[each.index];
            if (!entry) continue;
            const back = Math.floor(entry.amount * each.share);
            window.refund(entry.number, back);
            entry.amount -= back;
          }
          expect(window.used(now)).toBeGreaterThanOrEqual(0);
          expect(window.used(now)).toBeLessThanOrEqual(limit);
        }
        expect(largestWindow(admitted)).toBeLessThanOrEqual(limit);
      }),
      { numRuns: 500 },
    );
  });

  it('admits at the latest a tenth of a second after an exact one would, and says when', () => {
    const gaps = fc.array(fc.integer({ min: 0, max: 20_000 }), { maxLength: 60 });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), gaps, (limit, pauses) => {
        const window = new RateWindow(limit);
        const times: number[] = [];
        let now = 5_000_000;
        for (const pause of pauses) {
          now += pause;
          const inWindow = (atMs: number) => times.filter((at) => at + 60_000 + 100 > atMs).length;
          const isDue = inWindow(now) < limit;
          if (isDue) expect(window.fits(now, 1)).toBe(true);
          const at = window.fitsAt(now, 1);
          if (window.fits(now, 1)) expect(at).toBe(now);
          else {
            expect(window.fits(at - 1, 1)).toBe(false);
            expect(window.fits(at, 1)).toBe(true);
            now = at;
          }
          window.charge(now, 1);
          times.push(now);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('makes the minutes that follow pay for all that was used, and for no more', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 50 }),
        fc.array(fc.tuple(fc.integer({ min: 0, max: 30_000 }), fc.integer({ min: 1, max: 400 })), {
          maxLength: 20,
        }),
        (limit, charges) => {
          const window = new RateWindow(limit);
          let now = 0;
          let total = 0;
          for (const [pause, amount] of charges) {
            now += pause;
            window.charge(now, amount);
            total += amount;
          }
          const minutes = Math.ceil(total / limit) + 1;
          expect(window.isIdle(now + minutes * 60_100 + 100)).toBe(true);
          expect(window.debt).toBe(0);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('meters', () => {
  const request = fc.record({
    who: fc.nat(3),
    isHttp: fc.boolean(),
    tokens: fc.nat(60),
    cost: fc.nat(50).map((cents) => cents / 100),
    share: fc.double({ min: 0, max: 1, noNaN: true }),
    isAborted: fc.boolean(),
    pauseMs: fc.nat(20_000),
    takesMs: fc.nat(90_000),
  });

  it('hold every limit, settle what they count, and forget nobody, whatever callers do in whatever order', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(request, { maxLength: 40 }), async (requests) => {
        const { limits, clock } = await openWorld();
        const calls = 5;
        const perUser = 3;
        const endpoint = endpointWith({
          rateLimits: [
            { key: 'endpoint', calls, tokens: 200, renewalPeriod: 'minute' },
            { key: 'user', calls: perUser, renewalPeriod: 'minute' },
          ],
          budgets: [{ key: 'endpoint', amount: 4, renewalPeriod: 'day' }],
        });
        const admitted: (Admitted & { readonly who: number })[] = [];
        let heldNano = 0;
        let spentNano = 0;
        const ends: Promise<void>[] = [];
        for (const each of requests) {
          await clock.pass(each.pauseMs);
          const meter = limits.meterOf(call(user(`u${each.who}`), each.isHttp ? 'http' : 'sql'), endpoint);
          const asked = spend(1, each.tokens, each.cost);
          const abort = new AbortController();
          const run = async () => {
            let reservation: Reservation | undefined;
            try {
              reservation = await meter?.reserve(asked, abort.signal);
            } catch (error) {
              expect((error as ServingError).code).toMatch(
                /^(RATE_LIMIT_EXCEEDED|BUDGET_EXCEEDED|CANCELLED)$/,
              );
              return;
            }
            const nano = Math.round(each.cost * 1e9);
            const actual = Math.floor(nano * each.share);
            admitted.push({ atMs: clock.now(), amount: 1, who: each.who });
            heldNano += nano;
            expect(spentNano + heldNano).toBeLessThanOrEqual(4e9);
            await clock.sleep(each.takesMs);
            heldNano -= nano;
            spentNano += actual;
            reservation?.settle(spend(1, Math.floor(each.tokens * each.share), actual / 1e9));
          };
          ends.push(run());
          if (each.isAborted) abort.abort();
        }
        await clock.pass(24 * 60 * 60_000 - 60_000 * 60 * 13);
        await Promise.all(ends);
        expect(largestWindow(admitted)).toBeLessThanOrEqual(calls);
        for (const who of [0, 1, 2, 3]) {
          expect(largestWindow(admitted.filter((each) => each.who === who))).toBeLessThanOrEqual(perUser);
        }
        const money = limits.readings().find(({ type }) => type === 'cost_per_day');
        expect(Math.round((money?.current ?? 0) * 1e9)).toBe(spentNano);
        expect(money?.held ?? 0).toBe(0);
        for (const { type, current } of limits.readings())
          if (type !== 'cost_per_day') expect(current).toBe(0);
        limits.close();
      }),
      { numRuns: 60 },
    );
  });

  it('of 10,000 callers at 1,000 endpoints are forgotten when they are idle', async () => {
    const { limits, clock } = await openWorld();
    const endpoints = Array.from({ length: 1_000 }, (_, index) =>
      endpointWith({ rateLimits: [{ key: 'user', calls: 5, renewalPeriod: 'minute' }] }, `e${index}`),
    );
    const principals = Array.from({ length: 10_000 }, (_, index) => user(`u${index}`));
    let most = 0;
    for (let round = 0; round < 6; round += 1) {
      for (const [index, principal] of principals.entries()) {
        const endpoint = endpoints[(index * 7 + round) % 1_000];
        if (endpoint) limits.meterOf(call(principal), endpoint)?.tryReserve(spend(1))?.settle(spend(1));
      }
      most = Math.max(most, limits.readings().length);
      await clock.pass(61_000);
    }
    expect(most).toBeLessThan(25_000);
  });

  it('that were forgotten still count for who kept the meter', async () => {
    const { limits, clock } = await openWorld();
    const endpoint = endpointWith({ rateLimits: [{ key: 'endpoint', calls: 2, renewalPeriod: 'minute' }] });
    const kept = limits.meterOf(call(user('kept'), 'sql'), endpoint);
    kept?.tryReserve(spend(1))?.settle(spend(1));
    await clock.pass(61_000);
    const crowd = endpointWith({ rateLimits: [{ key: 'user', calls: 2, renewalPeriod: 'minute' }] }, 'crowd');
    for (let index = 0; index < 5_000; index += 1) {
      limits
        .meterOf(call(user(`u${index}`)), crowd)
        ?.tryReserve(spend(1))
        ?.settle(spend(1));
    }
    kept?.tryReserve(spend(1));
    limits.meterOf(call(user('new')), endpoint)?.tryReserve(spend(1));
    expect(() => limits.meterOf(call(user('new')), endpoint)?.tryReserve(spend(1))).toThrow(ServingError);
    expect(kept?.tryReserve(spend(1))).toBeUndefined();
  });
});
