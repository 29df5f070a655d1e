import { describe, expect, it } from 'vitest';
import { type Call, LOCAL_OWNER, type Output, type StreamEvent } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { Guard, Guards } from '#core/policies.ts';
import {
  answerText,
  bench,
  chat,
  chats,
  contents,
  deferred,
  itemFor,
  ManualClock,
  ScriptedEngine,
  settle,
  targetOf,
  textOf,
} from './support.ts';

const refusal = new ServingError('GUARDRAIL_TRIGGERED', 'Not here.');

/** Masks `secret` both ways and refuses `bad`. */
const masking: Guard = {
  fingerprint: 'mask',
  inputs: async ({ inputs }) =>
    inputs.map((input) => {
      const text = textOf(input);
      if (text.includes('bad')) return refusal;
      return text.includes('secret') ? chat(text.replace('secret', '<X>')) : input;
    }),
  output: async (_call, output) => {
    if (!('content' in output) || !output.content) return output;
    if (output.content.includes('evil')) return refusal;
    return { ...output, content: output.content.replace('raw', '<Y>') };
  },
};
const only = (guard: Guard, ...names: string[]): Guards => ({
  guardOf: ({ name }) => (names.length === 0 || names.includes(name) ? guard : undefined),
});
const reply = (text: string) =>
  new ScriptedEngine(({ inputs }) => ({ items: inputs.map((each) => itemFor(each, text)) }));

async function collect(events: AsyncIterable<StreamEvent>): Promise<string> {
  let text = '';
  for await (const event of events) if (event.type === 'delta') text += event.text;
  return text;
}

describe('a guard on inputs', () => {
  it('replaces or refuses them one by one, before anything is looked up or sent', async () => {
    const engine = new ScriptedEngine();
    const { serving, answers, usage, call } = bench([engine], { guards: only(masking) });
    const answer = await serving.invoke(call(chats('fine', 'a secret', 'bad one')));
    expect(contents(answer.items)).toEqual(['fine!', 'a <X>!', 'GUARDRAIL_TRIGGERED']);
    expect(engine.askedTexts.toSorted()).toEqual(['a <X>', 'fine']);
    expect(answers.count).toBe(2);
    expect(usage.sum('inputCount')).toBe(3);
    expect(usage.rows.filter(({ errorCode }) => errorCode === 'GUARDRAIL_TRIGGERED')).toHaveLength(1);
    expect(JSON.stringify(usage.rows)).not.toContain('secret');
  });

  it('refuses a stream before the model is asked', async () => {
    const engine = new ScriptedEngine();
    const { serving, usage, call } = bench([engine], { guards: only(masking) });
    await expect(serving.stream(call(chats('bad')))).rejects.toBe(refusal);
    expect(engine.batches).toHaveLength(0);
    expect(usage.rows).toMatchObject([{ errorCode: 'GUARDRAIL_TRIGGERED', attempts: 0, inputCount: 1 }]);
  });

  it('that fails lets nothing through, and one that judges too few neither', async () => {
    const engine = new ScriptedEngine();
    for (const inputs of [
      async () => {
        throw new ServingError('UPSTREAM_ERROR', 'The judge is away.');
      },
      async () => [],
    ]) {
      const { serving, call } = bench([engine], { guards: only({ fingerprint: '', inputs }) });
      await expect(serving.invoke(call(chats('a')))).rejects.toBeInstanceOf(ServingError);
    }
    expect(engine.batches).toHaveLength(0);
  });

  it('is not waited for when the caller has gone or the time is over', async () => {
    const clock = new ManualClock();
    const never: Guard = { fingerprint: '', inputs: () => new Promise(() => {}) };
    const { serving, usage, resolver, call } = bench([new ScriptedEngine()], { clock, guards: only(never) });
    const controller = new AbortController();
    const gone = serving.invoke(call(chats('a'), { signal: controller.signal }));
    controller.abort();
    await expect(gone).rejects.toMatchObject({ code: 'CANCELLED' });
    resolver.govern('m', { timeoutMs: 1000 });
    const late = serving.invoke(call(chats('a'), { origin: 'http' }));
    late.catch(() => {});
    await clock.advance(1000);
    await expect(late).rejects.toMatchObject({ code: 'TIMEOUT' });
    expect(usage.rows).toHaveLength(2);
  });

  it('keeps a local model from answering inside DuckDB, where nobody can wait for a guard', async () => {
    const engine = new ScriptedEngine(answerText, {}, 'static');
    engine.local = { embed: (texts) => texts.map(() => Float32Array.of(1)) };
    const target = targetOf('e', { task: 'llm/v1/embeddings', engine: 'static' });
    const { serving } = bench([engine], { target, guards: only(masking) });
    expect(await serving.openLocal('e', 'llm/v1/embeddings', LOCAL_OWNER, 'sql')).toBeUndefined();
    expect(serving.local('e', 'llm/v1/embeddings', LOCAL_OWNER, 'sql')).toBeUndefined();
  });
});

describe('a guard on outputs', () => {
  it('decides what is given and what is stored, and a withheld answer is paid for and asked once', async () => {
    const engine = reply('raw text');
    const { serving, answers, usage, call } = bench([engine], { guards: only(masking) });
    expect(contents((await serving.invoke(call(chats('a')))).items)).toEqual(['<Y> text']);
    expect([...answers.map.values()].map(({ output }) => output)).toMatchObject([{ content: '<Y> text' }]);
    engine.script = ({ inputs }) => ({ items: inputs.map((each) => itemFor(each, 'evil')) });
    expect(contents((await serving.invoke(call(chats('b')))).items)).toEqual(['GUARDRAIL_TRIGGERED']);
    expect([engine.batches.length, answers.count]).toEqual([2, 1]);
    expect(usage.rows[1]).toMatchObject({ outputTokens: 5, errorCode: 'GUARDRAIL_TRIGGERED', attempts: 1 });
  });

  it('that fails withholds the answer, without asking again or elsewhere', async () => {
    const engine = reply('text');
    const spare = new ScriptedEngine(answerText, {}, 'echo');
    const output = async (): Promise<Output> => {
      throw new ServingError('UPSTREAM_ERROR', 'The judge is away.');
    };
    const { serving, resolver, call } = bench([engine, spare], {
      guards: only({ fingerprint: 'x', output }),
    });
    resolver.set(targetOf('m'), targetOf('m', { engine: 'echo', servedEntity: 'spare' }));
    resolver.govern('m', { fallback: { enabled: true } });
    const http = { origin: 'http' as const };
    expect(contents((await serving.invoke(call(chats('a'), http))).items)).toEqual(['UPSTREAM_ERROR']);
    const { events } = await serving.stream(call(chats('b'), http)).catch((error) => ({ events: error }));
    expect(events).toMatchObject({ code: 'UPSTREAM_ERROR' });
    expect([engine.batches.length, spare.batches.length]).toEqual([2, 0]);
  });

  it('never sees the raw answer of an unguarded endpoint on the same model given instead', async () => {
    const engine = reply('raw text');
    const { serving, resolver, call } = bench([engine], { guards: only(masking, 'guarded') });
    resolver.set({ ...targetOf('guarded'), fingerprint: 'print-m' });
    expect(contents((await serving.invoke(call(chats('a')))).items)).toEqual(['raw text']);
    expect(contents((await serving.invoke(call(chats('a'), {}, 'guarded'))).items)).toEqual(['<Y> text']);
    expect(contents((await serving.invoke(call(chats('a')))).items)).toEqual(['raw text']);
    const { events } = await serving.stream(call(chats('a'), {}, 'guarded'));
    expect(await collect(events)).toBe('<Y> text');
    expect(engine.batches).toHaveLength(2);
  });

  it('nor shares a question on its way with one', async () => {
    const gate = deferred();
    const engine = new ScriptedEngine(async ({ inputs }) => {
      await gate.promise;
      return { items: inputs.map((each) => itemFor(each, 'raw text')) };
    });
    const { serving, resolver, call } = bench([engine], { guards: only(masking, 'guarded') });
    resolver.set({ ...targetOf('guarded'), fingerprint: 'print-m' });
    const both = [serving.invoke(call(chats('a'))), serving.invoke(call(chats('a'), {}, 'guarded'))];
    await settle();
    gate.resolve();
    const answers = await Promise.all(both);
    expect(answers.map(({ items }) => contents(items)[0])).toEqual(['raw text', '<Y> text']);
  });

  it('gives the place at the target back while it thinks', async () => {
    const gate = deferred();
    const slow: Guard = {
      fingerprint: 'slow',
      output: async (_call, output) => {
        await gate.promise;
        return output;
      },
    };
    const engine = new ScriptedEngine(answerText, { maxConcurrency: 1 });
    const { serving, call } = bench([engine], { guards: only(slow) });
    const pending = serving.invoke(call(chats('a', 'b', 'c')));
    await settle();
    expect(engine.batches).toHaveLength(3);
    gate.resolve();
    expect(contents((await pending).items)).toEqual(['a!', 'b!', 'c!']);
  });
});

describe('a guard on a stream', () => {
  const streaming = (...texts: string[]) => {
    const engine = new ScriptedEngine();
    engine.stream = async function* () {
      for (const text of texts) yield { type: 'delta', text };
      yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 3, outputTokens: 9 } };
    };
    return engine;
  };
  const upper: Guard = {
    fingerprint: 'upper',
    stream: async function* (_call: Call, events) {
      for await (const event of events) {
        if (event.type === 'delta' && event.text === 'evil') throw refusal;
        yield event.type === 'delta' ? { ...event, text: event.text.toUpperCase() } : event;
      }
    },
  };

  it('decides what is seen and what is stored', async () => {
    const { serving, answers, call } = bench([streaming('raw ', 'text')], { guards: only(upper) });
    expect(await collect((await serving.stream(call(chats('a')))).events)).toBe('RAW TEXT');
    expect([...answers.map.values()].map(({ output }) => output)).toMatchObject([{ content: 'RAW TEXT' }]);
  });

  it('may withhold the rest; the model is stopped, and what it wrote is paid for', async () => {
    const { serving, answers, usage, call } = bench([streaming('some text ', 'evil', 'more')], {
      guards: only(upper),
    });
    const { events } = await serving.stream(call(chats('abc')));
    await expect(collect(events)).rejects.toBe(refusal);
    expect(answers.count).toBe(0);
    expect(usage.rows).toMatchObject([
      { errorCode: 'GUARDRAIL_TRIGGERED', inputTokens: 3, outputTokens: Math.ceil(14 / 4), attempts: 1 },
    ]);
    expect(serving.queueDepths()[0]).toMatchObject({ inFlight: 0 });
  });

  it('that knows whole answers only holds all of it back until it is judged', async () => {
    const { serving, call } = bench([streaming('raw ', 'text')], { guards: only(masking) });
    expect(await collect((await serving.stream(call(chats('a')))).events)).toBe('<Y> text');
    const evil = bench([streaming('evil')], { guards: only(masking) });
    await expect(evil.serving.stream(evil.call(chats('a')))).rejects.toBe(refusal);
    expect(evil.usage.rows).toMatchObject([{ inputTokens: 3, outputTokens: 9, attempts: 1 }]);
  });
});
