// Turns a checked specification into an endpoint: names filled in, one task for all, a traffic split that adds up.
import { randomUUID } from 'node:crypto';
import type { Task } from '#core/call.ts';
import type { Endpoint, Route, ServedEntity } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { NamedEntitySpec } from './parked-secrets.ts';
import type { EndpointSpec, ServedEntitySpec } from './schemas.ts';
import type { FindVersion } from './targets.ts';

/** What was asked for, complete except for the keys that are still in the clear. */
export interface PlannedConfig {
  readonly task: Task;
  readonly entities: readonly NamedEntitySpec[];
  readonly routes: readonly Route[];
}

export function planConfig(
  spec: Pick<EndpointSpec, 'name' | 'task' | 'servedEntities' | 'routes'>,
  findVersion: FindVersion,
): PlannedConfig {
  const entities = spec.servedEntities.map(withName);
  const names = entities.map((entity) => entity.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    throw invalid(spec.name, `two served entities are named '${twice}'; give each a name of its own`);
  }
  const own = entities.find((entity) => entity.externalModel === undefined);
  const external = entities.find((entity) => entity.externalModel !== undefined);
  if (own !== undefined && external !== undefined) {
    throw invalid(
      spec.name,
      `'${external.name}' is an external model and '${own.name}' a registered one; they cannot share an endpoint, so create two`,
    );
  }
  return {
    task: sharedTask(spec, entities, findVersion),
    entities,
    routes: toRoutes(spec.name, names, spec.routes),
  };
}

/** Callers of an endpoint rely on where their data goes: to a provider, or nowhere. */
export function refuseOtherKind(endpoint: Endpoint, entities: readonly ServedEntitySpec[]): void {
  const kindOf = (list: readonly { readonly externalModel?: unknown }[]) =>
    list.some(({ externalModel }) => externalModel !== undefined) ? 'external' : 'registered';
  const [before, after] = [kindOf(endpoint.servedEntities), kindOf(entities)];
  if (before === after) return;
  throw invalid(
    endpoint.name,
    `it serves ${before} models and would serve ${after} ones; create another endpoint for these`,
  );
}

/** An entity keeps its id as long as its name stays in the configuration. */
export function withIds(
  entities: readonly ServedEntity[],
  before: readonly ServedEntity[],
): readonly ServedEntity[] {
  return entities.map((entity) => ({
    ...entity,
    id: before.find(({ name }) => name === entity.name)?.id ?? newId(),
  }));
}

/** 32 hex digits. */
export function newId(): string {
  return randomUUID().replaceAll('-', '');
}

function withName(entity: ServedEntitySpec): NamedEntitySpec {
  const { id: _given, ...rest } = entity;
  const model =
    entity.externalModel?.name ?? [entity.entityName, entity.entityVersion].filter(Boolean).join('-');
  return { ...rest, name: entity.name ?? model.replaceAll(/[^A-Za-z0-9_-]/g, '-').slice(0, 63) };
}

function sharedTask(
  spec: Pick<EndpointSpec, 'name' | 'task'>,
  entities: readonly NamedEntitySpec[],
  findVersion: FindVersion,
): Task {
  const tasks = entities.map(
    (entity) => entity.externalModel?.task ?? findVersion(entity.entityName ?? '', entity.entityVersion).task,
  );
  const [first] = tasks;
  const wanted = spec.task ?? first ?? 'predict';
  const other = tasks.findIndex((task) => task !== wanted);
  if (other >= 0) {
    const rule =
      spec.task === undefined
        ? 'all served entities of an endpoint share one task'
        : `the endpoint has the task ${wanted}`;
    throw invalid(
      spec.name,
      `served entity '${entities[other]?.name}' has the task ${tasks[other]}, but ${rule} (${wanted})`,
    );
  }
  return wanted;
}

function toRoutes(
  endpoint: string,
  names: readonly string[],
  routes: readonly Route[] | undefined,
): readonly Route[] {
  if (routes === undefined) {
    const [only] = names;
    if (names.length === 1 && only !== undefined) return [{ servedEntityName: only, trafficPercentage: 100 }];
    throw invalid(
      endpoint,
      `it has ${names.length} served entities and needs routes that say how traffic is split among them`,
    );
  }
  const seen = new Set<string>();
  for (const { servedEntityName } of routes) {
    if (!names.includes(servedEntityName)) {
      throw invalid(
        endpoint,
        `a route names '${servedEntityName}', but the served entities are ${names.join(', ')}`,
      );
    }
    if (seen.has(servedEntityName)) throw invalid(endpoint, `two routes name '${servedEntityName}'`);
    seen.add(servedEntityName);
  }
  const sum = routes.reduce((total, route) => total + route.trafficPercentage, 0);
  if (sum !== 100)
    throw invalid(
      endpoint,
      `the traffic percentages of its routes add up to ${sum}; they must add up to 100`,
    );
  return routes;
}

function invalid(endpoint: string, problem: string): ServingError {
  return new ServingError('INVALID_PARAMETER', `Endpoint '${endpoint}' is not valid: ${problem}.`);
}
