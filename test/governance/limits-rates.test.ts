import { describe, expect, it } from 'vitest';
import type { RateLimit } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import {
  call,
  endpointWith,
  openWorld,
  refusal,
  servicePrincipal,
  settled,
  spend,
  user,
} from './limits-support.ts';

const rate = (more: Partial<RateLimit>): RateLimit => ({ key: 'endpoint', renewalPeriod: 'minute', ...more });
const alice = user('alice');
const bob = user('bob');

describe('a rate limit over HTTP', () => {
  it('refuses at once what is over it, with the limit, what is used and when to come back', async () => {
    const { limits, clock } = await openWorld();
    const endpoint = endpointWith({ rateLimits: [rate({ key: 'user', calls: 2 })] });
    const meter = limits.meterOf(call(alice), endpoint);
    meter?.tryReserve(spend(1))?.settle(spend(1));
    await clock.pass(10_000);
    meter?.tryReserve(spend(1))?.settle(spend(1));
    const error = await refusal(() => meter?.reserve(spend(1)));
    expect(error.code).toBe('RATE_LIMIT_EXCEEDED');
    expect(error.retryAfterMs).toBe(50_100);
    expect(error.details).toEqual({
      limit_type: 'calls_per_minute',
      limit: 2,
      current: 2,
      retry_after: 51,
      endpoint: 'llm',
      key: 'user',
      principal: 'alice',
    });
    expect(error.message).toBe(
      "Rate limit exceeded: 2 calls per minute for user 'alice' at endpoint 'llm'; 2 are used. Try again in 51 seconds.",
    );
    await clock.pass(50_100);
    expect(meter?.tryReserve(spend(1))).toBeDefined();
  });

  it('counts users by themselves, groups together, and an endpoint for everybody', async () => {
    const { limits } = await openWorld();
    const admits = async (rules: RateLimit[], callers = [alice, bob]) => {
      const endpoint = endpointWith({ rateLimits: rules }, `e${JSON.stringify(rules)}`);
      const counts = callers.map((principal) => {
        let count = 0;
        const meter = limits.meterOf(call(principal), endpoint);
        if (meter === undefined) return 'unlimited';
        try {
          for (; count < 50; count += 1) meter.tryReserve(spend(1));
        } catch (error) {
          expect(error).toBeInstanceOf(ServingError);
        }
        return count;
      });
      return counts;
    };
    expect(await admits([rate({ calls: 3 })])).toEqual([3, 0]);
    expect(await admits([rate({ key: 'user', calls: 3 })])).toEqual([3, 3]);
    expect(await admits([rate({ key: 'user', principal: 'alice', calls: 3 })])).toEqual([3, 'unlimited']);
    const ann = user('ann', 'a');
    const abe = user('abe', 'a', 'b');
    const groups = [
      rate({ key: 'user_group', principal: 'a', calls: 3 }),
      rate({ key: 'user_group', principal: 'b', calls: 7 }),
    ];
    expect(await admits(groups, [ann, user('al', 'a'), abe, user('bo', 'b')])).toEqual([3, 0, 7, 0]);
    const own = [
      ...groups,
      rate({ key: 'user', principal: 'abe', calls: 1 }),
      rate({ key: 'user', calls: 2 }),
    ];
    expect(await admits(own, [abe, ann, bob])).toEqual([1, 3, 2]);
    expect(await admits([rate({ key: 'user', calls: 2 })], [servicePrincipal('job')])).toEqual([2]);
    const robots = [rate({ key: 'user', calls: 2 }), rate({ key: 'service_principal', calls: 5 })];
    expect(await admits(robots, [servicePrincipal('job'), alice])).toEqual([5, 2]);
    expect(await admits([rate({ key: 'service_principal', principal: 'alice', calls: 2 })])).toEqual([
      'unlimited',
      'unlimited',
    ]);
    expect(await admits([rate({ calls: 4 }), rate({ key: 'user', calls: 3 })])).toEqual([3, 1]);
    expect(await admits([rate({ calls: 0 })])).toEqual([0, 0]);
  });

  it('charges nothing where one of several limits refuses', async () => {
    const { limits } = await openWorld();
    const endpoint = endpointWith({ rateLimits: [rate({ calls: 5 }), rate({ key: 'user', calls: 2 })] });
    const ofAlice = limits.meterOf(call(alice), endpoint);
    ofAlice?.tryReserve(spend(1));
    ofAlice?.tryReserve(spend(1));
    for (let index = 0; index < 9; index += 1) await refusal(() => ofAlice?.tryReserve(spend(1)));
    const used = limits.readings().find(({ key }) => key === 'endpoint');
    expect(used?.current).toBe(2);
  });

  it('gives back the call that was never sent', async () => {
    const { limits } = await openWorld();
    const meter = limits.meterOf(call(alice), endpointWith({ rateLimits: [rate({ calls: 1 })] }));
    meter?.tryReserve(spend(1))?.settle(spend(0));
    meter?.tryReserve(spend(1))?.settle(spend(1));
    await refusal(() => meter?.tryReserve(spend(1)));
  });

  it('goes on with what is used when the limit is changed, also for who asks already', async () => {
    const { limits } = await openWorld();
    const before = limits.meterOf(call(alice), endpointWith({ rateLimits: [rate({ calls: 2 })] }));
    before?.tryReserve(spend(1));
    before?.tryReserve(spend(1));
    const after = limits.meterOf(call(alice), endpointWith({ rateLimits: [rate({ calls: 3 })] }));
    expect(after).not.toBe(before);
    expect(before?.tryReserve(spend(1))).toBeDefined();
    await refusal(() => after?.tryReserve(spend(1)));
  });

  it('is the same meter for the same caller until a limit or a group changes', async () => {
    const { limits } = await openWorld();
    const endpoint = endpointWith({ rateLimits: [rate({ key: 'user', calls: 2 })] });
    const meter = limits.meterOf(call(alice), endpoint);
    expect(limits.meterOf(call({ ...alice }), endpoint)).toBe(meter);
    expect(limits.meterOf(call(alice, 'sql'), endpoint)).not.toBe(meter);
    expect(limits.meterOf(call(alice, 'cli'), endpoint)).toBe(limits.meterOf(call(alice, 'sql'), endpoint));
    expect(limits.meterOf(call({ ...alice, groups: ['new'] }), endpoint)).not.toBe(meter);
    expect(limits.meterOf(call(alice), endpointWith(undefined, 'other'))).toBeUndefined();
  });

  it('holds when the clock is set back, and goes on afterwards', async () => {
    const { limits, clock } = await openWorld();
    const meter = limits.meterOf(call(alice), endpointWith({ rateLimits: [rate({ calls: 1 })] }));
    meter?.tryReserve(spend(1));
    clock.set(clock.now() - 3_600_000);
    expect((await refusal(() => meter?.tryReserve(spend(1)))).retryAfterMs).toBe(60_100);
    await clock.pass(60_100);
    expect(meter?.tryReserve(spend(1))).toBeDefined();
  });
});

describe('a limit on tokens', () => {
  it('holds back what may be used, and counts what was used', async () => {
    const { limits } = await openWorld();
    const meter = limits.meterOf(call(alice), endpointWith({ rateLimits: [rate({ tokens: 1_000 })] }));
    const first = meter?.tryReserve(spend(1, 800));
    await refusal(() => meter?.tryReserve(spend(1, 800)));
    first?.settle(spend(1, 100));
    expect(limits.readings()[0]).toMatchObject({ current: 100, limit: 1_000 });
  });

  it('learns how much of what is asked is used, so that small answers are not counted as large ones', async () => {
    const { limits } = await openWorld();
    const meter = limits.meterOf(call(alice), endpointWith({ rateLimits: [rate({ tokens: 1_000 })] }));
    meter?.tryReserve(spend(1, 1_000))?.settle(spend(1, 20));
    const inFlight = Array.from({ length: 10 }, () => meter?.tryReserve(spend(1, 1_000)));
    expect(inFlight.every((reservation) => reservation !== undefined)).toBe(true);
  });

  it('lets the minutes that follow pay for what was used beyond it', async () => {
    const { limits, clock } = await openWorld();
    const meter = limits.meterOf(call(alice), endpointWith({ rateLimits: [rate({ tokens: 100 })] }));
    meter?.tryReserve(spend(1, 50))?.settle(spend(1, 250));
    const error = await refusal(() => meter?.tryReserve(spend(1, 10)));
    expect(error.details.current).toBe(250);
    const waitMs = error.retryAfterMs ?? 0;
    expect(waitMs).toBeGreaterThan(120_000);
    expect(waitMs).toBeLessThanOrEqual(180_300);
    await clock.pass(120_000);
    await refusal(() => meter?.tryReserve(spend(1, 10)));
    await clock.pass(61_000);
    expect(meter?.tryReserve(spend(1, 10))).toBeDefined();
  });

  it('admits a request that alone is over it when nothing else is used', async () => {
    const { limits } = await openWorld();
    const meter = limits.meterOf(call(alice), endpointWith({ rateLimits: [rate({ tokens: 100 })] }));
    const large = meter?.tryReserve(spend(1, 5_000));
    expect(large).toBeDefined();
    await refusal(() => meter?.tryReserve(spend(1, 5_000)));
    large?.settle(spend(1, 60));
    expect(limits.readings()[0]?.current).toBe(60);
    expect(meter?.limits).toEqual({});
  });
});

describe('rows of a statement', () => {
  it('wait for the turn of the minute in the order they asked, with one alarm and no looking again', async () => {
    const { limits, clock } = await openWorld();
    const meter = limits.meterOf(call(alice, 'sql'), endpointWith({ rateLimits: [rate({ calls: 2 })] }));
    const admitted: number[] = [];
    for (let row = 0; row < 6; row += 1) void meter?.reserve(spend(1)).then(() => admitted.push(row));
    await settled();
    expect(admitted).toEqual([0, 1]);
    expect(clock.sleepers).toBe(1);
    await clock.pass(60_000);
    expect(admitted).toEqual([0, 1]);
    await clock.pass(200);
    expect(admitted).toEqual([0, 1, 2, 3]);
    await clock.pass(60_200);
    expect(admitted).toEqual([0, 1, 2, 3, 4, 5]);
    expect(clock.sleepers).toBe(0);
  });

  it('count one by one where they travel together', async () => {
    const { limits, clock } = await openWorld();
    const meter = limits.meterOf(call(alice, 'sql'), endpointWith({ rateLimits: [rate({ calls: 10 })] }));
    expect(meter?.tryReserve(spend(8))).toBeDefined();
    expect(meter?.tryReserve(spend(8))).toBeUndefined();
    // More than the limit in one request: alone, and paid for by the minutes after it.
    let isAdmitted = false;
    void meter?.reserve(spend(25)).then(() => (isAdmitted = true));
    await clock.pass(60_200);
    expect(isAdmitted).toBe(true);
    await clock.pass(120_000);
    expect(meter?.tryReserve(spend(6))).toBeUndefined();
    await clock.pass(61_000);
    expect(meter?.tryReserve(spend(6))).toBeDefined();
  });

  it('stop waiting when the statement is cancelled, and let those behind them go on', async () => {
    const { limits, clock } = await openWorld();
    const endpoint = endpointWith({ rateLimits: [rate({ tokens: 100 })] });
    const meter = limits.meterOf(call(alice, 'sql'), endpoint);
    meter?.tryReserve(spend(1, 60));
    const abort = new AbortController();
    const large = refusal(() => meter?.reserve(spend(1, 90), abort.signal));
    const small = meter?.reserve(spend(1, 10));
    abort.abort();
    expect((await large).code).toBe('CANCELLED');
    expect(await small).toBeDefined();
    expect(clock.sleepers).toBe(0);
    const aborted = await refusal(() => meter?.reserve(spend(1, 90), abort.signal));
    expect(aborted.code).toBe('CANCELLED');
  });

  it('of one who has used up their own limit hold up nobody else', async () => {
    const { limits } = await openWorld();
    const endpoint = endpointWith({ rateLimits: [rate({ key: 'user', calls: 1 }), rate({ calls: 100 })] });
    const ofAlice = limits.meterOf(call(alice, 'sql'), endpoint);
    for (let row = 0; row < 5; row += 1) void ofAlice?.reserve(spend(1));
    await settled();
    expect(limits.meterOf(call(bob, 'sql'), endpoint)?.tryReserve(spend(1))).toBeDefined();
  });

  it('of one who waits for both their own limit and a shared one leave the shared one to others', async () => {
    const { limits, clock } = await openWorld();
    const endpoint = endpointWith({ rateLimits: [rate({ key: 'user', calls: 1 }), rate({ calls: 6 })] });
    let admitted = 0;
    for (let index = 0; index < 40; index += 1) {
      const name = index < 20 ? 'alice' : `u${index}`;
      void limits
        .meterOf(call(user(name), 'sql'), endpoint)
        ?.reserve(spend(1))
        .then(() => (admitted += 1));
      await clock.pass(100);
    }
    await clock.pass(4 * 60_300);
    // All of the shared limit is used in each of five minutes, though rows of alice come first and can hardly run.
    expect(admitted).toBeGreaterThanOrEqual(25);
  });

  it('take turns with callers over HTTP who come just when there is room', async () => {
    const { limits, clock } = await openWorld();
    const endpoint = endpointWith({ rateLimits: [rate({ calls: 4 })] });
    const rows = limits.meterOf(call(alice, 'sql'), endpoint);
    const http = limits.meterOf(call(bob), endpoint);
    let admittedRows = 0;
    let admittedHttp = 0;
    for (let row = 0; row < 40; row += 1) void rows?.reserve(spend(1)).then(() => (admittedRows += 1));
    await settled();
    for (let minute = 1; minute <= 5; minute += 1) {
      // The alarm of the rows is late each time.
      clock.set(clock.now() + 60_200);
      for (let index = 0; index < 10; index += 1) {
        try {
          if (http?.tryReserve(spend(1))) admittedHttp += 1;
        } catch {}
      }
      await settled();
    }
    expect(admittedRows + admittedHttp).toBe(24);
    expect(admittedHttp).toBeGreaterThanOrEqual(5);
    expect(admittedRows).toBeGreaterThanOrEqual(14);
  });

  it('are not starved by others when two busy limits are never free at the same moment', async () => {
    const { limits, clock } = await openWorld();
    const a = endpointWith({ rateLimits: [rate({ calls: 1 })] }, 'a');
    await limits.setRules({
      rate_limits: [{ key: 'user_group', principal: 'g', calls: 1, renewal_period: 'minute' }],
    });
    const outside = limits.meterOf(call(bob, 'sql'), a);
    const inside = limits.meterOf(call(user('other', 'g'), 'sql'), endpointWith(undefined, 'c'));
    const both = limits.meterOf(call(user('member', 'g'), 'sql'), a);
    // Others elsewhere keep the line moving at other times.
    const elsewhere = endpointWith({ rateLimits: [rate({ calls: 20 })] }, 'elsewhere');
    for (let index = 0; index < 100; index += 1) {
      void limits.meterOf(call(bob, 'sql'), elsewhere)?.reserve(spend(1));
      await clock.pass(50);
    }
    outside?.tryReserve(spend(1));
    await clock.pass(30_000);
    inside?.tryReserve(spend(1));
    let waitedMs = -1;
    const startedMs = clock.now();
    void both?.reserve(spend(1)).then(() => (waitedMs = clock.now() - startedMs));
    for (let index = 0; index < 20; index += 1) {
      void outside?.reserve(spend(1));
      void inside?.reserve(spend(1));
    }
    await clock.pass(20 * 60_000);
    expect(waitedMs).toBeGreaterThan(0);
    expect(waitedMs).toBeLessThan(91_000);
  });

  it('end with the server', async () => {
    const { limits } = await openWorld();
    const meter = limits.meterOf(call(alice, 'sql'), endpointWith({ rateLimits: [rate({ calls: 1 })] }));
    await meter?.reserve(spend(1));
    const waiting = refusal(() => meter?.reserve(spend(1)));
    limits.close();
    expect((await waiting).code).toBe('CANCELLED');
    expect((await refusal(() => meter?.reserve(spend(1)))).code).toBe('CANCELLED');
  });
});
