// Versions of a model as KServe's clients name them: the version of the registered model that an entity serves, or
// the name of the entity where there is no such version (external models).
import type { Endpoint, ServedEntity } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';

/** What answers now or has answered; `model` is `name@version` for a registered model. */
export interface Served {
  readonly servedEntity: string;
  readonly model: string;
}

/** `served` tells the version of an entity that follows the newest one. */
export function versionOf(entity: ServedEntity, served?: Served): string {
  if (entity.entityVersion !== undefined) return entity.entityVersion;
  if (entity.externalModel !== undefined || served?.servedEntity !== entity.name) return entity.name;
  const [, version = entity.name] = /@([^@]+)$/.exec(served.model) ?? [];
  return version;
}

/** Name of the served entity that has this version, or this name. Throws NOT_FOUND. */
export function findEntity(endpoint: Endpoint, version: string, served?: Served): string {
  const entity =
    endpoint.servedEntities.find((candidate) => versionOf(candidate, served) === version) ??
    endpoint.servedEntities.find(({ name }) => name === version);
  if (entity !== undefined) return entity.name;
  const versions = endpoint.servedEntities.map((candidate) => versionOf(candidate, served)).join(', ');
  throw new ServingError(
    'NOT_FOUND',
    `Endpoint '${endpoint.name}' has no version '${version}'. It has: ${versions}.`,
  );
}
