// Endpoints as Databricks clients read them: the detailed object, and the shorter one of the list. What was set
// comes back as it was set; defaults are not filled in, because deploy tools take them for changes.
import type { Endpoint, Route, ServedEntity } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import type { ReplicaState } from '#serving/replicas-state.ts';
import { present } from './body.ts';
import type { EndpointState } from './deps.ts';
import { formatGateway } from './gateway-fields.ts';
import { formatExternalModel } from './provider-fields.ts';
import { deploymentWith, formatScaling } from './replica-view.ts';

/** What is known of an endpoint besides what is stored. */
export interface ViewFacts {
  readonly state: EndpointState;
  /** Undefined: the caller may nothing. */
  readonly level: string | undefined;
  readonly idOf: (entity: ServedEntity) => string;
  /** Of a registered model that is served now; undefined: nothing is known of it. */
  readonly replicasOf?: (entity: ServedEntity) => ReplicaState | undefined;
}

export function formatEndpoint(endpoint: Endpoint, facts: ViewFacts, origin: string): JsonObject {
  const { state } = facts;
  return {
    ...formatShared(endpoint, facts),
    config: formatConfig(endpoint, facts, deploymentOf(endpoint, state), facts.replicasOf),
    ...(state.pending === undefined
      ? {}
      : {
          pending_config: {
            ...formatConfig(state.pending, facts, pendingDeployment(state)),
            start_time: state.pendingSinceMs ?? 0,
          },
        }),
    ...(facts.level === undefined ? {} : { permission_level: facts.level }),
    ...(endpoint.settings?.route_optimized === undefined ? { route_optimized: false } : {}),
    endpoint_url: `${origin}/serving-endpoints/${endpoint.name}/invocations`,
  };
}

export function formatListItem(endpoint: Endpoint, facts: ViewFacts): JsonObject {
  return {
    ...formatShared(endpoint, facts),
    config: { served_entities: endpoint.servedEntities.map(formatModel) },
  };
}

/** In the order clients know them, with the settings that were given at the end. */
function formatShared(endpoint: Endpoint, { state }: ViewFacts): JsonObject {
  const isExternal = endpoint.servedEntities.some(({ externalModel }) => externalModel !== undefined);
  return {
    name: endpoint.name,
    id: endpoint.id,
    creator: endpoint.creator,
    creator_display_name: endpoint.creator,
    creator_kind: endpoint.creatorKind === 'service_principal' ? 'ServicePrincipal' : 'User',
    description: endpoint.description,
    creation_timestamp: endpoint.createdAtMs,
    last_updated_timestamp: endpoint.updatedAtMs,
    state: { ready: state.isReady ? 'READY' : 'NOT_READY', config_update: state.update },
    tags: endpoint.tags.map(formatTag),
    // Custom models have no task in the vendor's answers either.
    ...(endpoint.task === 'predict' ? {} : { task: endpoint.task }),
    endpoint_type: isExternal ? 'EXTERNAL_MODEL' : 'CUSTOM_MODEL',
    ...(endpoint.aiGateway === undefined ? {} : { ai_gateway: formatGateway(endpoint.aiGateway) }),
    ...endpoint.settings,
  };
}

export function formatTag({ key, value }: { readonly key: string; readonly value: string }): JsonObject {
  return value === '' ? { key } : { key, value };
}

function formatConfig(
  endpoint: Endpoint,
  facts: ViewFacts,
  deployment: JsonObject,
  replicasOf: ViewFacts['replicasOf'] = () => undefined,
): JsonObject {
  const { servedEntities } = endpoint;
  const status = (entity: ServedEntity) => ({
    id: facts.idOf(entity),
    state: deploymentWith(deployment, replicasOf(entity)),
    creator: endpoint.creator,
    creation_timestamp: endpoint.createdAtMs,
  });
  const own = servedEntities.filter(({ entityName }) => entityName !== undefined);
  return {
    config_version: endpoint.configVersion,
    served_entities: servedEntities.map((entity) => ({
      ...formatModel(entity),
      ...entity.settings,
      ...formatOwn(entity),
      ...status(entity),
    })),
    // The older name of the same list; it never knew external models.
    ...(own.length === 0
      ? {}
      : {
          served_models: own.map((entity) => ({
            ...present({
              name: entity.name,
              model_name: entity.entityName,
              model_version: entity.entityVersion,
            }),
            ...entity.settings,
            ...formatOwn(entity),
            ...status(entity),
          })),
        }),
    traffic_config: { routes: endpoint.routes.map(formatRoute) },
  };
}

function formatRoute({ servedEntityName, trafficPercentage }: Route): JsonObject {
  return {
    served_model_name: servedEntityName,
    served_entity_name: servedEntityName,
    traffic_percentage: trafficPercentage,
  };
}

function formatModel({ name, externalModel, entityName, entityVersion }: ServedEntity): JsonObject {
  return present({
    name,
    external_model: externalModel && formatExternalModel(externalModel),
    entity_name: entityName,
    entity_version: entityVersion,
  });
}

function formatOwn({ scaling, environment }: ServedEntity): JsonObject {
  return present({ scaling: scaling && formatScaling(scaling), environment_vars: environment });
}

function deploymentOf(endpoint: Endpoint, { isReady, update, message }: EndpointState): JsonObject {
  if (endpoint.isStopped) return deployment('DEPLOYMENT_ABORTED', 'The endpoint is stopped.');
  if (isReady) return deployment('DEPLOYMENT_READY', '');
  return update === 'UPDATE_FAILED'
    ? deployment('DEPLOYMENT_FAILED', message)
    : deployment('DEPLOYMENT_CREATING', '');
}

function pendingDeployment({ update, message }: EndpointState): JsonObject {
  return update === 'UPDATE_FAILED'
    ? deployment('DEPLOYMENT_FAILED', message)
    : deployment('DEPLOYMENT_CREATING', '');
}

function deployment(state: string, message: string): JsonObject {
  return { deployment: state, deployment_state_message: message };
}
