// Rewriting of calls: columns get the type that the call promises, and all other text stays as it was.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { SignatureColumn } from '#core/endpoint.ts';
import type { EndpointDescription } from '#functions/function.ts';
import { tokenize } from '#session/lexer.ts';
import { rewriteCalls } from '#session/rewrite.ts';

const output = (name: string, type: SignatureColumn['type'], width?: number): SignatureColumn => ({
  name,
  type,
  required: true,
  ...(width === undefined ? {} : { width }),
});
const described = (
  task: EndpointDescription['task'],
  ...outputs: SignatureColumn[]
): EndpointDescription => ({
  task,
  model: 'm',
  sha256: '',
  dimensions: null,
  fingerprint: 'f',
  signature: outputs.length > 0 ? { inputs: [], outputs } : undefined,
});
const ENDPOINTS: Readonly<Record<string, EndpointDescription>> = {
  chat: described('llm/v1/chat'),
  emb: described('llm/v1/embeddings'),
  dbl: described('predict', output('y', 'double')),
  int: described('predict', output('y', 'integer')),
  flt: described('predict', output('y', 'float')),
  lng: described('predict', output('y', 'long')),
  txt: described('predict', output('y', 'string')),
  yes: described('predict', output('y', 'boolean')),
  vec: described('predict', output('y', 'float', 3)),
  two: described('predict', output('label', 'string'), output('p "x"', 'double', -1)),
  bare: described('predict'),
};
const rewrite = (text: string) =>
  rewriteCalls(text, tokenize(text), { describe: (endpoint) => ENDPOINTS[endpoint] });

describe('the text of a call', () => {
  it.each([
    ["SELECT ai_query('chat', x) FROM t", "SELECT ai_query('chat', x) FROM t"],
    ["SELECT ai_query('nope', x) FROM t", "SELECT ai_query('nope', x) FROM t"],
    ['SELECT ai_query(e, x) FROM t', 'SELECT ai_query(e, x) FROM t'],
    ["SELECT ai_query('chat', x, 'STRING') FROM t", "SELECT ai_query('chat', x, 'STRING') FROM t"],
    ["SELECT ai_query('chat', x, NULL, true) FROM t", "SELECT ai_query('chat', x, NULL, true) FROM t"],
    [
      "SELECT ai_query('chat', x, responseFormat => 'json_object') FROM t",
      "SELECT ai_query('chat', x, responseFormat => 'json_object') FROM t",
    ],
    [
      "SELECT predict('bare', x), predict('nope', x), predict(e, x)",
      "SELECT predict('bare', x), predict('nope', x), predict(e, x)",
    ],
    [
      "SELECT s.ai_query('chat', x, 'INT'), \"ai_query\"('chat', x, 'INT')",
      "SELECT s.ai_query('chat', x, 'INT'), \"ai_query\"('chat', x, 'INT')",
    ],
    ['SELECT ai_query, predict, named_struct FROM t', 'SELECT ai_query, predict, named_struct FROM t'],
  ])('is left alone where there is nothing to say: %s', (text, expected) => {
    expect(rewrite(text)).toBe(expected);
  });

  it.each([
    [
      "SELECT ai_query('chat', x, 'INT')",
      "SELECT CAST(_ai_query_json('chat', x, 'INT') AS INTEGER) AS ai_query",
    ],
    [
      "SELECT AI_Query ('chat', x, returnType => 'INT') + 1",
      "SELECT CAST(_ai_query_json ('chat', x, returnType => 'INT') AS INTEGER) + 1",
    ],
    [
      "SELECT ai_query('chat', x, returntype := $$INT$$) AS n",
      "SELECT CAST(_ai_query_json('chat', x, returntype := $$INT$$) AS INTEGER) AS n",
    ],
    [
      "SELECT ai_query('chat', x, RETURNTYPE=>E'STRUCT<a:INT>').a",
      "SELECT CAST(_ai_query_json('chat', x, RETURNTYPE=>E'STRUCT<a:INT>') AS STRUCT(\"a\" INTEGER)).a",
    ],
    [
      "SELECT ai_query(request => x, endpoint => 'emb')",
      "SELECT _ai_query_embedding(request => x, endpoint => 'emb') AS ai_query",
    ],
    [
      "SELECT ai_query('chat', x, responseFormat => 'STRUCT<a: STRING>')",
      "SELECT CAST(_ai_query_json('chat', x, responseFormat => 'STRUCT<a: STRING>') AS STRUCT(\"a\" VARCHAR)) AS ai_query",
    ],
    [
      "SELECT ai_query('chat', x, 'INT', false)",
      "SELECT CAST(_ai_query_try('chat', x, 'INT', false) AS STRUCT(response INTEGER, result INTEGER, \"errorMessage\" VARCHAR)) AS ai_query",
    ],
    [
      "SELECT ai_query('chat', x, NULL, FALSE)",
      'SELECT CAST(_ai_query_try(\'chat\', x, NULL, FALSE) AS STRUCT(response VARCHAR, result VARCHAR, "errorMessage" VARCHAR)) AS ai_query',
    ],
    [
      'SELECT ai_query(e, x, failOnError := false)',
      'SELECT CAST(_ai_query_try(e, x, failOnError := false) AS STRUCT(response VARCHAR, result VARCHAR, "errorMessage" VARCHAR)) AS ai_query',
    ],
    [
      "SELECT ai_query('emb', x, failOnError => false).result",
      'SELECT CAST(_ai_query_try(\'emb\', x, failOnError => false) AS STRUCT(response FLOAT[], result FLOAT[], "errorMessage" VARCHAR)).result',
    ],
    ["SELECT ai_query('dbl', x)", "SELECT CAST(_ai_query_json('dbl', x) AS DOUBLE) AS ai_query"],
    ["SELECT ai_query('bare', x)", "SELECT CAST(_ai_query_json('bare', x) AS JSON) AS ai_query"],
    [
      "SELECT ai_query('chat', ai_query('chat', y, 'INT')::VARCHAR, 'DATE')",
      "SELECT CAST(_ai_query_json('chat', CAST(_ai_query_json('chat', y, 'INT') AS INTEGER)::VARCHAR, 'DATE') AS DATE) AS ai_query",
    ],
  ])('of ai_query becomes one with the type of the column: %s', (text, expected) => {
    expect(rewrite(text)).toBe(expected);
  });

  it.each([
    ['dbl', "_predict_double('dbl', x)"],
    ['lng', "_predict_bigint('lng', x)"],
    ['txt', "_predict_varchar('txt', x)"],
    ['yes', "_predict_boolean('yes', x)"],
    ['int', "CAST(_predict_bigint('int', x) AS INTEGER)"],
    ['flt', "CAST(_predict_double('flt', x) AS FLOAT)"],
    ['vec', "CAST(predict('vec', x) AS FLOAT[])"],
    ['two', 'CAST(predict(\'two\', x) AS STRUCT("label" VARCHAR, "p ""x""" DOUBLE))'],
  ])('of predict becomes one with the type of the signature of %s', (endpoint, expected) => {
    expect(rewrite(`SELECT f(predict('${endpoint}', x))`)).toBe(`SELECT f(${expected})`);
    expect(rewrite(`SELECT predict('${endpoint}', x) FROM t`)).toBe(`SELECT ${expected} AS predict FROM t`);
  });

  it('of named_struct becomes struct_pack, also inside another', () => {
    expect(rewrite("SELECT named_struct('a', 1, 'b\"c', named_struct( 'd' , f(x, [1, 2]) ))")).toBe(
      'SELECT struct_pack("a" := 1, "b""c" := struct_pack( "d" := f(x, [1, 2]) ))',
    );
    expect(rewrite("SELECT predict('dbl', named_struct('a', predict('int', 1)))")).toBe(
      "SELECT _predict_double('dbl', struct_pack(\"a\" := CAST(_predict_bigint('int', 1) AS INTEGER))) AS predict",
    );
  });

  it.each([
    ["named_struct('a')", 'pairs of a name and a value; it was given 1 arguments'],
    ['named_struct(a, 1)', 'the name of a field must be a text literal and a value must follow'],
    ["named_struct('a' || 'b', 1)", 'the name of a field must be a text literal'],
    ["named_struct('a' := , 1)", 'the name of a field must be a text literal'],
    ['named_struct(a := , b := )', 'the name of a field must be a text literal'],
    ["ai_query('chat', x, 'IN' || 'T')", 'returnType must be a text literal'],
    ["ai_query('chat', x, returnType => )", 'returnType must be a text literal'],
    ["ai_query('chat', x, returnType => 'FOO')", '"foo" is not a type'],
    ["ai_query('chat', x, responseFormat => 'FOO')", '"foo" is not a type'],
  ])('that cannot be read is refused with the reason: %s', (call, reason) => {
    expect(() => rewrite(`SELECT ${call}`)).toThrow(reason);
  });
});

const CALL = "ai_query('chat', x, 'INT')";
const CAST = "CAST(_ai_query_json('chat', x, 'INT') AS INTEGER)";

describe('the heading of a column', () => {
  it.each([
    `SELECT ${CALL}`,
    `SELECT DISTINCT ${CALL} FROM t`,
    `SELECT a, ${CALL}, b FROM t`,
    `SELECT f(a, b), [1, 2], ${CALL} FROM t`,
    `FROM t SELECT ${CALL}`,
    `SELECT ${CALL} WHERE true`,
    `SELECT ${CALL} ORDER BY 1`,
    `SELECT ${CALL} LIMIT 1`,
    `SELECT ${CALL} UNION ALL SELECT 2`,
    `WITH c AS (SELECT ${CALL} FROM t) FROM c`,
    `CREATE TABLE u AS SELECT ${CALL} FROM t`,
  ])('is the name of the function where a column is just the call: %s', (text) => {
    expect(rewrite(text)).toBe(text.replace(CALL, `${CAST} AS ai_query`));
  });

  it.each([
    `SELECT ${CALL} AS n FROM t`,
    `SELECT ${CALL} n FROM t`,
    `SELECT n: ${CALL} FROM t`,
    `SELECT ${CALL} + 1 FROM t`,
    `SELECT -${CALL} FROM t`,
    `SELECT a FROM t WHERE ${CALL} = 1`,
    `SELECT a FROM t WHERE a = 1 AND ${CALL} > 1`,
    `SELECT a FROM t GROUP BY ${CALL}`,
    `SELECT a FROM t GROUP BY a, ${CALL}`,
    `SELECT a FROM t ORDER BY a, ${CALL}`,
    `SELECT a FROM t ORDER BY a, ${CALL}, b`,
    `SELECT a FROM t HAVING max(a) > 1 QUALIFY ${CALL} = 1`,
    `SELECT f(a, ${CALL}) FROM t`,
    `SELECT f(DISTINCT ${CALL}) FROM t`,
    `SELECT [1, ${CALL}] FROM t`,
    `SELECT {'a': 1, 'b': ${CALL}} FROM t`,
    `SELECT row_number() OVER (PARTITION BY a, ${CALL}) FROM t`,
    `SELECT CASE WHEN ${CALL} = 1 THEN 2 END FROM t`,
    `VALUES (1, ${CALL}), (${CALL}, 2)`,
    `INSERT INTO t VALUES (${CALL})`,
    `INSERT INTO t VALUES (1) RETURNING a, ${CALL}`,
    `UPDATE t SET a = 1, b = ${CALL}`,
    `DELETE FROM t WHERE ${CALL} = 1`,
    `SELECT a FROM t JOIN u ON ${CALL} = u.a`,
    `CREATE MACRO f(x) AS ${CALL}`,
  ])('is not touched where the call is only a part or has a name: %s', (text) => {
    expect(rewrite(text)).toBe(text.replaceAll(CALL, CAST));
  });
});

describe("Spark's array", () => {
  it('is a list, and a query in it stays a query', () => {
    expect(rewrite("SELECT ai_classify(x, ARRAY('a', 'b'))")).toBe(
      "SELECT ai_classify(x, list_value('a', 'b'))",
    );
    expect(rewrite('SELECT array(SELECT 1), ARRAY((FROM t)), ARRAY[1]')).toBe(
      'SELECT array(SELECT 1), ARRAY((FROM t)), ARRAY[1]',
    );
  });
});

describe('other text', () => {
  it('is the same byte for byte around a call', () => {
    const before =
      "/* ai_query('chat', x, 'INT') */ SELECT 'ai_query(''chat'', x, ''INT'')' AS \"predict('dbl', 1)\", -- predict('dbl', 1)\n\t$$named_struct('a', 1)$$ ,\u00a0";
    const after = "\r\n  FROM t  -- named_struct('a', 1)\n /* end */";
    expect(rewrite(`${before}${CALL}${after}`)).toBe(`${before}${CAST} AS ai_query${after}`);
  });

  it('comes back identical when none of the names stands in it as a call', () => {
    const part = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 6 }),
      fc.constantFrom(
        'SELECT ',
        ' FROM t',
        '(',
        ')',
        ',',
        "'",
        '"',
        '--',
        '/*',
        '*/',
        '$$',
        ' ai_gen(',
        "ai_embed('x')",
        'ai_query',
        'predict ',
        '\n',
        '::',
        '=>',
        'x',
      ),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 25 }), (parts) => {
        const text = parts.join('');
        fc.pre(!/(ai_query|predict|named_struct)(?!\w)[^\w'"$]*\(/i.test(text));
        expect(rewrite(text)).toBe(text);
      }),
      { numRuns: 3_000 },
    );
  });

  it('comes back identical when the names stand only in strings, comments and quoted names', () => {
    const inner = fc
      .array(
        fc.constantFrom("ai_query('chat', x, 'INT')", "predict('dbl', 1)", 'named_struct(', ' ', ';', 'x'),
        { maxLength: 4 },
      )
      .map((parts) => parts.join(''));
    const hidden = fc.oneof(
      inner.map((text) => `'${text.replaceAll("'", "''")}'`),
      inner.map((text) => `E'${text.replaceAll("'", "\\'")}'`),
      inner.map((text) => `"${text}"`),
      inner.map((text) => `$q$${text}$q$`),
      inner.map((text) => `/* ${text} /* ${text} */ */`),
      inner.map((text) => `-- ${text}\n`),
    );
    fc.assert(
      fc.property(fc.array(hidden, { maxLength: 6 }), (parts) => {
        const text = `SELECT ${parts.join(' , ')}`;
        expect(rewrite(text)).toBe(text);
      }),
      { numRuns: 1_000 },
    );
  });

  it('around random calls is kept, and DuckDB would see only whole calls replaced', () => {
    const filler = fc.constantFrom(
      ' ',
      ' + 1',
      " || 'x'",
      ' /* c */ ',
      ' AS "a b"',
      ", 'it''s'",
      ', (1)',
      ' -- c\n',
    );
    const call = fc.constantFrom(
      CALL,
      "predict('dbl', f(1), ')')",
      "ai_query('emb', [1, 2], cache => 'off')",
      "ai_gen('x')",
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(call, filler), { minLength: 1, maxLength: 5 }), (parts) => {
        const text = `SELECT ${parts.map(([called, rest]) => called + rest).join(', ')} FROM t`;
        const undone = rewrite(text)
          .replaceAll(/CAST\((_ai_query_json\('chat', x, 'INT'\)) AS INTEGER\)/g, '$1')
          .replaceAll(/_ai_query_(json|embedding)/g, 'ai_query')
          .replaceAll('_predict_double', 'predict')
          .replaceAll(/ AS (ai_query|predict)(?=[ ,]|$)/g, '');
        expect(undone).toBe(text);
      }),
    );
  });
});
