// How endpoints change: created, given another configuration, policies or tags, stopped, started, deleted. Each
// change is one transaction. A configuration replaces the active one only when all it serves is ready; until then,
// and if that fails, the active one goes on. Not here: who may do it.
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { AiGateway, Endpoint, ServedEntity, Target } from '#core/endpoint.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { RegistryChange } from '#storage/registry-store.ts';
import { type Changes, putEndpoint } from './changes.ts';
import type { Contents } from './contents.ts';
import { type Deployment, Deployments, type EndpointState } from './deployments.ts';
import { type PlannedConfig, planConfig, refuseOtherKind, withIds } from './endpoint-config.ts';
import type { Endpoints } from './endpoints.ts';
import type { EntityLogs } from './entity-logs.ts';
import { checkTableChange, endpointsAskedBy, parseGateway } from './gateway-schema.ts';
import { newEndpoint } from './new-endpoint.ts';
import { ParkedSecrets, parkedKeys, refuseForeignReferences, type SecretKeeper } from './parked-secrets.ts';
import { changeTags, parseEndpointSpec, parseEndpointUpdate, type ServedEntitySpec } from './schemas.ts';

/**
 * Resolves when the targets can be asked: models of this machine are open, keys of providers resolve. What it gives
 * is called when they are served, or will not be. Rejects with what is in the way. The signal fires when nobody
 * waits for it any more.
 */
export type PrepareTargets = (targets: readonly Target[], signal: AbortSignal) => Promise<() => void>;

export interface EndpointChangesOptions {
  readonly clock: Clock;
  readonly secrets?: SecretKeeper;
  /** Absent: whatever is valid counts as ready. */
  readonly prepareTargets?: PrepareTargets;
}

const RESERVED_PREFIX = 'databricks-';

export class EndpointChanges {
  readonly #contents: Contents;
  readonly #changes: Changes;
  readonly #endpoints: Endpoints;
  readonly #logs: EntityLogs;
  readonly #options: EndpointChangesOptions;
  readonly #deployments = new Deployments();
  readonly #parked: ParkedSecrets;

  constructor(
    contents: Contents,
    changes: Changes,
    endpoints: Endpoints,
    logs: EntityLogs,
    options: EndpointChangesOptions,
  ) {
    this.#contents = contents;
    this.#changes = changes;
    this.#endpoints = endpoints;
    this.#logs = logs;
    this.#options = options;
    this.#parked = new ParkedSecrets(options.secrets);
  }

  sweepSecrets(): Promise<void> {
    return this.#parked.sweep(this.#contents.endpoints.values());
  }

  stateOf(endpoint: Endpoint): EndpointState {
    return this.#deployments.stateOf(endpoint);
  }

  settled(endpoint: Endpoint): Promise<void> {
    return this.#deployments.settled(endpoint.id);
  }

  /** `isLoaded`: its models are opened now instead of when somebody asks first. */
  async create(spec: unknown, principal: Principal, isLoaded: boolean): Promise<Endpoint> {
    const { endpoint, deployment } = await this.#changes.inTurn(async () => {
      const parsed = parseEndpointSpec(spec);
      this.#refuseName(parsed.name);
      refuseForeignReferences(principal, parsed.servedEntities, []);
      const plan = this.#plan(parsed);
      this.#checkAsked(parsed.name, parsed.aiGateway);
      const empty = newEndpoint(parsed.name, principal, this.#options.clock.now());
      return await this.#withParked(parsed.name, plan, async (servedEntities) => {
        const created: Endpoint = {
          ...empty,
          task: plan.task,
          servedEntities: withIds(servedEntities, []),
          routes: plan.routes,
          description: parsed.description ?? '',
          tags: parsed.tags ?? [],
          ...(parsed.aiGateway === undefined ? {} : { aiGateway: parsed.aiGateway }),
          ...(parsed.settings === undefined ? {} : { settings: parsed.settings }),
        };
        await this.#put(created);
        this.#say(created, `was created by ${principal.name}`);
        return { endpoint: created, deployment: isLoaded ? this.#begin(created) : undefined };
      });
    });
    if (deployment !== undefined) await this.#deploy(endpoint, deployment);
    return endpoint;
  }

  /** Gives the endpoint as it is now: with the new configuration, or still with the old one while models load. */
  async updateConfig(name: string, spec: unknown, principal: Principal = LOCAL_OWNER): Promise<Endpoint> {
    const { endpoint, deployment } = await this.#changes.inTurn(async () => {
      const current = this.#changeable(name);
      const update = parseEndpointUpdate(spec);
      this.#refuseWhileUpdating(current);
      const described: Endpoint = {
        ...current,
        description: update.description ?? current.description,
        tags: update.tags ?? current.tags,
        updatedAtMs: this.#options.clock.now(),
      };
      if (update.servedEntities === undefined && update.routes === undefined) {
        await this.#put(described);
        return { endpoint: described, deployment: undefined };
      }
      const entities = update.servedEntities ?? (current.servedEntities as readonly ServedEntitySpec[]);
      refuseForeignReferences(principal, entities, current.servedEntities);
      refuseOtherKind(current, entities);
      const routes = update.routes ?? (update.servedEntities === undefined ? current.routes : undefined);
      const plan = this.#plan({
        name,
        task: current.task,
        servedEntities: entities,
        ...(routes && { routes }),
      });
      return await this.#withParked(name, plan, async (servedEntities) => {
        const pending: Endpoint = {
          ...described,
          servedEntities: withIds(servedEntities, current.servedEntities),
          routes: plan.routes,
          configVersion: current.configVersion + 1,
        };
        this.#contents.compile(pending);
        if (update.description !== undefined || update.tags !== undefined) await this.#put(described);
        const begun = this.#deployments.begin(current, this.#options.clock.now(), pending);
        this.#say(pending, `waits to be served with configuration ${pending.configVersion}`);
        return { endpoint: described, deployment: begun };
      });
    });
    if (deployment === undefined) return endpoint;
    await this.#deploy(endpoint, deployment);
    return this.#contents.endpoints.get(name) ?? endpoint;
  }

  /** The whole gateway; an empty one clears it. */
  setGateway(name: string, value: unknown): Promise<Endpoint> {
    return this.#change(name, (current) => {
      const aiGateway = parseGateway(value);
      this.#checkAsked(name, aiGateway);
      checkTableChange(name, current.aiGateway?.inferenceTable, aiGateway?.inferenceTable);
      const { aiGateway: _before, ...rest } = current;
      return aiGateway === undefined ? rest : { ...rest, aiGateway };
    });
  }

  /** `{add: [{key, value}], remove: [key]}` */
  setTags(name: string, change: unknown): Promise<Endpoint> {
    return this.#change(name, (current) => ({ ...current, tags: changeTags(current.tags, change) }));
  }

  /** Members replace those of the same name; null removes one. */
  changeSettings(name: string, change: JsonObject): Promise<Endpoint> {
    return this.#change(name, (current) => {
      const members = Object.entries({ ...current.settings, ...change }).filter(
        ([, value]) => value !== null,
      );
      return { ...current, settings: Object.fromEntries(members) };
    });
  }

  /** Queries are refused until it is started; an update under way is cancelled. */
  async stop(name: string): Promise<Endpoint> {
    return await this.#changes.inTurn(async () => {
      const current = this.#changeable(name);
      const cancelled = this.#deployments.cancel(current.id);
      if (cancelled !== undefined) await this.#dropParkedOf(cancelled, current);
      if (current.isStopped) return current;
      const stopped: Endpoint = { ...current, isStopped: true, updatedAtMs: this.#options.clock.now() };
      await this.#put(stopped);
      this.#say(stopped, 'was stopped');
      return stopped;
    });
  }

  async start(name: string): Promise<Endpoint> {
    const { endpoint, deployment } = await this.#changes.inTurn(async () => {
      const current = this.#changeable(name);
      this.#refuseWhileUpdating(current);
      if (this.#deployments.stateOf(current).isReady) return { endpoint: current, deployment: undefined };
      const { isStopped: _stopped, ...rest } = current;
      const started: Endpoint = { ...rest, updatedAtMs: this.#options.clock.now() };
      await this.#put(started);
      this.#say(started, 'was started');
      return { endpoint: started, deployment: this.#begin(started) };
    });
    if (deployment !== undefined) await this.#deploy(endpoint, deployment);
    return endpoint;
  }

  delete(name: string): Promise<void> {
    return this.#changes.inTurn(async () => {
      const current = this.#changeable(name);
      const setting = [...this.#contents.settings].find(([, value]) => value === name)?.[0];
      if (setting !== undefined) {
        throw new ServingError(
          'RESOURCE_CONFLICT',
          `Endpoint '${name}' is the ${setting}. Set another one first.`,
        );
      }
      const { pending } = this.#deployments.stateOf(current);
      const removals = this.#parked.removals(
        [...current.servedEntities, ...(pending?.servedEntities ?? [])],
        this.#others(name),
      );
      await this.#changes.write([{ type: 'delete', kind: 'endpoint', key: name }, ...removals], {
        kind: 'endpoint',
        name,
      });
      this.#deployments.forget(current.id);
      this.#logs.forget(name);
      await this.#parked.forget(removals);
    });
  }

  #change(name: string, make: (current: Endpoint) => Endpoint): Promise<Endpoint> {
    return this.#changes.inTurn(async () => {
      const changed = { ...make(this.#changeable(name)), updatedAtMs: this.#options.clock.now() };
      await this.#put(changed);
      return changed;
    });
  }

  async #put(endpoint: Endpoint, removals: readonly RegistryChange[] = []): Promise<void> {
    await this.#changes.write([putEndpoint(endpoint), ...removals], {
      kind: 'endpoint',
      name: endpoint.name,
    });
  }

  #plan(spec: Parameters<typeof planConfig>[0]): PlannedConfig {
    return planConfig(spec, (model, version) => this.#contents.findVersion(model, version));
  }

  /** Parks keys for `change` and drops them again where it fails. */
  async #withParked<T>(
    name: string,
    { entities }: PlannedConfig,
    change: (servedEntities: readonly ServedEntity[]) => Promise<T>,
  ): Promise<T> {
    const before = new Set(parkedKeys(this.#contents.endpoints.get(name)?.servedEntities ?? []));
    const servedEntities = await this.#parked.park(name, entities);
    try {
      return await change(servedEntities);
    } catch (error) {
      await this.#parked.drop(parkedKeys(servedEntities).filter((key) => !before.has(key)));
      throw error;
    }
  }

  #begin(endpoint: Endpoint): Deployment {
    return this.#deployments.begin(endpoint, this.#options.clock.now());
  }

  /**
   * Waits for what takes no time (keys and addresses of providers) and leaves loading to itself. The promise
   * never rejects: how it ended is the state of the endpoint.
   */
  async #deploy(endpoint: Endpoint, deployment: Deployment): Promise<void> {
    const wanted = deployment.pending ?? endpoint;
    const run = async () => {
      let release: (() => void) | undefined;
      try {
        const { targets } = this.#contents.compile(wanted);
        // A stopped endpoint takes its new configuration and loads nothing before it is started.
        if (!endpoint.isStopped) release = await this.#options.prepareTargets?.(targets, deployment.signal);
        if (deployment.pending === undefined) this.#deployments.succeed(endpoint.id, deployment);
        else await this.#swap(endpoint.id, deployment, deployment.pending);
        if (!deployment.signal.aborted) this.#say(wanted, 'is ready');
      } catch (thrown) {
        if (deployment.signal.aborted) return;
        const error = toServingError(thrown);
        this.#deployments.fail(endpoint.id, deployment, error);
        this.#say(wanted, `could not be made ready: ${error.message} [${error.code}]`);
        if (deployment.pending !== undefined) await this.#dropParkedOf(deployment.pending, endpoint);
      } finally {
        release?.();
      }
    };
    const done = run();
    const loads = wanted.servedEntities.some(({ externalModel }) => externalModel === undefined);
    if (!loads || this.#options.prepareTargets === undefined) await done;
  }

  /** The pending configuration becomes the active one; what has changed beside it meanwhile stays. */
  async #swap(id: string, deployment: Deployment, pending: Endpoint): Promise<void> {
    await this.#changes.inTurn(async () => {
      const current = this.#contents.endpoints.get(pending.name);
      if (deployment.signal.aborted || current?.id !== id) return;
      const { servedEntities, routes, configVersion } = pending;
      const updatedAtMs = this.#options.clock.now();
      const swapped: Endpoint = { ...current, servedEntities, routes, configVersion, updatedAtMs };
      this.#contents.compile(swapped);
      const removals = this.#parked.removals(current.servedEntities, [
        ...this.#others(pending.name),
        swapped,
      ]);
      await this.#put(swapped, removals);
      this.#deployments.succeed(id, deployment);
      await this.#parked.forget(removals);
    });
  }

  async #dropParkedOf(failed: Endpoint, active: Endpoint): Promise<void> {
    const kept = new Set(parkedKeys(this.#contents.endpoints.get(active.name)?.servedEntities ?? []));
    await this.#parked.drop(parkedKeys(failed.servedEntities).filter((key) => !kept.has(key)));
  }

  #others(name: string): readonly Endpoint[] {
    return [...this.#contents.endpoints.values()].filter((endpoint) => endpoint.name !== name);
  }

  #changeable(name: string): Endpoint {
    const endpoint = this.#endpoints.get(name);
    if (!endpoint.isEmbedded) return endpoint;
    throw new ServingError(
      'RESOURCE_CONFLICT',
      `Endpoint '${name}' is built in and cannot be changed or deleted. Create one of another name.`,
    );
  }

  #refuseName(name: string): void {
    if (this.#contents.endpoints.has(name)) {
      throw new ServingError(
        'ALREADY_EXISTS',
        `There is an endpoint '${name}' already. Choose another name, or delete that one first.`,
      );
    }
    if (name.startsWith(RESERVED_PREFIX)) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `The name '${name}' begins with '${RESERVED_PREFIX}', which is reserved for models of the platform. Choose another name.`,
      );
    }
  }

  #refuseWhileUpdating(endpoint: Endpoint): void {
    if (!this.#deployments.isUpdating(endpoint.id)) return;
    throw new ServingError(
      'RESOURCE_CONFLICT',
      `Endpoint '${endpoint.name}' is being updated. Wait until its state is NOT_UPDATING, or stop it, which cancels the update.`,
    );
  }

  /** Guardrails ask endpoints; one that is not there would refuse every call. */
  #checkAsked(name: string, aiGateway: AiGateway | undefined): void {
    for (const asked of endpointsAskedBy(aiGateway)) {
      if (asked === name) {
        throw new ServingError(
          'INVALID_PARAMETER',
          `The guardrails of endpoint '${name}' would ask '${asked}' itself. Name another endpoint.`,
        );
      }
      if (!this.#contents.endpoints.has(asked)) {
        throw new ServingError(
          'INVALID_PARAMETER',
          `The guardrails of endpoint '${name}' would ask '${asked}', and there is no endpoint of this name. Create it first.`,
        );
      }
    }
  }

  #say(endpoint: Endpoint, text: string): void {
    for (const { name } of endpoint.servedEntities) {
      this.#logs.add(endpoint.name, name, `${name} (configuration ${endpoint.configVersion}) ${text}`);
    }
  }
}
