// Random statements over AI functions, each also as plain SQL that computes what the scripted models answer, and
// random small tables to run both on.
import fc from 'fast-check';

/** An AI function and the macro that stands for it. All of them give NULL for NULL, as AI functions do. */
interface Stand {
  readonly ai: (argument: string) => string;
  readonly plain: (argument: string) => string;
  readonly gives: 'text' | 'number' | 'flag';
  readonly endpoint: string;
}
const STANDS: readonly Stand[] = [
  { ai: (x) => `ai_query('upper', ${x})`, plain: (x) => `upper(${x})`, gives: 'text', endpoint: 'upper' },
  {
    ai: (x) => `ai_gen(${x}, endpoint => 'swap')`,
    plain: (x) => `reverse(${x})`,
    gives: 'text',
    endpoint: 'swap',
  },
  {
    ai: (x) => `ai_query('upper', ${x}, failOnError => false).response`,
    plain: (x) => `upper(${x})`,
    gives: 'text',
    endpoint: 'upper',
  },
  {
    ai: (x) => `ai_query('tag', ${x}, returnType => 'STRUCT<t: STRING, n: INT>').t`,
    plain: (x) => `left(${x}, 1)`,
    gives: 'text',
    endpoint: 'tag',
  },
  {
    ai: (x) => `ai_classify(${x}, ['even', 'odd'])`,
    plain: (x) => `(CASE WHEN length(${x}) % 2 = 0 THEN 'even' WHEN ${x} IS NOT NULL THEN 'odd' END)`,
    gives: 'text',
    endpoint: 'parity',
  },
  {
    ai: (x) => `ai_query('length', ${x}, returnType => 'INT')`,
    plain: (x) => `length(${x})::INTEGER`,
    gives: 'number',
    endpoint: 'length',
  },
  {
    ai: (x) => `predict('far', ${x})`,
    plain: (x) => `length(${x})::DOUBLE`,
    gives: 'number',
    endpoint: 'far',
  },
  {
    ai: (x) => `predict('near', ${x})`,
    plain: (x) => `length(${x})::DOUBLE`,
    gives: 'number',
    endpoint: 'near',
  },
  {
    ai: (x) => `ai_embed('emb', ${x})[1]`,
    plain: (x) => `length(${x})::FLOAT`,
    gives: 'number',
    endpoint: 'emb',
  },
  {
    ai: (x) => `(ai_query('length', ${x}, 'INT') > 1)`,
    plain: (x) => `(length(${x}) > 1)`,
    gives: 'flag',
    endpoint: 'length',
  },
];

/** A random expression over one text column, twice: with AI functions, and plain. */
export interface Expression {
  readonly ai: (column: string) => string;
  readonly plain: (column: string) => string;
  /** Every call in it: its endpoint and its argument, plain. */
  readonly calls: readonly { readonly endpoint: string; readonly argument: (column: string) => string }[];
}
const COLUMN: Expression = { ai: (column) => column, plain: (column) => column, calls: [] };

const standOf = (...gives: Stand['gives'][]) =>
  fc.constantFrom(...STANDS.filter((stand) => gives.includes(stand.gives)));

function apply(stand: Stand, inner: Expression): Expression {
  return {
    ai: (column) => stand.ai(inner.ai(column)),
    plain: (column) => stand.plain(inner.plain(column)),
    calls: [...inner.calls, { endpoint: stand.endpoint, argument: inner.plain }],
  };
}
/** Plain SQL around it that gives NULL for NULL, so that an answer that is still missing raises no question. */
const WRAPPERS: readonly ((argument: string) => string)[] = [
  (x) => x,
  (x) => `(${x} || '!')`,
  (x) => `lower(${x})`,
  (x) => `('a' || ${x})`,
  (x) => `replace(${x}, 'a', 'bb')`,
];
const text: fc.Arbitrary<Expression> = fc.letrec<{ text: Expression }>((tie) => ({
  text: fc.oneof(
    { maxDepth: 2, withCrossShrink: true },
    fc.constant(COLUMN),
    fc
      .tuple(standOf('text'), fc.constantFrom(...WRAPPERS), tie('text'))
      .map(([stand, wrap, inner]): Expression => {
        const wrapped: Expression = {
          ai: (column) => wrap(inner.ai(column)),
          plain: (column) => wrap(inner.plain(column)),
          calls: inner.calls,
        };
        return apply(stand, wrapped);
      }),
  ),
})).text;
export const call = fc.tuple(standOf('text'), text).map(([stand, inner]) => apply(stand, inner));
export const value = fc.tuple(standOf('text', 'number'), text).map(([stand, inner]) => apply(stand, inner));
export const flag = fc.oneof(
  fc.tuple(standOf('flag'), text).map(([stand, inner]) => apply(stand, inner)),
  fc
    .tuple(
      call,
      fc.constantFrom("= 'EVEN'", "<> 'odd'", "LIKE '%a%'", "IN ('A', 'even', 'a!')", 'IS NOT NULL'),
    )
    .map(
      ([inner, test]): Expression => ({
        ai: (column) => `${inner.ai(column)} ${test}`,
        plain: (column) => `${inner.plain(column)} ${test}`,
        calls: inner.calls,
      }),
    ),
);

export type Side = 'ai' | 'plain';
/** A statement for either side, and where its calls run: over which column of which rows. */
export interface Shape {
  readonly sql: (side: Side) => string;
  readonly uses: readonly {
    readonly expression: Expression;
    readonly column: string;
    readonly rows: string;
  }[];
  /** True when every call surely sees all of its rows, so that what must be asked is known exactly. */
  readonly isExact: boolean;
}

const T = 'FROM t';
const U = 'FROM u';
export const shape: fc.Arbitrary<Shape> = fc.oneof(
  fc.tuple(value, value).map(
    ([a, b]): Shape => ({
      sql: (side) => `SELECT id, ${a[side]('x')} AS p, ${b[side]('x')} AS q FROM t`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: b, column: 'x', rows: T },
      ],
      isExact: true,
    }),
  ),
  fc.tuple(value, flag).map(
    ([a, f]): Shape => ({
      sql: (side) => `SELECT id, ${a[side]('x')} AS p FROM t WHERE ${f[side]('x')}`,
      uses: [
        { expression: f, column: 'x', rows: T },
        { expression: a, column: 'x', rows: `FROM t WHERE ${f.plain('x')}` },
      ],
      isExact: true,
    }),
  ),
  fc.tuple(flag, flag).map(
    ([f, g]): Shape => ({
      sql: (side) => `SELECT id FROM t WHERE ${f[side]('x')} AND id % 2 = 0 AND NOT ${g[side]('x')}`,
      uses: [
        { expression: f, column: 'x', rows: T },
        { expression: g, column: 'x', rows: T },
      ],
      isExact: false,
    }),
  ),
  fc.tuple(value, flag).map(
    ([a, f]): Shape => ({
      sql: (side) =>
        `SELECT ${a[side]('x')} AS g, count(*), min(id) FROM t GROUP BY g HAVING count(*) > 1 OR g IS NOT NULL OR ${f[side]("'k'")}`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: f, column: "'k'", rows: '' },
      ],
      isExact: false,
    }),
  ),
  call.map(
    (a): Shape => ({
      sql: (side) => `SELECT t.id, u.id FROM t JOIN u ON ${a[side]('t.x')} = ${a[side]('u.x')}`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: a, column: 'x', rows: U },
      ],
      isExact: false,
    }),
  ),
  fc.tuple(call, value).map(
    ([a, b]): Shape => ({
      sql: (side) => `SELECT t.id, u.id, ${b[side]('u.x')} FROM t LEFT JOIN u ON ${a[side]('t.x')} = u.x`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: b, column: 'x', rows: U },
      ],
      isExact: false,
    }),
  ),
  fc.tuple(value, value).map(
    ([a, b]): Shape => ({
      sql: (side) =>
        `SELECT id, row_number() OVER (PARTITION BY ${a[side]('x')} ORDER BY id), max(${b[side]('x')}) OVER (ORDER BY id) FROM t`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: b, column: 'x', rows: T },
      ],
      isExact: true,
    }),
  ),
  fc.tuple(call, value).map(
    ([a, b]): Shape => ({
      sql: (side) => `SELECT id, ${b[side]('y')} AS z, y FROM (SELECT id, ${a[side]('x')} AS y FROM t) s`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: b, column: 'y', rows: `FROM (SELECT ${a.plain('x')} AS y FROM t)` },
      ],
      isExact: true,
    }),
  ),
  fc.tuple(call, flag).map(
    ([a, f]): Shape => ({
      sql: (side) =>
        `WITH c AS MATERIALIZED (SELECT id, ${a[side]('x')} AS y FROM t) SELECT l.id, r.y FROM c l JOIN c r USING (id) WHERE ${f[side]('l.y')}`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: f, column: 'y', rows: `FROM (SELECT ${a.plain('x')} AS y FROM t)` },
      ],
      isExact: true,
    }),
  ),
  fc.tuple(call, call).map(
    ([a, b]): Shape => ({
      sql: (side) =>
        `SELECT id FROM t WHERE ${a[side]('x')} IN (SELECT ${b[side]('x')} FROM u WHERE x IS NOT NULL)`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: b, column: 'x', rows: U },
      ],
      isExact: false,
    }),
  ),
  value.map(
    (a): Shape => ({
      sql: (side) => `SELECT id, (SELECT max(${a[side]('u.x')}) FROM u WHERE u.id = t.id) AS m FROM t`,
      uses: [{ expression: a, column: 'x', rows: U }],
      isExact: false,
    }),
  ),
  fc.tuple(value, value).map(
    ([a, b]): Shape => ({
      sql: (side) =>
        `SELECT DISTINCT ${a[side]('x')}::VARCHAR AS v FROM t UNION ALL SELECT ${b[side]('x')}::VARCHAR FROM u`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: b, column: 'x', rows: U },
      ],
      isExact: true,
    }),
  ),
  fc.tuple(value, flag).map(
    ([a, f]): Shape => ({
      sql: (side) =>
        `SELECT id, x FROM t QUALIFY ${f[side]('x')} OR row_number() OVER (ORDER BY ${a[side]('x')} NULLS FIRST, id) = 1`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: f, column: 'x', rows: T },
      ],
      isExact: false,
    }),
  ),
  fc.tuple(value, flag, fc.integer({ min: 0, max: 4 })).map(
    ([a, f, limit]): Shape => ({
      sql: (side) => `SELECT id, ${a[side]('x')} FROM t WHERE ${f[side]('x')} ORDER BY id LIMIT ${limit}`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: f, column: 'x', rows: T },
      ],
      isExact: false,
    }),
  ),
  fc.tuple(value, value).map(
    ([a, b]): Shape => ({
      sql: (side) =>
        `SELECT list(${a[side]('x')} ORDER BY id), count(DISTINCT ${b[side]('x')}) FILTER (WHERE id > 1) FROM t`,
      uses: [
        { expression: a, column: 'x', rows: T },
        { expression: b, column: 'x', rows: T },
      ],
      isExact: false,
    }),
  ),
);

const cell = fc.option(fc.constantFrom('', 'a', 'A', 'aa', 'abc', 'Bb', 'even', "it's", 'ü', 'odd!'), {
  nil: null,
  freq: 5,
});
export const tables = fc.tuple(fc.array(cell, { maxLength: 8 }), fc.array(cell, { maxLength: 5 }));
const literal = (x: string | null) => (x === null ? 'NULL' : `'${x.replaceAll("'", "''")}'`);
export const create = (name: string, cells: readonly (string | null)[]) =>
  cells.length === 0
    ? `CREATE OR REPLACE TABLE ${name} (id INTEGER, x VARCHAR)`
    : `CREATE OR REPLACE TABLE ${name} AS SELECT * FROM (VALUES ${cells.map((x, id) => `(${id}, ${literal(x)}::VARCHAR)`).join(', ')}) v(id, x)`;
