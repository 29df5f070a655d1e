// What an endpoint resolves to: a target for each served entity, and the choice among them by traffic.
// Compiled once for each change; resolving is then a look-up.
import type {
  Endpoint,
  ExternalModel,
  ModelVersion,
  Price,
  Provider,
  ServedEntity,
  Target,
} from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { canonicalJson } from '#core/json.ts';
import { environmentOf, scalingOf } from './entity-scaling.ts';

export interface Resolution {
  readonly endpoint: Endpoint;
  readonly target: Target;
  /** The other served entities, in the order they were given. */
  readonly fallbacks: readonly Target[];
}

export interface CompiledEndpoint {
  readonly endpoint: Endpoint;
  /** In the order of the served entities, which is the order of fallbacks. */
  readonly targets: readonly Target[];
  /** One for each target, so that resolving makes no objects. */
  readonly resolutions: readonly Resolution[];
}

export type FindVersion = (model: string, versionOrAlias: string | undefined) => ModelVersion;
/** What the price table says of a model of a provider. */
export type FindPrice = (provider: Provider, model: string) => Price | undefined;

export function compileEndpoint(
  endpoint: Endpoint,
  findVersion: FindVersion,
  findPrice: FindPrice = () => undefined,
): CompiledEndpoint {
  const targets = endpoint.servedEntities.map((entity) => toTarget(endpoint, entity, findVersion, findPrice));
  const resolutions = targets.map((target) => ({
    endpoint,
    target,
    fallbacks: targets.filter((other) => other !== target),
  }));
  return { endpoint, targets, resolutions };
}

/** That of a random number in [0, 1), by the traffic split. */
export function pickResolution(compiled: CompiledEndpoint, random: number): Resolution {
  let below = 0;
  for (const { servedEntityName, trafficPercentage } of compiled.endpoint.routes) {
    below += trafficPercentage;
    if (random * 100 < below) return namedResolution(compiled, servedEntityName);
  }
  return namedResolution(compiled, compiled.endpoint.routes.at(-1)?.servedEntityName ?? '');
}

export function namedResolution(
  { endpoint, resolutions }: CompiledEndpoint,
  servedEntity: string,
): Resolution {
  const found = resolutions.find(({ target }) => target.servedEntity === servedEntity);
  if (found !== undefined) return found;
  const names = resolutions.map(({ target }) => target.servedEntity).join(', ');
  throw new ServingError(
    'NOT_FOUND',
    `Endpoint '${endpoint.name}' has no served entity '${servedEntity.slice(0, 80)}'. It has: ${names}.`,
  );
}

function toTarget(
  endpoint: Endpoint,
  entity: ServedEntity,
  findVersion: FindVersion,
  findPrice: FindPrice,
): Target {
  const shared = {
    endpoint: endpoint.name,
    servedEntity: entity.name,
    task: endpoint.task,
    endpointId: endpoint.id,
    servedEntityId: entityId(endpoint, entity),
    configVersion: endpoint.configVersion,
  };
  const { externalModel } = entity;
  if (externalModel !== undefined) {
    const price = externalModel.price ?? findPrice(externalModel.provider, externalModel.name);
    return {
      ...shared,
      engine: externalModel.provider,
      fingerprint: externalFingerprint(externalModel),
      model: externalModel.name,
      externalModel,
      ...(price === undefined ? {} : { price }),
    };
  }
  const modelVersion = findVersion(entity.entityName ?? '', entity.entityVersion);
  const scaling = scalingOf(entity, modelVersion);
  const environment = environmentOf(entity);
  return {
    ...shared,
    engine: modelVersion.engine,
    fingerprint: versionFingerprint(modelVersion, environment),
    model: `${modelVersion.model}@${modelVersion.version}`,
    modelVersion,
    ...(isAgent(modelVersion) ? { isPersonal: true } : {}),
    ...(scaling === undefined ? {} : { scaling }),
    ...(environment === undefined ? {} : { environment }),
  };
}

/** Endpoints stored before entities had ids, and those built in, have one that follows from their names. */
export function entityId(endpoint: Endpoint, { id, name }: ServedEntity): string {
  return id ?? sha256Hex(`${endpoint.id}/${name}`).slice(0, 32);
}

/** Keys, prices and limits may change without changing an answer, and are left out. */
function externalFingerprint(model: ExternalModel): string {
  const { provider, task, baseUrl, name, apiVersion, deployment, bedrock, vertex } = model;
  const place = baseUrl?.replace(/\/+$/, '') ?? '';
  return sha256Hex(
    canonicalJson({
      engine: provider,
      task,
      baseUrl: place,
      model: name,
      apiVersion,
      deployment,
      bedrock: bedrock && { region: bedrock.region, modelProvider: bedrock.modelProvider },
      vertex: vertex && { projectId: vertex.projectId, region: vertex.region },
    }),
  );
}

/** Options that change how fast an answer comes, not what it says. */
const PACE_OPTIONS = new Set(['threads', 'maxConcurrency', 'latencyMs']);

/** Agents ask other endpoints in the name of who asks them. */
function isAgent({ engine, options }: ModelVersion): boolean {
  return (
    engine === 'module' || (options.agent !== undefined && options.agent !== null && options.agent !== false)
  );
}

/**
 * The content of a model is its identity, not its name: a version registered twice shares its answers. So is the
 * environment of its process; how many replicas there are is not.
 */
function versionFingerprint(
  { engine, task, sha256, options, signature }: ModelVersion,
  environment: Readonly<Record<string, string>> | undefined,
): string {
  const telling = Object.fromEntries(Object.entries(options).filter(([name]) => !PACE_OPTIONS.has(name)));
  return sha256Hex(canonicalJson({ engine, task, sha256, options: telling, signature, environment }));
}
