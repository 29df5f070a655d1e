import { describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import {
  answerText,
  bench,
  chats,
  contents,
  deferred,
  embeddings,
  itemFor,
  ScriptedEngine,
  settle,
  targetOf,
} from './support.ts';

const EMBEDDING = targetOf('e', { task: 'llm/v1/embeddings' });

describe('a call', () => {
  it('is answered in input order and told item by item', async () => {
    const heard: number[] = [];
    const { serving, call } = bench([new ScriptedEngine()]);
    const onItem = (index: number) => void heard.push(index);
    const answer = await serving.invoke(call(chats('a', 'b', 'c'), { onItem }));
    expect(contents(answer.items)).toEqual(['a!', 'b!', 'c!']);
    expect(heard.toSorted()).toEqual([0, 1, 2]);
    expect(answer).toMatchObject({
      servedEntity: 'm-1',
      model: 'model-m',
      usage: { inputTokens: 30, outputTokens: 15 },
    });
  });

  it('asks equal inputs once, with the cache off too', async () => {
    const engine = new ScriptedEngine();
    const { serving, usage, call } = bench([engine]);
    const answer = await serving.invoke(call(chats('a', 'b', 'a', 'a'), { cache: 'off' }));
    expect(contents(answer.items)).toEqual(['a!', 'b!', 'a!', 'a!']);
    expect(engine.askedTexts.toSorted()).toEqual(['a', 'b']);
    expect(usage.sum('inputCount')).toBe(4);
    expect(usage.sum('cachedCount')).toBe(2);
    expect(usage.sum('attempts')).toBe(2);
  });

  it('without inputs, or with inputs of another task, is refused with a reason', async () => {
    const { serving, usage, call } = bench([new ScriptedEngine()]);
    await expect(serving.invoke(call([]))).rejects.toMatchObject({ code: 'INVALID_PARAMETER' });
    await expect(serving.invoke(call(embeddings('a')))).rejects.toThrow('Input 0');
    await expect(
      serving.invoke({ ...call(embeddings('a')), task: 'llm/v1/embeddings' }),
    ).rejects.toMatchObject({ code: 'WRONG_TASK' });
    await expect(serving.invoke(call(chats('a'), {}, 'nowhere'))).rejects.toMatchObject({
      code: 'ENDPOINT_NOT_FOUND',
    });
    expect(usage.rows.map(({ errorCode, attempts }) => [errorCode, attempts])).toEqual([
      ['INVALID_PARAMETER', 0],
      ['INVALID_PARAMETER', 0],
      ['WRONG_TASK', 0],
      ['ENDPOINT_NOT_FOUND', 0],
    ]);
  });

  it('fails as a whole when the model cannot be opened, and the next call tries anew', async () => {
    const engine = new ScriptedEngine();
    engine.openError = new ServingError('MODEL_NOT_AVAILABLE', 'Not here. Fetch it.');
    const { serving, usage, call } = bench([engine]);
    await expect(serving.invoke(call(chats('a', 'b')))).rejects.toMatchObject({
      code: 'MODEL_NOT_AVAILABLE',
    });
    expect(usage.rows).toHaveLength(1);
    expect(usage.rows[0]).toMatchObject({ inputCount: 2, statusCode: 424 });
    engine.openError = undefined;
    expect(contents((await serving.invoke(call(chats('a')))).items)).toEqual(['a!']);
  });

  it('gives a failed input as a value beside the others', async () => {
    const engine = new ScriptedEngine(({ inputs }) => ({
      items: inputs.map((input) =>
        JSON.stringify(input).includes('bad')
          ? { ok: false, error: new ServingError('UPSTREAM_REJECTED', 'No.') }
          : itemFor(input),
      ),
    }));
    const { serving, answers, call } = bench([engine]);
    const answer = await serving.invoke(call(chats('a', 'bad', 'c')));
    expect(contents(answer.items)).toEqual(['a!', 'UPSTREAM_REJECTED', 'c!']);
    expect(answers.count).toBe(2);
  });
});

describe('the answer store', () => {
  it('answers the same question later without asking, for nothing', async () => {
    const engine = new ScriptedEngine();
    const target = targetOf('m', {}, { price: { inputPerMillion: 1e6, outputPerMillion: 1e6 } });
    const { serving, usage, call } = bench([engine], { target });
    expect((await serving.invoke(call(chats('a')))).cost).toBe(15);
    const again = await serving.invoke(call(chats('a')));
    expect(again.items[0]).toMatchObject({ ok: true, cached: true });
    expect(again.cost).toBe(0);
    expect(engine.batches).toHaveLength(1);
    expect(usage.rows).toHaveLength(2);
    expect(usage.rows[1]).toMatchObject({
      attempts: 0,
      inputCount: 1,
      cachedCount: 1,
      statusCode: 200,
      cost: 0,
    });
  });

  it('keeps to the mode of the call', async () => {
    const engine = new ScriptedEngine();
    const { serving, answers, call } = bench([engine]);
    await serving.invoke(call(chats('a'), { cache: 'off' }));
    expect(answers.count).toBe(0);
    await serving.invoke(call(chats('a'), { cache: 'read' }));
    expect(answers.count).toBe(0);
    await serving.invoke(call(chats('a'), { cache: 'write' }));
    expect([answers.count, engine.batches.length]).toEqual([1, 3]);
    await serving.invoke(call(chats('a'), { cache: 'write' }));
    expect(engine.batches).toHaveLength(4);
    await serving.invoke(call(chats('a'), { cache: 'read' }));
    expect(engine.batches).toHaveLength(4);
  });

  it('tells apart parameters, tasks and models', async () => {
    const engine = new ScriptedEngine();
    const { serving, resolver, call } = bench([engine]);
    resolver.set(targetOf('n'));
    await serving.invoke(call(chats('a')));
    await serving.invoke(call(chats('a'), { parameters: { temperature: 0 } }));
    await serving.invoke(call(chats('a'), {}, 'n'));
    expect(engine.batches).toHaveLength(3);
    resolver.set({ ...targetOf('twin'), fingerprint: 'print-m' });
    await serving.invoke(call(chats('a'), {}, 'twin'));
    expect(engine.batches).toHaveLength(3);
  });

  it('never keeps an error nor an answer that does not parse', async () => {
    const replies = ['no json', 'still none', '{"ok":true}'];
    const engine = new ScriptedEngine(({ inputs: [input] }, ask) => ({
      items: input ? [itemFor(input, replies[ask - 1] ?? '')] : [],
    }));
    const { serving, answers, usage, call } = bench([engine]);
    const parameters = { responseFormat: { type: 'json_object' as const } };
    const answer = await serving.invoke(call(chats('a'), { parameters }));
    expect(contents(answer.items)).toEqual(['{"ok":true}']);
    expect([...answers.map.values()].map(({ output }) => output)).toEqual([
      { content: '{"ok":true}', finishReason: 'stop' },
    ]);
    // All three were billed, and stand in one row.
    expect(usage.rows).toHaveLength(1);
    expect(usage.rows[0]).toMatchObject({ attempts: 3, inputTokens: 30, outputTokens: 15, statusCode: 200 });
  });

  it('that breaks does not cost the answer', async () => {
    const { serving, answers, call } = bench([new ScriptedEngine()]);
    answers.put = () => {
      throw new Error('disk full');
    };
    expect(contents((await serving.invoke(call(chats('a')))).items)).toEqual(['a!']);
  });
});

describe('equal questions of calls at the same time', () => {
  it('are one request, paid by one call and recorded for both', async () => {
    const gate = deferred();
    const engine = new ScriptedEngine(async (batch, ask) => {
      await gate.promise;
      return answerText(batch, ask);
    });
    const { serving, usage, call } = bench([engine]);
    const both = [serving.invoke(call(chats('a', 'b'))), serving.invoke(call(chats('b', 'c')))];
    await settle();
    gate.resolve();
    const [first, second] = await Promise.all(both);
    expect(contents(first?.items ?? [])).toEqual(['a!', 'b!']);
    expect(contents(second?.items ?? [])).toEqual(['b!', 'c!']);
    expect(second?.items[0]).toMatchObject({ cached: true });
    expect(engine.askedTexts.toSorted()).toEqual(['a', 'b', 'c']);
    expect([usage.sum('inputCount'), usage.sum('cachedCount'), usage.sum('attempts')]).toEqual([4, 1, 3]);
  });

  it('are asked apart when the cache is off', async () => {
    const engine = new ScriptedEngine();
    const { serving, call } = bench([engine]);
    await Promise.all([
      serving.invoke(call(chats('a'), { cache: 'off' })),
      serving.invoke(call(chats('a'), { cache: 'off' })),
    ]);
    expect(engine.batches).toHaveLength(2);
  });

  it('survive the cancellation of the call that asked first', async () => {
    const gate = deferred();
    const engine = new ScriptedEngine(
      async (batch, ask) => {
        await gate.promise;
        return answerText(batch, ask);
      },
      { maxConcurrency: 1 },
    );
    const { serving, usage, call } = bench([engine]);
    const controller = new AbortController();
    const first = serving.invoke(call(chats('a', 'b', 'c'), { signal: controller.signal }));
    await settle();
    const second = serving.invoke(call(chats('a', 'c')));
    await settle();
    controller.abort();
    await expect(first).rejects.toMatchObject({ code: 'CANCELLED' });
    gate.resolve();
    expect(contents((await second).items)).toEqual(['a!', 'c!']);
    expect(engine.askedTexts).toEqual(['a', 'c']);
    expect([usage.sum('inputCount'), usage.sum('attempts')]).toEqual([5, 2]);
  });
});

describe('usage rows', () => {
  it('of a batch shared by calls are one for each, and the attempts count once', async () => {
    const engine = new ScriptedEngine(answerText, { maxInputs: 8, maxConcurrency: 1 });
    const { serving, usage, call } = bench([engine], { target: EMBEDDING });
    await Promise.all(['a', 'b', 'c'].map((text) => serving.invoke(call(embeddings(text)))));
    expect(engine.batches).toHaveLength(1);
    expect(usage.rows.map(({ attempts }) => attempts)).toEqual([1, 0, 0]);
    expect(new Set(usage.rows.map(({ callId }) => callId)).size).toBe(3);
    expect(usage.sum('inputTokens')).toBe(30);
  });

  it('are heard by listeners, and a listener that fails harms nobody', async () => {
    const { serving, call } = bench([new ScriptedEngine()]);
    const heard: string[] = [];
    serving.onUsage(() => {
      throw new Error('broken');
    });
    serving.onUsage(({ model }) => heard.push(model ?? ''));
    await serving.invoke(call(chats('a'), { clientRequestId: 'x' }));
    expect(heard).toEqual(['model-m']);
  });
});

describe('estimate, describe and local', () => {
  it('estimates from look-ups alone', async () => {
    const engine = new ScriptedEngine();
    const target = targetOf('m', {}, { price: { inputPerMillion: 1, outputPerMillion: 2 } });
    const { serving, usage, call } = bench([engine], { target });
    const before = await serving.estimate(call(chats('12345', 'b', 'b')));
    expect(before).toEqual({
      calls: 2,
      cached: 0,
      inputTokens: 3,
      cost: (3 + 2 * 256 * 2) / 1e6,
      seconds: null,
    });
    expect([engine.opened.length, usage.rows.length]).toEqual([0, 0]);
    await serving.invoke(call(chats('b')));
    const after = await serving.estimate(call(chats('12345', 'b', 'b')));
    expect(after).toMatchObject({ calls: 1, cached: 2, inputTokens: 5 });
    expect(after.seconds).not.toBeNull();
  });

  it('knows no cost where it knows no price, and none for models of this machine', async () => {
    const external = bench([new ScriptedEngine()]);
    expect((await external.serving.estimate(external.call(chats('a')))).cost).toBeNull();
    const own = bench([], { target: targetOf('m', { engine: 'echo' }) });
    expect((await own.serving.estimate(own.call(chats('a')))).cost).toBe(0);
  });

  it('gives a local runner only when it is open, and records a row each time it is told', async () => {
    const engine = new ScriptedEngine(answerText, {}, 'static');
    engine.local = { embed: (texts) => texts.map(() => Float32Array.of(1)) };
    const target = targetOf('e', { task: 'llm/v1/embeddings', engine: 'static' });
    const { serving, usage } = bench([engine], { target });
    expect(serving.local('e', 'llm/v1/embeddings', LOCAL_OWNER, 'sql')).toBeUndefined();
    const opened = await serving.openLocal('e', 'llm/v1/embeddings', LOCAL_OWNER, 'sql');
    expect(serving.local('e', 'llm/v1/embeddings', LOCAL_OWNER, 'sql')?.runner).toBe(engine.local);
    void opened?.record({ inputs: 2048, startedAtMs: Date.now(), principal: LOCAL_OWNER, origin: 'sql' });
    expect(usage.rows).toHaveLength(1);
    expect(usage.rows[0]).toMatchObject({ inputCount: 2048, attempts: 1, cost: 0, statusCode: 200 });
    expect(serving.describe('e')).toEqual({ target });
  });
});

describe('a change of the registry', () => {
  it('closes what nobody resolves to any more, and keeps what is the same', async () => {
    const engine = new ScriptedEngine();
    const { serving, resolver, call } = bench([engine]);
    await serving.invoke(call(chats('a')));
    resolver.set({ ...targetOf('m') });
    await serving.invoke(call(chats('b')));
    expect([engine.opened.length, engine.closed.length]).toEqual([1, 0]);
    resolver.set(targetOf('m', {}, { maxConcurrency: 7 }));
    await settle();
    expect(engine.closed).toHaveLength(1);
    await serving.invoke(call(chats('c')));
    expect(engine.opened).toHaveLength(2);
  });

  it('lets the old model finish its work before it is closed', async () => {
    const gate = deferred();
    const engine = new ScriptedEngine(async (batch, ask) => {
      await gate.promise;
      return answerText(batch, ask);
    });
    const { serving, resolver, call } = bench([engine]);
    const pending = serving.invoke(call(chats('a')));
    await settle();
    resolver.delete('m');
    await settle();
    expect(engine.closed).toHaveLength(0);
    gate.resolve();
    expect(contents((await pending).items)).toEqual(['a!']);
    await settle();
    expect(engine.closed).toHaveLength(1);
  });

  it('shares one model between endpoints that serve the same', async () => {
    const engine = new ScriptedEngine();
    const { serving, resolver, call } = bench([engine]);
    const { endpoint: _endpoint, servedEntity: _servedEntity, ...same } = targetOf('m');
    resolver.set({ ...same, endpoint: 'n', servedEntity: 'n-1' });
    await serving.invoke(call(chats('a'), { cache: 'off' }));
    await serving.invoke(call(chats('a'), { cache: 'off' }, 'n'));
    expect(engine.opened).toHaveLength(1);
    resolver.delete('m');
    await settle();
    expect(engine.closed).toHaveLength(0);
  });
});

describe('close', () => {
  it('cancels what waits and what is in flight, and closes the models', async () => {
    const engine = new ScriptedEngine(
      ({ signal }) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason));
        }),
      { maxConcurrency: 1 },
    );
    const { serving, usage, call } = bench([engine]);
    const pending = serving.invoke(call(chats('a', 'b')));
    await settle();
    await serving.close();
    expect(contents((await pending).items)).toEqual(['CANCELLED', 'CANCELLED']);
    expect([engine.closed.length, usage.sum('inputCount')]).toEqual([1, 2]);
    await expect(serving.invoke(call(chats('c')))).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});
