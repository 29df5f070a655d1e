// docs/errors.md and src/core/errors.ts say the same, both ways.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { ERROR_DOC, formatErrorTable, tableIn } from '../../scripts/error-table.ts';
import { ERRORS } from '../../src/core/errors.ts';

const text = readFileSync(ERROR_DOC, 'utf8');

describe('docs/errors.md', () => {
  it('has the table of the code, row by row (node --import tsx scripts/error-table.ts writes it)', () => {
    expect(tableIn(text)).toBe(formatErrorTable());
  });

  it('explains what to do for codes that exist, and for no other', () => {
    const below = text.slice(text.indexOf('<!-- end of table -->'));
    const headings = [...below.matchAll(/^### `?([A-Z_]+)`?/gm)].map(([, code]) => code);
    expect(headings.filter((code) => !Object.hasOwn(ERRORS, code ?? ''))).toEqual([]);
    expect(new Set(headings).size).toBe(headings.length);
  });
});

describe('the error table', () => {
  it('has statuses, SQLSTATEs and codes of the right form', () => {
    for (const [code, row] of Object.entries(ERRORS)) {
      expect(code).toMatch(/^[A-Z][A-Z_]+$/);
      expect(row.httpStatus, code).toBeGreaterThanOrEqual(400);
      expect(row.httpStatus, code).toBeLessThan(600);
      expect(row.sqlState, code).toMatch(/^[0-9A-Z]{5}$/);
      expect(row.meaning, code).toMatch(/^[A-Z].*\.$/);
    }
  });

  it('calls only those failures worth another try that a caller may repeat unchanged', () => {
    const again = Object.entries(ERRORS).flatMap(([code, row]) => (row.isRetryable ? [code] : []));
    for (const code of again)
      expect(ERRORS[code as keyof typeof ERRORS].httpStatus, code).toSatisfy(
        (status: number) => status === 429 || status >= 500,
      );
  });
});
