// The registry: endpoints, models and settings by name. Served from memory; a change is written to the store
// first and heard by listeners last. Not here: who may do it (governance) and how models run (engines).
import type { Principal } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint, ModelVersion } from '#core/endpoint.ts';
import type { Log } from '#core/log.ts';
import type { RegistryStore } from '#storage/registry-store.ts';
import { Changes, type RegistryEvent } from './changes.ts';
import { Contents } from './contents.ts';
import { createEmbedded, type Embedded } from './embedded.ts';
import { Endpoints, type Resolution, type ResolveOptions } from './endpoints.ts';
import { type InspectModel, type ListedModel, Models, type RegisterOptions } from './models.ts';
import { parseSetting, SETTING_DEFAULTS, settingName } from './settings.ts';

export interface RegistryOptions {
  readonly store: RegistryStore;
  /** Where copies of registered models are kept. */
  readonly artifactsDir: string;
  readonly clock: Clock;
  readonly inspectModel: InspectModel;
  readonly log: Log;
  readonly embedded?: Embedded;
}

export async function openRegistry(options: RegistryOptions): Promise<Registry> {
  const contents = new Contents(options.embedded ?? createEmbedded(), options.artifactsDir);
  contents.load(await options.store.loadAll());
  return new Registry(contents, options);
}

export class Registry {
  readonly #contents: Contents;
  readonly #changes: Changes;
  readonly #endpoints: Endpoints;
  readonly #models: Models;

  constructor(contents: Contents, options: RegistryOptions) {
    this.#contents = contents;
    this.#changes = new Changes(contents, options.store, options.log);
    this.#endpoints = new Endpoints(contents, this.#changes, options.clock);
    this.#models = new Models(contents, this.#changes, options);
  }

  /** No I/O. Throws ENDPOINT_NOT_FOUND, WRONG_TASK, NOT_FOUND. Gives the same target objects until something changes. */
  resolve(name: string, options: ResolveOptions = {}): Resolution {
    return this.#endpoints.resolve(name, options);
  }

  /** Throws ENDPOINT_NOT_FOUND. */
  getEndpoint(name: string): Endpoint {
    return this.#endpoints.get(name);
  }

  /** By name. */
  listEndpoints(): readonly Endpoint[] {
    return this.#endpoints.list();
  }

  /** Throws INVALID_PARAMETER, ALREADY_EXISTS, NOT_FOUND (a model). */
  createEndpoint(spec: unknown, principal: Principal): Promise<Endpoint> {
    return this.#endpoints.create(spec, principal);
  }

  /** Replaces what is given (`servedEntities` with their `routes`, `description`, `tags`) and keeps the rest. */
  updateEndpointConfig(name: string, spec: unknown): Promise<Endpoint> {
    return this.#endpoints.updateConfig(name, spec);
  }

  deleteEndpoint(name: string): Promise<void> {
    return this.#endpoints.delete(name);
  }

  /** By name. */
  listModels(): readonly ListedModel[] {
    return this.#models.list();
  }

  /** A number, an alias, or absent for the newest. Throws NOT_FOUND. */
  getModelVersion(model: string, versionOrAlias?: string): ModelVersion {
    return this.#contents.findVersion(model, versionOrAlias);
  }

  /** Copies the model (a file with what lies beside it, or a folder) as the next version of `name`. */
  registerModel(name: string, path: string, options: RegisterOptions = {}): Promise<ModelVersion> {
    return this.#models.register(name, path, options);
  }

  /** `version`: a number or another alias. */
  setAlias(model: string, alias: string, version: string): Promise<void> {
    return this.#models.setAlias(model, alias, version);
  }

  /** Refused while an endpoint serves it by number or alias, or serves the model and has no other version to take. */
  deleteModelVersion(model: string, versionOrAlias: string): Promise<void> {
    return this.#models.deleteVersion(model, versionOrAlias);
  }

  /** The value, or its default; undefined where there is none. Throws INVALID_PARAMETER for unknown names. */
  getSetting(name: string): string | undefined {
    const known = settingName(name);
    return this.#contents.settings.get(known) ?? SETTING_DEFAULTS[known];
  }

  /** An empty value goes back to the default. */
  setSetting(name: string, value: string): Promise<void> {
    return this.#changes.inTurn(async () => {
      const key = settingName(name);
      const kind = 'setting';
      if (value === '') await this.#changes.write([{ type: 'delete', kind, key }], { kind, name: key });
      else {
        const document = parseSetting(key, this.getEndpoint(value));
        await this.#changes.write([{ type: 'put', kind, key, document }], { kind, name: key });
      }
    });
  }

  /** Heard after every change; gives a function that ends it. */
  onChange(listener: (event: RegistryEvent) => void): () => void {
    return this.#changes.onChange(listener);
  }
}
