import { describe, expect, it } from 'vitest';
import { fail, invokeOn, numbered } from './queue-support.ts';
import {
  answerText,
  bench,
  CountingMeter,
  chats,
  contents,
  ManualClock,
  meterOf,
  ScriptedEngine,
  settle,
  targetOf,
} from './support.ts';

const http = { origin: 'http' as const };
const hanging = () =>
  new ScriptedEngine(
    ({ signal }) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason));
      }),
    { maxConcurrency: 1 },
  );

describe('the deadline of a call', () => {
  it('ends it wherever it is, asked or still in the queue, and sends nothing for it any more', async () => {
    const clock = new ManualClock();
    const engine = hanging();
    const { serving, usage, resolver, call } = bench([engine], { clock });
    resolver.govern('m', { timeoutMs: 2000 });
    const asked = serving.invoke(call(chats('asked'), http));
    const sooner = { ...http, deadlineMs: clock.now() + 1999 };
    const queued = serving.invoke(call(chats('queued'), sooner));
    const streamed = serving.stream(call(chats('streamed'), sooner));
    for (const each of [asked, queued, streamed]) each.catch(() => {});
    await clock.advance(1998);
    expect(serving.queueDepths()[0]).toMatchObject({ inFlight: 1, waiting: 2 });
    await clock.advance(2);
    await expect(asked).rejects.toMatchObject({
      code: 'TIMEOUT',
      message:
        "Endpoint 'm' gave no answer within 2 seconds: 'm-1' was asked once (no answer yet). Raise the deadline of the call or the timeout of the endpoint, or ask less at once.",
    });
    await expect(queued).rejects.toThrow('nothing was sent, it waited for its turn');
    await expect(streamed).rejects.toMatchObject({ code: 'TIMEOUT' });
    await settle();
    expect(serving.queueDepths()[0]).toMatchObject({ inFlight: 0, waiting: 0 });
    expect(usage.rows.map(({ statusCode }) => statusCode)).toEqual([504, 504, 504, 504]);
    expect([usage.sum('inputCount'), usage.sum('attempts')]).toEqual([3, 1]);
  });

  it('holds while a model loads that never comes', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine();
    engine.open = () => new Promise(() => {});
    const { serving, call } = bench([engine], { clock });
    const options = { ...http, deadlineMs: clock.now() + 500 };
    const both = [serving.invoke(call(chats('a'), options)), serving.stream(call(chats('b'), options))];
    for (const each of both) each.catch(() => {});
    await clock.advance(500);
    for (const each of both) await expect(each).rejects.toMatchObject({ code: 'TIMEOUT' });
  });

  it('is one for all tries and fallbacks, and says what was tried', async () => {
    const clock = new ManualClock();
    const primary = new ScriptedEngine(async () => {
      await clock.sleep(800);
      return fail('UPSTREAM_ERROR');
    });
    const spare = new ScriptedEngine(
      async () => {
        await clock.sleep(700);
        return fail('TIMEOUT');
      },
      {},
      'echo',
    );
    const { serving, resolver, call } = bench([primary, spare], { clock });
    resolver.set(targetOf('m'), targetOf('m', { engine: 'echo', servedEntity: 'spare', fingerprint: 's' }));
    resolver.govern('m', { fallback: { enabled: true }, timeoutMs: 3000 });
    const pending = serving.invoke(call(chats('a'), http));
    pending.catch(() => {});
    await clock.advance(3000);
    await expect(pending).rejects.toThrow(
      /^Endpoint 'm' gave no answer within 3 seconds: 'm-1' was asked once \(last: UPSTREAM_ERROR\), 'spare' was asked [23] times \(last: TIMEOUT\)\./,
    );
  });

  it('is not slept past: where the next try would come too late, the last failure is given at once', async () => {
    for (const way of ['invoke', 'stream'] as const) {
      const clock = new ManualClock();
      const engine = new ScriptedEngine(() => fail('RATE_LIMITED', 20_000));
      const { serving, resolver, call } = bench([engine], { clock });
      resolver.govern('m', { timeoutMs: 10_000 });
      const pending = serving[way](call(chats('a'), http));
      const outcome = await pending.then(
        (given) => ('items' in given ? given.items[0] : undefined),
        (error) => ({ ok: false, error }),
      );
      expect(outcome).toMatchObject({ ok: false, error: { code: 'RATE_LIMITED', retryAfterMs: 20_000 } });
      expect(engine.batches).toHaveLength(1);
      expect(clock.sleeping).toBeLessThanOrEqual(1);
    }
  });

  it('is 297 seconds for a caller on a connection, and none for the rows of a statement', async () => {
    const clock = new ManualClock();
    const { serving, resolver, call } = bench([hanging()], { clock });
    const waiting = serving.invoke(call(chats('a'), http));
    waiting.catch(() => {});
    await clock.advance(296_999);
    expect(serving.queueDepths()[0]).toMatchObject({ inFlight: 1 });
    await clock.advance(1);
    await expect(waiting).rejects.toMatchObject({ code: 'TIMEOUT' });
    resolver.govern('m', { timeoutMs: 1000 });
    const controller = new AbortController();
    const rows = serving.invoke(call(chats('b'), { origin: 'sql', signal: controller.signal }));
    rows.catch(() => {});
    await clock.advance(3_600_000);
    expect(serving.queueDepths()[0]).toMatchObject({ inFlight: 1 });
    controller.abort();
    await expect(rows).rejects.toMatchObject({ code: 'CANCELLED' });
  });

  it('of the caller holds for every origin, and the earlier of two counts', async () => {
    const clock = new ManualClock();
    const { serving, resolver, call } = bench([hanging()], { clock });
    resolver.govern('m', { timeoutMs: 5000 });
    const deadlineMs = clock.now() + 300;
    for (const origin of ['sql', 'http'] as const) {
      const pending = serving.invoke(call(chats(origin), { origin, deadlineMs: clock.now() + 300 }));
      pending.catch(() => {});
      await clock.advance(300);
      await expect(pending).rejects.toThrow('within 0.3 seconds');
    }
    // Whoever waited elsewhere before has less time left.
    const waited = serving.invoke(call(chats('waited'), { ...http, startedAtMs: clock.now() - 4999 }));
    waited.catch(() => {});
    await clock.advance(1);
    await expect(waited).rejects.toThrow('within 5 seconds');
    await expect(serving.invoke(call(chats('late'), { deadlineMs }))).rejects.toMatchObject({
      code: 'TIMEOUT',
    });
  });

  it('does not end a question that another call still waits for', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine(async (batch, ask) => {
      await clock.sleep(1000);
      return answerText(batch, ask);
    });
    const { serving, call } = bench([engine], { clock });
    const short = serving.invoke(call(chats('a'), { ...http, deadlineMs: clock.now() + 500 }));
    short.catch(() => {});
    const long = serving.invoke(call(chats('a'), http));
    await clock.advance(1000);
    await expect(short).rejects.toMatchObject({ code: 'TIMEOUT' });
    expect(contents((await long).items)).toEqual(['a!']);
    expect(engine.batches).toHaveLength(1);
  });

  it('is over with the first event of a stream, however long the rest takes', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine();
    engine.stream = async function* () {
      yield { type: 'delta', text: 'a' };
      await clock.sleep(10_000);
      yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 1, outputTokens: 1 } };
    };
    const { serving, usage, resolver, call } = bench([engine], { clock });
    resolver.govern('m', { timeoutMs: 1000 });
    const { events } = await serving.stream(call(chats('a'), http));
    const rest = (async () => {
      let count = 0;
      for await (const _ of events) count++;
      return count;
    })();
    await clock.advance(10_000);
    expect(await rest).toBe(2);
    expect(usage.rows).toMatchObject([{ statusCode: 200, durationMs: 10_000, timeToFirstByteMs: 0 }]);
    expect(clock.sleeping).toBe(0);
  });

  it('leaves no timer and no reservation behind', async () => {
    const clock = new ManualClock();
    const meter = new CountingMeter({});
    const made = bench([new ScriptedEngine()], { clock, meters: meterOf(meter) });
    await invokeOn(clock, made, made.call(chats(...numbered(20)), http));
    await settle();
    expect([clock.sleeping, meter.open]).toEqual([0, 0]);
  });
});
