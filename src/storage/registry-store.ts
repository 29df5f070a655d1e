// Documents of the registry in the system database: endpoints, models, settings, encrypted secrets.
// Knows kinds and keys, not what the documents mean; the registry serves from memory and writes here first.
import type { DuckDBConnection } from '@duckdb/node-api';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { toJsonText } from './json-text.ts';

export interface StoredDocument {
  readonly kind: string;
  readonly key: string;
  readonly document: Json;
  /** Epoch milliseconds. */
  readonly updatedAtMs: number;
}

export type RegistryChange =
  | { readonly type: 'put'; readonly kind: string; readonly key: string; readonly document: Json }
  | { readonly type: 'delete'; readonly kind: string; readonly key: string };

/** Every write is on disk when its promise resolves. */
export interface RegistryStore {
  loadAll(): Promise<readonly StoredDocument[]>;
  put(kind: string, key: string, document: Json): Promise<void>;
  delete(kind: string, key: string): Promise<void>;
  /** All of them or none. */
  transact(changes: readonly RegistryChange[]): Promise<void>;
}

const PUT = `INSERT INTO duckserve.main.registry (kind, key, document, updated_at)
  VALUES ($1, $2, $3::JSON, now()::TIMESTAMPTZ AT TIME ZONE 'UTC')
  ON CONFLICT (kind, key) DO UPDATE SET document = excluded.document, updated_at = excluded.updated_at`;
const DELETE = 'DELETE FROM duckserve.main.registry WHERE kind = $1 AND key = $2';
const LOAD = `SELECT kind, key, document::VARCHAR, epoch_ms(updated_at)::DOUBLE
  FROM duckserve.main.registry ORDER BY kind, key`;

export class DuckDbRegistryStore implements RegistryStore {
  readonly #connection: DuckDBConnection;
  readonly #listeners = new Set<(changes: readonly RegistryChange[]) => void>();
  // One transaction at a time: a connection has only one.
  #tail: Promise<void> = Promise.resolve();

  /** `connection`: the system connection of the database; nobody else may have a transaction open on it. */
  constructor(connection: DuckDBConnection) {
    this.#connection = connection;
  }

  async loadAll(): Promise<readonly StoredDocument[]> {
    await this.#tail;
    const reader = await this.#connection.runAndReadAll(LOAD);
    return reader.getRowsJson().map((row) => ({
      kind: String(row[0]),
      key: String(row[1]),
      document: JSON.parse(String(row[2])) as Json,
      updatedAtMs: Number(row[3]),
    }));
  }

  put(kind: string, key: string, document: Json): Promise<void> {
    return this.transact([{ type: 'put', kind, key, document }]);
  }

  delete(kind: string, key: string): Promise<void> {
    return this.transact([{ type: 'delete', kind, key }]);
  }

  transact(changes: readonly RegistryChange[]): Promise<void> {
    const done = this.#tail
      .then(() => this.#write(lastOfEachKey(changes)))
      .then(() => {
        for (const listener of this.#listeners) listener(changes);
      });
    this.#tail = done.catch(() => undefined);
    return done;
  }

  /** Heard after every change; gives a function that ends it. Must not throw. */
  onChange(listener: (changes: readonly RegistryChange[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async #write(changes: readonly RegistryChange[]): Promise<void> {
    if (changes.length === 0) return;
    try {
      await this.#connection.run('BEGIN TRANSACTION');
      for (const change of changes) {
        if (change.type === 'delete') await this.#connection.run(DELETE, [change.kind, change.key]);
        else await this.#connection.run(PUT, [change.kind, change.key, toJsonText(change.document)]);
      }
      await this.#connection.run('COMMIT');
    } catch (error) {
      await this.#connection.run('ROLLBACK').catch(() => undefined);
      const reason = error instanceof Error ? error.message : String(error);
      const names = changes.map((change) => `${change.kind} ${change.key}`).join(', ');
      throw new ServingError('STORAGE_ERROR', `The registry could not be written (${names}): ${reason}`, {
        cause: error,
      });
    }
  }
}

/** DuckDB checks unique keys per statement; a key deleted and put again in one transaction would be refused. */
function lastOfEachKey(changes: readonly RegistryChange[]): readonly RegistryChange[] {
  const last = new Map<string, RegistryChange>();
  for (const change of changes) last.set(`${change.kind}\u0000${change.key}`, change);
  return [...last.values()];
}
