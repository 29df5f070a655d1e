import { describe, expect, it } from 'vitest';
import { createCall } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import { CallRun } from '#serving/call-run.ts';
import { DEFAULT_RETRY } from '#serving/retry.ts';
import { TargetQueue } from '#serving/target-queue.ts';
import { numbered } from './queue-support.ts';
import {
  answerText,
  bench,
  chats,
  contents,
  deferred,
  ManualClock,
  ScriptedEngine,
  settle,
  targetOf,
} from './support.ts';

const http = { origin: 'http' as const, cache: 'off' as const };

/** 100 ms a request, four at once: 40 requests a second. */
const steady = (clock: ManualClock) =>
  new ScriptedEngine(
    async (batch, ask) => {
      await clock.sleep(100, batch.signal);
      return answerText(batch, ask);
    },
    { maxConcurrency: 4 },
  );

describe('a crowd of callers at one target', () => {
  it('of three times its capacity is answered as far as it goes; the others are refused at once, and nobody late', async () => {
    const clock = new ManualClock();
    const engine = steady(clock);
    const { serving, usage, resolver, call } = bench([engine], { clock });
    resolver.govern('m', { timeoutMs: 2000 });
    const took: { code: string; ms: number; retryAfterMs: number | undefined }[] = [];
    const seconds = 15;
    for (let tick = 0; tick < seconds * 10; tick++) {
      for (let at = 0; at < 12; at++) {
        const startedAtMs = clock.now();
        const note = (error?: ServingError) =>
          took.push({
            code: error?.code ?? 'ok',
            ms: clock.now() - startedAtMs,
            retryAfterMs: error?.retryAfterMs,
          });
        void serving.invoke(call(chats(`${tick} ${at}`), http)).then(
          ({ items: [item] }) => note(item?.ok === false ? item.error : undefined),
          (error: ServingError) => note(error),
        );
      }
      await clock.advance(100);
    }
    await clock.advance(5000);
    const of = (code: string) => took.filter((each) => each.code === code);
    expect(took).toHaveLength(seconds * 120);
    // All that the target could do it has done, and for callers who were still there.
    expect(of('ok').length).toBeGreaterThan(seconds * 40 * 0.95);
    expect(of('TIMEOUT').length).toBeLessThan(seconds * 40 * 0.02);
    expect(of('ok').length + of('OVERLOADED').length + of('TIMEOUT').length).toBe(took.length);
    for (const { ms, retryAfterMs } of of('OVERLOADED')) {
      expect(ms).toBe(0);
      expect(retryAfterMs).toBeGreaterThan(0);
      expect(retryAfterMs).toBeLessThanOrEqual(2000);
    }
    expect(Math.max(...of('ok').map(({ ms }) => ms))).toBeLessThanOrEqual(2000);
    expect(usage.sum('attempts')).toBe(engine.batches.length);
    expect(usage.sum('inputCount')).toBe(took.length);
  });

  it('is answered again, after the target has become so slow that nobody was answered in time', async () => {
    const clock = new ManualClock();
    let ms = 100;
    const engine = new ScriptedEngine(
      async (batch, ask) => {
        await clock.sleep(ms, batch.signal);
        return answerText(batch, ask);
      },
      { maxConcurrency: 4 },
    );
    const { serving, resolver, call } = bench([engine], { clock });
    resolver.govern('m', { timeoutMs: 2000 });
    let answered = 0;
    const rush = async (ticks: number) => {
      for (let tick = 0; tick < ticks; tick++) {
        for (let at = 0; at < 12; at++) {
          void serving.invoke(call(chats(`${clock.now()} ${at}`), http)).then(
            ({ items: [item] }) => {
              if (item?.ok) answered++;
            },
            () => {},
          );
        }
        await clock.advance(100);
      }
    };
    await rush(30);
    // A tenth of the capacity: four a second. What was let in before cannot be answered any more.
    ms = 1000;
    await rush(60);
    answered = 0;
    await rush(100);
    expect(answered).toBeGreaterThan(4 * 10 * 0.8);
  });

  it('counts inputs that travel together as one: a table of rows is no crowd', async () => {
    const gate = deferred();
    const engine = new ScriptedEngine(
      async (batch, ask) => {
        await gate.promise;
        return answerText(batch, ask);
      },
      { maxInputs: 50, maxConcurrency: 1 },
    );
    const { serving, call } = bench([engine], { retry: { maxQueue: 3 } });
    const texts = numbered(250);
    const inside = [];
    for (let at = 0; at < 200; at += 50) {
      inside.push(serving.invoke(call(chats(...texts.slice(at, at + 50)), http)));
      await settle();
    }
    const refused = await serving.invoke(call(chats(...texts.slice(200)), http));
    expect(refused.items[0]).toMatchObject({
      ok: false,
      error: { code: 'OVERLOADED', message: expect.stringContaining('has 3 requests waiting') },
    });
    gate.resolve();
    for (const each of inside) expect((await each).items.every(({ ok }) => ok)).toBe(true);
  });

  it('is bounded in number, streams with it; the rows of a statement wait without a bound', async () => {
    const gate = deferred();
    const engine = new ScriptedEngine(
      async (batch, ask) => {
        await gate.promise;
        return answerText(batch, ask);
      },
      { maxConcurrency: 1 },
    );
    const { serving, call } = bench([engine], { retry: { maxQueue: 3 } });
    const rows = serving.invoke(call(chats(...numbered(100)), { origin: 'sql' }));
    await settle();
    const inside = ['a', 'b'].map((text) => serving.invoke(call(chats(text), http)));
    const stream = serving.stream(call(chats('c'), http));
    await settle();
    const refused = await serving.invoke(call(chats('d'), http));
    expect(refused.items[0]).toMatchObject({
      ok: false,
      error: {
        code: 'OVERLOADED',
        retryAfterMs: 100,
        message: expect.stringContaining('has 3 requests waiting'),
      },
    });
    await expect(serving.stream(call(chats('e'), http))).rejects.toMatchObject({ code: 'OVERLOADED' });
    gate.resolve();
    // The place of a stream is free when it has been read.
    for await (const _ of (await stream).events);
    for (const each of inside) expect((await each).items[0]).toMatchObject({ ok: true });
    expect((await rows).items.every(({ ok }) => ok)).toBe(true);
  });

  it('that gives up waiting makes room at once', async () => {
    const engine = new ScriptedEngine(() => new Promise(() => {}), { maxConcurrency: 1 });
    const { serving, call } = bench([engine], { retry: { maxQueue: 2 } });
    void serving.invoke(call(chats('in flight'), http));
    await settle();
    for (let round = 0; round < 300; round++) {
      const controller = new AbortController();
      const options = { ...http, signal: controller.signal };
      const both = [serving.invoke(call(chats('a'), options)), serving.stream(call(chats('b'), options))];
      await settle();
      expect(serving.queueDepths()[0]).toMatchObject({ waiting: 2 });
      controller.abort();
      for (const each of both) await expect(each).rejects.toMatchObject({ code: 'CANCELLED' });
    }
    expect(serving.queueDepths()[0]).toMatchObject({ waiting: 0, inFlight: 1 });
  });

  it('goes to a fallback where there is one', async () => {
    const engine = new ScriptedEngine(() => new Promise(() => {}), { maxConcurrency: 1 });
    const spare = new ScriptedEngine(answerText, {}, 'echo');
    const { serving, resolver, call } = bench([engine, spare], { retry: { maxQueue: 1 } });
    resolver.set(targetOf('m'), targetOf('m', { engine: 'echo', servedEntity: 'spare', fingerprint: 's' }));
    resolver.govern('m', { fallback: { enabled: true } });
    void serving.invoke(call(chats('in flight'), http));
    await settle();
    void serving.invoke(call(chats('waiting'), http));
    await settle();
    expect(contents((await serving.invoke(call(chats('next'), http))).items)).toEqual(['next!']);
  });

  it('does not keep a large call out of an empty queue', async () => {
    const { serving, call } = bench([new ScriptedEngine()], { retry: { maxQueue: 3 } });
    const answer = await serving.invoke(call(chats(...numbered(50)), http));
    expect(answer.items.every(({ ok }) => ok)).toBe(true);
  });
});

describe('a provider that asks for a pause', () => {
  it('longer than a caller may wait is passed on to the caller at once', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine(() => {
      throw new ServingError('RATE_LIMITED', 'Busy.', { retryAfterMs: 60_000 });
    });
    const { serving, call } = bench([engine], { clock });
    const first = serving.invoke(call(chats('a'), http));
    await settle();
    const second = await serving.invoke(call(chats('b'), http));
    expect(second.items[0]).toMatchObject({ ok: false, error: { code: 'RATE_LIMITED' } });
    expect(engine.batches).toHaveLength(1);
    expect(DEFAULT_RETRY.maxQueueMs).toBeLessThan(60_000);
    first.catch(() => {});
    await serving.close();
  });
});

describe('a place without waiting', () => {
  async function queueOf(clock: ManualClock, limits = { maxConcurrency: 2 }) {
    const runner = await new ScriptedEngine(answerText, limits).open(targetOf('m'));
    const sink = { answered() {}, failed() {}, ended() {} };
    return new TargetQueue({
      ...{ target: targetOf('m'), runner, policy: DEFAULT_RETRY, clock, log: SILENT_LOG, sink },
    });
  }
  const runOf = () => new CallRun(createCall('m', 'llm/v1/chat', chats('a')), 0);

  it('is given while there is one that nobody waits for, and comes back once', async () => {
    const queue = await queueOf(new ManualClock());
    const [first, second] = [queue.tryAcquire(), queue.tryAcquire()];
    expect(queue.tryAcquire()).toBeUndefined();
    first?.();
    first?.();
    expect(queue.depth).toMatchObject({ inFlight: 1 });
    const third = queue.tryAcquire();
    expect(third).toBeDefined();
    const waiting = queue.acquire(runOf(), false);
    second?.();
    // Whoever came first is served first.
    expect(queue.tryAcquire()).toBeUndefined();
    await settle();
    (await waiting)();
    third?.();
    expect(queue.depth).toMatchObject({ inFlight: 0, waiting: 0 });
  });

  it('is not given while the provider wants a pause or only fails', async () => {
    const clock = new ManualClock();
    const queue = await queueOf(clock);
    queue.tryAcquire()?.(new ServingError('RATE_LIMITED', 'Busy.', { retryAfterMs: 1000 }));
    expect(queue.tryAcquire()).toBeUndefined();
    await clock.advance(2000);
    for (let time = 0; time < DEFAULT_RETRY.sickAfterFailures; time++) {
      queue.tryAcquire()?.(new ServingError('UPSTREAM_ERROR', 'Broken.'));
    }
    expect(queue.tryAcquire()).toBeUndefined();
  });

  it('teaches the queue how long requests take, and how long a crowd would wait', async () => {
    const clock = new ManualClock();
    const queue = await queueOf(clock);
    const release = queue.tryAcquire();
    await clock.advance(300);
    release?.();
    expect(queue.speed.requestMs).toBe(300);
    expect(queue.speed.waitMs(20, 2, 1)).toBe(3000);
  });
});
