import { describe, expect, it } from 'vitest';
import { type ErrorCode, ServingError } from '#core/errors.ts';
import { EMBEDDING, fail, invokeOn, numbered, sizes } from './queue-support.ts';
import {
  answerText,
  bench,
  chats,
  contents,
  deferred,
  embeddings,
  itemFor,
  ManualClock,
  type Script,
  ScriptedEngine,
  settle,
  textOf,
} from './support.ts';

describe('batches', () => {
  it('are as large as the engine likes, across calls of equal parameters', async () => {
    const engine = new ScriptedEngine(answerText, { maxInputs: 4, maxConcurrency: 1 });
    const { serving, call } = bench([engine], { target: EMBEDDING });
    await Promise.all([
      serving.invoke(call(embeddings('a', 'b', 'c'))),
      serving.invoke(call(embeddings('d', 'e'))),
      serving.invoke(call(embeddings('x'), { parameters: { dimensions: 8 } })),
    ]);
    expect(sizes(engine).toSorted()).toEqual([1, 1, 4]);
  });

  it('are sent at once while a place is free, and gather while none is', async () => {
    const gate = deferred();
    const engine = new ScriptedEngine(
      async (batch, ask) => {
        if (ask === 1) await gate.promise;
        return answerText(batch, ask);
      },
      { maxInputs: 8, maxConcurrency: 1 },
    );
    const { serving, call } = bench([engine], { target: EMBEDDING });
    const calls = [serving.invoke(call(embeddings('first')))];
    await settle();
    for (const text of numbered(5)) calls.push(serving.invoke(call(embeddings(text))));
    await settle();
    gate.resolve();
    await Promise.all(calls);
    expect(sizes(engine)).toEqual([1, 5]);
  });

  it('keep to the tokens an engine takes, and send a longer input alone', async () => {
    const engine = new ScriptedEngine(answerText, { maxInputs: 10, maxTokens: 10, maxConcurrency: 1 });
    const { serving, call } = bench([engine], { target: EMBEDDING });
    await serving.invoke(call(embeddings('12345', '123456', '12', 'x'.repeat(50), 'abc')));
    expect(engine.batches.map(({ inputs }) => inputs.map((input) => textOf(input).length))).toEqual([
      [5],
      [6, 2],
      [50],
      [3],
    ]);
  });

  it('are sorted by length and count padding where the engine pads', async () => {
    const engine = new ScriptedEngine(answerText, {
      maxInputs: 3,
      maxTokens: 20,
      maxConcurrency: 1,
      isPadded: true,
    });
    const { serving, call } = bench([engine], { target: EMBEDDING });
    const texts = [2, 9, 1, 9, 2, 1].map((length, at) => String(at).repeat(length));
    const answer = await serving.invoke(call(embeddings(...texts)));
    expect(engine.batches.map(({ inputs }) => inputs.map((input) => textOf(input).length))).toEqual([
      [9, 9],
      [2, 2, 1],
      [1],
    ]);
    expect(
      answer.items.map((item) => item.ok && 'embedding' in item.output && item.output.embedding[0]),
    ).toEqual(texts.map((text) => text.length + 1));
  });

  it('take turns between calls: one question does not wait behind a thousand', async () => {
    const engine = new ScriptedEngine(answerText, { maxConcurrency: 1 });
    const { serving, call } = bench([engine]);
    const large = serving.invoke(call(chats(...numbered(1000))));
    const small = serving.invoke(call(chats('me too')));
    await Promise.all([large, small]);
    expect(engine.askedTexts.indexOf('me too')).toBeLessThan(3);
  });

  it('never exceed the concurrency of an engine', async () => {
    const engine = new ScriptedEngine(
      async (batch, ask) => {
        await settle();
        return answerText(batch, ask);
      },
      { maxConcurrency: 3 },
    );
    const { serving, call } = bench([engine]);
    await serving.invoke(call(chats(...numbered(50))));
    expect(engine.peak).toBe(3);
  });

  it('leave the event loop to others although the engine never waits', async () => {
    const engine = new ScriptedEngine(answerText, { maxConcurrency: 4 });
    const { serving, call } = bench([engine]);
    let turns = 0;
    let isOver = false;
    const count = () => {
      turns++;
      if (!isOver) setImmediate(count);
    };
    setImmediate(count);
    await serving.invoke(call(chats(...numbered(5000))));
    isOver = true;
    expect(turns).toBeGreaterThan(10);
  });
});

describe('retries', () => {
  it('ask again after a failure that may pass, and count every time', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine((batch, ask) =>
      ask < 3 ? fail('UPSTREAM_ERROR') : answerText(batch, ask),
    );
    const made = bench([engine], { clock });
    const answer = await invokeOn(clock, made, made.call(chats('a')));
    expect(contents(answer.items)).toEqual(['a!']);
    expect(made.usage.rows).toHaveLength(1);
    expect(made.usage.rows[0]).toMatchObject({ attempts: 3, inputCount: 1, statusCode: 200 });
  });

  it('end after four failures, or eight refusals for a rate limit, with the last error', async () => {
    for (const [code, tries] of [
      ['UPSTREAM_ERROR', 4],
      ['TIMEOUT', 4],
      ['RATE_LIMITED', 8],
      ['UPSTREAM_AUTH', 1],
      ['UPSTREAM_REJECTED', 1],
    ] as const) {
      const clock = new ManualClock();
      const engine = new ScriptedEngine(() => fail(code));
      const made = bench([engine], { clock });
      const answer = await invokeOn(clock, made, made.call(chats('a')));
      expect(contents(answer.items)).toEqual([code]);
      expect(engine.batches).toHaveLength(tries);
      expect(made.usage.sum('attempts')).toBe(tries);
      expect(made.answers.count).toBe(0);
    }
  });

  it('count refusals for a rate limit apart from failures, so that a busy provider is not taken for a broken one', async () => {
    const clock = new ManualClock();
    const script = [
      'RATE_LIMITED',
      'RATE_LIMITED',
      'UPSTREAM_ERROR',
      'RATE_LIMITED',
      'UPSTREAM_ERROR',
      'TIMEOUT',
    ] as const;
    let asked = 0;
    const engine = new ScriptedEngine((batch, ask) => {
      const code = script[asked++];
      return code === undefined ? answerText(batch, ask) : fail(code);
    });
    const made = bench([engine], { clock });
    const answer = await invokeOn(clock, made, made.call(chats('a')));
    expect(contents(answer.items)).toEqual(['a!']);
    expect(made.usage.sum('attempts')).toBe(7);
  });

  it('wait exponentially, with chance, and no less than the provider asks', async () => {
    const clock = new ManualClock();
    clock.chance = 1;
    const engine = new ScriptedEngine(() => fail('UPSTREAM_ERROR'));
    const made = bench([engine], { clock });
    const pending = made.serving.invoke(made.call(chats('a')));
    await clock.advance(499);
    expect(engine.batches).toHaveLength(1);
    await clock.advance(1);
    expect(engine.batches).toHaveLength(2);
    await clock.advance(999);
    expect(engine.batches).toHaveLength(2);
    await clock.advance(1);
    expect(engine.batches).toHaveLength(3);
    await clock.advance(2000);
    expect(contents((await pending).items)).toEqual(['UPSTREAM_ERROR']);
  });

  it('pause the whole target when the provider says until when', async () => {
    const clock = new ManualClock();
    clock.chance = 0;
    const engine = new ScriptedEngine(
      (batch, ask) => (ask === 1 ? fail('RATE_LIMITED', 3000) : answerText(batch, ask)),
      { maxConcurrency: 1, isAdaptive: true },
    );
    const made = bench([engine], { clock });
    const pending = made.serving.invoke(made.call(chats('a', 'b')));
    await clock.advance(2999);
    expect(engine.batches).toHaveLength(1);
    expect(made.serving.queueDepths()).toEqual([{ target: 'm/m-1', waiting: 2, inFlight: 0, limit: 1 }]);
    await clock.advance(1);
    expect(contents((await pending).items)).toEqual(['a!', 'b!']);
    expect(engine.askedTexts).toEqual(['a', 'a', 'b']);
  });

  it('are not tried when the provider asks for hours', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine(() => fail('RATE_LIMITED', 3_600_000), { maxConcurrency: 1 });
    const made = bench([engine], { clock });
    const answer = await made.serving.invoke(made.call(chats('a', 'b', 'c')));
    expect(contents(answer.items)).toEqual(['RATE_LIMITED', 'RATE_LIMITED', 'RATE_LIMITED']);
    expect(engine.batches).toHaveLength(1);
  });

  it('ask again only for the inputs of a batch that failed', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine(
      ({ inputs }, ask) => ({
        items: inputs.map((input) =>
          ask === 1 && textOf(input) === 'b'
            ? { ok: false, error: new ServingError('TIMEOUT', 'Late.') }
            : itemFor(input),
        ),
      }),
      { maxInputs: 8 },
    );
    const made = bench([engine], { clock, target: EMBEDDING });
    await invokeOn(clock, made, made.call(embeddings('a', 'b', 'c')));
    expect(sizes(engine)).toEqual([3, 1]);
    expect(made.usage.rows.map(({ inputCount, attempts }) => [inputCount, attempts])).toEqual([
      [2, 1],
      [1, 1],
    ]);
  });

  it('stop for everybody when the target only fails: twenty failures are not forty thousand', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine(() => fail('UPSTREAM_ERROR'), { maxConcurrency: 10 });
    const made = bench([engine], { clock });
    const answer = await invokeOn(clock, made, made.call(chats(...numbered(10_000))));
    expect(new Set(contents(answer.items))).toEqual(new Set(['UPSTREAM_ERROR']));
    expect(engine.batches.length).toBeLessThan(60);
    expect(made.usage.sum('attempts')).toBe(engine.batches.length);
    expect(made.usage.sum('inputCount')).toBe(10_000);
    engine.script = answerText;
    expect(contents((await invokeOn(clock, made, made.call(chats('back')))).items)).toEqual(['back!']);
  });
});

describe('a batch that is refused as a whole', () => {
  const refusing =
    (code: ErrorCode): Script =>
    (batch, ask) =>
      batch.inputs.some((input) => textOf(input).includes('bad')) ? fail(code) : answerText(batch, ask);

  it('is halved until only the bad input fails', async () => {
    const engine = new ScriptedEngine(refusing('UPSTREAM_REJECTED'), { maxInputs: 64 });
    const { serving, usage, call } = bench([engine], { target: EMBEDDING });
    const texts = numbered(64).with(40, 'bad');
    const answer = await serving.invoke(call(embeddings(...texts)));
    expect(answer.items.flatMap((item, at) => (item.ok ? [] : [at]))).toEqual([40]);
    expect(engine.batches.length).toBeLessThan(16);
    expect(usage.sum('attempts')).toBe(engine.batches.length);
    expect(usage.sum('inputCount')).toBe(64);
  });

  it('as too large makes later batches smaller', async () => {
    const engine = new ScriptedEngine(
      (batch, ask) => (batch.inputs.length > 16 ? fail('PAYLOAD_TOO_LARGE') : answerText(batch, ask)),
      { maxInputs: 32, maxConcurrency: 1 },
    );
    const { serving, call } = bench([engine], { target: EMBEDDING });
    await serving.invoke(call(embeddings(...numbered(96))));
    expect(sizes(engine)).toEqual([32, 16, 16, 16, 16, 16, 16]);
  });

  it('is given up when nothing at all is accepted', async () => {
    const engine = new ScriptedEngine(() => fail('UPSTREAM_REJECTED'), {
      maxInputs: 2048,
      maxConcurrency: 4,
    });
    const { serving, call } = bench([engine], { target: EMBEDDING });
    const answer = await serving.invoke(call(embeddings(...numbered(2048))));
    expect(new Set(contents(answer.items))).toEqual(new Set(['UPSTREAM_REJECTED']));
    expect(engine.batches.length).toBeLessThan(100);
  });
});
