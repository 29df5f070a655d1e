// Turns a checked specification into an endpoint: names filled in, one task for all, a traffic split that adds up.
import type { Task } from '#core/call.ts';
import type { Endpoint, Route, ServedEntity } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { EndpointSpec, ServedEntitySpec } from './schemas.ts';
import type { FindVersion } from './targets.ts';

export type EndpointConfig = Pick<Endpoint, 'task' | 'servedEntities' | 'routes'>;

export function toConfig(
  spec: Pick<EndpointSpec, 'name' | 'task' | 'servedEntities' | 'routes'>,
  findVersion: FindVersion,
): EndpointConfig {
  const servedEntities = spec.servedEntities.map(withName);
  const names = servedEntities.map((entity) => entity.name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) {
    throw invalid(spec.name, `two served entities are named '${twice}'; give each a name of its own`);
  }
  return {
    task: sharedTask(spec, servedEntities, findVersion),
    servedEntities,
    routes: toRoutes(spec.name, names, spec.routes),
  };
}

function withName(entity: ServedEntitySpec): ServedEntity {
  const model =
    entity.externalModel?.name ?? [entity.entityName, entity.entityVersion].filter(Boolean).join('-');
  return { ...entity, name: entity.name ?? model.replaceAll(/[^A-Za-z0-9_-]/g, '-').slice(0, 63) };
}

function sharedTask(
  spec: Pick<EndpointSpec, 'name' | 'task'>,
  entities: readonly ServedEntity[],
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
