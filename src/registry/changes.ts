// How the registry changes: one change after another, to the store first, then in memory, then to the listeners.
import type { Endpoint, ModelVersion } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import type { RegistryChange, RegistryStore } from '#storage/registry-store.ts';
import type { Contents, StoredModel } from './contents.ts';

/** What has changed, after it has. */
export interface RegistryEvent {
  readonly kind: 'endpoint' | 'model' | 'setting' | 'price';
  readonly name: string;
}

export class Changes {
  readonly #contents: Contents;
  readonly #store: RegistryStore;
  readonly #log: Log;
  readonly #listeners = new Set<(event: RegistryEvent) => void>();
  #tail: Promise<unknown> = Promise.resolve();

  constructor(contents: Contents, store: RegistryStore, log: Log) {
    this.#contents = contents;
    this.#store = store;
    this.#log = log;
  }

  /** Runs after the changes before it, so that what `make` checks still holds when it writes. */
  inTurn<T>(make: () => Promise<T>): Promise<T> {
    const done = this.#tail.then(make);
    this.#tail = done.catch(() => undefined);
    return done;
  }

  /** Only inside `inTurn`. */
  async write(changes: readonly RegistryChange[], event: RegistryEvent): Promise<void> {
    await this.#store.transact(changes);
    this.#contents.apply(changes);
    this.tell(event);
  }

  tell(event: RegistryEvent): void {
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch (error) {
        this.#log.error({ err: error, ...event }, 'a listener of the registry failed');
      }
    }
  }

  onChange(listener: (event: RegistryEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

export function putEndpoint(endpoint: Endpoint): RegistryChange {
  return { type: 'put', kind: 'endpoint', key: endpoint.name, document: toJson(endpoint) };
}

export function putModel(model: StoredModel): RegistryChange {
  return { type: 'put', kind: 'model', key: model.name, document: toJson(model) };
}

export function putModelVersion(version: ModelVersion): RegistryChange {
  return {
    type: 'put',
    kind: 'model_version',
    key: `${version.model}@${version.version}`,
    document: toJson(version),
  };
}

/** Plain data of ours, whose types have no index signature. */
function toJson(value: Endpoint | ModelVersion | StoredModel): Json {
  return value as unknown as Json;
}
