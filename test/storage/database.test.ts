import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { SILENT_LOG } from '#core/log.ts';
import { type Database, openDatabase } from '#storage/database.ts';
import { type Migration, readMigrations } from '#storage/migrations.ts';
import { DuckDbRegistryStore } from '#storage/registry-store.ts';

let directory: string;
const opened: Database[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'duckserve-database-'));
});
afterEach(async () => {
  for (const database of opened.splice(0)) await database.close();
  rmSync(directory, { recursive: true, force: true });
});

async function open(options: {
  systemPath: string | null;
  userPath?: string;
  migrations?: readonly Migration[];
}) {
  const database = await openDatabase({ userPath: ':memory:', log: SILENT_LOG, ...options });
  opened.push(database);
  return database;
}

async function refusal(opening: Promise<unknown>): Promise<ServingError> {
  const error = await opening.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ServingError)) throw new Error(`expected a ServingError, got ${String(error)}`);
  return error;
}

function migration(version: number, name: string, sql: string): Migration {
  return { version, name, sql, sha256: sha256Hex(sql) };
}

describe('the database', () => {
  it("keeps the user's database as the default catalog and the system tables in catalog duckserve", async () => {
    const database = await open({
      systemPath: join(directory, 'data', 'system.duckdb'),
      userPath: join(directory, 'mine.duckdb'),
    });
    const connection = await database.connect();
    await connection.run('CREATE TABLE t AS SELECT 42 AS a');
    const reader = await connection.runAndReadAll(
      "SELECT current_database(), (SELECT count(*)::INT FROM duckserve.registry), (SELECT database_name FROM duckdb_tables() WHERE table_name = 't')",
    );
    expect(reader.getRowsJson()).toEqual([['mine', 0, 'mine']]);
  });

  it('makes the data directory readable for its owner only', async () => {
    await open({ systemPath: join(directory, 'data', 'system.duckdb') });
    expect(statSync(join(directory, 'data')).mode & 0o777).toBe(0o700);
  });

  it('works without any file', async () => {
    const database = await open({ systemPath: null });
    const store = new DuckDbRegistryStore(database.system);
    await store.put('setting', 'a', 1);
    expect(await store.loadAll()).toMatchObject([{ kind: 'setting', key: 'a', document: 1 }]);
  });

  it('finds its tables although the user has a schema named duckserve', async () => {
    const database = await open({ systemPath: null });
    await (await database.connect()).run('CREATE SCHEMA memory.duckserve');
    const store = new DuckDbRegistryStore(database.system);
    await store.put('setting', 'a', 1);
    expect(await store.loadAll()).toHaveLength(1);
  });

  it('names the file, the process and the way out when another process holds the file', async () => {
    const path = join(directory, 'system.duckdb');
    const module = import.meta.resolve('@duckdb/node-api');
    const holder = spawn(
      process.execPath,
      [
        '--input-type=module',
        '-e',
        `import d from ${JSON.stringify(module)}; await d.DuckDBInstance.create(${JSON.stringify(path)}); console.log('open'); setInterval(() => {}, 1000);`,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    try {
      await new Promise((resolve) => holder.stdout.once('data', resolve));
      const error = await refusal(open({ systemPath: path }));
      expect(error.code).toBe('STORAGE_ERROR');
      expect(error.message).toContain(path);
      expect(error.message).toContain(`PID ${holder.pid}`);
      expect(error.message).toContain('--data');
      expect(error.message).not.toContain('\n');
    } finally {
      const gone = new Promise((resolve) => holder.once('exit', resolve));
      holder.kill('SIGKILL');
      await gone;
    }
    await open({ systemPath: path });
  });

  it('refuses a file that is open in this process already, and takes it again after close', async () => {
    const path = join(directory, 'system.duckdb');
    const first = await open({ systemPath: path });
    expect((await refusal(open({ systemPath: path }))).message).toContain('already open in this process');
    await first.close();
    await open({ systemPath: path });
  });

  it('says that a damaged file is damaged, for the system and for the user database', async () => {
    const path = join(directory, 'bad.duckdb');
    writeFileSync(path, 'this is no database '.repeat(1000));
    for (const paths of [{ systemPath: path }, { systemPath: null, userPath: path }]) {
      const error = await refusal(open(paths));
      expect(error.code).toBe('STORAGE_ERROR');
      expect(error.message).toContain(path);
      expect(error.message).toContain('damaged');
    }
  });

  it('refuses a user database that would be called like the system catalog', async () => {
    const error = await refusal(open({ systemPath: null, userPath: join(directory, 'duckserve.duckdb') }));
    expect(error.message).toContain('Rename the file');
  });

  it('keeps what was written after closing and opening again', async () => {
    const path = join(directory, 'system.duckdb');
    const first = await open({ systemPath: path });
    await new DuckDbRegistryStore(first.system).put('endpoint', 'e', { name: 'e', tags: [] });
    await first.close();
    const second = await open({ systemPath: path });
    expect(await new DuckDbRegistryStore(second.system).loadAll()).toMatchObject([
      { kind: 'endpoint', key: 'e', document: { name: 'e', tags: [] } },
    ]);
  });
});

describe('migrations', () => {
  it('are numbered without gaps in the package', () => {
    expect(readMigrations().map((each) => each.version)).toEqual(
      readMigrations().map((_, index) => index + 1),
    );
  });

  it('bring a database made by an older set up to date and keep its rows', async () => {
    const path = join(directory, 'system.duckdb');
    const old = [
      migration(1, 'a', 'CREATE TABLE duckserve.main.a (x INTEGER); INSERT INTO duckserve.main.a VALUES (7)'),
    ];
    const first = await open({ systemPath: path, migrations: old });
    await first.close();
    const newer = [...old, migration(2, 'b', 'ALTER TABLE duckserve.main.a ADD COLUMN y INTEGER DEFAULT 1')];
    const second = await open({ systemPath: path, migrations: newer });
    const rows = await second.system.runAndReadAll('SELECT x, y FROM duckserve.main.a');
    expect(rows.getRowsJson()).toEqual([[7, 1]]);
    const applied = await second.system.runAndReadAll(
      'SELECT version, name FROM duckserve.main.migrations ORDER BY 1',
    );
    expect(applied.getRowsJson()).toEqual([
      [1, 'a'],
      [2, 'b'],
    ]);
  });

  it('refuse a file that was changed after it was applied', async () => {
    const path = join(directory, 'system.duckdb');
    await (
      await open({
        systemPath: path,
        migrations: [migration(1, 'a', 'CREATE TABLE duckserve.main.a (x INTEGER)')],
      })
    ).close();
    const error = await refusal(
      open({ systemPath: path, migrations: [migration(1, 'a', 'CREATE TABLE duckserve.main.a (x BIGINT)')] }),
    );
    expect(error.message).toContain('Migration 1 (a) was changed after it was applied');
  });

  it('refuse a database newer than this program', async () => {
    const path = join(directory, 'system.duckdb');
    const one = migration(1, 'a', 'CREATE TABLE duckserve.main.a (x INTEGER)');
    await (await open({ systemPath: path, migrations: [one, migration(2, 'b', 'SELECT 1')] })).close();
    const error = await refusal(open({ systemPath: path, migrations: [one] }));
    expect(error.message).toContain('newer than this program');
    expect(error.message).toContain('Upgrade duckserve');
  });

  it('leave nothing behind when one fails half way', async () => {
    const path = join(directory, 'system.duckdb');
    const bad = migration(1, 'a', 'CREATE TABLE duckserve.main.a (x INTEGER); SELECT nonsense FROM nowhere');
    expect((await refusal(open({ systemPath: path, migrations: [bad] }))).message).toContain('rolled back');
    await open({
      systemPath: path,
      migrations: [migration(1, 'a', 'CREATE TABLE duckserve.main.a (x INTEGER)')],
    });
  });
});

describe('the registry store', () => {
  it('applies all changes of a transaction or none', async () => {
    const database = await open({ systemPath: null });
    const store = new DuckDbRegistryStore(database.system);
    await store.put('a', '1', { v: 1 });
    await store.transact([
      { type: 'put', kind: 'a', key: '2', document: { v: 2 } },
      { type: 'delete', kind: 'a', key: '1' },
      { type: 'put', kind: 'a', key: '1', document: { v: 3 } },
    ]);
    expect((await store.loadAll()).map((each) => [each.key, each.document])).toEqual([
      ['1', { v: 3 }],
      ['2', { v: 2 }],
    ]);
    const failing = store.transact([
      { type: 'delete', kind: 'a', key: '1' },
      { type: 'put', kind: 'a', key: '9', document: undefined as unknown as null },
    ]);
    expect((await refusal(failing)).code).toBe('STORAGE_ERROR');
    expect((await store.loadAll()).map((each) => each.key)).toEqual(['1', '2']);
  });

  it('takes writes from many callers at once', async () => {
    const database = await open({ systemPath: null });
    const store = new DuckDbRegistryStore(database.system);
    await Promise.all(Array.from({ length: 50 }, (_, index) => store.put('a', String(index % 10), index)));
    expect((await store.loadAll()).map((each) => each.document)).toEqual([
      40, 41, 42, 43, 44, 45, 46, 47, 48, 49,
    ]);
  });
});
