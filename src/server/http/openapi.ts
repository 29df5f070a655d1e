// The OpenAPI 3.1 description, made from the same schemas that check the bodies. Answers are described by name
// only: they are those of the OpenAI and Databricks APIs.
import { z } from 'zod';
import type { JsonObject } from '#core/json.ts';
import { endpointBody } from './endpoint-spec.ts';
import { chatBody } from './openai-chat.ts';
import { completionsBody } from './openai-completions.ts';
import { embeddingsBody } from './openai-embeddings.ts';
import { statementBody } from './statements.ts';

const invocationBody = z.union([
  z.object({ dataframe_split: z.object({ columns: z.array(z.string()), data: z.array(z.array(z.json())) }) }),
  z.object({ dataframe_records: z.array(z.record(z.string(), z.json())) }),
  z.object({ instances: z.array(z.json()) }),
  z.object({ inputs: z.json() }),
  chatBody,
  completionsBody,
  embeddingsBody,
]);

let built: JsonObject | undefined;

/** Built on first use and kept: the schemas do not change while the process runs. */
export function formatOpenapi(version: string): JsonObject {
  built ??= {
    openapi: '3.1.0',
    info: { title: 'duckserve', version, description: 'Model serving and AI functions for DuckDB.' },
    paths: {
      ...openaiPaths('/v1'),
      ...openaiPaths('/serving-endpoints'),
      '/serving-endpoints/{name}/invocations': {
        post: operation('Ask an endpoint in the format of its task', ['name'], invocationBody),
      },
      '/serving-endpoints/{name}/served-models/{entity}/invocations': {
        post: operation('Ask one served entity of an endpoint', ['name', 'entity'], invocationBody),
      },
      '/api/2.0/serving-endpoints': {
        get: operation('List endpoints', []),
        post: operation('Create an endpoint', [], endpointBody),
      },
      '/api/2.0/serving-endpoints/{name}': {
        get: operation('Describe an endpoint', ['name']),
        delete: operation('Delete an endpoint', ['name']),
      },
      '/api/2.0/sql/statements': { post: operation('Run a SQL statement', [], statementBody) },
      '/health': { get: operation('Whether the server runs', []) },
      '/metrics': { get: operation('Prometheus metrics', [], undefined, 'text/plain') },
    },
    components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
    security: [{}, { bearer: [] }],
  };
  return built;
}

function openaiPaths(base: string): JsonObject {
  return {
    [`${base}/chat/completions`]: { post: operation('Chat, whole or as a stream', [], chatBody) },
    [`${base}/completions`]: { post: operation('Complete text, whole or as a stream', [], completionsBody) },
    [`${base}/embeddings`]: { post: operation('Embed texts', [], embeddingsBody) },
    [`${base}/models`]: { get: operation('List endpoints as models', []) },
    [`${base}/models/{name}`]: { get: operation('Describe an endpoint as a model', ['name']) },
  };
}

function operation(
  summary: string,
  names: readonly string[],
  body?: z.ZodType,
  answerType = 'application/json',
): JsonObject {
  return {
    summary,
    parameters: names.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } })),
    ...(body
      ? { requestBody: { required: true, content: { 'application/json': { schema: toSchema(body) } } } }
      : {}),
    responses: {
      200: { description: 'Done', content: { [answerType]: {} } },
      default: { description: 'An error, in the shape of the API the path belongs to' },
    },
  };
}

function toSchema(body: z.ZodType): JsonObject {
  const { $schema: _dialect, ...schema } = z.toJSONSchema(body, { io: 'input', unrepresentable: 'any' });
  return schema as JsonObject;
}
