// Access tokens: kept until shortly before their end, shared by all who ask, renewed once when they are refused.
import { describe, expect, test } from 'vitest';
import type { Clock } from '#core/clock.ts';
import { ServingError } from '#core/errors.ts';
import { type Token, TokenSource } from '#engines/http/token.ts';
import { expectCode } from './contract.ts';

const never = new AbortController().signal;
const refused = () => new ServingError('UPSTREAM_AUTH', 'no', { details: { status: 401 } });

class FakeClock implements Clock {
  nowMs = 1_000_000;
  now = () => this.nowMs;
  random = () => 0;
  sleep = () => Promise.resolve();
}

function sourceOf(lifeMs: number) {
  const clock = new FakeClock();
  let count = 0;
  const source = new TokenSource(async () => ({ value: `t${++count}`, lifeMs }), clock);
  return { source, clock, asked: () => count };
}

describe('access tokens', () => {
  test('an hour’s token is used for 55 minutes', async () => {
    const { source, clock, asked } = sourceOf(3_600_000);
    expect(await source.get(never)).toBe('t1');
    clock.nowMs += 55 * 60_000 - 1;
    expect(await source.get(never)).toBe('t1');
    clock.nowMs += 1;
    expect(await source.get(never)).toBe('t2');
    expect(asked()).toBe(2);
  });

  test('a short one is used for four fifths of its life', async () => {
    const { source, clock } = sourceOf(10_000);
    await source.get(never);
    clock.nowMs += 7_999;
    expect(await source.get(never)).toBe('t1');
    clock.nowMs += 1;
    expect(await source.get(never)).toBe('t2');
  });

  test('a failure to get one is everybody’s who waited, and is not kept', async () => {
    const outcomes = [refused(), 'good'];
    let count = 0;
    const source = new TokenSource(async (): Promise<Token> => {
      const outcome = outcomes[count++];
      if (outcome instanceof Error) throw outcome;
      return { value: String(outcome), lifeMs: 1_000 };
    });
    const works = [source.get(never), source.get(never)];
    for (const work of works) await expectCode('UPSTREAM_AUTH', work);
    expect(count).toBe(1);
    expect(await source.get(never)).toBe('good');
  });

  test('many that are refused with the same token renew it once', async () => {
    const { source, asked } = sourceOf(3_600_000);
    await source.get(never);
    const work = async (token: string) => {
      if (token === 't1') throw refused();
      return token;
    };
    const tokens = await Promise.all(Array.from({ length: 20 }, () => source.with(never, work)));
    expect(new Set(tokens)).toEqual(new Set(['t2']));
    expect(asked()).toBe(2);
  });

  test('who hears late that the old token is refused takes the new one', async () => {
    const { source, asked } = sourceOf(3_600_000);
    let refuseLate = (): void => {};
    const late = source.with(never, async (token) => {
      if (token !== 't1') return token;
      await new Promise<void>((resolve) => {
        refuseLate = resolve;
      });
      throw refused();
    });
    await source.get(never);
    const early = await source.with(never, async (token) => {
      if (token === 't1') throw refused();
      return token;
    });
    refuseLate();
    expect([early, await late]).toEqual(['t2', 't2']);
    expect(asked()).toBe(2);
  });

  test('other failures are not the token’s fault, and a stream that has begun is not begun again', async () => {
    const { source, asked } = sourceOf(3_600_000);
    const broken = async () => {
      throw new ServingError('UPSTREAM_AUTH', 'no', { details: { status: 403 } });
    };
    await expectCode('UPSTREAM_AUTH', source.with(never, broken));
    let starts = 0;
    const read = async () => {
      const stream = source.stream(never, async function* () {
        starts++;
        yield { type: 'delta' as const, text: 'half' };
        throw refused();
      });
      for await (const _ of stream);
    };
    await expectCode('UPSTREAM_AUTH', read());
    expect(starts).toBe(1);
    expect(asked()).toBe(1);
  });
});
