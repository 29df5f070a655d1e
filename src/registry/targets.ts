// What an endpoint resolves to: a target for each served entity, and the choice among them by traffic.
// Compiled once for each change; resolving is then a look-up.
import type { Endpoint, ExternalModel, ModelVersion, ServedEntity, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { canonicalJson } from '#core/json.ts';

export interface CompiledEndpoint {
  readonly endpoint: Endpoint;
  /** In the order of the served entities, which is the order of fallbacks. */
  readonly targets: readonly Target[];
}

export type FindVersion = (model: string, versionOrAlias: string | undefined) => ModelVersion;

export function compileEndpoint(endpoint: Endpoint, findVersion: FindVersion): CompiledEndpoint {
  return {
    endpoint,
    targets: endpoint.servedEntities.map((entity) => toTarget(endpoint, entity, findVersion)),
  };
}

/** The target of a random number in [0, 1), by the traffic split. */
export function pickTarget(compiled: CompiledEndpoint, random: number): Target {
  let below = 0;
  for (const { servedEntityName, trafficPercentage } of compiled.endpoint.routes) {
    below += trafficPercentage;
    if (random * 100 < below) return namedTarget(compiled, servedEntityName);
  }
  return namedTarget(compiled, compiled.endpoint.routes.at(-1)?.servedEntityName ?? '');
}

export function namedTarget({ endpoint, targets }: CompiledEndpoint, servedEntity: string): Target {
  const target = targets.find((candidate) => candidate.servedEntity === servedEntity);
  if (target !== undefined) return target;
  const names = targets.map((candidate) => candidate.servedEntity).join(', ');
  throw new ServingError(
    'NOT_FOUND',
    `Endpoint '${endpoint.name}' has no served entity '${servedEntity}'. It has: ${names}.`,
  );
}

function toTarget(endpoint: Endpoint, entity: ServedEntity, findVersion: FindVersion): Target {
  const shared = { endpoint: endpoint.name, servedEntity: entity.name, task: endpoint.task };
  const { externalModel } = entity;
  if (externalModel !== undefined) {
    return {
      ...shared,
      engine: externalModel.provider,
      fingerprint: externalFingerprint(externalModel),
      model: externalModel.name,
      externalModel,
    };
  }
  const modelVersion = findVersion(entity.entityName ?? '', entity.entityVersion);
  return {
    ...shared,
    engine: modelVersion.engine,
    fingerprint: versionFingerprint(modelVersion),
    model: `${modelVersion.model}@${modelVersion.version}`,
    modelVersion,
  };
}

/** Keys, prices and limits may change without changing an answer, and are left out. */
function externalFingerprint({ provider, task, baseUrl, name, apiVersion }: ExternalModel): string {
  const place = baseUrl?.replace(/\/+$/, '') ?? '';
  return sha256Hex(canonicalJson({ engine: provider, task, baseUrl: place, model: name, apiVersion }));
}

/** Options that change how fast an answer comes, not what it says. */
const PACE_OPTIONS = new Set(['threads', 'maxConcurrency', 'latencyMs']);

/** The content of a model is its identity, not its name: a version registered twice shares its answers. */
function versionFingerprint({ engine, task, sha256, options, signature }: ModelVersion): string {
  const telling = Object.fromEntries(Object.entries(options).filter(([name]) => !PACE_OPTIONS.has(name)));
  return sha256Hex(canonicalJson({ engine, task, sha256, options: telling, signature }));
}
