import { describe, expect, it } from 'vitest';
import { endsStatement, isBlankSql } from '../../src/cli/sql-text.ts';
import { closest } from '../../src/cli/suggest.ts';

describe('the end of a statement', () => {
  it.each([
    'SELECT 1;',
    'SELECT 1; -- done',
    "SELECT ';';",
    "SELECT 'it''s';",
    'SELECT "a;b";',
    'SELECT $$ ; $$;',
    'SELECT $t$ $$ ; $t$; /* ; */',
    "SELECT e'\\';' ;",
    'SELECT 1; SELECT 2;',
  ])('is seen in %s', (sql) => expect(endsStatement(sql)).toBe(true));

  it.each([
    '',
    'SELECT 1',
    "SELECT ';",
    'SELECT ";',
    'SELECT 1 -- ;',
    'SELECT 1 /* ;',
    'SELECT $$ ;',
    "SELECT e'\\';",
    'SELECT 1; SELECT 2',
    "SELECT 'a\nb;",
  ])('is not seen in %s', (sql) => expect(endsStatement(sql)).toBe(false));
});

describe('blank SQL', () => {
  it('is blanks, comments and semicolons only', () => {
    expect(['', ' ;\n', '-- x', '/* a */ ; -- b\n'].map(isBlankSql)).toEqual([true, true, true, true]);
    expect(['x', '/* a */ select 1 /* b */', "';'", '/* a'].map(isBlankSql)).toEqual([
      false,
      false,
      false,
      false,
    ]);
  });
});

describe('a suggestion', () => {
  it('is the nearest word, or none when nothing is near', () => {
    expect(closest('lst', ['list', 'get', 'create'])).toBe('list');
    expect(closest('remove', ['list', 'get', 'create'])).toBeUndefined();
    expect(closest('del', ['list', 'get', 'delete'])).toBe('delete');
  });
});
