// The table of docs/errors.md, made from src/core/errors.ts. `node --import tsx scripts/error-table.ts` writes it
// into the file; a test compares the two.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERRORS } from '../src/core/errors.ts';

export const ERROR_DOC = join(import.meta.dirname, '..', 'docs', 'errors.md');
const BEGIN = '<!-- table: written by scripts/error-table.ts -->\n';
const END = '<!-- end of table -->';

export function formatErrorTable(): string {
  const header = ['Code', 'HTTP', 'OpenAI type', 'Databricks code', 'SQLSTATE', 'Again?', 'Log', 'Meaning'];
  const rows = Object.entries(ERRORS).map(([code, row]) => [
    `\`${code}\``,
    String(row.httpStatus),
    `\`${row.openaiType}\``,
    `\`${row.databricksCode}\``,
    `\`${row.sqlState}\``,
    row.isRetryable ? 'yes' : 'no',
    row.logLevel,
    row.meaning,
  ]);
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |\n`;
  return line(header) + line(header.map(() => '---')) + rows.map(line).join('');
}

/** The table as it stands in the text. Throws when its marks are missing. */
export function tableIn(text: string): string {
  const start = text.indexOf(BEGIN);
  const end = text.indexOf(END);
  if (start < 0 || end < start)
    throw new Error(`docs/errors.md has no table between "${BEGIN.trim()}" and "${END}".`);
  return text.slice(start + BEGIN.length, end);
}

if (process.argv[1] === import.meta.filename) {
  const text = readFileSync(ERROR_DOC, 'utf8');
  const start = text.indexOf(BEGIN) + BEGIN.length;
  writeFileSync(
    ERROR_DOC,
    text.slice(0, start) + formatErrorTable() + text.slice(start + tableIn(text).length),
  );
}
