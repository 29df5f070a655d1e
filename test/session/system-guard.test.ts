// The system catalog is read like other tables and changed by none of a user's statements.
import { describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { parseStatement } from '#session/statement.ts';
import { refuseSystemChange } from '#session/system-guard.ts';

const refuses = (sql: string): boolean => {
  try {
    refuseSystemChange(parseStatement(sql));
    return false;
  } catch (error) {
    return error instanceof ServingError && error.code === 'PERMISSION_DENIED';
  }
};

describe('the system catalog', () => {
  it.each([
    'DELETE FROM duckserve.usage',
    'DELETE FROM duckserve.main.answers WHERE true',
    'DROP TABLE duckserve.registry',
    'DROP TABLE IF EXISTS "duckserve".main.registry',
    'INSERT INTO duckserve.usage SELECT * FROM x',
    "UPDATE duckserve.registry SET document = '{}'",
    'ALTER TABLE duckserve.usage ADD COLUMN x INTEGER',
    'CREATE TABLE duckserve.mine AS SELECT 1',
    'CREATE OR REPLACE VIEW duckserve.endpoints AS SELECT 1',
    'TRUNCATE duckserve.usage',
    'DETACH duckserve',
    'DETACH DATABASE IF EXISTS duckserve',
    'USE duckserve',
    "SET schema = 'duckserve.main'",
    "SET search_path = 'main,duckserve'",
    "COPY duckserve.usage FROM 'x.csv'",
    'MERGE INTO duckserve.usage USING x ON true WHEN MATCHED THEN DELETE',
  ])('is not changed by %s', (sql) => {
    expect(refuses(sql)).toBe(true);
  });

  it.each([
    'SELECT * FROM duckserve.usage',
    'CREATE TABLE mine AS FROM duckserve.usage',
    'INSERT INTO mine SELECT * FROM duckserve.usage',
    'DELETE FROM mine WHERE id IN (SELECT call_id FROM duckserve.usage)',
    'UPDATE mine SET n = u.n FROM duckserve.usage u',
    "COPY duckserve.usage TO 'usage.csv'",
    "COPY (FROM duckserve.usage) TO 'usage.csv'",
    "CALL duckserve_drop_endpoint('x')",
    "SELECT 'DELETE FROM duckserve.usage'",
    "SET memory_limit = '1GB'",
    'CREATE VIEW v AS SELECT * FROM duckserve.endpoints',
  ])('may be named in %s', (sql) => {
    expect(refuses(sql)).toBe(false);
  });
});
