// Endpoints as Databricks clients read them: the detailed object, and the shorter one of the list.
// References to keys are shown (they are no secrets); keys never get this far.
import type { Endpoint, ExternalModel, ServedEntity } from '#core/endpoint.ts';
import type { Json, JsonObject } from '#core/json.ts';

/** Everything an endpoint needs is there once it is created, so it is always ready. */
const READY_STATE: JsonObject = { ready: 'READY', config_update: 'NOT_UPDATING' };
const DEPLOYED_STATE: JsonObject = { deployment: 'DEPLOYMENT_READY', deployment_state_message: '' };

export function formatEndpoint(endpoint: Endpoint): JsonObject {
  const entities = endpoint.servedEntities.map((entity) => ({
    ...formatServedEntity(entity),
    state: DEPLOYED_STATE,
    creator: endpoint.creator,
    creation_timestamp: endpoint.createdAtMs,
  }));
  return {
    ...formatCommon(endpoint),
    config: {
      config_version: endpoint.configVersion,
      served_entities: entities,
      traffic_config: {
        routes: endpoint.routes.map((route) => ({
          served_model_name: route.servedEntityName,
          served_entity_name: route.servedEntityName,
          traffic_percentage: route.trafficPercentage,
        })),
      },
    },
    permission_level: endpoint.isEmbedded ? 'CAN_QUERY' : 'CAN_MANAGE',
    route_optimized: false,
  };
}

export function formatEndpointList(endpoints: readonly Endpoint[]): JsonObject {
  return {
    endpoints: endpoints.map((endpoint) => ({
      ...formatCommon(endpoint),
      config: { served_entities: endpoint.servedEntities.map(formatServedEntity) },
    })),
  };
}

function formatCommon(endpoint: Endpoint): JsonObject {
  return {
    name: endpoint.name,
    id: endpoint.id,
    creator: endpoint.creator,
    description: endpoint.description,
    creation_timestamp: endpoint.createdAtMs,
    last_updated_timestamp: endpoint.updatedAtMs,
    state: READY_STATE,
    tags: endpoint.tags.map(({ key, value }) => ({ key, value })),
    // Custom models have no task in the vendor's answers either.
    ...(endpoint.task === 'predict' ? {} : { task: endpoint.task }),
  };
}

function formatServedEntity(entity: ServedEntity): JsonObject {
  return present({
    name: entity.name,
    external_model: entity.externalModel && formatExternalModel(entity.externalModel),
    entity_name: entity.entityName,
    entity_version: entity.entityVersion,
  });
}

function formatExternalModel(model: ExternalModel): JsonObject {
  const config =
    model.provider === 'anthropic'
      ? { anthropic_api_key: model.apiKey, anthropic_api_base: model.baseUrl }
      : {
          openai_api_key: model.apiKey,
          openai_api_base: model.baseUrl,
          openai_organization: model.organization,
          openai_api_type: model.apiType,
          openai_api_version: model.apiVersion,
          openai_deployment_name: model.apiType === 'azure' ? model.name : undefined,
        };
  return present({
    name: model.name,
    provider: model.provider,
    task: model.task,
    [`${model.provider}_config`]: present(config),
    max_concurrency: model.maxConcurrency,
    timeout_ms: model.timeoutMs,
    price: model.price && {
      input_per_million: model.price.inputPerMillion,
      output_per_million: model.price.outputPerMillion,
    },
  });
}

function present(members: Readonly<Record<string, Json | undefined>>): JsonObject {
  return Object.fromEntries(
    Object.entries(members).filter((member): member is [string, Json] => member[1] !== undefined),
  );
}
