// What differs between servers of the OpenAI API: address, how the key is sent, which fields they know.
// Not here: what they have in common (request.ts, answer.ts, stream.ts) and Azure's tokens (entra.ts).
import type { Task } from '#core/call.ts';
import type { ExternalModel } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { EngineContext } from '../engine.ts';
import type { RequestBody } from './request.ts';

export interface Dialect {
  readonly baseUrl: string;
  /** With the query, where there is one. */
  readonly path: string;
  /** Usage in streams has to be asked for; servers that refuse the question count without it. */
  readonly hasStreamOptions: boolean;
  readonly header: 'bearer' | (string & {});
  /** Fields of the OpenAI API that are no parameters of ours and that it knows; absent: all of them. */
  readonly known?: ReadonlySet<string>;
  toBody(body: RequestBody): RequestBody;
}

export type DialectOf = (model: ExternalModel, task: Task) => Dialect;

const BASE_URL = 'https://api.openai.com/v1';
const AZURE_API_VERSION = '2024-10-21';
/** The first version of Azure's API that knows `stream_options`. */
const AZURE_STREAM_OPTIONS = '2024-09-01';

const PATHS: Readonly<Partial<Record<Task, string>>> = {
  'llm/v1/chat': '/chat/completions',
  'llm/v1/completions': '/completions',
  'llm/v1/embeddings': '/embeddings',
};

const asItIs = (body: RequestBody): RequestBody => body;

export const openaiDialect: DialectOf = (model, task) => {
  const path = pathOf(model, task);
  if (model.apiType !== 'azure' && model.apiType !== 'azuread') {
    const baseUrl = model.baseUrl ?? BASE_URL;
    return { baseUrl, path, hasStreamOptions: true, header: 'bearer', toBody: asItIs };
  }
  const version = model.apiVersion ?? AZURE_API_VERSION;
  const deployment = encodeURIComponent(model.deployment ?? model.name);
  return {
    baseUrl: requireBaseUrl(model, 'https://NAME.openai.azure.com').replace(/\/openai\/*$/, ''),
    path: `/openai/deployments/${deployment}${path}?api-version=${encodeURIComponent(version)}`,
    hasStreamOptions: version >= AZURE_STREAM_OPTIONS,
    header: model.apiType === 'azure' ? 'api-key' : 'bearer',
    toBody: asItIs,
  };
};

/** Given with or without the path of the task, as people copy it from either kind of documentation. */
export const customDialect: DialectOf = (model, task) => {
  const path = pathOf(model, task);
  const given = requireBaseUrl(model, 'https://models.example.com/v1').replace(/\/+$/, '');
  return {
    baseUrl: given.endsWith(path) ? given.slice(0, -path.length) : given,
    path,
    hasStreamOptions: true,
    header: model.apiKeyHeader ?? 'bearer',
    toBody: asItIs,
  };
};

/** The endpoint of another workspace. It knows fewer fields than OpenAI and refuses all others. */
export const databricksDialect: DialectOf = (model, task) => {
  pathOf(model, task);
  return {
    baseUrl: requireBaseUrl(model, 'https://NAME.cloud.databricks.com').replace(
      /\/serving-endpoints\/*$/,
      '',
    ),
    path: `/serving-endpoints/${encodeURIComponent(model.name)}/invocations`,
    hasStreamOptions: false,
    header: 'bearer',
    known: DATABRICKS_FIELDS,
    toBody: toDatabricksBody,
  };
};

const DATABRICKS_FIELDS: ReadonlySet<string> = new Set(
  'n logprobs top_logprobs reasoning_effort thinking instruction suffix echo error_behavior use_raw_prompt'.split(
    ' ',
  ),
);

function toDatabricksBody(body: RequestBody): RequestBody {
  const { model: _, seed: _seed, encoding_format: _format, max_completion_tokens: limit, ...rest } = body;
  return limit === undefined ? rest : { ...rest, max_tokens: limit };
}

/** Headers with the key; none where there is no key, as local servers want none. */
export function toKeyHeaders(
  { header }: Dialect,
  { organization }: ExternalModel,
  secret: string | undefined,
): Record<string, string> {
  const headers: Record<string, string> = {};
  if (secret !== undefined && secret !== '') {
    if (header === 'bearer') headers.authorization = `Bearer ${secret}`;
    else headers[header.toLowerCase()] = secret;
  }
  if (organization !== undefined) headers['openai-organization'] = organization;
  return headers;
}

export function keyOf({ apiKey }: ExternalModel, context: EngineContext): string | undefined {
  return apiKey === undefined ? undefined : context.resolveSecret(apiKey).trim();
}

function pathOf({ provider }: ExternalModel, task: Task): string {
  const path = PATHS[task];
  if (path !== undefined) return path;
  throw new ServingError(
    'WRONG_TASK',
    `Provider ${provider} does not serve ${task}. Choose one of ${Object.keys(PATHS).join(', ')}.`,
  );
}

function requireBaseUrl({ name, provider, apiType, baseUrl }: ExternalModel, example: string): string {
  if (baseUrl !== undefined) return baseUrl;
  const kind = apiType === undefined ? `provider ${provider}` : `API type ${apiType}`;
  throw new ServingError(
    'INVALID_PARAMETER',
    `External model "${name}" is of ${kind} and has no base URL. Give one such as "${example}".`,
  );
}
