// Results as text, one format a generator: pieces come row by row, so that a large result is never one string.
// Parquet is not text and is written by DuckDB (statement.ts).
import { distinctNames, exactText, isNumberColumn, type Sheet } from './cells.ts';
import { type TableView, tableText } from './table.ts';

export type TextFormat = 'table' | 'json' | 'jsonl' | 'csv' | 'markdown';
export type Format = TextFormat | 'parquet';
export const TEXT_FORMATS: readonly TextFormat[] = ['table', 'json', 'jsonl', 'csv', 'markdown'];
export const FORMATS: readonly Format[] = [...TEXT_FORMATS, 'parquet'];

export function formatSheet(sheet: Sheet, format: TextFormat, view: TableView): Generator<string> {
  switch (format) {
    case 'table':
      return tableText(sheet, view);
    case 'json':
      return jsonText(sheet);
    case 'jsonl':
      return jsonLines(sheet);
    case 'csv':
      return csvText(sheet);
    case 'markdown':
      return markdownText(sheet);
  }
}

function* jsonLines(sheet: Sheet): Generator<string> {
  for (const object of objects(sheet)) yield `${object}\n`;
}

/** One array a result, one object a line. */
function* jsonText(sheet: Sheet): Generator<string> {
  let before = '[\n';
  for (const object of objects(sheet)) {
    yield before + object;
    before = ',\n';
  }
  yield before === '[\n' ? '[]\n' : '\n]\n';
}

function* objects(sheet: Sheet): Generator<string> {
  const keys = distinctNames(sheet.columns).map((name) => `${JSON.stringify(name)}:`);
  for (const row of sheet.rows()) {
    let object = '{';
    for (let index = 0; index < keys.length; index += 1) {
      object += `${index > 0 ? ',' : ''}${keys[index] ?? ''}${JSON.stringify(row[index] ?? null)}`;
    }
    yield `${object}}`;
  }
}

/** RFC 4180 with line feeds, as psql writes it. NULL is an empty field, an empty string is `""`. */
function* csvText(sheet: Sheet): Generator<string> {
  yield `${sheet.columns.map((column) => csvField(column.name)).join(',')}\n`;
  for (const row of sheet.rows()) {
    let line = '';
    for (let index = 0; index < sheet.columns.length; index += 1) {
      const value = row[index] ?? null;
      line += `${index > 0 ? ',' : ''}${value === null ? '' : csvField(exactText(value))}`;
    }
    yield `${line}\n`;
  }
}

const CSV_QUOTED = /[",\r\n]|^$/;

function csvField(text: string): string {
  return CSV_QUOTED.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function* markdownText(sheet: Sheet): Generator<string> {
  yield `| ${sheet.columns.map((column) => markdownCell(column.name)).join(' | ')} |\n`;
  yield `| ${sheet.columns.map((column) => (isNumberColumn(column) ? '---:' : '---')).join(' | ')} |\n`;
  for (const row of sheet.rows()) {
    const cells = sheet.columns.map((_, index) => {
      const value = row[index] ?? null;
      return value === null ? 'NULL' : markdownCell(exactText(value));
    });
    yield `| ${cells.join(' | ')} |\n`;
  }
}

function markdownCell(text: string): string {
  return text.replace(/[\\|]/g, '\\$&').replace(/\r\n|\r|\n/g, '<br>');
}
