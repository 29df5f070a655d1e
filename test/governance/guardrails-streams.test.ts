import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ChatOutput, StreamEvent } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { callWith, chat, END, guardWith, Source, streamThrough } from './guardrails-support.ts';

const CARD = '4111 1111 1111 1111';
const masks = { pii: { behavior: 'MASK' } } as const;
const blocks = { pii: { behavior: 'BLOCK' } } as const;
const deltas = (...texts: string[]): StreamEvent[] => texts.map((text) => ({ type: 'delta', text }));

/** Any split of a text, empty pieces too. */
function split(text: string, cuts: readonly number[]): string[] {
  const offsets = cuts.map((cut) => cut % (text.length + 1)).sort((left, right) => left - right);
  return [0, ...offsets].map((from, index) => text.slice(from, offsets[index] ?? text.length));
}

describe('a guarded stream', () => {
  it('is, however it is cut, the masked whole answer, and ends with its end', async () => {
    const { guard } = guardWith({ output: masks });
    const words = [
      'pay ',
      CARD,
      '. ',
      'bob@example.com',
      ' the ',
      '+49 30 1234567',
      'é',
      '\n',
      '\u{1f600}',
      '12 ',
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(...words), { maxLength: 10 }),
        fc.array(fc.nat(), { maxLength: 20 }),
        async (parts, cuts) => {
          const content = parts.join('');
          const whole = await guard.output?.(callWith([chat('x')]), { content, finishReason: 'stop' });
          const { events, text } = await streamThrough(
            guard,
            new Source([...deltas(...split(content, cuts)), END]),
          );
          expect(text).toBe((whole as ChatOutput).content);
          expect(events.at(-1)).toEqual(END);
          expect(events.filter(({ type }) => type === 'end')).toHaveLength(1);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('gives text at once that nothing can come of', async () => {
    const { guard } = guardWith({ output: masks });
    const { events } = await streamThrough(
      guard,
      new Source([...deltas('Hello ', 'dear ', 'reader. ', '41', '11 1111 1111 1111', ' is it.'), END]),
    );
    expect(events.slice(0, 4)).toEqual(deltas('Hello ', 'dear ', 'reader. ', '<CREDIT_CARD> is '));
  });

  it('is refused at the first personal data of a blocking rule, before any of it is seen', async () => {
    const { guard, log } = guardWith({ output: blocks });
    const source = new Source([...deltas('Your card is ', '4111 1111 ', '1111 1111', '. Bye. '), END]);
    const { text, error } = await streamThrough(guard, source);
    expect(text).toBe('Your card is ');
    expect(error).toMatchObject({
      code: 'GUARDRAIL_TRIGGERED',
      details: { finishReason: 'output_guardrail_triggered' },
    });
    expect(source.isClosed).toBe(true);
    expect(log.lines.join()).toContain('"found":{"CREDIT_CARD":1}');
    expect(log.lines.join()).not.toContain('1111 1111');
  });

  it('is refused at a keyword that is split over events', async () => {
    const { guard } = guardWith({ output: { invalidKeywords: ['red wine'] } });
    const { text, error } = await streamThrough(
      guard,
      new Source([...deltas('We have r', 'ed', ' wi', 'ne', '.'), END]),
    );
    expect(text).toBe('We have ');
    expect(error).toMatchObject({ code: 'GUARDRAIL_TRIGGERED' });
    const passed = await streamThrough(
      guard,
      new Source([...deltas('We have r', 'ed', ' wi', 'nes', '.'), END]),
    );
    expect(passed.text).toBe('We have red wines.');
  });

  it('holds the calls of tools until they are complete, and masks their arguments as what they mean', async () => {
    const { guard } = guardWith({ output: masks });
    const piece = (index: number, fields: object): StreamEvent => ({ type: 'tool_call', index, ...fields });
    const { events } = await streamThrough(
      guard,
      new Source([
        ...deltas('one mo'),
        piece(0, { id: 'a', name: 'mail', arguments: '{"to":"bob\\u00' }),
        piece(1, { id: 'b', name: 'pay', arguments: '' }),
        piece(0, { arguments: '40example.com"}' }),
        piece(1, { arguments: '{"amount":12}' }),
        ...deltas('ment'),
        END,
      ]),
    );
    expect(events).toEqual([
      ...deltas('one ', 'moment'),
      piece(0, { id: 'a', name: 'mail', arguments: '{"to":"<EMAIL_ADDRESS>"}' }),
      piece(1, { id: 'b', name: 'pay', arguments: '{"amount":12}' }),
      END,
    ]);
  });

  it('is refused for what stands in the arguments of a tool', async () => {
    const { guard } = guardWith({ output: blocks });
    const call: StreamEvent = {
      type: 'tool_call',
      index: 0,
      id: 'a',
      name: 'f',
      arguments: `{"n":"${CARD}"}`,
    };
    const { events, error } = await streamThrough(guard, new Source([call, END]));
    expect(events).toEqual([]);
    expect(error).toMatchObject({ code: 'GUARDRAIL_TRIGGERED' });
  });

  it('that is only noted passes event by event, and the log has the kinds at the end', async () => {
    const { guard, log } = guardWith({ output: { pii: { behavior: 'NONE' } } });
    const events = [...deltas('4111 1111 ', '1111 1111'), END];
    expect((await streamThrough(guard, new Source(events))).events).toEqual(events);
    expect(log.lines.join()).toContain('"found":{"CREDIT_CARD":1}');
  });

  it('fails as its source fails, and what was held stays unseen', async () => {
    const { guard } = guardWith({ output: masks });
    const failure = new ServingError('UPSTREAM_ERROR', 'cut');
    const { text, error } = await streamThrough(guard, new Source([...deltas('so far, 4111 1111'), failure]));
    expect(text).toBe('so far, ');
    expect(error).toBe(failure);
  });

  it('closes its source when nobody reads on, also before the first event', async () => {
    for (const rules of [masks, { safety: true, judgeEndpoint: 'judge' }]) {
      const { guard } = guardWith({ output: rules });
      const source = new Source([...deltas('a ', 'b ', 'c '), END]);
      const closed: string[] = [];
      const iterator = source[Symbol.asyncIterator]();
      const watched = {
        [Symbol.asyncIterator]: () => ({
          next: () => iterator.next(),
          return: async () => {
            closed.push('return');
            return await iterator.return(undefined);
          },
        }),
      };
      const guarded = guard.stream?.(callWith([chat('x')]), watched)[Symbol.asyncIterator]();
      await guarded?.return?.();
      expect(closed).toEqual(['return']);
      expect(await guarded?.next()).toEqual({ done: true, value: undefined });
    }
  });
});

describe('a stream that is judged as a whole', () => {
  const rules = { output: { safety: true, judgeEndpoint: 'judge', pii: { behavior: 'MASK' } } } as const;
  const events = [...deltas('one ', 'two'), END];

  it('is seen only after the verdict, and then as it came', async () => {
    const source = new Source(events);
    const seenWhenAsked: boolean[] = [];
    const { guard } = guardWith(rules, () => {
      seenWhenAsked.push(true);
      return 'safe';
    });
    const guarded = guard.stream?.(callWith([chat('x')]), source)[Symbol.asyncIterator]();
    const first = await guarded?.next();
    expect(seenWhenAsked).toEqual([true]);
    expect(first).toEqual({ done: false, value: events[0] });
    expect((await streamThrough(guard, new Source(events))).events).toEqual(events);
  });

  it('is refused whole, or comes masked', async () => {
    const { guard: unsafe } = guardWith(rules, () => 'unsafe\nS1');
    const refused = await streamThrough(unsafe, new Source(events));
    expect(refused.events).toEqual([]);
    expect(refused.error).toMatchObject({ code: 'GUARDRAIL_TRIGGERED' });
    const { guard } = guardWith(rules, () => 'safe');
    const call: StreamEvent = { type: 'tool_call', index: 0, id: 'a', name: 'f', arguments: '{"x":1}' };
    const masked = await streamThrough(guard, new Source([...deltas('bob@', 'example.com'), call, END]));
    expect(masked.events).toEqual([...deltas('<EMAIL_ADDRESS>'), call, END]);
  });

  it('is not judged and not seen when it breaks', async () => {
    const { guard, asked } = guardWith(rules, () => 'safe');
    const failure = new ServingError('UPSTREAM_ERROR', 'cut');
    expect(await streamThrough(guard, new Source([...deltas('x'), failure]))).toMatchObject({
      events: [],
      error: failure,
    });
    expect((await streamThrough(guard, new Source(deltas('x')))).events).toEqual([]);
    expect(asked).toEqual([]);
  });
});
