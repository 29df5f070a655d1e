// Opens sessions on the connections of one DuckDB instance: functions and system tables once, macros on each.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { ServingError } from '#core/errors.ts';
import { AI_FUNCTIONS } from '#functions/functions.ts';
import { packageRoot } from '#storage/package-root.ts';
import { registerFunctions } from './binding.ts';
import { Session, type SessionDependencies, type SessionOptions } from './session.ts';
import type { StatementRun } from './statement-run.ts';
import { registerSystemTables, type SystemTable } from './system-tables.ts';

export interface SessionsOptions extends Omit<SessionDependencies, 'runs' | 'ownsConnection' | 'restore'> {
  readonly connect: () => Promise<DuckDBConnection>;
  readonly systemTables: readonly SystemTable[];
  /** Catalog for the views of the system tables; null where the system database is not attached. */
  readonly systemCatalog: string | null;
  /** False where the connections belong to the program around us: they stay open. Default true. */
  readonly ownsConnections?: boolean;
}

export class Sessions {
  readonly #options: SessionsOptions;
  readonly #runs = new Map<number, StatementRun>();
  readonly #open = new Set<Session>();
  #prepared: Promise<void> | undefined;

  constructor(options: SessionsOptions) {
    this.#options = options;
  }

  async open(options: SessionOptions): Promise<Session> {
    const ownsConnection = this.#options.ownsConnections ?? true;
    const connection = await this.#options.connect();
    const dependencies = {
      ...this.#options,
      runs: this.#runs,
      ownsConnection,
      restore: () => this.#restore(connection),
    };
    // Statements are found by their connection: two sessions on one would answer each other's questions.
    if (!ownsConnection && this.#open.size > 0) throw new ServingError('RESOURCE_CONFLICT', ONE_SESSION);
    const session = new ListedSession(connection, dependencies, options, this.#open);
    try {
      this.#prepared ??= this.#prepareInstance(connection);
      await this.#prepared;
      await connection.run(readMacros());
    } catch (error) {
      await session.close();
      throw error;
    }
    return session;
  }

  /** Closes what is still open, each after its running statement. */
  async close(): Promise<void> {
    await Promise.all([...this.#open].map((session) => session.close()));
    this.#open.clear();
  }

  /** What was registered inside a transaction of the program's is gone when that one is rolled back. */
  async #restore(connection: DuckDBConnection): Promise<void> {
    const reader = await connection.runAndReadAll(
      "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_name IN ('ai_query', '__ai_query')",
    );
    const names = reader.getRows().map(([name]) => name);
    if (!names.includes('__ai_query')) await this.#prepareInstance(connection);
    if (!names.includes('ai_query')) await connection.run(readMacros());
  }

  async #prepareInstance(connection: DuckDBConnection): Promise<void> {
    registerFunctions(connection, AI_FUNCTIONS, this.#runs);
    await registerSystemTables(connection, this.#options.systemTables, this.#options.systemCatalog);
  }
}

const ONE_SESSION =
  'SQL runs on a connection of the program, which has one session at a time. Run the statement in that session, or close it first.';

/** Is in the list while it is open: a server opens one for each request and closes it. */
class ListedSession extends Session {
  readonly #list: Set<Session>;

  constructor(
    connection: DuckDBConnection,
    dependencies: SessionDependencies,
    options: SessionOptions,
    list: Set<Session>,
  ) {
    super(connection, dependencies, options);
    this.#list = list;
    list.add(this);
  }

  override async close(): Promise<void> {
    await super.close();
    this.#list.delete(this);
  }
}

let macros: string | undefined;

/** All macros as one text: a session runs them once, so they go in one call. */
function readMacros(): string {
  const folder = join(packageRoot(), 'sql', 'macros');
  macros ??= readdirSync(folder)
    .filter((name) => name.endsWith('.sql'))
    .sort()
    .map((name) => readFileSync(join(folder, name), 'utf8'))
    .join('\n');
  return macros;
}
