// Targets whose answers depend on who asks: what they are told of their caller, and what is shared with nobody.
import { describe, expect, it } from 'vitest';
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { fail, invokeOn } from './queue-support.ts';
import { bench, chats, contents, itemFor, ManualClock, ScriptedEngine, targetOf } from './support.ts';

const named = (name: string): Principal => ({ ...LOCAL_OWNER, id: `${name}-id`, name });
const byCaller = () =>
  new ScriptedEngine(({ inputs, caller }) => ({
    items: inputs.map((each) => itemFor(each, `for ${caller?.principal.name} at ${caller?.depth}`)),
  }));
const kept = { cache: 'on', isCacheChosen: true } as const;

describe('a personal target', () => {
  it('is told who asks, one input at a time, however many its engine takes', async () => {
    const clock = new ManualClock();
    const engine = new ScriptedEngine(byCaller().script, { maxInputs: 16 });
    const made = bench([engine], { clock });
    made.resolver.set(targetOf('m', { isPersonal: true }));
    const call = made.call(chats('a', 'b', 'c'), { principal: named('ann'), depth: 2 });
    const { items } = await invokeOn(clock, made, call);
    expect(contents(items)).toEqual(Array(3).fill('for ann at 2'));
    expect(engine.batches.map(({ inputs }) => inputs.length)).toEqual([1, 1, 1]);
  });

  it('is asked anew for everybody, and kept for those who have asked for that', async () => {
    const clock = new ManualClock();
    const engine = byCaller();
    const made = bench([engine], { clock });
    made.resolver.set(targetOf('m', { isPersonal: true }));
    const ask = async (name: string, more: object = {}) => {
      const call = made.call(chats('same'), { principal: named(name), cache: 'on', ...more });
      return contents((await invokeOn(clock, made, call)).items)[0];
    };
    expect([await ask('ann'), await ask('ann'), await ask('bob')]).toEqual([
      ...['for ann at 0', 'for ann at 0', 'for bob at 0'],
    ]);
    expect(engine.batches).toHaveLength(3);
    expect([await ask('ann', kept), await ask('ann', kept), await ask('bob', kept)]).toEqual([
      ...['for ann at 0', 'for ann at 0', 'for bob at 0'],
    ]);
    expect(engine.batches).toHaveLength(5);
  });

  it('as a stand-in shares nothing either: who waited for the first together is asked for apart', async () => {
    const clock = new ManualClock();
    const primary = new ScriptedEngine(() => fail('INVALID_RESPONSE'));
    const agent = new ScriptedEngine(byCaller().script, {}, 'echo');
    const made = bench([primary, agent], { clock });
    const stand = { engine: 'echo', servedEntity: 'echo', model: 'echo', fingerprint: 'echo' } as const;
    made.resolver.set(targetOf('m'), targetOf('m', { ...stand, isPersonal: true }));
    made.resolver.govern('m', { fallback: { enabled: true } });
    const ask = (name: string) =>
      invokeOn(clock, made, made.call(chats('same'), { principal: named(name), ...kept }));
    const answers = await Promise.all([ask('ann'), ask('bob')]);
    expect(answers.map(({ items }) => contents(items)[0])).toEqual(['for ann at 0', 'for bob at 0']);
  });

  it('that failed on an input is not asked again, whatever the code', async () => {
    const clock = new ManualClock();
    const error = new ServingError('RATE_LIMITED', 'Whom it asked was busy.');
    const engine = new ScriptedEngine(({ inputs }) => ({ items: inputs.map(() => ({ ok: false, error })) }));
    const made = bench([engine], { clock });
    made.resolver.set(targetOf('m', { isPersonal: true }));
    const { items } = await invokeOn(clock, made, made.call(chats('a')));
    expect(items[0]).toMatchObject({ ok: false, error: { code: 'RATE_LIMITED' } });
    expect(engine.batches).toHaveLength(1);
  });

  it('is told its caller in streams, too; others are told nothing', async () => {
    const clock = new ManualClock();
    const engine = byCaller();
    const made = bench([engine], { clock });
    made.resolver.set(targetOf('m', { isPersonal: true }));
    const { events } = await made.serving.stream(made.call(chats('a'), { principal: named('ann') }));
    const said: unknown[] = [];
    for await (const event of events) if (event.type === 'delta') said.push(event.text);
    expect(said).toEqual(['for ann at 0']);
    made.resolver.set(targetOf('m', { fingerprint: 'other' }));
    await invokeOn(clock, made, made.call(chats('a')));
    expect(engine.batches.map(({ caller }) => caller?.principal.name)).toEqual(['ann', undefined]);
  });
});
