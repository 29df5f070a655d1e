// Endpoints as the OpenAI clients list them: models.
import type { Endpoint } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';

export function formatModel(endpoint: Endpoint): JsonObject {
  return {
    id: endpoint.name,
    object: 'model',
    created: Math.floor(endpoint.createdAtMs / 1000),
    owned_by: endpoint.isEmbedded ? 'duckserve' : endpoint.creator,
    task: endpoint.task,
  };
}

export function formatModelList(endpoints: readonly Endpoint[]): JsonObject {
  return { object: 'list', data: endpoints.map(formatModel) };
}
