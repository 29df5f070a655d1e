import fc from 'fast-check';
import stringWidth from 'string-width';
import { describe, expect, it } from 'vitest';
import { cellText, type Sheet } from '../../src/cli/cells.ts';
import { formatSheet, type TextFormat } from '../../src/cli/formats.ts';
import { fitColumns, type TableView } from '../../src/cli/table.ts';
import { cutToWidth, textWidth } from '../../src/cli/text-width.ts';
import { rowsResult } from './fake-app.ts';

const PIPED: TableView = { width: null, hasColor: false };
const tty = (width: number): TableView => ({ width, hasColor: false });

function text(sheet: Sheet, format: TextFormat, view: TableView = PIPED): string {
  return [...formatSheet(sheet, format, view)].join('');
}

/** A reader of RFC 4180 that tells an empty field (null) from an empty string. */
function readCsv(content: string): (string | null)[][] {
  const rows: (string | null)[][] = [];
  let row: (string | null)[] = [];
  let at = 0;
  while (at < content.length) {
    let field: string | null = null;
    if (content[at] === '"') {
      field = '';
      for (at += 1; ; at += 1) {
        if (content[at] === '"' && content[at + 1] === '"') at += 1;
        else if (content[at] === '"') break;
        field += content[at];
      }
      at += 1;
    } else {
      const from = at;
      while (at < content.length && content[at] !== ',' && content[at] !== '\n') at += 1;
      if (at > from) field = content.slice(from, at);
    }
    row.push(field);
    if (content[at] === ',') {
      at += 1;
      if (content[at] === '\n' || at === content.length) row.push(null);
    }
    if (content[at] === '\n') {
      rows.push(row);
      row = [];
      at += 1;
    }
  }
  return rows;
}

describe('CSV', () => {
  it('gives back every text and NULL when it is read again', () => {
    const cell = fc.option(
      fc.oneof(
        fc.string({ unit: 'binary' }),
        fc.string({ unit: fc.constantFrom('"', ',', '\n', '\r', ' ', 'a', 'é') }),
      ),
    );
    const sheets = fc
      .integer({ min: 2, max: 5 })
      .chain((width) =>
        fc
          .array(fc.array(cell, { minLength: width, maxLength: width }), { maxLength: 8 })
          .map((rows) => ({ width, rows })),
      );
    fc.assert(
      fc.property(sheets, ({ width, rows }) => {
        const columns = Array.from({ length: width }, (_, index) => [`c"${index}`, 'VARCHAR'] as const);
        const read = readCsv(text(rowsResult(columns, rows), 'csv'));
        expect(read).toEqual([columns.map(([name]) => name), ...rows]);
      }),
      { numRuns: 500 },
    );
  });

  it('tells NULL from the empty string and writes nested values as JSON', () => {
    const sheet = rowsResult(
      [
        ['a', 'VARCHAR'],
        ['b', 'VARCHAR'],
        ['c', 'INTEGER[]'],
      ],
      [
        [null, '', [1, 2]],
        ['x', 'y', { k: true }],
      ],
    );
    expect(text(sheet, 'csv')).toBe('a,b,c\n,"","[1,2]"\nx,y,"{""k"":true}"\n');
  });
});

describe('JSON', () => {
  it('is one array that any reader takes, also when it is empty', () => {
    const sheet = rowsResult(
      [
        ['id', 'INTEGER'],
        ['t', 'VARCHAR'],
      ],
      [
        [1, 'a\n"b"'],
        [2, null],
      ],
    );
    expect(JSON.parse(text(sheet, 'json'))).toEqual([
      { id: 1, t: 'a\n"b"' },
      { id: 2, t: null },
    ]);
    expect(text(rowsResult([['id', 'INTEGER']], []), 'json')).toBe('[]\n');
  });

  it('loses no column when two have the same name, and keeps __proto__ a key', () => {
    const sheet = rowsResult(
      [
        ['a', 'INTEGER'],
        ['a', 'INTEGER'],
        ['__proto__', 'INTEGER'],
      ],
      [[1, 2, 3]],
    );
    expect(text(sheet, 'jsonl')).toBe('{"a":1,"a_1":2,"__proto__":3}\n');
  });

  it('is one object a line as JSONL', () => {
    const sheet = rowsResult([['v', 'VARCHAR']], [['a\nb'], ['c']]);
    expect(text(sheet, 'jsonl')).toBe('{"v":"a\\nb"}\n{"v":"c"}\n');
  });
});

describe('Markdown', () => {
  it('escapes bars, keeps line ends inside a cell and aligns numbers right', () => {
    const sheet = rowsResult(
      [
        ['n', 'DECIMAL(18,3)'],
        ['t', 'VARCHAR'],
      ],
      [
        ['1.5', 'a|b\nc'],
        [null, 'd'],
      ],
    );
    expect(text(sheet, 'markdown')).toBe('| n | t |\n| ---: | --- |\n| 1.5 | a\\|b<br>c |\n| NULL | d |\n');
  });
});

describe('the table', () => {
  it('draws a box with types, numbers to the right and a count of rows', () => {
    const sheet = rowsResult(
      [
        ['id', 'INTEGER'],
        ['name', 'VARCHAR'],
      ],
      [
        [1, 'duck'],
        [100, null],
      ],
    );
    expect(text(sheet, 'table')).toBe(
      [
        '┌─────────┬─────────┐',
        '│      id │ name    │',
        '│ INTEGER │ VARCHAR │',
        '├─────────┼─────────┤',
        '│       1 │ duck    │',
        '│     100 │ NULL    │',
        '└─────────┴─────────┘',
        '2 rows',
        '',
      ].join('\n'),
    );
  });

  it('keeps its lines equally wide with Chinese, emoji and combining characters', () => {
    const values = ['日本語のテキスト', '👩‍👩‍👧‍👦 family', 'e\u0301te\u0301', '🦆🦆', 'plain', '한국어'];
    for (const view of [PIPED, tty(30), tty(24)]) {
      const sheet = rowsResult(
        [
          ['text', 'VARCHAR'],
          ['ключ', 'VARCHAR'],
        ],
        values.map((value) => [value, value + value]),
      );
      const widths = text(sheet, 'table', view)
        .split('\n')
        .slice(0, -2)
        .map((line) => stringWidth(line));
      expect(new Set(widths).size).toBe(1);
      if (view.width !== null) expect(widths[0]).toBeLessThanOrEqual(view.width);
    }
  });

  it('never gets wider than the terminal, whatever is in it', () => {
    const cell = fc.oneof(fc.string({ unit: 'binary', maxLength: 60 }), fc.integer(), fc.constant(null));
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 14 }),
        fc.integer({ min: 24, max: 120 }),
        fc.array(cell, { minLength: 14, maxLength: 14 }),
        (count, width, row) => {
          const columns = row.slice(0, count).map((_, index) => [`column_${index}`, 'VARCHAR'] as const);
          const lines = text(rowsResult(columns, [row.slice(0, count)]), 'table', tty(width))
            .split('\n')
            .slice(0, -2);
          for (const line of lines) expect(textWidth(line)).toBeLessThanOrEqual(width);
        },
      ),
    );
  });

  it('shows the first and the last twenty rows of many on a terminal, and all of them in a pipe', () => {
    const sheet = rowsResult(
      [['n', 'BIGINT']],
      Array.from({ length: 1000 }, (_, index) => [index]),
    );
    const lines = text(sheet, 'table', tty(80)).split('\n');
    expect(lines.filter((line) => /│\s+\d+ │/.test(line))).toHaveLength(40);
    expect(lines.filter((line) => line.includes('⋮'))).toHaveLength(1);
    expect(lines.at(-2)).toBe('1,000 rows (40 shown)');
    expect(
      text(sheet, 'table')
        .split('\n')
        .filter((line) => /│\s+\d+ │/.test(line)),
    ).toHaveLength(1000);
  });

  it('loses no row and no text when rows after the first ten thousand are wider', () => {
    const rows = Array.from({ length: 10_002 }, (_, index) => [
      index < 10_001 ? 'a' : 'wider than all before',
    ]);
    const lines = text(rowsResult([['n', 'VARCHAR']], rows), 'table').split('\n');
    expect(lines.filter((line) => line.startsWith('│ a'))).toHaveLength(10_001);
    expect(lines.at(-4)).toBe('│ wider than all before │');
  });

  it('leaves out columns in the middle when a terminal is too narrow, and says so', () => {
    const columns = Array.from({ length: 20 }, (_, index) => [`column_${index}`, 'VARCHAR'] as const);
    const shown = text(rowsResult(columns, [columns.map(([name]) => name)]), 'table', tty(60));
    expect(shown).toContain('column_0');
    expect(shown).toContain('│ column_2 │ … │ column_… │');
    expect(shown).toMatch(/1 row \(\d+ of 20 columns shown\)/);
  });

  it('shows a vector by its first numbers and its length', () => {
    const vector = Array.from({ length: 384 }, (_, index) => (index === 0 ? 0.1234 : -0.0345));
    expect(cellText(vector, 'FLOAT[384]')).toBe('[0.12, -0.035, … 384 values]');
    expect(cellText([1, 2, 3], 'INTEGER[]')).toBe('[1, 2, 3]');
    expect(cellText({ v: vector, s: 'x' }, 'STRUCT(v FLOAT[384], s VARCHAR)')).toBe(
      '{"v": [0.12, -0.035, … 384 values], "s": "x"}',
    );
  });

  it('puts cells with line ends on one line and lets no control character through to the terminal', () => {
    expect(cellText('a\r\nb\nc', 'VARCHAR')).toBe('a↵b↵c');
    expect(cellText('\u001b[31mred\u0007\u009b', 'VARCHAR')).toBe('␛[31mred␇\ufffd');
    const sheet = rowsResult([['\u001b[2J', 'VARCHAR']], [['\u001b]0;title\u0007']]);
    expect(text(sheet, 'table')).not.toContain('\u001b');
  });

  it('measures format characters that stand alone', () => {
    expect(['\ufff9', '\u0600', 'a\u200d'].map(textWidth)).toEqual([1, 1, 1]);
  });

  it('cuts by columns and never through a character', () => {
    expect(cutToWidth('日本語', 5)).toBe('日本…');
    expect(cutToWidth('日本語', 4)).toBe('日…');
    expect(cutToWidth('abcdef', 3)).toBe('ab…');
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.integer({ min: 1, max: 40 }), (value, width) => {
        expect(textWidth(cutToWidth(value, width))).toBeLessThanOrEqual(width);
      }),
    );
  });

  it('makes only the widest columns narrower', () => {
    expect(fitColumns([4, 100, 10], 60).widths).toEqual([4, 36, 10]);
    expect(fitColumns([4, 100, 100], null).widths).toEqual([4, 100, 100]);
  });
});
