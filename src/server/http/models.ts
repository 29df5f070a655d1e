// Endpoints as clients list models. One shape for OpenAI's and Anthropic's clients, who ask the same path and each
// read their own fields of it.
import type { Endpoint } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';

export function formatModel(endpoint: Endpoint): JsonObject {
  return {
    id: endpoint.name,
    object: 'model',
    created: Math.floor(endpoint.createdAtMs / 1000),
    owned_by: endpoint.isEmbedded ? 'duckserve' : endpoint.creator,
    type: 'model',
    display_name: endpoint.name,
    created_at: new Date(endpoint.createdAtMs).toISOString(),
    task: endpoint.task,
  };
}

export function formatModelList(endpoints: readonly Endpoint[]): JsonObject {
  return {
    object: 'list',
    data: endpoints.map(formatModel),
    has_more: false,
    first_id: endpoints[0]?.name ?? null,
    last_id: endpoints.at(-1)?.name ?? null,
  };
}
