// Events of a stream on their way through: whole, in order, byte for byte, however the bytes are cut; usage is read
// and, where it was asked for on our behalf, withheld.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { RelayEvents } from '#engines/openai/relay-events.ts';
import { lastUsageObjectAt, readUsageAt } from '#engines/openai/relay-usage.ts';

const chunk = (members: object) => `data: ${JSON.stringify({ id: 'x', ...members })}\n\n`;
const says = (content: string) => chunk({ choices: [{ delta: { content }, finish_reason: null }] });
const stops = chunk({ choices: [{ delta: {}, finish_reason: 'stop' }] });
const usage = chunk({ choices: [], usage: { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 } });
const DONE = 'data: [DONE]\n\n';

function pass(text: string, options: { at?: readonly number[]; hidesUsage?: boolean; fails?: RegExp } = {}) {
  const bytes = Buffer.from(text);
  const places = (options.at ?? [])
    .map((place) => place % (bytes.length + 1))
    .sort((left, right) => left - right);
  const given: string[] = [];
  const failures: string[] = [];
  const events = new RelayEvents(
    {
      onEvents: (piece) => void given.push(piece.toString()),
      isFailure: (data) => {
        if (!options.fails?.test(data)) return false;
        failures.push(data);
        return true;
      },
    },
    options.hidesUsage ?? true,
  );
  for (const [index, from] of [0, ...places].entries()) {
    expect(events.feed(Buffer.from(bytes.subarray(from, places[index] ?? bytes.length)))).toBe(true);
  }
  events.end();
  return { events, given, all: given.join(''), failures };
}

const cuts = fc.array(fc.nat(2_000), { maxLength: 20 });

describe('events on their way through', () => {
  test('come out byte for byte and whole, however they are cut', () => {
    const text = fc.array(fc.string({ unit: fc.constantFrom('a', '"', '\\', '\n', 'é', '\u{1f986}') }), {
      maxLength: 6,
    });
    fc.assert(
      fc.property(text, cuts, fc.boolean(), (pieces, at, hasCrLf) => {
        const plain = `${pieces.map(says).join('')}${stops}${DONE}`;
        const stream = hasCrLf ? plain.replaceAll('\n\n', '\r\n\r\n') : plain;
        const { all, given, events } = pass(stream, { at });
        expect(all).toBe(stream);
        for (const piece of given) expect(piece.endsWith(hasCrLf ? '\r\n\r\n' : '\n\n')).toBe(true);
        expect(events.isDone).toBe(true);
      }),
    );
  });

  test('usage is read and withheld when the caller did not ask for it', () => {
    fc.assert(
      fc.property(cuts, (at) => {
        const { all, events } = pass(says('hi') + stops + usage + DONE, { at });
        expect(all).toBe(says('hi') + stops + DONE);
        expect(events.usage).toEqual({ inputTokens: 5, outputTokens: 7 });
      }),
    );
    const asked = pass(says('hi') + usage + DONE, { hidesUsage: false });
    expect(asked.all).toBe(says('hi') + usage + DONE);
    expect(asked.events.usage).toEqual({ inputTokens: 5, outputTokens: 7 });
  });

  test('usage beside a choice is read and passed on; null is no usage', () => {
    const both = chunk({
      choices: [{ delta: { content: 'x' } }],
      usage: { prompt_tokens: 1, completion_tokens: 2 },
    });
    const none = chunk({ choices: [{ delta: { content: 'x' } }], usage: null });
    const { all, events } = pass(none + both + DONE);
    expect(all).toBe(none + both + DONE);
    expect(events.usage).toEqual({ inputTokens: 1, outputTokens: 2 });
  });

  test('a text that talks about usage and errors is a text', () => {
    const sly = says('"usage":{"prompt_tokens":1,"completion_tokens":99},"error":{"message":"x"}');
    const { all, events, failures } = pass(sly + DONE, { fails: /^never/ });
    expect(all).toBe(sly + DONE);
    expect(events.usage).toBeUndefined();
    expect(failures).toEqual([]);
  });

  test('a failure ends it, and what came before it is given', () => {
    fc.assert(
      fc.property(cuts, (at) => {
        const failure = chunk({ error: { message: 'overloaded' } });
        const { all, failures, events } = pass(says('hi') + failure + says('no more') + DONE, {
          at,
          fails: /overloaded/,
        });
        expect(all).toBe(says('hi'));
        expect(failures).toHaveLength(1);
        expect(events.isDone).toBe(false);
      }),
    );
  });

  test('comments before the first answer are dropped, later ones pass', () => {
    const { all, events } = pass(`: hello\n\n${says('hi')}: still here\n\n${DONE}`);
    expect(all).toBe(`${says('hi')}: still here\n\n${DONE}`);
    expect(events.hasData).toBe(true);
    expect(pass(': hello\n\n').events.hasData).toBe(false);
  });

  test('named events, and data without a blank, are understood', () => {
    const named = `event: message\nid: 1\ndata:${JSON.stringify({ choices: [{ finish_reason: 'stop' }] })}\n\n`;
    const { all, events } = pass(named);
    expect(all).toBe(named);
    expect(events.isFinished).toBe(true);
  });

  test('the last event may lack its blank line', () => {
    const { all, events } = pass(`${says('hi')}data: [DONE]\n`);
    expect(events.isDone).toBe(true);
    expect(all.startsWith(`${says('hi')}data: [DONE]\n`)).toBe(true);
  });

  test('what was written is measured for streams that are not counted', () => {
    const tool = chunk({ choices: [{ delta: { tool_calls: [{ function: { arguments: '{"a":1}' } }] } }] });
    const { events } = pass(says('12345') + says('é') + tool);
    // As it stands in JSON, in bytes: 5, 2, and 9 with its escapes.
    expect(events.textLength).toBe(5 + 2 + 11 - 2);
  });

  test('an event that does not end is refused', () => {
    const events = new RelayEvents({ onEvents() {}, isFailure: () => false }, true);
    const piece = Buffer.alloc(3 * 1024 * 1024, 'a');
    expect([events.feed(piece), events.feed(piece), events.feed(piece)]).toEqual([true, true, false]);
  });
});

describe('usage of a whole answer', () => {
  const read = (text: string) => {
    const bytes = Buffer.from(text);
    const at = lastUsageObjectAt(bytes);
    return at < 0 ? undefined : readUsageAt(bytes, at);
  };
  const counted = { prompt_tokens: 3, completion_tokens: 4, prompt_tokens_details: { cached_tokens: 1 } };

  test('is found before and behind other members, in any layout', () => {
    for (const indent of [0, 2]) {
      expect(read(JSON.stringify({ choices: [], usage: counted, x: { y: 1 } }, null, indent))).toEqual({
        inputTokens: 3,
        outputTokens: 4,
      });
    }
  });

  test.each([
    ['nothing', '{}'],
    ['null', '{"usage":null}'],
    ['a text', '{"content":"usage"}'],
    ['an escaped text', JSON.stringify({ content: '"usage":{"prompt_tokens":1,"completion_tokens":1}' })],
    ['counts that are none', '{"usage":{"prompt_tokens":"1","completion_tokens":2}}'],
    ['negative counts', '{"usage":{"prompt_tokens":-1,"completion_tokens":2}}'],
    ['half of them', '{"usage":{"prompt_tokens":1}}'],
    ['an object that does not end', '{"usage":{"prompt_tokens":1'],
  ])('%s is no usage', (_name, text) => {
    expect(read(text)).toBeUndefined();
  });
});
