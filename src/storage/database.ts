// The one DuckDB instance of the process: the user's database is its main database, the system database is
// attached beside it as catalog `duckserve`. Not here: what the stores keep in it, nor how users' SQL runs.
import { mkdirSync, realpathSync } from 'node:fs';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { ServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import { type Migration, migrate, readMigrations } from './migrations.ts';

export interface DatabaseOptions {
  /** File of the system database; null keeps it in memory. */
  readonly systemPath: string | null;
  /** `:memory:` or a file. */
  readonly userPath: string;
  readonly log: Log;
  /** For tests of upgrades; otherwise the files of the package. */
  readonly migrations?: readonly Migration[];
}

// DuckDB's file locks do not hold against the own process, and two instances on one file lose committed rows.
const openPaths = new Set<string>();

export class Database {
  /** For the stores alone. Never hand it to a user's statement. */
  readonly system: DuckDBConnection;
  readonly #instance: DuckDBInstance;
  readonly #paths: readonly string[];
  readonly #log: Log;
  readonly #connections = new Set<WeakRef<DuckDBConnection>>();
  readonly #collected = new FinalizationRegistry<WeakRef<DuckDBConnection>>((reference) => {
    this.#connections.delete(reference);
  });
  #isClosed = false;

  constructor(instance: DuckDBInstance, system: DuckDBConnection, paths: readonly string[], log: Log) {
    this.#instance = instance;
    this.system = system;
    this.#paths = paths;
    this.#log = log;
  }

  /** A connection whose default catalog is the user's database. The caller closes it when done. */
  async connect(): Promise<DuckDBConnection> {
    if (this.#isClosed) throw new ServingError('STORAGE_ERROR', 'The database is closed.');
    const connection = await this.#instance.connect();
    const reference = new WeakRef(connection);
    this.#connections.add(reference);
    this.#collected.register(connection, reference);
    return connection;
  }

  /** Checkpoints both databases and releases the files. Connections still open are closed with it. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const reference of this.#connections) reference.deref()?.closeSync();
    this.#connections.clear();
    try {
      await this.system.run('CHECKPOINT duckserve');
      await this.system.run('CHECKPOINT');
    } catch (error) {
      // Nothing is lost: what was committed is in the write-ahead log and is read at the next start.
      this.#log.warn({ err: error }, 'checkpoint at close failed');
    }
    this.system.closeSync();
    this.#instance.closeSync();
    for (const path of this.#paths) openPaths.delete(path);
  }
}

/** Opens and migrates. Throws STORAGE_ERROR with one readable line. */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const userPath = options.userPath === '' ? ':memory:' : options.userPath;
  const systemPath = options.systemPath;
  const paths = [userPath, systemPath ?? ':memory:'].filter((path) => path !== ':memory:').map(claimable);
  if (systemPath !== null) makePrivateDirectory(dirname(resolve(systemPath)));
  refuseNameClash(userPath);
  refuseOpenTwice(paths);
  for (const path of paths) openPaths.add(path);
  let instance: DuckDBInstance | undefined;
  try {
    instance = await readable(userPath, DuckDBInstance.create(userPath));
    const system = await instance.connect();
    const target = systemPath === null ? ':memory:' : systemPath.replaceAll("'", "''");
    await readable(systemPath ?? ':memory:', system.run(`ATTACH '${target}' AS duckserve`));
    await migrate(system, options.migrations ?? readMigrations(), options.log);
    return new Database(instance, system, paths, options.log);
  } catch (error) {
    instance?.closeSync();
    for (const path of paths) openPaths.delete(path);
    throw error;
  }
}

/** The path as the set of open files knows it: absolute, with links of its directory resolved. */
function claimable(path: string): string {
  const absolute = resolve(path);
  try {
    return join(realpathSync(dirname(absolute)), basename(absolute));
  } catch {
    return absolute;
  }
}

function makePrivateDirectory(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ServingError(
      'STORAGE_ERROR',
      `The data directory ${directory} cannot be created: ${reason}. Choose another with --data.`,
      { cause: error },
    );
  }
}

function refuseNameClash(userPath: string): void {
  const name = basename(userPath, extname(userPath)).toLowerCase();
  if (userPath !== ':memory:' && name === 'duckserve') {
    throw new ServingError(
      'STORAGE_ERROR',
      `The database file ${userPath} would be called "duckserve" in SQL, which is the name of the system catalog. Rename the file.`,
    );
  }
}

function refuseOpenTwice(paths: readonly string[]): void {
  const twice = paths.find((path, index) => openPaths.has(path) || paths.indexOf(path) !== index);
  if (twice !== undefined) {
    throw new ServingError(
      'STORAGE_ERROR',
      `The database file ${twice} is already open in this process. Share the instance that has it open, or use another file.`,
    );
  }
}

async function readable<T>(path: string, opening: Promise<T>): Promise<T> {
  try {
    return await opening;
  } catch (error) {
    throw new ServingError('STORAGE_ERROR', explain(path, error), { cause: error });
  }
}

function explain(path: string, error: unknown): string {
  const message = (error instanceof Error ? error.message : String(error)).split('\n')[0] ?? '';
  if (message.includes('Could not set lock')) {
    const pid = /PID (\d+)/.exec(message)?.[1];
    const holder = pid === undefined ? 'another process' : `another process (PID ${pid})`;
    return (
      `The database file ${path} is in use by ${holder}. ` +
      'Stop that process, use its HTTP address instead, or choose another directory with --data.'
    );
  }
  if (
    message.includes('not a valid DuckDB database') ||
    message.includes('corrupt') ||
    message.includes('checksum')
  ) {
    return (
      `The file ${path} is not a DuckDB database or is damaged (${message}). ` +
      'Restore it from a backup, or move it away and start again.'
    );
  }
  return `The database file ${path} cannot be opened: ${message}`;
}
