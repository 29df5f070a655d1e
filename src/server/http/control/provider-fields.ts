// The fields of external models on Databricks' wire, provider by provider, and where each is kept. One table, read
// in both directions: what is sent in one spelling comes back in the same.
import { z } from 'zod';
import type { ExternalModel, Provider } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';

interface WireField {
  /** Inside the provider's config object; a dot for an object inside it. */
  readonly wire: string;
  /** Inside `ExternalModel`. */
  readonly path: string;
  /** Has a twin `..._plaintext` for the key itself. */
  readonly isSecret?: boolean;
  readonly isRequired?: boolean;
  /** Written only for models of which this is so: two wire fields share one place. */
  readonly when?: (model: ExternalModel) => boolean;
}
interface ProviderWire {
  readonly config: string;
  readonly fields: readonly WireField[];
}

const secret = (wire: string, path: string): WireField => ({ wire, path, isSecret: true });
const required = (wire: string, path: string): WireField => ({ wire, path, isRequired: true });
const plain = (wire: string, path: string): WireField => ({ wire, path });

/** Fields that end in `_api_base` are ours where the vendor knows only one address. */
const PROVIDERS_ON_WIRE: Readonly<Record<Provider, ProviderWire>> = {
  openai: {
    config: 'openai_config',
    fields: [
      secret('openai_api_key', 'apiKey'),
      plain('openai_api_base', 'baseUrl'),
      plain('openai_organization', 'organization'),
      plain('openai_api_type', 'apiType'),
      plain('openai_api_version', 'apiVersion'),
      plain('openai_deployment_name', 'deployment'),
      plain('microsoft_entra_tenant_id', 'entra.tenantId'),
      plain('microsoft_entra_client_id', 'entra.clientId'),
      secret('microsoft_entra_client_secret', 'entra.clientSecret'),
      plain('microsoft_entra_authority_url', 'entra.authorityUrl'),
    ],
  },
  anthropic: {
    config: 'anthropic_config',
    fields: [secret('anthropic_api_key', 'apiKey'), plain('anthropic_api_base', 'baseUrl')],
  },
  cohere: {
    config: 'cohere_config',
    fields: [secret('cohere_api_key', 'apiKey'), plain('cohere_api_base', 'baseUrl')],
  },
  'amazon-bedrock': {
    config: 'amazon_bedrock_config',
    fields: [
      required('aws_region', 'bedrock.region'),
      required('bedrock_provider', 'bedrock.modelProvider'),
      secret('aws_access_key_id', 'bedrock.accessKeyId'),
      secret('aws_secret_access_key', 'bedrock.secretAccessKey'),
      secret('aws_session_token', 'bedrock.sessionToken'),
      plain('bedrock_api_base', 'baseUrl'),
    ],
  },
  'google-cloud-vertex-ai': {
    config: 'google_cloud_vertex_ai_config',
    fields: [
      required('project_id', 'vertex.projectId'),
      required('region', 'vertex.region'),
      secret('private_key', 'vertex.privateKey'),
      plain('vertex_api_base', 'baseUrl'),
    ],
  },
  'databricks-model-serving': {
    config: 'databricks_model_serving_config',
    fields: [required('databricks_workspace_url', 'baseUrl'), secret('databricks_api_token', 'apiKey')],
  },
  custom: {
    config: 'custom_provider_config',
    fields: [
      required('custom_provider_url', 'baseUrl'),
      { ...secret('bearer_token_auth.token', 'apiKey'), when: (model) => model.apiKeyHeader === undefined },
      plain('api_key_auth.key', 'apiKeyHeader'),
      { ...secret('api_key_auth.value', 'apiKey'), when: (model) => model.apiKeyHeader !== undefined },
    ],
  },
};

/** Ways to a key that exist only inside a cloud. */
const NOT_HERE = ['instance_profile_arn', 'uc_service_credential_name'];
const RETIRED_PROVIDERS: Readonly<Record<string, string>> = {
  ai21labs: "its API is no longer one of its own; use provider 'custom' with its OpenAI-compatible address",
  palm: "its API is switched off; use provider 'google-cloud-vertex-ai'",
};

const text = z.string().min(1);
const field = text.nullish();

function configSchema({ fields }: ProviderWire): z.ZodType {
  const shape: Record<string, z.ZodType> = {};
  const nested: Record<string, Record<string, z.ZodType>> = {};
  const names = fields.flatMap(({ wire, isSecret, isRequired }) => [
    { wire, type: isRequired ? text : field },
    ...(isSecret ? [{ wire: `${wire}_plaintext`, type: field }] : []),
  ]);
  for (const { wire, type } of names) {
    const [outer = '', inner] = wire.split('.');
    if (inner === undefined) shape[outer] = type;
    else nested[outer] = { ...nested[outer], [inner]: type };
  }
  for (const [name, inner] of Object.entries(nested)) shape[name] = z.strictObject(inner).nullish();
  for (const name of NOT_HERE) shape[name] = z.unknown().optional();
  return z.strictObject(shape).nullish();
}

export const externalModelBody = z.strictObject({
  name: text,
  provider: text,
  task: z.enum(['llm/v1/chat', 'llm/v1/completions', 'llm/v1/embeddings']),
  ...(Object.fromEntries(
    Object.values(PROVIDERS_ON_WIRE).map((wire) => [wire.config, configSchema(wire).optional()]),
  ) as Record<string, z.ZodOptional<z.ZodType>>),
  ai21labs_config: z.unknown().optional(),
  palm_config: z.unknown().optional(),
  /** Ours, beside the vendor's fields. */
  max_concurrency: z.int().min(1).nullish(),
  timeout_ms: z.int().min(1).nullish(),
  price: z
    .strictObject({ input_per_million: z.number().min(0), output_per_million: z.number().min(0) })
    .nullish(),
});

/** A checked body as the registry's `externalModel`; keys in the clear become members `...Plaintext`. */
export function toExternalModel(body: JsonObject): JsonObject {
  const provider = String(body.provider);
  const wire = wireOf(provider, String(body.name));
  refuseOtherConfigs(body, wire, provider);
  const config = isJsonObject(body[wire.config]) ? (body[wire.config] as JsonObject) : {};
  for (const name of NOT_HERE) {
    if (config[name] === undefined) continue;
    throw new ServingError(
      'NOT_OFFERED',
      `'${wire.config}.${name}' belongs to a cloud account and is not offered here: give aws_access_key_id and aws_secret_access_key.`,
    );
  }
  if (config.bearer_token_auth !== undefined && config.api_key_auth !== undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      "'custom_provider_config' has bearer_token_auth and api_key_auth; give exactly one of them.",
    );
  }
  const model: Record<string, Json> = { name: body.name ?? '', provider, task: body.task ?? '' };
  for (const { wire: name, path, isSecret, isRequired } of wire.fields) {
    const value = readPath(config, name);
    if (value !== undefined) writePath(model, path, value);
    else if (isRequired) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `'external_model.${wire.config}.${name}' is needed; it is missing.`,
      );
    }
    const clear = isSecret ? readPath(config, `${name}_plaintext`) : undefined;
    if (clear !== undefined) writePath(model, `${path}Plaintext`, clear);
  }
  if (body.max_concurrency !== undefined) model.maxConcurrency = body.max_concurrency;
  if (body.timeout_ms !== undefined) model.timeoutMs = body.timeout_ms;
  if (isJsonObject(body.price)) {
    model.price = {
      inputPerMillion: body.price.input_per_million ?? 0,
      outputPerMillion: body.price.output_per_million ?? 0,
    };
  }
  return model;
}

/** References to keys are shown (they are no secrets); keys never get this far. */
export function formatExternalModel(model: ExternalModel): JsonObject {
  const wire = PROVIDERS_ON_WIRE[model.provider];
  const config: Record<string, Json> = {};
  for (const { wire: name, path, when } of wire.fields) {
    const value = readPath(model as unknown as JsonObject, path);
    if (value !== undefined && (when?.(model) ?? true)) writePath(config, name, value);
  }
  const { maxConcurrency, timeoutMs, price } = model;
  return {
    name: model.name,
    provider: model.provider,
    task: model.task,
    ...(Object.keys(config).length === 0 ? {} : { [wire.config]: config }),
    ...(maxConcurrency === undefined ? {} : { max_concurrency: maxConcurrency }),
    ...(timeoutMs === undefined ? {} : { timeout_ms: timeoutMs }),
    ...(price && {
      price: { input_per_million: price.inputPerMillion, output_per_million: price.outputPerMillion },
    }),
  };
}

/** The wire's name of a path inside an external model, with its config object before it. */
export function wireNameOf(provider: unknown, path: string, hasHeader: boolean): string | undefined {
  const wire = Object.hasOwn(PROVIDERS_ON_WIRE, String(provider))
    ? PROVIDERS_ON_WIRE[provider as Provider]
    : undefined;
  const bare = path.replace(/Plaintext$/, '');
  const candidates = wire?.fields.filter((candidate) => candidate.path === bare) ?? [];
  const found = candidates.length > 1 && hasHeader ? candidates[1] : candidates[0];
  if (wire === undefined || found === undefined) return undefined;
  return `${wire.config}.${found.wire}${bare === path ? '' : '_plaintext'}`;
}

function wireOf(provider: string, model: string): ProviderWire {
  if (Object.hasOwn(PROVIDERS_ON_WIRE, provider)) return PROVIDERS_ON_WIRE[provider as Provider];
  const names = Object.keys(PROVIDERS_ON_WIRE).join(', ');
  const shown = JSON.stringify(provider.slice(0, 80));
  if (Object.hasOwn(RETIRED_PROVIDERS, provider)) {
    throw new ServingError(
      'NOT_OFFERED',
      `External model '${model}' has provider ${shown}, which is not offered: ${RETIRED_PROVIDERS[provider]}. Offered are: ${names}.`,
    );
  }
  throw new ServingError(
    'INVALID_PARAMETER',
    `External model '${model}' has provider ${shown}; it can be one of ${names}.`,
  );
}

/** A key in the object of another provider would be left unused, and the model asked without one. */
function refuseOtherConfigs(body: JsonObject, wire: ProviderWire, provider: string): void {
  const other = Object.keys(body).find((name) => name.endsWith('_config') && name !== wire.config);
  if (other === undefined) return;
  throw new ServingError(
    'INVALID_PARAMETER',
    `'external_model.${other}' does not go with provider '${provider}', whose settings are in '${wire.config}'.`,
  );
}

function readPath(object: JsonObject, path: string): Json | undefined {
  const [outer = '', inner] = path.split('.');
  const value = object[outer];
  if (inner === undefined) return value;
  return isJsonObject(value) ? value[inner] : undefined;
}

function writePath(object: Record<string, Json>, path: string, value: Json): void {
  const [outer = '', inner] = path.split('.');
  if (inner === undefined) object[outer] = value;
  else object[outer] = { ...(object[outer] as JsonObject | undefined), [inner]: value };
}
