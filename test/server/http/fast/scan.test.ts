// The look through a body before it is passed on as bytes: what it finds is what JSON.parse finds, and whatever two
// readers could understand differently is left to the routes.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ByteRelay } from '#engines/engine.ts';
import { toPieces } from '#serving/relay-body.ts';
import { walkMembers } from '../../../../src/server/http/fast/members.ts';
import { scanBody } from '../../../../src/server/http/fast/scan.ts';

const chat = (body: object | string) =>
  scanBody(Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)), 'llm/v1/chat');
const messages = [{ role: 'user', content: 'say "hi" \\ {]' }];

describe('members of an object as bytes', () => {
  const members = (text: string | Buffer) => {
    const bytes = Buffer.from(text);
    const found: [string, unknown][] = [];
    const end = walkMembers(bytes.toString('latin1'), (name, from, to) => {
      found.push([name, JSON.parse(bytes.toString('utf8', from, to))]);
      return true;
    });
    return { end, found };
  };
  const plainName = fc.stringMatching(/^[a-z_]{1,12}$/);

  test('each member of any JSON object is found where it stands, however the text is laid out', () => {
    const object = fc.dictionary(plainName, fc.jsonValue({ maxDepth: 4 }), { minKeys: 1, maxKeys: 8 });
    fc.assert(
      fc.property(object, fc.nat(3), (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        const { end, found } = members(`${' '.repeat(indent)}${text}\n`);
        expect(end).toBe(indent + Buffer.byteLength(text) - 1);
        expect(found).toEqual(Object.entries(JSON.parse(text) as object));
      }),
    );
  });

  test('long strings with quotes and backslashes anywhere', () => {
    const text = fc.string({ unit: fc.constantFrom('\\', '"', 'a', '{', '\n', 'é'), maxLength: 300 });
    fc.assert(
      fc.property(text, text, (first, second) => {
        const value = { a: first, b: [second, { c: first }], d: 1 };
        expect(members(JSON.stringify(value)).found).toEqual(Object.entries(value));
      }),
    );
  });

  test('a text that is no JSON object is never taken for one', () => {
    const bytes = fc.string({ unit: fc.constantFrom(...'{}[]",:\\ab1 \n'), maxLength: 40 });
    fc.assert(
      fc.property(bytes, (text) => {
        const places: [number, number][] = [];
        const end = walkMembers(
          Buffer.from(text).toString('latin1'),
          (_name, from, to) => places.push([from, to]) > 0,
        );
        if (end < 0) return;
        // Values are not checked inside, but where they end is.
        const outline = places.reduceRight(
          (rest, [from, to]) => `${rest.slice(0, from)}0${rest.slice(to)}`,
          text,
        );
        expect(() => JSON.parse(outline)).not.toThrow();
      }),
      { numRuns: 5_000 },
    );
  });

  test.each([
    ['nothing', ''],
    ['an empty object', '{}'],
    ['a list', '[1]'],
    ['a byte order mark', '\ufeff{"a":1}'],
    ['something after the object', '{"a":1} {"a":2}'],
    ['a comma too many', '{"a":1,}'],
    ['no comma', '{"a":1 "b":2}'],
    ['no colon', '{"a" 1}'],
    ['a name without quotes', '{a:1}'],
    ['an escaped name', '{"\\u0061":1}'],
    ['a name that is not ASCII', '{"ä":1}'],
    ['brackets that do not fit', '{"a":[}]}'],
    ['an open string', '{"a":"b}'],
    ['a string that ends in an escaped quote', '{"a":"b\\"}'],
    ['an open list', '{"a":[1,2}'],
    ['a comment', '{"a":1/*x*/}'],
    ['deep lists', `{"a":${'['.repeat(40)}${']'.repeat(40)}}`],
  ])('%s ends the walk', (_name, text) => {
    expect(members(text).end).toBe(-1);
  });
});

describe('what a body is taken for', () => {
  test('the model, the stream and the limits are found', () => {
    const body = {
      model: 'gpt',
      messages,
      stream: true,
      max_tokens: 7,
      temperature: 0.5,
      top_p: 1,
      user: 'ann',
    };
    expect(chat(body)).toMatchObject({
      model: 'gpt',
      temperature: 0.5,
      body: { isStream: true, includesUsage: false, maxTokens: 7, limitField: 'max_tokens' },
    });
  });

  test('fields inside messages are not taken for those of the request', () => {
    const sly = [{ role: 'user', content: '","model":"other","stream":true,"x":"' }];
    expect(chat({ model: 'gpt', messages: sly })).toMatchObject({ model: 'gpt', body: { isStream: false } });
  });

  test.each([
    ['a field of ours', { client_request_id: 'x' }],
    ['a context for usage rows', { usage_context: { a: 'b' } }],
    ['a cache mode', { cache: 'on' }],
    ['parameters of our own', { extra_params: { a: 1 } }],
    ['a field that nobody knows', { colour: 'red' }],
    ['several choices', { n: 2 }],
    ['log probabilities', { logprobs: true }],
    ['a schema for the answer', { response_format: { type: 'json_object' } }],
    ['old functions', { functions: [] }],
    ['a stream that is no boolean', { stream: 'yes' }],
    ['a stream that is null', { stream: null }],
    ['a limit that is null', { max_tokens: null }],
    ['a limit of zero', { max_tokens: 0 }],
    ['a limit with a fraction', { max_tokens: 1.5 }],
    ['two limits', { max_tokens: 1, max_completion_tokens: 1 }],
    ['a temperature out of range', { temperature: 3 }],
    ['stream options that are more than usage', { stream_options: { include_usage: true, x: 1 } }],
    ['a model that is no name', { model: 'a b' }],
    ['a model that is a list', { model: ['gpt'] }],
    ['messages that are no list', { messages: 'hi' }],
    ['no messages', { messages: [] }],
    ['a prompt where messages belong', { messages: undefined, prompt: 'hi' }],
  ])('%s is left to the routes', (_name, change) => {
    expect(chat({ model: 'gpt', messages, ...change })).toBeUndefined();
  });

  test.each([
    ['a name that comes twice', '{"model":"a","messages":[1],"model":"b"}'],
    ['an escape in the model', '{"model":"\\u0061","messages":[1]}'],
  ])('%s is left to the routes', (_name, text) => {
    expect(chat(text)).toBeUndefined();
  });

  test('bytes that are no UTF-8 are left to the routes', () => {
    const bytes = Buffer.from('{"model":"gpt","messages":["\xff"]}', 'latin1');
    expect(scanBody(bytes, 'llm/v1/chat')).toBeUndefined();
  });

  test('completions take one prompt; lists of them and token ids do not pass', () => {
    const scan = (prompt: unknown) => scanBody(Buffer.from(JSON.stringify({ prompt })), 'llm/v1/completions');
    expect(scan('once')?.body.inputLength).toBe(4);
    expect(scan(['a', 'b'])).toBeUndefined();
    expect(scan([1, 2])).toBeUndefined();
    expect(scan('')).toBeUndefined();
  });
});

describe('the bytes for the provider', () => {
  const relay: ByteRelay = {
    model: Buffer.from('"real \\"model\\""'),
    limitField: 'max_tokens',
    hasStreamOptions: true,
    send: () => {
      throw new Error('not sent here');
    },
  };
  const bytesOf = (body: object, cap?: number, options: Partial<ByteRelay> = {}, indent = 0) => {
    const scanned = scanBody(Buffer.from(JSON.stringify(body, null, indent)), 'llm/v1/chat');
    if (!scanned) throw new Error('not passed');
    return Buffer.concat(toPieces(scanned.body, { ...relay, ...options }, cap)).toString();
  };

  test('the order of members and the layout do not matter, and nothing else changes', () => {
    const members: [string, unknown][] = [
      ['model', 'gpt'],
      ['messages', messages],
      ['stream', true],
      ['stream_options', { include_usage: false }],
      ['tools', [{ type: 'function', function: { name: 'f', parameters: { model: 'x' } } }]],
      ['metadata', { stream: 'no', model: 'no' }],
    ];
    fc.assert(
      fc.property(
        fc.shuffledSubarray(members, { minLength: members.length }),
        fc.subarray(['model', 'stream', 'stream_options', 'tools']),
        fc.option(fc.integer({ min: 1, max: 9_999 }), { nil: undefined }),
        fc.nat(2),
        (order, without, cap, indent) => {
          const body = Object.fromEntries(order.filter(([name]) => !without.includes(name)));
          const sent = JSON.parse(bytesOf(body, cap, {}, indent)) as object;
          expect(sent).toEqual({
            ...body,
            model: 'real "model"',
            ...(body.stream === true && { stream_options: { include_usage: true } }),
            ...(cap !== undefined && { max_tokens: cap }),
          });
        },
      ),
    );
  });

  test('usage is not asked for where it cannot be, and what the caller asked is left alone', () => {
    const stream = { model: 'gpt', messages, stream: true };
    expect(JSON.parse(bytesOf(stream, undefined, { hasStreamOptions: false }))).not.toHaveProperty(
      'stream_options',
    );
    const asked = { ...stream, stream_options: { include_usage: true } };
    expect(JSON.parse(bytesOf(asked))).toEqual({ ...asked, model: 'real "model"' });
    expect(JSON.parse(bytesOf({ model: 'gpt', messages }))).not.toHaveProperty('stream_options');
  });
});
