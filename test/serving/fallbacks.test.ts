import { describe, expect, it } from 'vitest';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { fail, invokeOn, numbered } from './queue-support.ts';
import {
  answerText,
  type Bench,
  bench,
  chats,
  contents,
  itemFor,
  ManualClock,
  type Script,
  ScriptedEngine,
  settle,
  targetOf,
  textOf,
} from './support.ts';

const spare = (engine: 'anthropic' | 'echo' | 'cohere', more: Partial<Target> = {}) =>
  targetOf('m', { engine, servedEntity: engine, model: engine, fingerprint: engine, ...more });
const saying =
  (text: string): Script =>
  ({ inputs }) => ({ items: inputs.map((each) => itemFor(each, text)) });
const enabled = { fallback: { enabled: true } };
const http = { origin: 'http' as const };

/** Endpoint `m` with a primary of its own script and the stand-ins named. */
function withSpares(
  primary: ScriptedEngine,
  spares: readonly ScriptedEngine[],
  options: Parameters<typeof bench>[1] = {},
): Bench {
  const made = bench([primary, ...spares], options);
  made.resolver.set(targetOf('m'), ...spares.map(({ kind }) => spare(kind as 'echo')));
  made.resolver.govern('m', enabled);
  return made;
}

describe('fallbacks', () => {
  it('are asked in order for what the first could not answer, and say so', async () => {
    const clock = new ManualClock();
    const primary = new ScriptedEngine((batch, ask) =>
      textOf(batch.inputs[0] ?? { text: '' }) === 'b' ? fail('UPSTREAM_ERROR') : answerText(batch, ask),
    );
    const second = new ScriptedEngine(() => fail('RATE_LIMITED'), {}, 'anthropic');
    const third = new ScriptedEngine(saying('third'), {}, 'echo');
    const made = withSpares(primary, [second, third], { clock });
    const answer = await invokeOn(clock, made, made.call(chats('a', 'b')));
    expect(contents(answer.items)).toEqual(['a!', 'third']);
    expect(answer.servedEntity).toBe('echo');
    expect(made.usage.sum('inputCount')).toBe(2);
    expect(made.usage.rows.map(({ engine, attempts, errorCode }) => [engine, attempts, errorCode])).toEqual([
      ['openai', 1, null],
      ['openai', 4, 'UPSTREAM_ERROR'],
      ['anthropic', 8, 'RATE_LIMITED'],
      ['echo', 1, null],
    ]);
    // The stand-in's answer is not taken for the first one's.
    primary.script = answerText;
    expect(contents((await invokeOn(clock, made, made.call(chats('b')))).items)).toEqual(['b!']);
  });

  it('are not asked unless the endpoint wants it, and of the others two at most', async () => {
    const clock = new ManualClock();
    const failing = (kind: 'openai' | 'anthropic' | 'echo') =>
      new ScriptedEngine(() => fail('UPSTREAM_ERROR'), {}, kind);
    const last = new ScriptedEngine(answerText, {}, 'cohere');
    const made = bench([failing('openai'), failing('anthropic'), failing('echo'), last], { clock });
    made.resolver.set(targetOf('m'), spare('anthropic'), spare('echo'), spare('cohere'));
    for (const fallback of [undefined, { enabled: false }, { enabled: true }]) {
      made.resolver.govern('m', fallback ? { fallback } : {});
      const answer = await invokeOn(clock, made, made.call(chats('a'), { cache: 'off' }));
      expect(contents(answer.items)).toEqual(['UPSTREAM_ERROR']);
    }
    expect(last.batches).toHaveLength(0);
    const engines = made.usage.rows.map(({ engine }) => engine);
    expect(engines).toEqual(['openai', 'openai', 'openai', 'anthropic', 'echo']);
  });

  it('are not asked for what is the caller’s own fault, nor for what a limit refuses', async () => {
    for (const code of ['UPSTREAM_REJECTED', 'UPSTREAM_AUTH', 'RATE_LIMIT_EXCEEDED'] as const) {
      const other = new ScriptedEngine(answerText, {}, 'echo');
      const made = withSpares(new ScriptedEngine(() => fail(code)), [other]);
      const answer = await made.serving.invoke(made.call(chats('a'), http));
      expect(contents(answer.items)).toEqual([code]);
      expect(other.batches).toHaveLength(0);
    }
  });

  it('answer a caller on a connection after one failure of the first, also one that was a 200 with nothing in it', async () => {
    const nothing: Script = ({ inputs }) => ({
      items: inputs.map(() => ({
        ok: true,
        output: { content: '', finishReason: 'stop' },
        usage: { inputTokens: 5, outputTokens: 0 },
      })),
    });
    for (const script of [() => fail('RATE_LIMITED', 5000), () => fail('TIMEOUT'), nothing]) {
      const clock = new ManualClock();
      const primary = new ScriptedEngine(script);
      const made = withSpares(primary, [new ScriptedEngine(saying('spare'), {}, 'echo')], { clock });
      const pending = made.serving.invoke(made.call(chats('a'), http));
      await settle();
      // No time has passed.
      expect(contents((await pending).items)).toEqual(['spare']);
      expect(primary.batches).toHaveLength(1);
    }
  });

  it('are not flooded by rows of a statement on a lone refusal: those wait and go on at the first', async () => {
    const clock = new ManualClock();
    const primary = new ScriptedEngine((batch, ask) =>
      ask % 7 === 0 ? fail('RATE_LIMITED', 200) : answerText(batch, ask),
    );
    const other = new ScriptedEngine(answerText, {}, 'echo');
    const made = withSpares(primary, [other], { clock });
    const answer = await invokeOn(clock, made, made.call(chats(...numbered(50)), { origin: 'sql' }));
    expect(answer.items.every(({ ok }) => ok)).toBe(true);
    expect(other.batches).toHaveLength(0);
  });

  it('take over at once while the first was told to pause, also for those who wait already', async () => {
    const clock = new ManualClock();
    let refuses = false;
    const primary = new ScriptedEngine(
      async (batch, ask) => {
        await clock.sleep(100);
        return refuses ? fail('RATE_LIMITED', 60_000) : answerText(batch, ask);
      },
      { maxConcurrency: 1 },
    );
    const made = withSpares(primary, [new ScriptedEngine(saying('spare'), {}, 'echo')], { clock });
    refuses = true;
    const both = ['a', 'b'].map((text) => made.serving.invoke(made.call(chats(text), http)));
    await clock.advance(100);
    const answers = await Promise.all(both);
    expect(answers.map(({ items }) => contents(items))).toEqual([['spare'], ['spare']]);
    expect(contents((await made.serving.invoke(made.call(chats('c'), http))).items)).toEqual(['spare']);
    expect(primary.batches).toHaveLength(1);
    refuses = false;
    await clock.advance(70_000);
    const later = made.serving.invoke(made.call(chats('d'), http));
    await clock.advance(100);
    expect(contents((await later).items)).toEqual(['d!']);
  });

  it('take over from a target that only fails, which is tried again by one caller in a while', async () => {
    const clock = new ManualClock();
    const primary = new ScriptedEngine(() => fail('UPSTREAM_ERROR'));
    const made = withSpares(primary, [new ScriptedEngine(saying('spare'), {}, 'echo')], { clock });
    const ask = (text: string) => made.serving.invoke(made.call(chats(text), http));
    for (const text of numbered(60)) expect(contents((await ask(text)).items)).toEqual(['spare']);
    expect(primary.batches).toHaveLength(20);
    await clock.advance(5000);
    for (const text of numbered(10, 'u')) await ask(text);
    expect(primary.batches).toHaveLength(21);
    primary.script = answerText;
    await clock.advance(5000);
    expect(contents((await ask('v')).items)).toEqual(['v!']);
    expect(contents((await ask('w')).items)).toEqual(['w!']);
  });

  it('give the last failure when nobody can answer', async () => {
    const clock = new ManualClock();
    const primary = new ScriptedEngine(() => fail('TIMEOUT'));
    const other = new ScriptedEngine(() => fail('RATE_LIMITED', 3_600_000), {}, 'echo');
    const made = withSpares(primary, [other], { clock });
    const answer = await invokeOn(clock, made, made.call(chats('a'), http));
    expect(contents(answer.items)).toEqual(['RATE_LIMITED']);
    expect(made.usage.sum('inputCount')).toBe(1);
  });

  it('of a stream are asked until the first event, after one failure each for a caller on a connection', async () => {
    const primary = new ScriptedEngine();
    primary.stream = async function* () {
      yield* [];
      throw new ServingError('RATE_LIMITED', 'Busy.', { retryAfterMs: 9000 });
    };
    const empty = new ScriptedEngine(undefined, {}, 'anthropic');
    empty.stream = async function* () {
      yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 1, outputTokens: 0 } };
    };
    const made = withSpares(primary, [empty, new ScriptedEngine(saying('spare'), {}, 'echo')]);
    made.resolver.set(
      targetOf('m'),
      spare('anthropic', { externalModel: { name: 'x', provider: 'anthropic', task: 'llm/v1/chat' } }),
      spare('echo'),
    );
    made.resolver.govern('m', enabled);
    const { target, events } = await made.serving.stream(made.call(chats('a'), http));
    expect(target.servedEntity).toBe('echo');
    for await (const _ of events);
    expect(made.usage.rows.map(({ engine, attempts, errorCode }) => [engine, attempts, errorCode])).toEqual([
      ['openai', 1, 'RATE_LIMITED'],
      ['anthropic', 1, 'INVALID_RESPONSE'],
      ['echo', 1, null],
    ]);
  });
});
