// What Databricks clients send to create and to update an endpoint, turned into the registry's words. What an
// endpoint must be is checked by the registry; here only spelling changes.
import { z } from 'zod';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { parseBody } from './body.ts';
import { gatewayBody, legacyRateLimits, toGateway } from './gateway-fields.ts';
import { externalModelBody, toExternalModel } from './provider-fields.ts';

const text = z.string().min(1);
const whole = z.int().min(0);

/** The vendor's fields that are kept and given back as they were set; what sizes come to is made of them later. */
const entitySettings = {
  workload_size: text.nullish(),
  workload_type: text.nullish(),
  scale_to_zero_enabled: z.boolean().nullish(),
  min_provisioned_throughput: whole.nullish(),
  max_provisioned_throughput: whole.nullish(),
  min_provisioned_concurrency: whole.nullish(),
  max_provisioned_concurrency: whole.nullish(),
  provisioned_model_units: whole.nullish(),
  instance_profile_arn: text.nullish(),
};
/** What the registry has words of its own for. The second is ours alone. */
const ownFields = {
  environment_vars: z.record(z.string(), z.string()).nullish(),
  scaling: z
    .strictObject({
      min_replicas: whole.nullish(),
      max_replicas: whole.nullish(),
      target_concurrency: whole.nullish(),
      idle_seconds: z.number().nullish(),
      max_queue: whole.nullish(),
    })
    .nullish(),
};
const SIZE_FIELDS = ['workload_size', 'workload_type', 'scale_to_zero_enabled'];
/** Answers have these, and clients that send back what they got have them in requests. */
const answered = {
  id: z.unknown().optional(),
  state: z.unknown().optional(),
  creator: z.unknown().optional(),
  creation_timestamp: z.unknown().optional(),
  foundation_model: z.unknown().optional(),
};
const unkept = { burst_scaling_enabled: z.boolean().nullish(), ...answered };

const servedEntity = z.strictObject({
  name: text.nullish(),
  external_model: externalModelBody.nullish(),
  entity_name: text.nullish(),
  entity_version: z.union([text, z.int()]).nullish(),
  ...entitySettings,
  ...ownFields,
  ...unkept,
});
/** The older name of the same thing. */
const servedModel = z.strictObject({
  name: text.nullish(),
  model_name: text,
  model_version: z.union([text, z.int()]).nullish(),
  ...entitySettings,
  ...ownFields,
  ...unkept,
});

const route = z
  .strictObject({
    served_entity_name: text.nullish(),
    served_model_name: text.nullish(),
    traffic_percentage: z.int().min(0).max(100),
  })
  .refine(
    (fields) => fields.served_entity_name ?? fields.served_model_name,
    "must have 'served_entity_name'",
  );

const coreConfig = {
  name: text.nullish(),
  served_entities: z.array(servedEntity).nullish(),
  served_models: z.array(servedModel).nullish(),
  traffic_config: z.strictObject({ routes: z.array(route).nullish() }).nullish(),
  auto_capture_config: z.unknown().optional(),
  config_version: z.unknown().optional(),
  start_time: z.unknown().optional(),
};
export const configBody = z.strictObject(coreConfig);
type WireConfig = z.output<typeof configBody>;

const tag = z.strictObject({ key: text, value: z.string().nullish() });
const emails = z.array(z.string().max(320)).max(100).nullish();
export const notificationsBody = z.strictObject({
  email_notifications: z.strictObject({ on_update_success: emails, on_update_failure: emails }).nullish(),
});
export const tagsBody = z.strictObject({
  add_tags: z.array(tag).nullish(),
  delete_tags: z.array(text).nullish(),
});

export const endpointBody = z.strictObject({
  name: text,
  config: configBody.nullish(),
  ai_gateway: gatewayBody.nullish(),
  rate_limits: legacyRateLimits.nullish(),
  description: z.string().nullish(),
  tags: z.array(tag).nullish(),
  route_optimized: z.boolean().nullish(),
  budget_policy_id: text.nullish(),
  usage_policy_id: text.nullish(),
  ...notificationsBody.shape,
  telemetry_config: z.unknown().optional(),
  uc_system_metrics_export_state: z.unknown().optional(),
});
const KEPT_SETTINGS = [
  'route_optimized',
  'budget_policy_id',
  'usage_policy_id',
  'email_notifications',
] as const;

export function toEndpointSpec(body: JsonObject): JsonObject {
  const wire = parseBody(endpointBody, body);
  if (wire.telemetry_config !== undefined) throw notOffered('telemetry_config');
  if (wire.uc_system_metrics_export_state !== undefined) throw notOffered('uc_system_metrics_export_state');
  if (!wire.config) {
    throw new ServingError(
      'INVALID_PARAMETER',
      "'config' is missing: an endpoint needs served_entities to answer with.",
    );
  }
  const settings = Object.fromEntries(
    KEPT_SETTINGS.flatMap((name) => (wire[name] === undefined ? [] : [[name, wire[name] as Json]])),
  );
  const gateway = gatewayOf(wire);
  const task = wire.config.served_entities?.[0]?.external_model?.task;
  return {
    name: wire.name,
    // A registered model brings its own task; that of an external one is known only from here.
    ...(task === undefined ? {} : { task: String(task) }),
    ...toConfig(wire.config),
    ...(wire.description ? { description: wire.description } : {}),
    ...(wire.tags ? { tags: wire.tags.map(toTag) } : {}),
    ...(gateway === undefined ? {} : { aiGateway: gateway }),
    ...(Object.keys(settings).length === 0 ? {} : { settings }),
  };
}

/** What PUT config takes: entities with their traffic, or the traffic alone. */
export function toConfigUpdate(body: JsonObject): JsonObject {
  const wire = parseBody(configBody, body);
  if (wire.served_entities || wire.served_models || wire.traffic_config) return toConfig(wire);
  throw new ServingError(
    'INVALID_PARAMETER',
    "The body has nothing to change: send 'served_entities' (with 'traffic_config' where there are several), or 'traffic_config' alone.",
  );
}

export function toTag(wire: {
  readonly key: string;
  readonly value?: string | null | undefined;
}): JsonObject {
  return { key: wire.key, value: wire.value ?? '' };
}

export function notOffered(name: string): ServingError {
  return new ServingError('NOT_OFFERED', `'${name}' ${NOT_OFFERED[name] ?? 'is not offered here'}.`);
}

const NOT_OFFERED: Readonly<Record<string, string>> = {
  telemetry_config:
    'is not offered: logs and traces of an endpoint go where the process sends its own; payloads go to ai_gateway.inference_table_config',
  uc_system_metrics_export_state: 'is not offered: metrics are read at GET .../metrics',
  auto_capture_config:
    'is the older name of inference tables; send ai_gateway.inference_table_config instead',
};

function gatewayOf(wire: z.output<typeof endpointBody>): JsonObject | undefined {
  if (wire.rate_limits && wire.ai_gateway?.rate_limits) {
    throw new ServingError(
      'INVALID_PARAMETER',
      "'rate_limits' and 'ai_gateway.rate_limits' are both given; give the second alone.",
    );
  }
  if (!wire.ai_gateway && !wire.rate_limits) return undefined;
  return toGateway({ ...wire.ai_gateway, ...(wire.rate_limits ? { rate_limits: wire.rate_limits } : {}) });
}

function toConfig(wire: WireConfig): JsonObject {
  if (wire.auto_capture_config !== undefined) throw notOffered('auto_capture_config');
  const routes = wire.traffic_config?.routes;
  const entities = entitiesOf(wire);
  return {
    ...(entities === undefined ? {} : { servedEntities: entities }),
    ...(routes
      ? {
          routes: routes.map((each) => ({
            servedEntityName: each.served_entity_name ?? each.served_model_name ?? '',
            trafficPercentage: each.traffic_percentage,
          })),
        }
      : {}),
  };
}

/** Clients that send back what they got have both lists; the newer one says all. */
function entitiesOf({ served_entities, served_models }: WireConfig): JsonObject[] | undefined {
  if (served_entities) return served_entities.map(toServedEntity);
  return served_models?.map(({ model_name, model_version, ...rest }) =>
    toServedEntity({ ...rest, entity_name: model_name, entity_version: model_version }),
  );
}

function toServedEntity(wire: z.output<typeof servedEntity>): JsonObject {
  const settings: Record<string, Json> = {};
  for (const name of Object.keys(entitySettings) as (keyof typeof entitySettings)[]) {
    const value = wire[name];
    if (value !== undefined && value !== null) settings[name] = value;
  }
  checkSettings(
    wire.name ?? wire.entity_name ?? wire.external_model?.name ?? '',
    settings,
    wire.external_model != null,
  );
  return {
    ...(wire.name ? { name: wire.name } : {}),
    ...(isJsonObject(wire.external_model) ? { externalModel: toExternalModel(wire.external_model) } : {}),
    ...(wire.entity_name ? { entityName: wire.entity_name } : {}),
    ...(wire.entity_version === undefined || wire.entity_version === null
      ? {}
      : { entityVersion: String(wire.entity_version) }),
    ...(wire.scaling ? { scaling: toScaling(wire.scaling) } : {}),
    ...(wire.environment_vars ? { environment: wire.environment_vars } : {}),
    ...(Object.keys(settings).length === 0 ? {} : { settings }),
  };
}

function toScaling(wire: NonNullable<z.output<typeof servedEntity>['scaling']>): JsonObject {
  const { min_replicas, max_replicas, target_concurrency, idle_seconds, max_queue } = wire;
  const members = Object.entries({
    minReplicas: min_replicas,
    maxReplicas: max_replicas,
    targetConcurrency: target_concurrency,
    idleSeconds: idle_seconds,
    maxQueue: max_queue,
  });
  return Object.fromEntries(members.flatMap(([name, value]) => (value == null ? [] : [[name, value]])));
}

/** A specification that is refused elsewhere is not to look valid here. */
function checkSettings(name: unknown, settings: JsonObject, isExternal: boolean): void {
  const refuse = (problem: string) => {
    throw new ServingError('INVALID_PARAMETER', `Served entity '${name}': ${problem}.`);
  };
  const size = SIZE_FIELDS.find((field) => settings[field] !== undefined);
  if (isExternal && size !== undefined) refuse(`'${size}' does not go with an external model`);
  const isProvisioned =
    'min_provisioned_concurrency' in settings || 'max_provisioned_concurrency' in settings;
  if (settings.workload_size !== undefined && isProvisioned) {
    refuse("'workload_size' and provisioned concurrency exclude each other");
  }
  const { min_provisioned_concurrency: least, max_provisioned_concurrency: most } = settings;
  if (typeof least === 'number' && typeof most === 'number' && least > most) {
    refuse(`'min_provisioned_concurrency' is ${least}, more than the maximum, which is ${most}`);
  }
}
