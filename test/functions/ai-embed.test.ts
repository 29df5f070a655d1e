// ai_embed and ai_similarity: vectors of texts and their likeness, by models elsewhere and in the callback.
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { Json } from '#core/json.ts';
import { aiEmbed } from '#functions/ai-embed.ts';
import { aiSimilarity, cosine } from '#functions/ai-similarity.ts';
import { type Harness, openHarness, rowsOf, type ScriptedModel } from '../session/harness.ts';
import { contextOf, embedded, finish, planOf } from './context.ts';

const context = contextOf({ emb: 'llm/v1/embeddings' }, { embedding: 'emb' });

describe('ai_embed', () => {
  it('asks the endpoint it is given, else the default one', () => {
    expect(planOf(aiEmbed, [null, 'x', null], context).questions).toMatchObject([
      { endpoint: 'emb', input: { text: 'x' } },
    ]);
    expect(planOf(aiEmbed, ['other', 'x', 'off'], context).questions).toMatchObject([
      { endpoint: 'other', cache: 'off' },
    ]);
    expect(finish(aiEmbed, ['emb', 'x'], context, embedded(1, 2))).toEqual(new Float32Array([1, 2]));
  });

  it('gives NULL for NULL without a question', () => {
    expect(aiEmbed.plan([null, null, null], context)).toEqual({ value: null });
  });

  it('says that there is no default endpoint, and that an endpoint must be a name', () => {
    expect(() => aiEmbed.plan([null, 'x'], contextOf({}))).toThrowError(
      expect.objectContaining({ code: 'MODEL_NOT_AVAILABLE' }),
    );
    expect(() => aiEmbed.plan(['', 'x'], context)).toThrowError(
      expect.objectContaining({ code: 'INVALID_PARAMETER' }),
    );
  });
});

describe('ai_similarity', () => {
  it('asks for both texts and gives their cosine', () => {
    const plan = planOf(aiSimilarity, ['a', 'b', null, 'read'], context);
    expect(plan.questions).toMatchObject([
      { endpoint: 'emb', cache: 'read', input: { text: 'a' } },
      { endpoint: 'emb', cache: 'read', input: { text: 'b' } },
    ]);
    expect(plan.finish([embedded(1, 0), embedded(1, 1)])).toBeCloseTo(Math.SQRT1_2, 6);
  });

  it.each<[Json, Json]>([
    [null, 'x'],
    ['x', null],
    [null, null],
  ])('of %j and %j is NULL without a question', (left, right) => {
    expect(aiSimilarity.plan([left, right], context)).toEqual({ value: null });
  });

  it('is a cosine: within -1 and 1, the same both ways, 1 with itself, blind to length, 0 for zeros', () => {
    const number = fc.float({ noNaN: true, noDefaultInfinity: true, min: -1000, max: 1000 });
    const pair = fc.integer({ min: 1, max: 8 }).chain((length) => {
      const vector = fc
        .array(number, { minLength: length, maxLength: length })
        .map((values) => new Float32Array(values));
      return fc.tuple(vector, vector);
    });
    fc.assert(
      fc.property(pair, ([left, right]) => {
        const value = cosine(left, right);
        expect(Math.abs(value)).toBeLessThanOrEqual(1);
        expect(cosine(right, left)).toBe(value);
        if (left.some((x) => Math.abs(x) > 1e-3)) {
          expect(cosine(left, left)).toBeCloseTo(1, 6);
          expect(
            cosine(
              left.map((x) => x * 2),
              right,
            ),
          ).toBeCloseTo(value, 5);
        }
        expect(cosine(left, new Float32Array(left.length))).toBe(0);
      }),
    );
  });
});

describe('in SQL', () => {
  let harness: Harness;
  afterEach(() => harness.close());
  const vectorOf = (text: string) => new Float32Array([text.length, 1, text.charCodeAt(0) || 0]);
  const remote: ScriptedModel = {
    task: 'llm/v1/embeddings',
    answer: (input) => ({ embedding: vectorOf('text' in input ? input.text : '') }),
  };
  const local: ScriptedModel = { ...remote, local: { embed: (texts) => texts.map(vectorOf) } };
  const open = async () => {
    harness = await openHarness({ remote, local }, { embedding: 'remote' });
    return harness;
  };

  it.each(['remote', 'local'])(
    'a %s model gives FLOAT[], which casts to FLOAT[n], and NULL for NULL',
    async (endpoint) => {
      const { session } = await open();
      const [result] = await session.run(
        `SELECT ai_embed('${endpoint}', x) AS v, ai_embed('${endpoint}', x)::FLOAT[3] AS f FROM (VALUES ('a'), (NULL), ('bc')) t(x)`,
      );
      expect(result?.columns.map(({ type }) => type)).toEqual(['FLOAT[]', 'FLOAT[3]']);
      expect([...(result?.rows() ?? [])]).toEqual([
        [
          [1, 1, 97],
          [1, 1, 97],
        ],
        [null, null],
        [
          [2, 1, 98],
          [2, 1, 98],
        ],
      ]);
    },
  );

  it('a remote model is asked once a text, a local one never', async () => {
    const { session, asked, localInputs } = await open();
    await session.run(
      "SELECT ai_embed('local', 'x' || i % 5), ai_embed('x' || i % 5) FROM range(10000) t(i)",
    );
    expect([...asked].sort()).toEqual(['x0', 'x1', 'x2', 'x3', 'x4']);
    expect(localInputs).toEqual([10_000]);
  });

  it('both give the same vectors over many chunks', async () => {
    const { session } = await open();
    const differing =
      "SELECT count(*) FROM (SELECT ai_embed('local', x) AS l, ai_embed('remote', x) AS r FROM (SELECT CASE WHEN i % 7 = 0 THEN NULL ELSE 'x' || i % 100 END AS x FROM range(6000) t(i))) WHERE l IS DISTINCT FROM r";
    expect(await rowsOf(session, differing)).toEqual([[0]]);
  });

  it('what is not a text is embedded as JSON, in both the same', async () => {
    const { session } = await open();
    expect(
      await rowsOf(
        session,
        "SELECT ai_embed('local', 42) = ai_embed('remote', 42), ai_embed('local', {'a': 1}) = ai_embed('remote', {'a': 1})",
      ),
    ).toEqual([[true, true]]);
  });

  it('the endpoint may be a column, also of local and remote ones together', async () => {
    const { session } = await open();
    const rows = await rowsOf(
      session,
      "SELECT ai_embed(e, x) FROM (VALUES ('local', 'a'), ('remote', 'bc'), (NULL, 'def')) t(e, x)",
    );
    expect(rows).toEqual([[[1, 1, 97]], [[2, 1, 98]], [[3, 1, 100]]]);
  });

  it('ranks by likeness', async () => {
    const { session } = await open();
    expect(
      await rowsOf(
        session,
        "SELECT x FROM (VALUES ('aaaaaaaa'), ('a'), (NULL)) t(x) ORDER BY ai_similarity(x, 'b', endpoint => 'remote') DESC NULLS LAST",
      ),
    ).toEqual([['a'], ['aaaaaaaa'], [null]]);
    const [result] = await session.run("SELECT ai_similarity('a', 'a') AS s");
    expect(result?.columns).toEqual([{ name: 's', type: 'FLOAT' }]);
    expect([...(result?.rows() ?? [])]).toEqual([[1]]);
  });
});
