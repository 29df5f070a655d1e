// The table printer: a box drawn around a result, made to fit the terminal.
// Not here: other formats (formats.ts) and where the text goes (output.ts).
import type { Json } from '#core/json.ts';
import { cellText, isNumberColumn, type Sheet, type SheetColumn } from './cells.ts';
import { cutToWidth, padToWidth, textWidth } from './text-width.ts';

export interface TableView {
  /** Columns of the terminal, or null when the table goes to a file or a pipe. */
  readonly width: number | null;
  readonly hasColor: boolean;
}

/** Widths are taken from this many rows; later rows that are wider stick out, none is lost. */
const ROWS_MEASURED = 10_000;
const PIPED_CELL_WIDTH = 200;
const TTY_ROWS = 40;
/** A column is not made narrower than this to fit a terminal; columns in the middle are left out instead. */
const NARROWEST = 8;
const TYPE_WIDTH = 20;

interface Row {
  readonly cells: readonly string[];
  readonly values: readonly Json[];
}

export function* tableText(sheet: Sheet, view: TableView): Generator<string> {
  const shown = view.width !== null && sheet.rowCount > TTY_ROWS ? TTY_ROWS : sheet.rowCount;
  const rows = bodyRows(sheet, shown);
  const measured: (Row | null)[] = [];
  let next = rows.next();
  for (; !next.done && measured.length < ROWS_MEASURED; next = rows.next()) measured.push(next.value);

  const types = sheet.columns.map((column) => typeLabel(column.type));
  const natural = sheet.columns.map((column, index) => {
    let width = Math.max(textWidth(heading(column)), textWidth(types[index] ?? ''), 1);
    for (const row of measured) width = Math.max(width, textWidth(row?.cells[index] ?? '⋮'));
    return width;
  });
  const layout = fitColumns(natural, view.width);
  const { picked } = layout;
  const dim = (text: string) => (view.hasColor ? `\u001b[2m${text}\u001b[22m` : text);
  const bold = (text: string) => (view.hasColor ? `\u001b[1m${text}\u001b[22m` : text);

  const line = (texts: (column: number) => string, style: (text: string, column: number) => string) => {
    const cells = picked.map((column) => {
      if (column === GAP) return ` ${dim('…')} `;
      const width = layout.widths[column] ?? 1;
      const isRight = isNumberColumn(sheet.columns[column] ?? NO_COLUMN);
      return ` ${style(padToWidth(cutToWidth(texts(column), width), width, isRight), column)} `;
    });
    return `${dim('│')}${cells.join(dim('│'))}${dim('│')}\n`;
  };
  const rule = (left: string, middle: string, right: string) => {
    const parts = picked.map((column) => '─'.repeat((column === GAP ? 1 : (layout.widths[column] ?? 1)) + 2));
    return `${dim(`${left}${parts.join(middle)}${right}`)}\n`;
  };
  const body = (row: Row | null) =>
    row === null
      ? line(() => '⋮', dim)
      : line(
          (column) => row.cells[column] ?? '',
          (text, column) => (row.values[column] === null ? dim(text) : text),
        );

  yield rule('┌', '┬', '┐');
  yield line((column) => heading(sheet.columns[column] ?? NO_COLUMN), bold);
  if (types.some((type) => type !== '')) yield line((column) => types[column] ?? '', dim);
  yield rule('├', '┼', '┤');
  for (const row of measured) yield body(row);
  // Past the measured rows nothing is cut: a value wider than its column moves the rest of its line.
  for (; !next.done; next = rows.next()) yield overflowLine(next.value, sheet, layout.widths);
  yield rule('└', '┴', '┘');
  yield footer(sheet, shown, layout);
}

const NO_COLUMN: SheetColumn = { name: '', type: '' };
const GAP = -1;

function heading(column: SheetColumn): string {
  return cellText(column.name, '');
}

function overflowLine(row: Row | null, sheet: Sheet, widths: readonly number[]): string {
  const cells = sheet.columns.map((column, index) =>
    padToWidth(row?.cells[index] ?? '⋮', widths[index] ?? 1, isNumberColumn(column)),
  );
  return `│ ${cells.join(' │ ')} │\n`;
}

/** The rows to show; null stands for those left out in the middle. */
function* bodyRows(sheet: Sheet, shown: number): Generator<Row | null> {
  const firstCount = shown < sheet.rowCount ? shown / 2 : shown;
  const lastFrom = sheet.rowCount - (shown - firstCount);
  let index = 0;
  for (const values of sheet.rows()) {
    if (index < firstCount || index >= lastFrom) yield toRow(values, sheet.columns);
    else if (index === firstCount) yield null;
    index += 1;
  }
}

function toRow(values: readonly Json[], columns: readonly SheetColumn[]): Row {
  const cells = columns.map((column, index) => {
    const value = values[index] ?? null;
    return value === null ? 'NULL' : cutToWidth(cellText(value, column.type), PIPED_CELL_WIDTH);
  });
  return { cells, values };
}

function typeLabel(type: string): string {
  if (type.length <= TYPE_WIDTH) return type;
  const nested = /^(\w+)\(.*\)((\[\d*\])*)$/s.exec(type);
  return nested ? `${nested[1]}(…)${nested[2]}` : cutToWidth(type, TYPE_WIDTH);
}

interface Layout {
  /** Width by column, also of columns left out. */
  readonly widths: number[];
  /** Columns to show in order; GAP where some are left out. */
  readonly picked: readonly number[];
}

/** Makes the widest columns narrower until all fit; when even that is not enough, leaves out the middle. */
export function fitColumns(natural: readonly number[], total: number | null): Layout {
  const all = natural.map((_, index) => index);
  const spaceFor = (count: number) => (total ?? Number.POSITIVE_INFINITY) - (3 * count + 1);
  const sum = (columns: readonly number[], cap: number) =>
    columns.reduce((width, column) => width + (column === GAP ? 1 : Math.min(natural[column] ?? 1, cap)), 0);
  let picked: readonly number[] = all;
  if (sum(all, NARROWEST) > spaceFor(all.length)) {
    for (let count = all.length - 1; count >= 1; count -= 1) {
      const left = Math.ceil(count / 2);
      picked = [...all.slice(0, left), GAP, ...all.slice(all.length - (count - left))];
      if (sum(picked, NARROWEST) <= spaceFor(picked.length)) break;
    }
  }
  let cap = Math.max(1, ...natural);
  if (sum(picked, cap) > spaceFor(picked.length)) {
    // Largest cap that fits, by halving.
    let low = 1;
    while (low < cap) {
      const middle = Math.ceil((low + cap) / 2);
      if (sum(picked, middle) <= spaceFor(picked.length)) low = middle;
      else cap = middle - 1;
    }
  }
  return { widths: natural.map((width) => Math.min(width, cap)), picked };
}

function footer(sheet: Sheet, shown: number, layout: Layout): string {
  const count = sheet.rowCount.toLocaleString('en-US');
  const notes: string[] = [];
  if (shown < sheet.rowCount) notes.push(`${shown} shown`);
  if (layout.picked.includes(GAP)) {
    notes.push(`${layout.picked.length - 1} of ${sheet.columns.length} columns shown`);
  }
  return `${count} ${sheet.rowCount === 1 ? 'row' : 'rows'}${notes.length > 0 ? ` (${notes.join(', ')})` : ''}\n`;
}
