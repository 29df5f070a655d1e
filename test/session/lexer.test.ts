// The lexer: where tokens begin and end, and that statements are split where DuckDB splits them.
import { DuckDBInstance } from '@duckdb/node-api';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { closingIndex, tokenize } from '#session/lexer.ts';
import { parseStatements } from '#session/statement.ts';

const texts = (sql: string) => tokenize(sql).map((token) => token.text);
const shapes = (sql: string) => tokenize(sql).map((token) => [token.kind, token.value]);

describe('tokens', () => {
  it('leave out white space and comments, also nested ones', () => {
    expect(texts('SELECT 1 -- to the end; of the line\n, /* a /* ; inside */ still */ 2')).toEqual([
      'SELECT',
      '1',
      ',',
      '2',
    ]);
    expect(texts('-- nothing else')).toEqual([]);
    expect(texts('/* never closed ; SELECT 1')).toEqual([]);
  });

  it('end a line comment at a carriage return, as DuckDB does', () => {
    expect(texts('SELECT 1 -- x\r, 2')).toEqual(['SELECT', '1', ',', '2']);
    expect(texts('SELECT 1 -- x\r\n, 2')).toEqual(['SELECT', '1', ',', '2']);
  });

  it('see the white space of Unicode, also right behind a word', () => {
    expect(texts('SELECT\u00a01\u2003+\u30002')).toEqual(['SELECT', '1', '+', '2']);
  });

  it('give strings their value', () => {
    expect(shapes("'it''s'")).toEqual([['string', "it's"]]);
    expect(shapes("E'a\\'b\\n\\\\'")).toEqual([['string', "a'b\n\\"]]);
    expect(shapes("e'tab\\tand ''quote'' '")).toEqual([['string', "tab\tand 'quote' "]]);
    expect(shapes("E'\\x41\\102'")).toEqual([['string', 'AB']]);
    expect(shapes("'no \\escape'")).toEqual([['string', 'no \\escape']]);
    expect(shapes("'open")).toEqual([['string', 'open']]);
  });

  it('take dollar quotes as strings, with and without a tag', () => {
    expect(shapes("$$it's; -- x$$")).toEqual([['string', "it's; -- x"]]);
    expect(shapes('$body$ a $$ b $other$ c $body$')).toEqual([['string', ' a $$ b $other$ c ']]);
    expect(shapes('$é1$x$é1$')).toEqual([['string', 'x']]);
    expect(shapes('$$never closed')).toEqual([['string', 'never closed']]);
  });

  it('tell parameters from dollar quotes', () => {
    expect(shapes('$1 + $2 + $name + ?')).toEqual([
      ['parameter', '1'],
      ['symbol', '+'],
      ['parameter', '2'],
      ['symbol', '+'],
      ['parameter', 'name'],
      ['symbol', '+'],
      ['parameter', '?'],
    ]);
    expect(shapes('$1;$2;$3').map(([kind]) => kind)).toEqual([
      'parameter',
      'symbol',
      'parameter',
      'symbol',
      'parameter',
    ]);
  });

  it('keep a dollar inside of a word', () => {
    expect(texts('a$b$c; x$b$')).toEqual(['a$b$c', ';', 'x$b$']);
  });

  it('unquote identifiers and keep their case, and lower that of words', () => {
    expect(shapes('"My ""Table""" MyTable größe')).toEqual([
      ['quoted', 'My "Table"'],
      ['word', 'mytable'],
      ['word', 'größe'],
    ]);
  });

  it('read numbers whole', () => {
    expect(texts('1 1.5 .5 1e10 1.5E-3 1_000 0xFF 12.')).toEqual([
      '1',
      '1.5',
      '.5',
      '1e10',
      '1.5E-3',
      '1_000',
      '0xFF',
      '12.',
    ]);
  });

  it('keep operators of two and three characters together', () => {
    expect(texts('a::INT b=>1 c:=2 d->>e f->g h||i j<=k l>=m n<>o p!=q r==s t**u v//w')).toEqual(
      'a :: INT b => 1 c := 2 d ->> e f -> g h || i j <= k l >= m n <> o p != q r == s t ** u v // w'.split(
        ' ',
      ),
    );
  });

  it('end an operator where a comment begins', () => {
    expect(texts('1 +/*;*/ 2 --;\n<--;\n3')).toEqual(['1', '+', '2', '<', '3']);
  });

  it('find the bracket that closes another across brackets of other kinds', () => {
    const tokens = tokenize("f(a[1], {'x': (2)}, ')')) + 1");
    expect(tokens[closingIndex(tokens, 1)]?.end).toBe("f(a[1], {'x': (2)}, ')')".length);
    const open = tokenize('f(a, b');
    expect(closingIndex(open, 1)).toBe(open.length - 1);
  });

  it('cover the text: what lies between two tokens is white space or a comment', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary-ascii', maxLength: 60 }), (text) => {
        let at = 0;
        for (const token of tokenize(text)) {
          expect(token.start).toBeGreaterThanOrEqual(at);
          expect(token.text).toBe(text.slice(token.start, token.end));
          expect(token.end).toBeGreaterThan(token.start);
          expect(text.slice(at, token.start)).toMatch(/^(\s|--|\/\*|$)/);
          at = token.end;
        }
      }),
      { numRuns: 2_000 },
    );
  });
});

const tricky = fc.constantFrom(
  ';',
  "'",
  '"',
  '--',
  '/*',
  '*/',
  '$',
  '$$',
  '$a$',
  'x',
  ' ',
  '\n',
  '\\',
  'é',
  '(',
  ')',
);
const body = fc.array(tricky, { maxLength: 8 }).map((parts) => parts.join(''));
const nested = (depth: number): fc.Arbitrary<string> =>
  depth === 0
    ? body.map((text) => `/*${text.replaceAll(/\/\*|\*\/|\*$/g, '').replaceAll(/[/*]/g, '')}*/`)
    : fc.tuple(nested(depth - 1), nested(depth - 1)).map(([left, right]) => `/* ;${left}'${right} */`);
const item = fc.oneof(
  fc.constantFrom(
    '1',
    '.5',
    '1e3',
    '(2)',
    '[3, 4]',
    "{'a': 1}",
    'NULL',
    '- 5',
    '7 -- rest;\n',
    "'a' || 'b'",
    '8--;\r',
  ),
  body.map((text) => `'${text.replaceAll("'", "''")}'`),
  body.map((text) => `E'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`),
  body.map((text) => `e'${text.replaceAll('\\', '\\n').replaceAll("'", "''")}'`),
  body.map((text) => `1 AS "${text.replaceAll('"', '""')}x"`),
  body.map((text) => `$tag$${text.replaceAll('$tag$', '')}$tag$`),
  body.map((text) => `$$${text.replaceAll('$', '')}$$`),
  body.map((text) => `$é_1$${text} $é_1$`),
);
const gap = fc.oneof(
  fc.constantFrom(' ', '\n', '\t', '\r\n', ' -- ; \' " $$ /*\n', ' --x;\r'),
  nested(1).map((text) => ` ${text} `),
);
const statement = fc
  .tuple(gap, fc.array(fc.tuple(item, gap), { minLength: 1, maxLength: 4 }))
  .map(([first, items]) => `SELECT${first}${items.map(([value, after]) => value + after).join(',')}`);
const separator = fc.tuple(fc.constantFrom(';', ';;', '; ;'), gap).map(([mark, after]) => mark + after);

describe('splitting', () => {
  it('gives as many statements as DuckDB finds, each of which DuckDB takes as one', async () => {
    const instance = await DuckDBInstance.create(':memory:');
    const connection = await instance.connect();
    try {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(statement, separator), { minLength: 1, maxLength: 5 }),
          async (parts) => {
            const sql = parts.map(([text, mark]) => text + mark).join('');
            const split = parseStatements(sql);
            expect((await connection.extractStatements(sql)).count).toBe(split.length);
            expect(split).toHaveLength(parts.length);
            for (const { text } of split) {
              expect((await connection.extractStatements(text)).count).toBe(1);
              expect(sql).toContain(text);
            }
          },
        ),
        { numRuns: 400 },
      );
    } finally {
      connection.closeSync();
      instance.closeSync();
    }
  });

  it('leaves out what is only comments or semicolons', () => {
    expect(parseStatements(' ; -- x\n;/* y */;')).toEqual([]);
    expect(parseStatements('').length).toBe(0);
    expect(parseStatements(';;SELECT 1;;SELECT 2 -- end').map(({ text }) => text)).toEqual([
      'SELECT 1',
      'SELECT 2',
    ]);
  });

  it('keeps comments inside of a statement as they are written', () => {
    expect(parseStatements("SELECT /* a;b */ 'c;d' -- e\n, 2;").map(({ text }) => text)).toEqual([
      "SELECT /* a;b */ 'c;d' -- e\n, 2",
    ]);
  });
});
