// What each route is for, in a sentence, and the schema of its body: the table behind /openapi.json. A test compares
// it with the routes there are, both ways.
import { z } from 'zod';
import { messagesBody } from './anthropic/input.ts';
import { ANTHROPIC_BASES } from './anthropic/routes.ts';
import { configBody, endpointBody, notificationsBody, tagsBody } from './control/endpoint-body.ts';
import { gatewayBody } from './control/gateway-fields.ts';
import { inferBody } from './kserve/wire.ts';
import { chatBody } from './openai-chat.ts';
import { completionsBody } from './openai-completions.ts';
import { embeddingsBody } from './openai-embeddings.ts';
import { MLFLOW_BASES, OPENAI_BASES } from './openai-routes.ts';
import { responsesBody } from './responses/input.ts';
import { statementBody } from './statements.ts';

/** One route as a sentence, the schema of its body, and the media type of its answer where that is not JSON. */
interface RouteDescription {
  readonly summary: string;
  readonly body?: z.ZodType;
  readonly answerType?: string;
  readonly takesCsv?: boolean;
}
const tableBody = z.union([
  z.object({ dataframe_split: z.object({ columns: z.array(z.string()), data: z.array(z.array(z.json())) }) }),
  z.object({ dataframe_records: z.array(z.record(z.string(), z.json())) }),
  z.object({ instances: z.array(z.json()) }),
  z.object({ inputs: z.json() }),
]);
const invocationBody = z.union([tableBody, chatBody, completionsBody, embeddingsBody]);

const chat = { summary: 'Chat, whole or as a stream', body: chatBody };
const embeddings = { summary: 'Embed texts', body: embeddingsBody };
const invocation = {
  summary: 'Ask an endpoint in the format of its task',
  body: invocationBody,
  takesCsv: true,
};
const infer = { summary: 'Ask a custom model or an embedding endpoint with tensors', body: inferBody };
const metadata = { summary: 'Inputs and outputs of an endpoint as tensors' };
const readiness = { summary: 'Whether an endpoint can be asked' };

const ENDPOINT = '/api/2.0/serving-endpoints/{name}';
const PERMISSIONS = '/api/2.0/permissions/serving-endpoints/{id}';
const SCIM = '/api/2.0/preview/scim/v2';

const CONTROL: Readonly<Record<string, RouteDescription>> = {
  'GET /api/2.0/serving-endpoints': { summary: 'List endpoints' },
  'POST /api/2.0/serving-endpoints': { summary: 'Create an endpoint', body: endpointBody },
  ...forBases([ENDPOINT], {
    'GET ': { summary: 'Describe an endpoint' },
    'DELETE ': { summary: 'Delete an endpoint' },
    'PUT /config': { summary: 'Change what an endpoint serves', body: configBody },
    'PUT /ai-gateway': { summary: 'Set the policies of an endpoint', body: gatewayBody },
    'PUT /rate-limits': { summary: 'Set the rate limits of an endpoint, the older way' },
    'PATCH /tags': { summary: 'Add and remove tags', body: tagsBody },
    'PATCH /notifications': { summary: 'Set the mail addresses to notify', body: notificationsBody },
    'PATCH /telemetry-config': { summary: 'Not offered' },
    'PATCH /system-metrics-export-state': { summary: 'Not offered' },
    'GET /served-models/{entity}/logs': { summary: 'Recent log lines of a served entity' },
    'GET /served-models/{entity}/build-logs': { summary: 'How the model of a served entity was registered' },
    'POST /config:stop': { summary: 'Stop an endpoint' },
    'POST /config:start': { summary: 'Start an endpoint' },
    'GET /metrics': { summary: 'Prometheus metrics of an endpoint', answerType: 'text/plain' },
    'GET /openapi': { summary: 'OpenAPI description of an endpoint' },
  }),
  'POST /api/2.0/serving-endpoints/pt': { summary: 'Not offered' },
  'PUT /api/2.0/serving-endpoints/pt/{name}/config': { summary: 'Not offered' },
  'POST /api/2.0/external-function': { summary: 'Not offered' },
  ...forBases([PERMISSIONS], {
    'GET ': { summary: 'Who may do what with an endpoint' },
    'PUT ': { summary: 'Replace who may do what with an endpoint' },
    'PATCH ': { summary: 'Add to who may do what with an endpoint' },
    'GET /permissionLevels': { summary: 'The levels of permission there are' },
  }),
  'POST /api/2.0/token/create': { summary: 'Create a token' },
  'GET /api/2.0/token/list': { summary: 'List tokens of the caller' },
  'POST /api/2.0/token/delete': { summary: 'Revoke a token' },
  'GET /api/2.0/token-management/tokens': { summary: 'List all tokens' },
  'DELETE /api/2.0/token-management/tokens/{id}': { summary: 'Revoke the token of anybody' },
  ...forBases([SCIM], {
    'GET /Me': { summary: 'Who the caller is' },
    'GET /Users': { summary: 'List users' },
    'GET /Users/{id}': { summary: 'Describe a user' },
    'GET /ServicePrincipals': { summary: 'List service principals' },
    'GET /ServicePrincipals/{id}': { summary: 'Describe a service principal' },
    'GET /Groups': { summary: 'List groups' },
    'GET /Groups/{id}': { summary: 'Describe a group' },
  }),
  'GET /.well-known/databricks-config': { summary: 'How clients of Databricks log in' },
  'GET /api/2.0/duckserve/limits': { summary: 'Limits over all endpoints, with what is used' },
  'PUT /api/2.0/duckserve/limits': { summary: 'Set the limits over all endpoints' },
};

/** By method and path as OpenAPI writes it. A route that is not here is listed under its own name. */
export const DESCRIPTIONS: Readonly<Record<string, RouteDescription>> = {
  ...forBases(OPENAI_BASES, {
    'POST /chat/completions': chat,
    'POST /completions': { summary: 'Complete text, whole or as a stream', body: completionsBody },
    'POST /embeddings': embeddings,
    'POST /responses': {
      summary: 'A response of the Responses API, whole or as a stream',
      body: responsesBody,
    },
    'GET /models': { summary: 'List endpoints as models' },
    'GET /models/{name}': { summary: 'Describe an endpoint as a model' },
  }),
  ...forBases(MLFLOW_BASES, { 'POST /chat/completions': chat, 'POST /embeddings': embeddings }),
  ...forBases(ANTHROPIC_BASES, {
    'POST /messages': { summary: "A message of Anthropic's API, whole or as a stream", body: messagesBody },
    'POST /messages/count_tokens': { summary: 'Estimate the tokens of a request', body: messagesBody },
  }),
  'POST /serving-endpoints/{name}/invocations': invocation,
  'POST /serving-endpoints/{name}/served-models/{entity}/invocations': {
    ...invocation,
    summary: 'Ask one served entity of an endpoint',
  },
  'GET /v2': { summary: 'The server, in the Open Inference Protocol' },
  'GET /v2/health/live': { summary: 'Whether the server runs' },
  'GET /v2/health/ready': { summary: 'Whether the server takes requests' },
  ...forBases(['/v2/models/{name}', '/v2/models/{name}/versions/{version}'], {
    'GET ': metadata,
    'GET /ready': readiness,
    'POST /infer': infer,
  }),
  'POST /invocations': {
    summary: 'Ask the only custom model, or a named endpoint',
    body: invocationBody,
    takesCsv: true,
  },
  'POST /gateway/{name}/mlflow/invocations': invocation,
  'GET /ping': { summary: 'Whether the server runs', answerType: 'text/plain' },
  'GET /version': { summary: 'Version of the server', answerType: 'text/plain' },
  ...CONTROL,
  'POST /api/2.0/sql/statements': { summary: 'Run a SQL statement', body: statementBody },
  'GET /health': { summary: 'Whether the server runs, and its version' },
  'GET /metrics': { summary: 'Prometheus metrics', answerType: 'text/plain' },
  'GET /openapi.json': { summary: 'This description' },
};

function forBases(
  bases: readonly string[],
  described: Readonly<Record<string, RouteDescription>>,
): Record<string, RouteDescription> {
  return Object.fromEntries(
    bases.flatMap((base) =>
      Object.entries(described).map(([key, description]) => {
        const [method = '', path = ''] = key.split(' ');
        return [`${method} ${base}${path}`, description];
      }),
    ),
  );
}
