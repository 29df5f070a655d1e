// ai_query: any endpoint by its task; options, typed answers, and errors as values.
import { afterEach, describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { aiGen } from '#functions/ai-gen.ts';
import { aiModel } from '#functions/ai-model.ts';
import { aiQueryEmbedding, aiQueryJson, aiQueryText, aiQueryTry, inputFor } from '#functions/ai-query.ts';
import { chatText, type Harness, openHarness, rowsOf, say } from '../session/harness.ts';
import { answered, contextOf, embedded, failed, finish, planOf, predicted, said } from './context.ts';

const context = contextOf(
  { chat: 'llm/v1/chat', old: 'llm/v1/completions', emb: 'llm/v1/embeddings', tree: 'predict' },
  { chat: 'chat', embedding: 'emb' },
);
const options = (value: Json) => JSON.stringify(value);

describe('a request', () => {
  it.each<[Parameters<typeof inputFor>[0], Json, object]>([
    ['llm/v1/chat', 'hi', { messages: [{ role: 'user', content: 'hi' }] }],
    ['llm/v1/chat', { a: 1 }, { messages: [{ role: 'user', content: '{"a":1}' }] }],
    ['llm/v1/completions', 'hi', { prompt: 'hi' }],
    ['llm/v1/embeddings', 5, { text: '5' }],
    ['predict', { a: 1 }, { features: { a: 1 } }],
    ['predict', [1, 2], { features: [1, 2] }],
    ['predict', 'word', { features: ['word'] }],
    ['predict', 3, { features: [3] }],
    ['predict', ' {"a": 1}', { features: { a: 1 } }],
    ['predict', '[1, 2]', { features: [1, 2] }],
    ['predict', '[not json', { features: ['[not json'] }],
  ])('for %s of %j becomes its input', (task, request, input) => {
    expect(inputFor(task, request)).toEqual(input);
  });

  it('that is NULL, or whose endpoint is NULL, is not asked', () => {
    for (const called of [aiQueryText, aiQueryJson, aiQueryTry, aiQueryEmbedding]) {
      expect(called.plan(['chat', null, '{}'], context)).toEqual({ value: null });
      expect(called.plan([null, 'x', '{}'], context)).toEqual({ value: null });
    }
  });
});

describe('parameters', () => {
  it('have temperature 0 for text unless it was set, and one object for all rows', () => {
    const first = planOf(aiQueryText, ['chat', 'x', '{}'], context).questions[0]?.parameters;
    expect(first).toEqual({ temperature: 0 });
    expect(planOf(aiQueryText, ['chat', 'y', '{}'], context).questions[0]?.parameters).toBe(first);
    const set = options({ modelParameters: { temperature: 0.7, max_tokens: 9 } });
    expect(planOf(aiQueryText, ['old', 'x', set], context).questions[0]?.parameters).toEqual({
      temperature: 0.7,
      maxTokens: 9,
    });
  });

  it('of embeddings are only those that were given, whatever type the column has', () => {
    const question = planOf(
      aiQueryJson,
      ['emb', 'x', options({ returnType: 'ARRAY<FLOAT>', modelParameters: { dimensions: 3 } })],
      context,
    ).questions[0];
    expect(question?.parameters).toEqual({ dimensions: 3 });
  });

  it('are refused for a custom model', () => {
    expect(() =>
      aiQueryJson.plan(['tree', 1, options({ modelParameters: { max_tokens: 3 } })], context),
    ).toThrow('this one serves a custom model');
    expect(
      planOf(aiQueryJson, ['tree', 1, options({ returnType: 'DOUBLE' })], context).questions[0]?.parameters,
    ).toEqual({});
  });

  it('carry a response format for a type, but none for text', () => {
    const formatOf = (value: Json) =>
      planOf(aiQueryText, ['chat', 'x', options(value)], context).questions[0]?.parameters.responseFormat;
    expect(formatOf({ returnType: 'STRING' })).toBeUndefined();
    expect(formatOf({ responseFormat: 'text' })).toBeUndefined();
    expect(formatOf({ responseFormat: 'json_object' })).toEqual({ type: 'json_object' });
    expect(formatOf({ returnType: 'INT' })).toMatchObject({ schema: { required: ['result'] } });
    expect(formatOf({ returnType: 'INT', responseFormat: 'STRUCT<a: INT>' })).toMatchObject({
      schema: { required: ['a'] },
    });
  });

  it('take the cache mode of the call before that of the session', () => {
    const cacheOf = (value: Json, mode: 'on' | 'off') =>
      planOf(aiQueryText, ['chat', 'x', options(value)], { ...context, cache: mode }).questions[0]?.cache;
    expect(cacheOf({}, 'off')).toBe('off');
    expect(cacheOf({ cache: 'on' }, 'off')).toBe('on');
    expect(() => cacheOf({ cache: 'always' }, 'on')).toThrow("it can be 'on', 'off', 'read' or 'write'");
  });
});

describe('an answer', () => {
  const typed = (returnType: string, text: string | null) =>
    finish(aiQueryJson, ['chat', 'x', options({ returnType })], context, said(text));

  it('is the text of a chat or completion', () => {
    expect(finish(aiQueryText, ['chat', 'x', '{}'], context, said('hi'))).toBe('hi');
    expect(finish(aiQueryText, ['chat', 'x', '{}'], context, said(null))).toBeNull();
    expect(
      finish(aiQueryText, ['old', 'x', '{}'], context, answered({ text: 'yo', finishReason: 'stop' })),
    ).toBe('yo');
  });

  it('is taken out of what wraps it: a fence, {"result": ...}, or nothing at all', () => {
    expect(typed('INT', '{"result": 5}')).toBe(5);
    expect(typed('INT', '```json\n{"result": 5}\n```')).toBe(5);
    expect(typed('INT', ' 5 ')).toBe(5);
    expect(typed('ARRAY<STRING>', '["a"]')).toEqual(['a']);
    expect(typed('STRUCT<result: INT>', '{"result": 5}')).toEqual({ result: 5 });
    expect(typed('DATE', '2026-01-31')).toBe('2026-01-31');
    expect(typed('INT', null)).toBeNull();
  });

  it('of an embedding endpoint is a vector, as FLOAT[] or as the type asked for', () => {
    expect(finish(aiQueryEmbedding, ['emb', 'x', '{}'], context, embedded(1, 2))).toEqual(
      new Float32Array([1, 2]),
    );
    expect(finish(aiQueryJson, ['emb', 'x', '{}'], context, embedded(1, 2))).toEqual([1, 2]);
    expect(() => finish(aiQueryEmbedding, ['chat', 'x', '{}'], context, said('x'))).toThrowError(
      expect.objectContaining({ code: 'WRONG_TASK' }),
    );
  });

  it('of a custom model is its prediction, checked against the type', () => {
    expect(finish(aiQueryText, ['tree', 1, '{}'], context, predicted({ a: 1 }))).toBe('{"a":1}');
    expect(finish(aiQueryJson, ['tree', 1, options({ returnType: 'INT' })], context, predicted('7'))).toBe(7);
    expect(() =>
      finish(aiQueryJson, ['tree', 1, options({ returnType: 'INT' })], context, predicted('x')),
    ).toThrow('The prediction is "x", which is not a whole number (INTEGER).');
  });
});

describe('failOnError => false', () => {
  const tried = (item: Parameters<typeof finish>[3], value: Json = {}) =>
    finish(aiQueryTry, ['chat', 'x', options(value)], context, item);

  it('gives the answer, or the error, as a value', () => {
    expect(tried(said('hi'))).toEqual({ response: 'hi', result: 'hi', errorMessage: null });
    expect(tried(failed(new ServingError('TIMEOUT', 'too slow')))).toEqual({
      response: null,
      result: null,
      errorMessage: 'TIMEOUT: too slow',
    });
    expect(tried(said('x'), { returnType: 'INT' })).toMatchObject({
      response: null,
      errorMessage: expect.stringContaining('INVALID_RESPONSE: The answer is "x"'),
    });
  });

  it('still ends the statement when it is cancelled or over budget', () => {
    expect(() => tried(failed(new ServingError('CANCELLED', 'gone')))).toThrow('gone');
    expect(() => tried(failed(new ServingError('BUDGET_EXCEEDED', 'enough')))).toThrow('enough');
  });
});

describe('ai_gen and ai_model', () => {
  it('ai_gen asks the default chat endpoint, or the one it is given', () => {
    expect(planOf(aiGen, ['x', null, null], context).questions).toMatchObject([
      { endpoint: 'chat', parameters: { temperature: 0 }, input: { messages: [{ content: 'x' }] } },
    ]);
    expect(planOf(aiGen, ['x', 'mine', 'off'], context).questions).toMatchObject([
      { endpoint: 'mine', cache: 'off' },
    ]);
    expect(aiGen.plan([null], context)).toEqual({ value: null });
    expect(() => aiGen.plan(['x'], contextOf({}))).toThrowError(
      expect.objectContaining({ code: 'MODEL_NOT_AVAILABLE' }),
    );
  });

  it('ai_model says what answers, without a question', () => {
    expect(aiModel.plan([null], context)).toEqual({
      value: {
        endpoint: 'emb',
        model: 'emb',
        task: 'llm/v1/embeddings',
        sha256: null,
        dimensions: null,
        fingerprint: 'emb',
      },
    });
    expect(() => aiModel.plan(['nope'], context)).toThrowError(
      expect.objectContaining({ code: 'ENDPOINT_NOT_FOUND' }),
    );
  });
});

describe('in SQL', () => {
  let harness: Harness;
  afterEach(() => harness.close());
  const open = async () => {
    harness = await openHarness({
      chat: {
        task: 'llm/v1/chat',
        answer: (input) => {
          if (chatText(input) === 'bad') throw new ServingError('UPSTREAM_ERROR', 'it broke');
          return say(chatText(input));
        },
      },
    });
    return harness;
  };

  it.each([
    [
      "failOnError => 'false'",
      'failOnError must be written as true or false in the statement itself, it is "false"',
    ],
    ['failOnError => (1 = 2)', 'it is false'],
    ['failOnError => 0', 'it is 0'],
    ["modelParameters => {'max_tokens': 0}", 'max_tokens is 0'],
    ['modelParameters => 5', 'modelParameters must be a struct'],
    ["cache => 'maybe'", 'cache is "maybe"'],
    ["returnType => 'NOTHING'", '"nothing" is not a type'],
    ["responseFormat => '{'", 'is not valid JSON'],
  ])('%s is refused before anything is asked', async (argument, message) => {
    const { session, asked } = await open();
    await expect(session.run(`SELECT ai_query('chat', 'x', ${argument})`)).rejects.toThrow(message);
    await expect(
      session.run(`SELECT ai_query('chat', x, ${argument}) FROM (VALUES ('y')) t(x)`),
    ).rejects.toThrow(message);
    expect(asked).toEqual([]);
  });

  it('failOnError works by name in both spellings, by position, and with true', async () => {
    const { session } = await open();
    expect(
      await rowsOf(
        session,
        "SELECT ai_query('chat', x, failOnError => false).errorMessage, ai_query('chat', x, failonerror := FALSE).response, ai_query('chat', x, NULL, false).result, ai_query('chat', x, 'STRING', false).errorMessage FROM (VALUES ('bad'), ('good')) t(x) ORDER BY x",
      ),
    ).toEqual([
      ['UPSTREAM_ERROR: it broke', null, null, 'UPSTREAM_ERROR: it broke'],
      [null, 'good', 'good', null],
    ]);
    expect(await rowsOf(session, "SELECT ai_query('chat', 'good', failOnError => true)")).toEqual([['good']]);
    await expect(session.run("SELECT ai_query('chat', 'bad', NULL, true)")).rejects.toMatchObject({
      code: 'UPSTREAM_ERROR',
    });
  });

  it('failOnError => false does not hide a mistake in the statement', async () => {
    const { session } = await open();
    await expect(session.run("SELECT ai_query('nope', 'x', failOnError => false)")).rejects.toMatchObject({
      code: 'ENDPOINT_NOT_FOUND',
    });
    await expect(
      session.run("SELECT ai_query('chat', 'x', modelParameters => {'max_tokens': 0}, failOnError => false)"),
    ).rejects.toMatchObject({ code: 'INVALID_PARAMETER' });
  });

  it('a struct as a request reaches a chat model as JSON', async () => {
    const { session } = await open();
    expect(await rowsOf(session, "SELECT ai_query('chat', {'a': 1, 'b': ['x', NULL]})")).toEqual([
      ['{"a":1,"b":["x",null]}'],
    ]);
  });

  it('parameters may be a struct, a MAP or named_struct', async () => {
    const { session, calls } = await open();
    await session.run(
      "SELECT ai_query('chat', 'x', modelParameters => {'max_tokens': 5}), ai_query('chat', 'y', modelParameters => MAP {'max_tokens': 6}), ai_query('chat', 'z', modelParameters => named_struct('max_tokens', 7, 'stop', ['a']))",
    );
    expect(calls.map(({ parameters }) => parameters.maxTokens).sort()).toEqual([5, 6, 7]);
  });
});
