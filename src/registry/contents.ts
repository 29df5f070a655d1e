// The registry in memory: endpoints, models, versions, settings by name, and the endpoints compiled to targets.
// Changed only after the store has written the same; checks nothing.
import { isAbsolute, resolve } from 'node:path';
import type { Endpoint, ModelVersion, RegisteredModel } from '#core/endpoint.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { RegistryChange, StoredDocument } from '#storage/registry-store.ts';
import type { Embedded } from './embedded.ts';
import { closeNames, quoteList } from './names.ts';
import { type CompiledEndpoint, compileEndpoint, type FindPrice } from './targets.ts';

/** A model as it is stored: numbers of deleted versions are not given again. */
export interface StoredModel extends RegisteredModel {
  readonly lastVersion: number;
}

export class Contents {
  readonly endpoints = new Map<string, Endpoint>();
  readonly models = new Map<string, RegisteredModel>();
  readonly versions = new Map<string, Map<string, ModelVersion>>();
  readonly settings = new Map<string, string>();
  readonly #compiled = new Map<string, CompiledEndpoint | ServingError>();
  readonly #artifactsDir: string;
  readonly #findPrice: FindPrice;

  constructor(embedded: Embedded, artifactsDir: string, findPrice: FindPrice = () => undefined) {
    this.#artifactsDir = resolve(artifactsDir);
    this.#findPrice = findPrice;
    for (const model of embedded.models) this.models.set(model.name, model);
    for (const version of embedded.versions) this.#putVersion(version);
    for (const endpoint of embedded.endpoints) this.endpoints.set(endpoint.name, endpoint);
  }

  load(documents: readonly StoredDocument[]): void {
    this.apply(documents.map(({ kind, key, document }) => ({ type: 'put', kind, key, document })));
  }

  /** The same changes the store has written. Documents are what this program wrote, so their shape is known. */
  apply(changes: readonly RegistryChange[]): void {
    for (const change of changes) {
      if (change.type === 'put') this.#put(change.kind, change.key, change.document);
      else this.#delete(change.kind, change.key);
    }
  }

  /** The endpoint with its targets; compiled when first asked after a change. Undefined: there is none. */
  compiled(name: string): CompiledEndpoint | undefined {
    const known = this.#compiled.get(name);
    if (known instanceof ServingError) throw known;
    if (known !== undefined) return known;
    const endpoint = this.endpoints.get(name);
    if (endpoint === undefined) return undefined;
    try {
      const compiled = this.compile(endpoint);
      this.#compiled.set(name, compiled);
      return compiled;
    } catch (error) {
      const failure = toServingError(error);
      this.#compiled.set(name, failure);
      throw failure;
    }
  }

  /** Of any endpoint, also one that is not stored (yet). Throws NOT_FOUND. */
  compile(endpoint: Endpoint): CompiledEndpoint {
    return compileEndpoint(
      endpoint,
      (model, version) => this.findVersion(model, version),
      (provider, model) => this.#findPrice(provider, model),
    );
  }

  /** After a change of the price table: targets are made anew when they are next asked for. */
  forgetPrices(): void {
    this.#compiled.clear();
  }

  /** By number, by alias, or the newest. Throws NOT_FOUND. */
  findVersion(model: string, versionOrAlias: string | undefined): ModelVersion {
    const known = this.models.get(model);
    const versions = this.versions.get(model);
    if (known === undefined || versions === undefined) {
      const close = closeNames(model, this.models.keys());
      const hint =
        close.length > 0
          ? ` Did you mean ${quoteList(close)}?`
          : ' Register it first (duckserve models register).';
      throw new ServingError('NOT_FOUND', `There is no registered model '${model}'.${hint}`);
    }
    const number =
      versionOrAlias === undefined || versionOrAlias === 'latest'
        ? String(Math.max(...[...versions.keys()].map(Number)))
        : (known.aliases[versionOrAlias] ?? versionOrAlias);
    const version = versions.get(number);
    if (version !== undefined) return version;
    const names = [...versions.keys(), ...Object.keys(known.aliases)].join(', ');
    throw new ServingError(
      'NOT_FOUND',
      `Model '${model}' has no version or alias '${versionOrAlias}'. It has: ${names}.`,
    );
  }

  /** Endpoints that serve a model, in any version. */
  endpointsOf(model: string): readonly Endpoint[] {
    return [...this.endpoints.values()].filter((endpoint) =>
      endpoint.servedEntities.some((entity) => entity.entityName === model),
    );
  }

  #put(kind: string, key: string, document: Json): void {
    if (kind === 'endpoint') {
      this.endpoints.set(key, document as unknown as Endpoint);
      this.#compiled.delete(key);
    } else if (kind === 'model') {
      this.models.set(key, document as unknown as StoredModel);
      this.#forgetTargetsOf(key);
    } else if (kind === 'model_version') {
      const version = document as unknown as ModelVersion;
      this.#putVersion(version);
      this.#forgetTargetsOf(version.model);
    } else if (kind === 'setting') this.settings.set(key, String(document));
  }

  #delete(kind: string, key: string): void {
    if (kind === 'endpoint') {
      this.endpoints.delete(key);
      this.#compiled.delete(key);
    } else if (kind === 'model') {
      this.models.delete(key);
      this.#forgetTargetsOf(key);
    } else if (kind === 'model_version') {
      const [model = '', number = ''] = key.split('@');
      this.versions.get(model)?.delete(number);
      if (this.versions.get(model)?.size === 0) this.versions.delete(model);
      this.#forgetTargetsOf(model);
    } else if (kind === 'setting') this.settings.delete(key);
  }

  #putVersion(version: ModelVersion): void {
    const isPlaced = version.source.startsWith('embedded:') || isAbsolute(version.source);
    // Kept relative to the directory of artifacts, so that a data directory can be moved.
    const placed = isPlaced ? version : { ...version, source: resolve(this.#artifactsDir, version.source) };
    const versions = this.versions.get(version.model) ?? new Map<string, ModelVersion>();
    versions.set(version.version, placed);
    this.versions.set(version.model, versions);
  }

  #forgetTargetsOf(model: string): void {
    for (const endpoint of this.endpointsOf(model)) this.#compiled.delete(endpoint.name);
  }
}

export function byName(left: { readonly name: string }, right: { readonly name: string }): number {
  return left.name < right.name ? -1 : left.name > right.name ? 1 : 0;
}
