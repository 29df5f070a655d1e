import { describe, expect, it } from 'vitest';
import { parseStatement } from '#session/statement.ts';
import { withOurNames, writesPrices } from '#session/system-names.ts';

const ours = (sql: string) => withOurNames(parseStatement(sql)).text;

describe("Databricks' system tables", () => {
  it('are found under their own names, however they are spelled', () => {
    expect(ours('FROM system.serving.endpoint_usage u JOIN "system".AI_GATEWAY.usage g USING (x)')).toBe(
      'FROM duckserve.serving.endpoint_usage u JOIN duckserve.AI_GATEWAY.usage g USING (x)',
    );
  });

  it('are left alone in texts, comments, other schemas and longer names', () => {
    for (const sql of [
      "SELECT 'system.serving.endpoint_usage'",
      'SELECT 1 /* system.serving.endpoint_usage */',
      'FROM system.information_schema.tables',
      'FROM a.system.serving.endpoint_usage',
      'SELECT system.serving FROM system',
    ])
      expect(ours(sql)).toBe(sql);
  });
});

describe('an edit of the price table', () => {
  it('is known by its target', () => {
    const edits = (sql: string) => writesPrices(parseStatement(sql));
    expect(edits("INSERT INTO duckserve.prices VALUES ('a', 'b', 1, 2, NULL)")).toBe(true);
    expect(edits('UPDATE duckserve.main.prices SET note = NULL')).toBe(true);
    expect(edits('DELETE FROM "duckserve"."prices"')).toBe(true);
    expect(edits('FROM duckserve.prices')).toBe(false);
    expect(edits('ALTER TABLE duckserve.prices ADD COLUMN x INT')).toBe(false);
    expect(edits('DELETE FROM duckserve.prices.usage')).toBe(false);
  });
});
