// The registry: endpoints, models and settings by name. Served from memory; a change is written to the store
// first and heard by listeners last. Not here: who may do it (governance) and how models run (engines).
import type { Principal } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint, ModelVersion, ServedEntity } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import type { RegistryStore } from '#storage/registry-store.ts';
import { Changes, type RegistryEvent } from './changes.ts';
import { Contents } from './contents.ts';
import type { EndpointState } from './deployments.ts';
import { createEmbedded, type Embedded } from './embedded.ts';
import { EndpointChanges, type PrepareTargets } from './endpoint-changes.ts';
import { Endpoints, type Resolution, type ResolveOptions } from './endpoints.ts';
import { buildLines, EntityLogs } from './entity-logs.ts';
import { type InspectModel, type ListedModel, Models, type RegisterOptions } from './models.ts';
import type { SecretKeeper } from './parked-secrets.ts';
import { parseSetting, SETTING_DEFAULTS, settingName } from './settings.ts';
import type { FindPrice } from './targets.ts';

export type { EndpointState, PrepareTargets };

export interface RegistryOptions {
  readonly store: RegistryStore;
  /** Where copies of registered models are kept. */
  readonly artifactsDir: string;
  readonly clock: Clock;
  readonly inspectModel: InspectModel;
  readonly log: Log;
  readonly embedded?: Embedded;
  /** Where keys go that arrive in the clear. Absent: they are refused. */
  readonly secrets?: SecretKeeper;
  /** Absent: whatever is valid counts as ready. */
  readonly prepareTargets?: PrepareTargets;
  /** What the price table says; asked again after `pricesChanged`. */
  readonly findPrice?: FindPrice;
}

export interface CreateOptions {
  /** Its models are opened now, and it is ready when they are. Default: when somebody asks first. */
  readonly isLoaded?: boolean;
}

export async function openRegistry(options: RegistryOptions): Promise<Registry> {
  const contents = new Contents(
    options.embedded ?? createEmbedded(),
    options.artifactsDir,
    options.findPrice,
  );
  contents.load(await options.store.loadAll());
  return await Registry.open(contents, options);
}

export class Registry {
  readonly #contents: Contents;
  readonly #changes: Changes;
  readonly #endpoints: Endpoints;
  readonly #models: Models;

  readonly #endpointChanges: EndpointChanges;
  readonly #logs: EntityLogs;

  static async open(contents: Contents, options: RegistryOptions): Promise<Registry> {
    const registry = new Registry(contents, options);
    await registry.#endpointChanges.sweepSecrets();
    return registry;
  }

  private constructor(contents: Contents, options: RegistryOptions) {
    this.#contents = contents;
    this.#changes = new Changes(contents, options.store, options.log);
    this.#endpoints = new Endpoints(contents);
    this.#logs = new EntityLogs(options.clock);
    this.#endpointChanges = new EndpointChanges(
      contents,
      this.#changes,
      this.#endpoints,
      this.#logs,
      options,
    );
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

  /** Whether it is ready, and what becomes of its update. */
  stateOf(endpoint: Endpoint): EndpointState {
    return this.#endpointChanges.stateOf(endpoint);
  }

  /** Resolves when nothing is being made ready for the endpoint any more. */
  settled(name: string): Promise<void> {
    return this.#endpointChanges.settled(this.#endpoints.get(name));
  }

  /** Throws INVALID_PARAMETER, ALREADY_EXISTS, NOT_FOUND (a model), PERMISSION_DENIED (references of others). */
  createEndpoint(spec: unknown, principal: Principal, options: CreateOptions = {}): Promise<Endpoint> {
    return this.#endpointChanges.create(spec, principal, options.isLoaded ?? false);
  }

  /**
   * Replaces what is given (`servedEntities` with their `routes`, `description`, `tags`) and keeps the rest. The
   * old entities serve until the new ones are ready, and go on if that fails: `stateOf` tells, `settled` waits.
   * Throws RESOURCE_CONFLICT while another update is under way.
   */
  updateEndpointConfig(name: string, spec: unknown, principal?: Principal): Promise<Endpoint> {
    return this.#endpointChanges.updateConfig(name, spec, principal);
  }

  /** The same, for who waits until it is in force. Throws what stood in the way; the old entities serve on then. */
  async updateEndpointAndWait(name: string, spec: unknown, principal?: Principal): Promise<Endpoint> {
    const { id } = await this.updateEndpointConfig(name, spec, principal);
    await this.settled(name);
    const endpoint = this.getEndpoint(name);
    const { update, failure } = this.stateOf(endpoint);
    if (endpoint.id === id && update === 'NOT_UPDATING') return endpoint;
    if (failure !== undefined) throw failure;
    throw new ServingError('RESOURCE_CONFLICT', `The update of endpoint '${name}' was cancelled.`);
  }

  /** The whole gateway in the shape of `AiGateway`; an empty object clears it. */
  setGateway(name: string, gateway: unknown): Promise<Endpoint> {
    return this.#endpointChanges.setGateway(name, gateway);
  }

  /** `{add: [{key, value}], remove: [key]}` */
  setTags(name: string, change: unknown): Promise<Endpoint> {
    return this.#endpointChanges.setTags(name, change);
  }

  /** Members replace those of the same name; null removes one. */
  changeEndpointSettings(name: string, change: JsonObject): Promise<Endpoint> {
    return this.#endpointChanges.changeSettings(name, change);
  }

  /** Queries are refused until it is started; an update under way is cancelled. */
  stopEndpoint(name: string): Promise<Endpoint> {
    return this.#endpointChanges.stop(name);
  }

  startEndpoint(name: string): Promise<Endpoint> {
    return this.#endpointChanges.start(name);
  }

  deleteEndpoint(name: string): Promise<void> {
    return this.#endpointChanges.delete(name);
  }

  /** The last lines about a served entity since this process began. Throws NOT_FOUND. */
  entityLogs(endpoint: string, entity: string): readonly string[] {
    this.#entityOf(endpoint, entity);
    return this.#logs.lines(endpoint, entity);
  }

  /** How the model of a served entity came to be here. Throws NOT_FOUND. */
  entityBuildLogs(endpoint: string, entity: string): readonly string[] {
    const served = this.#entityOf(endpoint, entity);
    const { entityName, entityVersion } = served;
    if (entityName === undefined) return buildLines(served, undefined);
    return buildLines(served, this.#contents.findVersion(entityName, entityVersion));
  }

  /** A line for `entityLogs`, from whoever learns something about an entity. Unknown ones are left out. */
  noteEntity(endpoint: string, entity: string, text: string): void {
    const known = this.#contents.endpoints.get(endpoint);
    if (known?.servedEntities.some(({ name }) => name === entity)) this.#logs.add(endpoint, entity, text);
  }

  /** The price table has changed: targets have their prices anew. */
  pricesChanged(): void {
    this.#contents.forgetPrices();
    this.#changes.tell({ kind: 'price', name: '' });
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

  #entityOf(endpoint: string, entity: string): ServedEntity {
    const { servedEntities } = this.#endpoints.get(endpoint);
    const served = servedEntities.find(({ name }) => name === entity);
    if (served !== undefined) return served;
    const names = servedEntities.map(({ name }) => name).join(', ');
    throw new ServingError(
      'NOT_FOUND',
      `Endpoint '${endpoint}' has no served entity '${entity.slice(0, 80)}'. It has: ${names}.`,
    );
  }
}
