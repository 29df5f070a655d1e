// Brings the system database to the tables this program expects: numbered SQL files, each applied once, in
// order, in a transaction of its own, and remembered by its SHA-256.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import type { Log } from '#core/log.ts';
import { packageRoot } from './package-root.ts';

export interface Migration {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
  readonly sha256: string;
}

const FILE_NAME = /^(\d{4})_([a-z0-9_]+)\.sql$/;

/** The migrations of a directory in order. Numbers start at 1 and have no gaps. */
export function readMigrations(directory = join(packageRoot(), 'sql', 'migrations')): readonly Migration[] {
  if (!existsSync(directory)) {
    throw new ServingError(
      'STORAGE_ERROR',
      `The migrations are missing: ${directory} does not exist. Install duckserve again.`,
    );
  }
  const files = readdirSync(directory)
    .filter((file) => file.endsWith('.sql'))
    .sort();
  return files.map((file, index) => {
    const match = FILE_NAME.exec(file);
    if (match === null || Number(match[1]) !== index + 1) {
      const expected = String(index + 1).padStart(4, '0');
      throw new ServingError(
        'STORAGE_ERROR',
        `Migration ${file} is out of order; a file named ${expected}_name.sql was expected.`,
      );
    }
    // A checkout that turned line ends into CRLF must not look like a changed migration.
    const sql = readFileSync(join(directory, file), 'utf8').replaceAll('\r\n', '\n');
    return { version: index + 1, name: match[2] ?? '', sql, sha256: sha256Hex(sql) };
  });
}

/** Applies what is not applied yet to the catalog `duckserve`; gives the number applied. */
export async function migrate(
  connection: DuckDBConnection,
  migrations: readonly Migration[],
  log: Log,
): Promise<number> {
  await connection.run(`CREATE TABLE IF NOT EXISTS duckserve.main.migrations (
    version INTEGER PRIMARY KEY, name VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, applied_at TIMESTAMP NOT NULL)`);
  const reader = await connection.runAndReadAll(
    'SELECT version, name, sha256 FROM duckserve.main.migrations ORDER BY version',
  );
  const applied = reader.getRowsJson().map((row) => ({
    version: Number(row[0]),
    name: String(row[1]),
    sha256: String(row[2]),
  }));
  refuseForeign(applied, migrations);
  const pending = migrations.slice(applied.length);
  for (const migration of pending) await apply(connection, migration, log);
  return pending.length;
}

function refuseForeign(
  applied: readonly { readonly version: number; readonly name: string; readonly sha256: string }[],
  migrations: readonly Migration[],
): void {
  const newest = applied.at(-1);
  if (newest !== undefined && newest.version > migrations.length) {
    throw new ServingError(
      'STORAGE_ERROR',
      `The system database is newer than this program: it has migration ${newest.version} (${newest.name}), ` +
        `this program knows ${migrations.length}. Upgrade duckserve, or use another --data directory.`,
    );
  }
  for (const [index, row] of applied.entries()) {
    const migration = migrations[index];
    if (migration === undefined || migration.version !== row.version || migration.sha256 !== row.sha256) {
      throw new ServingError(
        'STORAGE_ERROR',
        `Migration ${row.version} (${row.name}) was changed after it was applied: the database remembers SHA-256 ` +
          `${row.sha256.slice(0, 12)}, the file has ${migration?.sha256.slice(0, 12) ?? 'none'}. ` +
          'Restore the file, or use another --data directory.',
      );
    }
  }
}

async function apply(connection: DuckDBConnection, migration: Migration, log: Log): Promise<void> {
  await connection.run('BEGIN TRANSACTION');
  try {
    await connection.run(migration.sql);
    await connection.run(
      "INSERT INTO duckserve.main.migrations VALUES ($1, $2, $3, now()::TIMESTAMPTZ AT TIME ZONE 'UTC')",
      [migration.version, migration.name, migration.sha256],
    );
    await connection.run('COMMIT');
  } catch (error) {
    await connection.run('ROLLBACK').catch(() => undefined);
    const reason = error instanceof Error ? error.message : String(error);
    throw new ServingError(
      'STORAGE_ERROR',
      `Migration ${migration.version} (${migration.name}) failed and was rolled back: ${reason}`,
      { cause: error },
    );
  }
  log.info({ version: migration.version, name: migration.name }, 'system database migrated');
}
