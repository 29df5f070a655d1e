// The OpenAPI description of one endpoint: what its invocations take and give, from the signature of each model or
// from the task. The description of the whole door is in openapi.ts.
import type { Endpoint, Signature, SignatureColumn } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';

/** How MLflow's column types are written in OpenAPI. */
const COLUMN_TYPES: Readonly<Record<SignatureColumn['type'], JsonObject>> = {
  boolean: { type: 'boolean' },
  integer: { type: 'integer', format: 'int32' },
  long: { type: 'integer', format: 'int64' },
  float: { type: 'number', format: 'float' },
  double: { type: 'number', format: 'double' },
  string: { type: 'string' },
  binary: { type: 'string', format: 'byte' },
  datetime: { type: 'string', format: 'date-time' },
  json: {},
};

export function formatEndpointOpenapi(
  endpoint: Endpoint,
  signatureOf: (servedEntity: string) => Signature | undefined,
  origin: string,
): JsonObject {
  const paths = endpoint.servedEntities.map(({ name }) => {
    const [request, answer] =
      endpoint.task === 'predict' ? bySignature(endpoint, name, signatureOf(name)) : BY_TASK[endpoint.task];
    return [`/served-models/${name}/invocations`, { post: operation(name, request, answer) }] as const;
  });
  return {
    openapi: '3.1.0',
    info: { title: endpoint.name, version: String(endpoint.configVersion) },
    servers: [{ url: `${origin}/serving-endpoints/${endpoint.name}` }],
    paths: Object.fromEntries(paths),
  };
}

function operation(entity: string, request: JsonObject, answer: JsonObject): JsonObject {
  const json = (schema: JsonObject) => ({ 'application/json': { schema } });
  return {
    summary: `Ask ${entity}`,
    requestBody: { required: true, content: json(request) },
    responses: { 200: { description: 'The answer', content: json(answer) } },
  };
}

function bySignature(
  endpoint: Endpoint,
  entity: string,
  signature: Signature | undefined,
): readonly [JsonObject, JsonObject] {
  if (signature === undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The model of served entity '${entity}' of endpoint '${endpoint.name}' has no signature to describe. Register it with one (a file signature.json or MLmodel beside it).`,
    );
  }
  const { inputs, outputs } = signature;
  const params = { type: 'object', additionalProperties: true };
  const format = (name: string, schema: JsonObject): JsonObject => ({
    type: 'object',
    properties: { [name]: schema, params },
    required: [name],
  });
  const columns = Object.fromEntries(inputs.map((column) => [column.name, typeOf(column)]));
  const record = {
    type: 'object',
    properties: columns,
    required: inputs.flatMap(({ name, required }) => (required ? [name] : [])),
  };
  const lists = Object.fromEntries(inputs.map((column) => [column.name, list(typeOf(column))]));
  const row = {
    type: 'array',
    prefixItems: inputs.map(typeOf),
    minItems: inputs.length,
    maxItems: inputs.length,
  };
  const request = {
    oneOf: [
      format('dataframe_split', {
        type: 'object',
        properties: {
          columns: { type: 'array', items: { type: 'string', enum: inputs.map(({ name }) => name) } },
          data: list(row),
          index: list({ type: 'integer' }),
        },
        required: ['columns', 'data'],
      }),
      format('dataframe_records', list(record)),
      format('instances', list(record)),
      format('inputs', { type: 'object', properties: lists }),
    ],
  };
  const [only] = outputs;
  const prediction =
    outputs.length === 1 && only !== undefined
      ? typeOf(only)
      : {
          type: 'object',
          properties: Object.fromEntries(outputs.map((column) => [column.name, typeOf(column)])),
        };
  return [request, { type: 'object', properties: { predictions: list(prediction) } }];
}

function typeOf(column: SignatureColumn): JsonObject {
  const type = COLUMN_TYPES[column.type] ?? { type: 'object', format: 'unknown' };
  const isList = column.width !== undefined && column.width >= 0;
  return isList ? { type: 'array', items: type, minItems: column.width, maxItems: column.width } : type;
}

const list = (items: JsonObject): JsonObject => ({ type: 'array', items });

const TEXT: JsonObject = { type: 'string' };
const SAMPLING: JsonObject = {
  max_tokens: { type: 'integer', minimum: 1 },
  temperature: { type: 'number', minimum: 0, maximum: 2 },
  top_p: { type: 'number', minimum: 0, maximum: 1 },
  stop: { oneOf: [TEXT, list(TEXT)] },
  stream: { type: 'boolean' },
};
const USAGE: JsonObject = {
  type: 'object',
  properties: {
    prompt_tokens: { type: 'integer' },
    completion_tokens: { type: 'integer' },
    total_tokens: { type: 'integer' },
  },
};

const BY_TASK: Readonly<Record<Exclude<Endpoint['task'], 'predict'>, readonly [JsonObject, JsonObject]>> = {
  'llm/v1/chat': [
    {
      type: 'object',
      properties: {
        messages: list({
          type: 'object',
          properties: {
            role: { type: 'string', enum: ['system', 'user', 'assistant', 'tool'] },
            content: {},
          },
          required: ['role'],
        }),
        ...SAMPLING,
        tools: list({ type: 'object' }),
        response_format: { type: 'object' },
      },
      required: ['messages'],
    },
    { type: 'object', properties: { choices: list({ type: 'object' }), model: TEXT, usage: USAGE } },
  ],
  'llm/v1/completions': [
    {
      type: 'object',
      properties: { prompt: { oneOf: [TEXT, list(TEXT)] }, ...SAMPLING },
      required: ['prompt'],
    },
    { type: 'object', properties: { choices: list({ type: 'object' }), model: TEXT, usage: USAGE } },
  ],
  'llm/v1/embeddings': [
    { type: 'object', properties: { input: { oneOf: [TEXT, list(TEXT)] } }, required: ['input'] },
    {
      type: 'object',
      properties: {
        data: list({
          type: 'object',
          properties: { index: { type: 'integer' }, embedding: list({ type: 'number' }) },
        }),
        usage: USAGE,
      },
    },
  ],
};
