// ai_classify: one of the labels, by a chat model or by likeness of embeddings.
import { afterEach, describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { aiClassify } from '#functions/ai-classify.ts';
import { chatText, type Harness, openHarness, rowsOf, say } from '../session/harness.ts';
import { contextOf, embedded, failed, finish, planOf, said } from './context.ts';

const context = contextOf(
  { chat: 'llm/v1/chat', emb: 'llm/v1/embeddings', tree: 'predict', old: 'llm/v1/completions' },
  { classify: 'chat' },
);
const LABELS = ['Bug', 'other'];

describe('by a chat model', () => {
  it('asks at temperature 0 under a schema that allows only the labels', () => {
    const [question] = planOf(aiClassify, ['it crashes', LABELS], context).questions;
    expect(question).toMatchObject({
      endpoint: 'chat',
      task: 'llm/v1/chat',
      cache: 'on',
      parameters: { temperature: 0 },
    });
    expect(question?.parameters.responseFormat).toMatchObject({
      schema: { properties: { label: { enum: LABELS } }, required: ['label'], additionalProperties: false },
    });
    expect(JSON.stringify(question?.input)).toContain('- Bug\\n- other');
    expect(question?.input).toMatchObject({
      messages: [{ role: 'system' }, { role: 'user', content: 'it crashes' }],
    });
  });

  it('shares one object of parameters among the rows of equal labels', () => {
    const first = planOf(aiClassify, ['a', LABELS], context).questions[0]?.parameters;
    expect(planOf(aiClassify, ['b', [...LABELS]], context).questions[0]?.parameters).toBe(first);
    expect(planOf(aiClassify, ['b', ['x', 'y']], context).questions[0]?.parameters).not.toBe(first);
  });

  it.each(['{"label":"Bug"}', '{"label":" bug "}', 'Bug', ' BUG\n', '"bug"'])(
    'takes %s for the label as it was given',
    (text) => {
      expect(finish(aiClassify, ['x', LABELS], context, said(text))).toBe('Bug');
    },
  );

  it.each(['{"label":"feature"}', '{"label":1}', '{}', 'It is a Bug.', '', '[]', 'null'])(
    'refuses %s, which is no label',
    (text) => {
      expect(() => finish(aiClassify, ['x', LABELS], context, said(text))).toThrowError(
        expect.objectContaining({
          code: 'INVALID_RESPONSE',
          message: expect.stringContaining('none of the labels ["Bug","other"]'),
        }),
      );
      expect(() => finish(aiClassify, ['x', LABELS], context, said(null))).toThrow('none of the labels');
    },
  );

  it('passes on the error of the model', () => {
    const error = new ServingError('TIMEOUT', 'too slow');
    expect(() => finish(aiClassify, ['x', LABELS], context, failed(error))).toThrow(error);
  });
});

describe('by likeness', () => {
  it('asks for the vectors of the text and of each label, and gives the nearest label', () => {
    const plan = planOf(aiClassify, ['x', LABELS, 'emb', 'off'], context);
    expect(plan.questions.map(({ task, cache, input }) => [task, cache, input])).toEqual([
      ['llm/v1/embeddings', 'off', { text: 'x' }],
      ['llm/v1/embeddings', 'off', { text: 'Bug' }],
      ['llm/v1/embeddings', 'off', { text: 'other' }],
    ]);
    expect(plan.finish([embedded(1, 0), embedded(0, 1), embedded(3, 1)])).toBe('other');
    expect(plan.finish([embedded(1, 0), embedded(1, 0), embedded(1, 0)])).toBe('Bug');
    expect(plan.finish([embedded(0, 0), embedded(1, 0), embedded(0, 1)])).toBe('Bug');
  });
});

describe('arguments', () => {
  it('that are NULL as a text give NULL without a question, whatever the labels', () => {
    expect(aiClassify.plan([null, null], context)).toEqual({ value: null });
  });

  it('that are not a text are classified as JSON', () => {
    expect(planOf(aiClassify, [{ a: 1 }, LABELS], context).questions[0]?.input).toMatchObject({
      messages: [{}, { content: '{"a":1}' }],
    });
  });

  it.each<[string, Json]>([
    ['no list', 'bug'],
    ['NULL', null],
    ['one label', ['a']],
    ['no label', []],
    ['a number among them', ['a', 1]],
    ['a NULL among them', ['a', null]],
    ['an empty label', ['a', ' ']],
    ['501 labels', Array.from({ length: 501 }, (_, index) => `l${index}`)],
  ])('whose labels are %s are refused', (_name, labels) => {
    expect(() => aiClassify.plan(['x', labels], context)).toThrowError(
      expect.objectContaining({
        code: 'INVALID_PARAMETER',
        message: expect.stringContaining('labels must be a list of 2 to 500 texts'),
      }),
    );
  });

  it('may have 500 labels', () => {
    const labels = Array.from({ length: 500 }, (_, index) => `l${index}`);
    expect(finish(aiClassify, ['x', labels], context, said('{"label":"l499"}'))).toBe('l499');
  });

  it.each<[Json[], string, string]>([
    [['x', LABELS, 'tree'], 'WRONG_TASK', "endpoint 'tree' serves predict"],
    [['x', LABELS, 'old'], 'WRONG_TASK', 'serves llm/v1/completions'],
    [['x', LABELS, 'nope'], 'ENDPOINT_NOT_FOUND', "no endpoint 'nope'"],
    [['x', LABELS, ''], 'INVALID_PARAMETER', 'endpoint must be a text that is not empty'],
    [['x', LABELS, null, 'maybe'], 'INVALID_PARAMETER', 'cache is "maybe"'],
  ])('%j are refused as %s: %s', (args, code, message) => {
    expect(() => aiClassify.plan(args, context)).toThrowError(
      expect.objectContaining({ code, message: expect.stringContaining(message) }),
    );
  });
});

describe('in SQL', () => {
  let harness: Harness;
  afterEach(() => harness.close());
  const vectors: Record<string, number[]> = {
    dog: [1, 0],
    cat: [0, 1],
    puppy: [0.9, 0.1],
    kitten: [0.2, 0.8],
  };
  const open = async () => {
    harness = await openHarness(
      {
        chat: {
          task: 'llm/v1/chat',
          answer: (input) => say(chatText(input).length > 3 ? 'long' : '{"label":"SHORT"}'),
        },
        emb: {
          task: 'llm/v1/embeddings',
          answer: (input) => ({
            embedding: new Float32Array(vectors['text' in input ? input.text : ''] ?? [0, 0]),
          }),
        },
      },
      { classify: 'chat' },
    );
    return harness;
  };

  it('labels may be a constant, a column or an expression', async () => {
    const { session, asked } = await open();
    const rows = await rowsOf(
      session,
      "SELECT ai_classify(x, ['short', 'long']), ai_classify(x, l), ai_classify(x, ['lo' || 'ng', 'short'], cache => 'off') FROM (VALUES ('ab', ['short', 'long']), ('abcd', ['long', 'short']), (NULL, ['a', 'b'])) t(x, l)",
    );
    expect(rows).toEqual([
      ['short', 'short', 'short'],
      ['long', 'long', 'long'],
      [null, null, null],
    ]);
    expect(asked).toHaveLength(5);
  });

  it('finds the nearest label and embeds each text once', async () => {
    const { session, asked } = await open();
    const rows = await rowsOf(
      session,
      "SELECT ai_classify(x, ['dog', 'cat'], endpoint => 'emb') FROM (VALUES ('puppy'), ('kitten'), ('dog')) t(x)",
    );
    expect(rows).toEqual([['dog'], ['cat'], ['dog']]);
    expect([...asked].sort()).toEqual(['cat', 'dog', 'kitten', 'puppy']);
  });

  it('bad labels fail the statement before anything is asked', async () => {
    const { session, asked } = await open();
    await expect(session.run("SELECT ai_classify('x', ['only one'])")).rejects.toMatchObject({
      code: 'INVALID_PARAMETER',
    });
    await expect(
      session.run("SELECT ai_classify('x', [i::VARCHAR for i in range(501)])"),
    ).rejects.toMatchObject({ code: 'INVALID_PARAMETER' });
    expect(asked).toEqual([]);
  });
});
