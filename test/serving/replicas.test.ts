import { describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import type { ModelVersion, Scaling, Target } from '#core/endpoint.ts';
import { type ErrorCode, ServingError } from '#core/errors.ts';
import type { Batch, BatchAnswer, Engine, Runner, RunnerLimits } from '#engines/engine.ts';
import { planOf, widestPlan } from '#serving/replicas-plan.ts';
import { invokeOn, numbered } from './queue-support.ts';
import {
  answerText,
  bench,
  chats,
  contents,
  DEFAULT_LIMITS,
  deferred,
  ManualClock,
  settle,
  targetOf,
  textOf,
} from './support.ts';

const VERSION: ModelVersion = {
  model: 'own',
  version: '1',
  engine: 'echo',
  task: 'llm/v1/chat',
  source: '/nowhere',
  sha256: 'aa',
  sizeBytes: 1,
  options: {},
  createdAtMs: 0,
};
const own = (scaling: Scaling, options: Partial<Target> = {}): Target =>
  targetOf('m', { engine: 'echo', model: 'own@1', modelVersion: VERSION, scaling, ...options });
const http = { origin: 'http' as const, cache: 'off' as const };
const rows = { origin: 'sql' as const, cache: 'off' as const };

interface Copy {
  readonly id: number;
  asked: number;
  inFlight: number;
  isClosed: boolean;
  readonly lose: (error?: ServingError) => void;
}

/** Copies take as long to open, and requests as long to answer, as it is told; each copy can be lost. */
class CopiedEngine implements Engine {
  readonly kind = 'echo' as const;
  readonly copies: Copy[] = [];
  startMs = 0;
  answerMs = 100;
  openError: (() => ServingError) | undefined;
  opening = 0;
  readonly #clock: ManualClock;
  readonly #limits: RunnerLimits;

  constructor(clock: ManualClock, limits: Partial<RunnerLimits> = {}) {
    this.#clock = clock;
    this.#limits = { ...DEFAULT_LIMITS, maxConcurrency: 1, ...limits };
  }

  get opened(): Copy[] {
    return this.copies.filter(({ isClosed }) => !isClosed);
  }

  async open(): Promise<Runner> {
    this.opening++;
    if (this.startMs > 0) await this.#clock.sleep(this.startMs);
    this.opening--;
    if (this.openError) throw this.openError();
    const lost = deferred<ServingError>();
    const gone = new AbortController();
    const copy: Copy = {
      id: this.copies.length,
      asked: 0,
      inFlight: 0,
      isClosed: false,
      lose: (error = new ServingError('UPSTREAM_ERROR', 'The worker was killed.')) => {
        lost.resolve(error);
        gone.abort(error);
      },
    };
    this.copies.push(copy);
    return {
      limits: this.#limits,
      countTokens: (input) => textOf(input).length,
      invoke: (batch) => this.#answer(copy, gone.signal, batch),
      lost: lost.promise,
      close: async () => {
        copy.isClosed = true;
      },
    };
  }

  async #answer(copy: Copy, gone: AbortSignal, batch: Batch): Promise<BatchAnswer> {
    copy.asked++;
    copy.inFlight++;
    try {
      if (copy.isClosed) throw new ServingError('INTERNAL', 'Asked after it was closed.');
      if (gone.aborted) throw gone.reason;
      await this.#clock.sleep(this.answerMs, AbortSignal.any([batch.signal, gone]));
      return answerText(batch, 0);
    } finally {
      copy.inFlight--;
    }
  }
}

function open(scaling: Scaling, limits: Partial<RunnerLimits> = {}, options: Partial<Target> = {}) {
  const clock = new ManualClock();
  const engine = new CopiedEngine(clock, limits);
  const all = bench([engine], { clock, target: own(scaling, options) });
  const state = () => all.serving.replicasOf('m', 'm-1');
  const ask = (text: string, endpoint?: string) =>
    invokeOn(clock, all, all.call(chats(text), http, endpoint));
  return { clock, engine, state, ask, ...all };
}

const codesOf = (settled: readonly PromiseSettledResult<unknown>[]): ErrorCode[] =>
  settled.flatMap((each) => (each.status === 'rejected' ? [(each.reason as ServingError).code] : []));

describe('replicas of a registered model', () => {
  it('are opened while inputs wait and closed when idle, down to the least', async () => {
    const { clock, engine, state, serving, call } = open({ maxReplicas: 3, idleSeconds: 60 });
    const pending = serving.invoke(call(chats(...numbered(200)), rows));
    await clock.advance(1_000);
    expect(engine.opened).toHaveLength(3);
    expect(state()).toMatchObject({ ready: 3, starting: 0, minReplicas: 1, maxReplicas: 3, inFlight: 3 });
    await clock.advance(30_000);
    expect((await pending).items.every(({ ok }) => ok)).toBe(true);
    await clock.advance(30_000);
    expect(engine.opened).toHaveLength(3);
    await clock.advance(60_000);
    expect(engine.opened).toHaveLength(1);
    expect(state()).toMatchObject({ ready: 1, opened: 3, coldStarts: 1, lost: 0 });
  });

  it('are not more than one for inputs that wait no longer than for the request before them', async () => {
    const { clock, engine, serving, call } = open({ maxReplicas: 8 }, { maxInputs: 64 });
    engine.answerMs = 20;
    const one = async (at: number) => {
      for (let turn = 0; turn < 20; turn++) await serving.invoke(call(chats(`${at} ${turn}`), http));
    };
    const early = numbered(16).map((_, at) => one(at));
    // From here on some always wait, but each only for the request of the others.
    await clock.advance(10);
    const late = numbered(16).map((_, at) => one(at + 16));
    await clock.advance(5_000);
    await Promise.all([...early, ...late]);
    expect(engine.copies).toHaveLength(1);
  });

  it('share requests out evenly, and give each no more at once than its target concurrency', async () => {
    const { clock, engine, serving, call, ask } = open(
      { minReplicas: 3, maxReplicas: 3, targetConcurrency: 2 },
      { maxConcurrency: 10 },
    );
    await ask('first');
    expect(engine.opened).toHaveLength(3);
    const pending = serving.invoke(call(chats(...numbered(60)), rows));
    await settle();
    expect(engine.copies.map(({ inFlight }) => inFlight)).toEqual([2, 2, 2]);
    await clock.advance(2_000);
    await pending;
    expect(engine.copies.map(({ asked }) => asked)).toEqual([21, 20, 20]);
  });

  it('that go finish their requests first: a lower maximum cuts nothing', async () => {
    const { clock, engine, serving, call, resolver } = open({ minReplicas: 3, maxReplicas: 3 });
    const pending = serving.invoke(call(chats(...numbered(30)), rows));
    await clock.advance(150);
    expect(engine.copies.map(({ inFlight }) => inFlight)).toEqual([1, 1, 1]);
    resolver.set(own({ minReplicas: 1, maxReplicas: 1 }));
    await settle();
    expect(engine.opened).toHaveLength(3);
    await clock.advance(100);
    expect(engine.opened).toHaveLength(1);
    await clock.advance(5_000);
    expect((await pending).items.every(({ ok }) => ok)).toBe(true);
    expect(engine.copies).toHaveLength(3);
  });

  it('are shared by endpoints of the same model, as many as the greater wish', async () => {
    const { clock, engine, serving, resolver, ask } = open({ minReplicas: 1, maxReplicas: 1 });
    resolver.set({ ...own({ minReplicas: 2, maxReplicas: 4 }), endpoint: 'n', servedEntity: 'n-1' });
    await ask('a');
    expect(engine.opened).toHaveLength(1);
    await ask('b', 'n');
    expect(engine.opened).toHaveLength(2);
    expect(serving.replicasOf('m', 'm-1')).toMatchObject({ ready: 2, maxReplicas: 4 });
    resolver.delete('n');
    await clock.advance(1_900_000);
    expect(engine.opened).toHaveLength(1);
  });

  it('are never fewer or more than allowed, whatever comes when', async () => {
    const { clock, engine, serving, call } = open({ minReplicas: 1, maxReplicas: 4, idleSeconds: 2 });
    engine.startMs = 300;
    let seed = 7;
    const random = () => (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647;
    const pending: Promise<unknown>[] = [];
    for (let step = 0; step < 300; step++) {
      if (random() < 0.3) {
        pending.push(
          serving.invoke(call(chats(...numbered(1 + Math.floor(random() * 20), `${step} `)), rows)),
        );
      }
      if (random() < 0.05) engine.opened[Math.floor(random() * engine.opened.length)]?.lose();
      await clock.advance(random() * 400);
      expect(engine.opened.length + engine.opening).toBeLessThanOrEqual(4);
    }
    await clock.advance(60_000);
    await Promise.all(pending);
    expect(engine.opened).toHaveLength(1);
  });
});

describe('a model that is scaled to zero', () => {
  it('is opened once for all who come, who wait and are answered', async () => {
    const { clock, engine, state, serving, call } = open(
      { minReplicas: 0, idleSeconds: 10 },
      { maxInputs: 8 },
    );
    engine.startMs = 3_000;
    const first = Promise.all(numbered(20).map((text) => serving.invoke(call(chats(text), http))));
    await clock.advance(1_000);
    expect(state()).toMatchObject({ ready: 0, starting: 1, waiting: 20 });
    await clock.advance(4_000);
    expect((await first).flatMap(({ items }) => contents(items))).toHaveLength(20);
    await clock.advance(11_000);
    expect(engine.opened).toHaveLength(0);
    expect(state()).toMatchObject({ ready: 0, starting: 0, minReplicas: 0 });
    const second = Promise.all(numbered(20).map((text) => serving.invoke(call(chats(text), http))));
    await clock.advance(1_000);
    expect(state()).toMatchObject({ ready: 0, starting: 1, waiting: 20 });
    await clock.advance(4_000);
    await second;
    expect(engine.copies).toHaveLength(2);
    expect(state()).toMatchObject({ opened: 2, coldStarts: 2, coldStartMs: 6_000 });
  });

  it('is left alone by who waits no longer than its deadline', async () => {
    const { clock, engine, serving, resolver, call } = open({ minReplicas: 0 });
    resolver.govern('m', { timeoutMs: 2_000 });
    engine.startMs = 5_000;
    const pending = serving.invoke(call(chats('a'), http)).catch((error: ServingError) => error.code);
    await clock.advance(2_000);
    expect(await pending).toBe('TIMEOUT');
    await clock.advance(5_000);
    expect(engine.copies.map(({ asked }) => asked)).toEqual([0]);
  });

  it('is not opened to be made ready, and one that is kept is', async () => {
    const { engine, serving } = open({ minReplicas: 0 });
    (await serving.prepare([own({ minReplicas: 0 })]))();
    expect(engine.copies).toHaveLength(0);
    (await serving.prepare([own({ minReplicas: 2, maxReplicas: 2 })]))();
    await settle();
    expect(engine.copies).toHaveLength(2);
  });

  it('is opened again for a statement that asks it inside DuckDB, and not closed under it', async () => {
    const clock = new ManualClock();
    const closed: number[] = [];
    const engine: Engine = {
      kind: 'echo',
      open: async () => ({
        limits: DEFAULT_LIMITS,
        countTokens: () => 1,
        invoke: async (batch) => answerText(batch, 0),
        local: { embed: (texts) => texts.map(() => Float32Array.of(1)) },
        close: async () => void closed.push(clock.now()),
      }),
    };
    const target = own({ minReplicas: 0, idleSeconds: 5 }, { task: 'llm/v1/embeddings' });
    const { serving } = bench([engine], { clock, target });
    const asking = ['m', 'llm/v1/embeddings', LOCAL_OWNER, 'sql'] as const;
    await serving.openLocal(...asking);
    await clock.advance(10_000);
    expect(closed).toHaveLength(1);
    expect(serving.local(...asking)).toBeUndefined();
    await serving.openLocal(...asking);
    const local = serving.local(...asking);
    const letGo = local?.hold?.();
    await clock.advance(60_000);
    expect(local?.runner.embed?.(['a'])).toHaveLength(1);
    expect(closed).toHaveLength(1);
    letGo?.();
    await clock.advance(10_000);
    expect(closed).toHaveLength(2);
  });
});

describe('a queue with a limit', () => {
  it('refuses callers beyond it with 429 and when to come again, and lets in who has a place', async () => {
    const { clock, engine, serving, call, ask } = open({ maxReplicas: 1, maxQueue: 3 });
    await ask('first');
    const asked = numbered(10).map((text) => serving.invoke(call(chats(text), http)));
    const settled = Promise.allSettled(
      asked.map(async (each) => {
        const [item] = (await each).items;
        if (item?.ok === false) throw item.error;
      }),
    );
    await clock.advance(2_000);
    const refused = (await settled).flatMap((each) => (each.status === 'rejected' ? [each.reason] : []));
    expect(refused.map(({ code }) => code)).toEqual(Array(6).fill('QUEUE_FULL'));
    for (const error of refused as ServingError[]) {
      expect(error.row.httpStatus).toBe(429);
      expect(error.retryAfterMs).toBeGreaterThan(0);
      expect(error.message).toContain("'m-1' of endpoint 'm' has 4 inputs waiting, and at most 3 may.");
    }
    expect(engine.copies[0]?.asked).toBe(5);
  });

  it('counts those who wait for the first replica, but not rows of statements or who has gone away', async () => {
    const { clock, engine, serving, call } = open({ minReplicas: 0, maxQueue: 3 });
    engine.startMs = 5_000;
    const leaving = new AbortController();
    const first = serving.invoke(call(chats('gone'), { ...http, signal: leaving.signal }));
    first.catch(() => {});
    const statement = serving.invoke(call(chats(...numbered(50)), rows));
    const waiting = [1, 2].map((at) => serving.invoke(call(chats(`w${at}`), http)));
    await settle();
    const refused = await serving.invoke(call(chats('late'), http));
    expect(contents(refused.items)).toEqual(['QUEUE_FULL']);
    leaving.abort();
    await settle();
    const later = serving.invoke(call(chats('later'), http));
    await clock.advance(20_000);
    expect(contents((await later).items)).toEqual(['later!']);
    await Promise.all([statement, ...waiting]);
    expect(engine.copies).toHaveLength(1);
  });
});

describe('a replica that is lost', () => {
  it('is replaced, and its requests are asked again by the others', async () => {
    const { clock, engine, state, usage, serving, call, ask } = open({ minReplicas: 2, maxReplicas: 2 });
    await ask('first');
    const pending = serving.invoke(call(chats(...numbered(40)), rows));
    await clock.advance(150);
    engine.copies[0]?.lose();
    await clock.advance(10_000);
    expect((await pending).items.every(({ ok }) => ok)).toBe(true);
    expect(engine.copies).toHaveLength(3);
    expect(engine.opened).toHaveLength(2);
    expect(state()).toMatchObject({ ready: 2, lost: 1, opened: 3 });
    expect(usage.sum('inputCount')).toBe(41);
  });

  it('ten times in a row while it answers loses no call', async () => {
    const { clock, engine, state, serving, call } = open({ maxReplicas: 1 });
    engine.startMs = 200;
    const pending = serving.invoke(call(chats(...numbered(100)), rows));
    for (let time = 0; time < 10; time++) {
      await clock.advance(3_050);
      engine.opened[0]?.lose();
    }
    await clock.advance(60_000);
    expect((await pending).items.every(({ ok }) => ok)).toBe(true);
    expect(state()).toMatchObject({ ready: 1, lost: 10 });
  });

  it('again and again before it answers: callers are told the last reason, and it is tried again later', async () => {
    const { clock, engine, state, serving, call, ask } = open({ maxReplicas: 1 });
    await ask('well');
    let isDoomed = true;
    engine.answerMs = 50;
    const kill = async () => {
      while (isDoomed) {
        for (const copy of engine.opened) if (copy.inFlight > 0) copy.lose();
        await clock.sleep(10);
      }
    };
    void kill();
    const answered = ask('doomed');
    const first = contents((await answered).items);
    expect(first).toEqual(['UPSTREAM_ERROR']);
    const codes: unknown[] = [];
    let failure: ServingError | undefined;
    for (let time = 0; time < 12 && !failure; time++) {
      const { items } = await ask(`x${time}`);
      const [item] = items;
      if (item?.ok === false && item.error.message.includes('in a row')) failure = item.error;
      codes.push(...contents(items));
    }
    expect(failure?.message).toMatch(
      /^'m-1' of endpoint 'm' was lost or could not be opened \d+ times in a row, and is tried again in \d+ ms\. The last time: The worker was killed\.$/,
    );
    expect(failure?.retryAfterMs).toBeGreaterThan(0);
    const before = engine.copies.length;
    const refused = await serving.invoke(call(chats('at once'), http));
    expect(contents(refused.items)).toEqual(['UPSTREAM_ERROR']);
    expect(engine.copies).toHaveLength(before);
    isDoomed = false;
    await clock.advance(60_000);
    expect(state()).toMatchObject({ ready: 1 });
    expect(state()).not.toHaveProperty('failure');
    expect(contents((await ask('back')).items)).toEqual(['back!']);
  });

  it('and cannot be opened again, as what it needs is gone: who waits is told, after a second try', async () => {
    const { clock, engine, serving, call, ask } = open({ minReplicas: 0, idleSeconds: 1 });
    await ask('well');
    await clock.advance(5_000);
    expect(engine.opened).toHaveLength(0);
    engine.openError = () => new ServingError('MODEL_NOT_AVAILABLE', 'The file is gone.');
    const pending = serving.invoke(call(chats('a', 'b'), rows));
    await clock.advance(500);
    expect(contents((await pending).items)).toEqual(['MODEL_NOT_AVAILABLE', 'MODEL_NOT_AVAILABLE']);
    engine.openError = undefined;
    await clock.advance(5_000);
    expect(contents((await ask('c')).items)).toEqual(['c!']);
  });
});

describe('an endpoint', () => {
  it('that is stopped closes its models when their last request is over, and may be started again', async () => {
    const { clock, engine, serving, call, resolver } = open({ minReplicas: 2, maxReplicas: 2 });
    const pending = serving.invoke(call(chats('a'), http));
    await clock.advance(50);
    resolver.govern('m', {}, { isStopped: true });
    await settle();
    expect(engine.opened).toHaveLength(2);
    await clock.advance(100);
    expect(contents((await pending).items)).toEqual(['a!']);
    expect(engine.opened).toHaveLength(0);
    resolver.govern('m', {}, { isStopped: false });
    (await serving.prepare([own({ minReplicas: 2, maxReplicas: 2 })]))();
    await settle();
    expect(engine.opened).toHaveLength(2);
  });

  it('that has changed while a call was on its way leaves nothing open for the call', async () => {
    const { clock, engine, serving, call, resolver } = open({ maxReplicas: 1 });
    engine.startMs = 500;
    const pending = serving.invoke(call(chats('a'), http));
    await clock.advance(100);
    resolver.set(own({ maxReplicas: 1 }, { fingerprint: 'another', model: 'own@2' }));
    await clock.advance(2_000);
    expect(contents((await pending).items)).toEqual(['a!']);
    expect(engine.opened).toHaveLength(0);
  });

  it('whose model is closed with the server answers no more and leaves no replica behind', async () => {
    const { clock, engine, serving, call } = open({ minReplicas: 2, maxReplicas: 4 });
    engine.startMs = 100;
    const pending = Promise.allSettled([serving.invoke(call(chats(...numbered(40)), http))]);
    await clock.advance(150);
    await serving.close();
    await clock.advance(1_000);
    const [settled] = await pending;
    expect(codesOf(settled ? [settled] : [])).toEqual([]);
    expect(engine.opened).toHaveLength(0);
  });
});

describe('a plan', () => {
  it('is one replica for engines of this process, and some processes of Python', () => {
    expect(planOf({ engine: 'onnx' }, 16)).toMatchObject({
      minReplicas: 1,
      maxReplicas: 1,
      idleMs: 1_800_000,
    });
    expect(planOf({ engine: 'python' }, 16)).toMatchObject({ minReplicas: 1, maxReplicas: 4 });
    expect(planOf({ engine: 'python' }, 2)).toMatchObject({ maxReplicas: 2 });
    expect(planOf({ engine: 'onnx', scaling: { minReplicas: 3 } }, 2)).toMatchObject({ maxReplicas: 3 });
    expect(planOf({ engine: 'python', scaling: { maxReplicas: 1 } }, 8)).toMatchObject({ minReplicas: 1 });
  });

  it('of several is the widest, where no bound is wider than any', () => {
    const [left, right] = [
      planOf({
        engine: 'python',
        scaling: { minReplicas: 0, maxReplicas: 2, maxQueue: 5, targetConcurrency: 4 },
      }),
      planOf({ engine: 'python', scaling: { minReplicas: 1, maxReplicas: 1, maxQueue: 9, idleSeconds: 10 } }),
    ];
    expect(widestPlan(left, right)).toEqual({
      ...{ minReplicas: 1, maxReplicas: 2, maxQueue: 9, targetConcurrency: undefined, idleMs: 1_800_000 },
    });
  });
});
