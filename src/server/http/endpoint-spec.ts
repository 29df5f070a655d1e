// What Databricks clients send to create an endpoint, turned into the registry's words. What an endpoint must be
// is checked by the registry; here only spelling changes, and keys are refused where a reference belongs.
import { z } from 'zod';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { parseWith, showValue } from './errors.ts';
import { withoutUndefined } from './parameters.ts';

const SECRET_REFERENCE = /^\{\{\s*(env|secrets)\/[^{}]+\}\}$/;
const text = z.string().min(1);

const openaiConfig = z.object({
  openai_api_key: text.nullish(),
  openai_api_key_plaintext: z.unknown().optional(),
  openai_api_base: text.nullish(),
  openai_organization: text.nullish(),
  openai_api_type: z.enum(['openai', 'azure']).nullish(),
  openai_api_version: text.nullish(),
  openai_deployment_name: text.nullish(),
});
const anthropicConfig = z.object({
  anthropic_api_key: text.nullish(),
  anthropic_api_key_plaintext: z.unknown().optional(),
  /** Ours: the vendor knows only one Anthropic. */
  anthropic_api_base: text.nullish(),
});
const customConfig = z.object({
  custom_provider_url: text,
  bearer_token_auth: z.object({ token: text.nullish(), token_plaintext: z.unknown().optional() }).nullish(),
});

const externalModel = z.object({
  name: text,
  provider: z.enum(['openai', 'anthropic', 'custom']),
  task: z.enum(['llm/v1/chat', 'llm/v1/completions', 'llm/v1/embeddings']),
  openai_config: openaiConfig.nullish(),
  anthropic_config: anthropicConfig.nullish(),
  custom_provider_config: customConfig.nullish(),
  /** Ours, beside the vendor's fields. */
  max_concurrency: z.int().min(1).nullish(),
  timeout_ms: z.int().min(1).nullish(),
  price: z.object({ input_per_million: z.number().min(0), output_per_million: z.number().min(0) }).nullish(),
});
type WireModel = z.output<typeof externalModel>;

const servedEntity = z.object({
  name: text.nullish(),
  external_model: externalModel.nullish(),
  entity_name: text.nullish(),
  entity_version: z.union([text, z.int()]).nullish(),
});

const route = z
  .object({
    served_entity_name: text.nullish(),
    /** The older name of the same field. */
    served_model_name: text.nullish(),
    traffic_percentage: z.int().min(0).max(100),
  })
  .refine(
    (fields) => fields.served_entity_name ?? fields.served_model_name,
    "must have 'served_entity_name'",
  );

const coreConfig = z.object({
  served_entities: z.array(servedEntity).min(1),
  traffic_config: z.object({ routes: z.array(route).min(1) }).nullish(),
});

export const endpointBody = z.object({
  name: text,
  config: coreConfig,
  description: z.string().nullish(),
  tags: z.array(z.object({ key: text, value: z.string().default('') })).nullish(),
});

/** Sizes and scaling (`workload_size`, `scale_to_zero_enabled`, ...) have no meaning on one machine and are ignored. */
export function toEndpointSpec(body: JsonObject): JsonObject {
  const { name, config, description, tags } = parseWith(endpointBody, body, { mayHoldSecrets: true });
  return withoutUndefined({
    name,
    // A registered model brings its own task; that of an external one is known only from here.
    task: config.served_entities[0]?.external_model?.task,
    servedEntities: config.served_entities.map(toServedEntity),
    routes: config.traffic_config?.routes.map((wire) => ({
      servedEntityName: wire.served_entity_name ?? wire.served_model_name ?? '',
      trafficPercentage: wire.traffic_percentage,
    })),
    description: description ?? undefined,
    tags: tags ?? undefined,
  }) as JsonObject;
}

function toServedEntity(wire: z.output<typeof servedEntity>): JsonObject {
  return withoutUndefined({
    name: wire.name ?? undefined,
    externalModel: wire.external_model ? toExternalModel(wire.external_model) : undefined,
    entityName: wire.entity_name ?? undefined,
    entityVersion: wire.entity_version?.toString(),
  }) as JsonObject;
}

function toExternalModel(wire: WireModel): JsonObject {
  return withoutUndefined({
    name: wire.openai_config?.openai_deployment_name ?? wire.name,
    task: wire.task,
    ...toConnection(wire),
    maxConcurrency: wire.max_concurrency ?? undefined,
    timeoutMs: wire.timeout_ms ?? undefined,
    price: wire.price
      ? { inputPerMillion: wire.price.input_per_million, outputPerMillion: wire.price.output_per_million }
      : undefined,
  }) as JsonObject;
}

function toConnection(wire: WireModel) {
  if (wire.provider === 'custom') {
    const config = wire.custom_provider_config;
    if (!config) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `External model ${showValue(wire.name)} has provider 'custom' and needs 'custom_provider_config' with 'custom_provider_url'.`,
      );
    }
    const auth = config.bearer_token_auth;
    return {
      provider: 'openai',
      baseUrl: config.custom_provider_url,
      apiKey: toReference('bearer_token_auth.token', auth?.token, auth?.token_plaintext),
    };
  }
  if (wire.provider === 'anthropic') {
    const config = wire.anthropic_config;
    return {
      provider: wire.provider,
      baseUrl: config?.anthropic_api_base ?? undefined,
      apiKey: toReference(
        'anthropic_api_key',
        config?.anthropic_api_key,
        config?.anthropic_api_key_plaintext,
      ),
    };
  }
  const config = wire.openai_config;
  return {
    provider: wire.provider,
    baseUrl: config?.openai_api_base ?? undefined,
    apiKey: toReference('openai_api_key', config?.openai_api_key, config?.openai_api_key_plaintext),
    organization: config?.openai_organization ?? undefined,
    apiType: config?.openai_api_type ?? undefined,
    apiVersion: config?.openai_api_version ?? undefined,
  };
}

/** A key that came this far in the clear is not repeated in the message, and not kept. */
function toReference(
  field: string,
  reference: string | null | undefined,
  plaintext: unknown,
): string | undefined {
  const isPlain = reference !== undefined && reference !== null && !SECRET_REFERENCE.test(reference);
  if (isPlain || (plaintext !== undefined && plaintext !== null)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `'${field}' takes a reference, not the key itself: set the key in the server's environment and write {{env/NAME}}, or store it as a secret and write {{secrets/scope/key}}.`,
      { details: { field } },
    );
  }
  return reference ?? undefined;
}
