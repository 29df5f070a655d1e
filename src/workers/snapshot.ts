// What a gateway process knows of the registry: endpoints whose calls may be passed on, by name, swapped whole.
// The primary sends them compiled; nothing here reads a store.
import type { Endpoint, ExternalModel, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Registry } from '#registry/registry.ts';
import { type CompiledEndpoint, pickResolution } from '#registry/targets.ts';
import type { Resolver } from '#serving/resolver.ts';
import type { SentEndpoint } from './messages.ts';

/** Undefined for what gateways leave to the primary anyway: other providers and models of this machine. */
export function toSent(registry: Registry, { name }: Endpoint): SentEndpoint | undefined {
  const endpoint = registry.getEndpoint(name);
  const { task, servedEntities, routes } = endpoint;
  if (task !== 'llm/v1/chat' && task !== 'llm/v1/completions') return undefined;
  const routed = new Set(
    routes.filter(({ trafficPercentage }) => trafficPercentage > 0).map((route) => route.servedEntityName),
  );
  const asked = servedEntities.filter((entity) => routed.has(entity.name));
  // All of those with traffic or none: the primary draws again, and those left to it would be asked too often.
  if (!asked.every(({ externalModel }) => externalModel !== undefined && isForGateways(externalModel))) {
    return undefined;
  }
  return {
    endpoint,
    targets: asked.map((entity) => registry.resolve(name, { servedEntity: entity.name }).target),
  };
}

export function allSent(registry: Registry): SentEndpoint[] {
  return registry.listEndpoints().flatMap((endpoint) => toSent(registry, endpoint) ?? []);
}

/** Their requests can be passed on as bytes; tokens of Entra are fetched by the primary. */
function isForGateways({ provider, apiType }: ExternalModel): boolean {
  return (provider === 'openai' || provider === 'custom') && apiType !== 'azuread';
}

export class SentEndpoints implements Resolver {
  #compiled = new Map<string, CompiledEndpoint>();
  readonly #listeners: (() => void)[] = [];

  take(sent: readonly SentEndpoint[], gone: readonly string[], isAll: boolean): void {
    const compiled = isAll ? new Map<string, CompiledEndpoint>() : new Map(this.#compiled);
    for (const name of gone) compiled.delete(name);
    for (const { endpoint, targets } of sent) compiled.set(endpoint.name, compile(endpoint, targets));
    this.#compiled = compiled;
    for (const listener of this.#listeners) listener();
  }

  get(name: string): Endpoint | undefined {
    return this.#compiled.get(name)?.endpoint;
  }

  resolve(name: string, options: Parameters<Resolver['resolve']>[1]): ReturnType<Resolver['resolve']> {
    const compiled = this.#compiled.get(name);
    const { task, servedEntity, random = 0 } = options;
    // Nobody reads these: a gateway passes on what it does not know, and the primary says what is wrong.
    if (!compiled) throw new ServingError('ENDPOINT_NOT_FOUND', `There is no endpoint '${name}' here.`);
    if (task !== undefined && task !== compiled.endpoint.task) {
      throw new ServingError('WRONG_TASK', `Endpoint '${name}' does not serve ${task}.`);
    }
    if (servedEntity === undefined) return pickResolution(compiled, random);
    const found = compiled.resolutions.find(({ target }) => target.servedEntity === servedEntity);
    if (!found) throw new ServingError('NOT_FOUND', `There is no served entity '${servedEntity}' here.`);
    return found;
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }
}

function compile(endpoint: Endpoint, targets: readonly Target[]): CompiledEndpoint {
  const resolutions = targets.map((target) => ({
    endpoint,
    target,
    fallbacks: targets.filter((other) => other !== target),
  }));
  return { endpoint, targets, resolutions };
}
