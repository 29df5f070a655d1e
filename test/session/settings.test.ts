// SET and RESET of duckserve's own settings.
import { afterEach, describe, expect, it } from 'vitest';
import type { Budget } from '#core/call.ts';
import { SessionSettings } from '#session/settings.ts';
import { parseStatement } from '#session/statement.ts';
import { chatText, type Harness, openHarness, rowsOf, say } from './harness.ts';

function settings() {
  const created: Budget['limits'][] = [];
  const made = new SessionSettings((limits) => {
    created.push(limits);
    return { limits, reserve: async () => ({ settle() {} }) };
  });
  return { settings: made, created, apply: (text: string) => made.apply(parseStatement(text)) };
}

describe('ai_cache', () => {
  it('is on until it is set, in any spelling of SET', () => {
    const { settings: current, apply } = settings();
    expect(current.cache).toBe('on');
    for (const [text, mode] of [
      ["SET ai_cache = 'off'", 'off'],
      ['set AI_CACHE to READ', 'read'],
      ["SET SESSION ai_cache='write'", 'write'],
      ['SET GLOBAL ai_cache = on', 'on'],
      ["SET LOCAL ai_cache = 'Off'", 'off'],
      ['RESET ai_cache', 'on'],
    ] as const) {
      apply(text);
      expect(current.cache).toBe(mode);
    }
  });

  it.each(["SET ai_cache = 'sometimes'", 'SET ai_cache', "SET ai_cache = ''", 'SET ai_cache = 1'])(
    'refuses %s with the modes there are',
    (text) => {
      const { settings: current, apply } = settings();
      expect(() => apply(text)).toThrowError(
        expect.objectContaining({
          code: 'INVALID_PARAMETER',
          message: expect.stringContaining('ai_cache must be one of on, off, read, write'),
        }),
      );
      expect(current.cache).toBe('on');
    },
  );
});

describe('limits', () => {
  it('make one budget together, which counts anew with every SET and goes with the last RESET', () => {
    const { settings: current, created, apply } = settings();
    expect(current.budget).toBeUndefined();
    apply('SET ai_max_calls = 10');
    apply('SET ai_max_cost TO 1.5');
    const budget = current.budget;
    apply("SET ai_max_tokens = '1e6'");
    expect(current.budget).not.toBe(budget);
    expect(current.budget?.limits).toEqual({ maxCalls: 10, maxCost: 1.5, maxTokens: 1_000_000 });
    apply('RESET ai_max_calls');
    expect(current.budget?.limits).toEqual({ maxCost: 1.5, maxTokens: 1_000_000 });
    apply('RESET ai_max_cost');
    apply('RESET ai_max_tokens');
    expect(current.budget).toBeUndefined();
    expect(created).toHaveLength(5);
  });

  it('may be nothing at all', () => {
    const { settings: current, apply } = settings();
    apply('SET ai_max_calls = 0');
    expect(current.budget?.limits).toEqual({ maxCalls: 0 });
  });

  it.each([
    'SET ai_max_calls = -1',
    "SET ai_max_calls = 'many'",
    'SET ai_max_cost =',
    'SET ai_max_tokens = 1 + 1',
    "SET ai_max_calls = ''",
    'SET ai_max_calls = Infinity',
  ])('refuses %s and changes nothing', (text) => {
    const { settings: current, apply } = settings();
    apply('SET ai_max_calls = 3');
    expect(() => apply(text)).toThrowError(
      expect.objectContaining({
        code: 'INVALID_PARAMETER',
        message: expect.stringMatching(/must be a number that is not negative/),
      }),
    );
    expect(current.budget?.limits).toEqual({ maxCalls: 3 });
  });
});

it('a setting that is not there is refused with those that are', () => {
  const { apply } = settings();
  for (const text of ['SET ai_model = 1', 'RESET ai_everything']) {
    expect(() => apply(text)).toThrow('There are: ai_cache, ai_max_calls, ai_max_tokens, ai_max_cost.');
  }
});

describe('in a session', () => {
  let harness: Harness;
  afterEach(() => harness.close());

  it('reach the calls of that session only, and a call may name its own', async () => {
    harness = await openHarness(
      { upper: { task: 'llm/v1/chat', answer: (input) => say(chatText(input)) } },
      { chat: 'upper' },
    );
    const { session, other, calls } = harness;
    await session.run(
      "SET ai_cache = 'off'; SET ai_max_calls = 7; SELECT ai_gen('a'), ai_gen('b', cache => 'read')",
    );
    await other.run("SELECT ai_gen('c')");
    expect(calls.map(({ cache, budget }) => [cache, budget?.limits.maxCalls])).toEqual([
      ['off', 7],
      ['read', 7],
      ['on', undefined],
    ]);
    expect(await rowsOf(session, "SET VARIABLE ai_x = 5; SELECT getvariable('ai_x')")).toEqual([[5]]);
    await expect(session.run('SET ai_nothing = 1')).rejects.toMatchObject({ code: 'INVALID_PARAMETER' });
    await expect(session.run('SET nothing_of_ours = 1')).rejects.toMatchObject({ code: 'SQL_ERROR' });
  });
});
