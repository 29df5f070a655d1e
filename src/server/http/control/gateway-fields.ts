// `ai_gateway` on Databricks' wire: the vendor's five fields and ours (budgets, hedging, timeout_ms), in both
// directions. What a limit may be is checked by the registry.
import { z } from 'zod';
import type { AiGateway, GuardrailRules, RateLimit } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import { present } from './body.ts';

const enabled = z.strictObject({ enabled: z.boolean().nullish() }).nullish();
const text = z.string();

const rateLimit = z.strictObject({
  calls: z.int().nullish(),
  tokens: z.int().nullish(),
  key: text.nullish(),
  principal: text.nullish(),
  renewal_period: text,
});
const rules = z
  .strictObject({
    safety: z.boolean().nullish(),
    pii: z.strictObject({ behavior: text.nullish() }).nullish(),
    invalid_keywords: z.array(text).nullish(),
    valid_topics: z.array(text).nullish(),
    /** Ours. */
    judge_endpoint: text.nullish(),
    custom_endpoint: text.nullish(),
  })
  .nullish();

export const gatewayBody = z.strictObject({
  usage_tracking_config: enabled,
  inference_table_config: z
    .strictObject({
      enabled: z.boolean().nullish(),
      catalog_name: text.nullish(),
      schema_name: text.nullish(),
      table_name_prefix: text.nullish(),
    })
    .nullish(),
  rate_limits: z.array(rateLimit).nullish(),
  guardrails: z.strictObject({ input: rules, output: rules }).nullish(),
  fallback_config: enabled,
  /** Ours. */
  budgets: z
    .array(
      z.strictObject({
        key: text.nullish(),
        principal: text.nullish(),
        amount: z.number(),
        renewal_period: text,
      }),
    )
    .nullish(),
  hedging: z.strictObject({ quantile: z.number(), max_extra_percent: z.number() }).nullish(),
  timeout_ms: z.int().nullish(),
});
type WireGateway = z.output<typeof gatewayBody>;
type WireRules = z.output<typeof rules>;

/** The older form of rate limits: always with calls, for the endpoint or each user. */
export const legacyRateLimits = z.array(
  z.strictObject({
    calls: z.int().min(0),
    key: z.enum(['user', 'endpoint']).nullish(),
    renewal_period: text,
  }),
);

/** In the registry's words; checked there. */
export function toGateway(wire: WireGateway): JsonObject {
  const table = wire.inference_table_config;
  return drop({
    usageTracking: wire.usage_tracking_config && toEnabled(wire.usage_tracking_config),
    inferenceTable: table && {
      ...toEnabled(table),
      ...drop({
        catalogName: table.catalog_name,
        schemaName: table.schema_name,
        tableNamePrefix: table.table_name_prefix,
      }),
    },
    rateLimits: wire.rate_limits?.map(toRateLimit),
    guardrails:
      wire.guardrails &&
      drop({ input: toRules(wire.guardrails.input), output: toRules(wire.guardrails.output) }),
    fallback: wire.fallback_config && toEnabled(wire.fallback_config),
    budgets: wire.budgets?.map(({ key, principal, amount, renewal_period }) =>
      drop({ key, principal, amount, renewalPeriod: renewal_period }),
    ),
    hedging: wire.hedging && {
      quantile: wire.hedging.quantile,
      maxExtraPercent: wire.hedging.max_extra_percent,
    },
    timeoutMs: wire.timeout_ms,
  });
}

export function toRateLimit(wire: z.output<typeof rateLimit>): JsonObject {
  const { key, principal, calls, tokens, renewal_period } = wire;
  return drop({ key, principal, calls, tokens, renewalPeriod: renewal_period });
}

export function formatGateway(gateway: AiGateway): JsonObject {
  const { usageTracking, inferenceTable, rateLimits, guardrails, fallback, budgets, hedging, timeoutMs } =
    gateway;
  return present({
    usage_tracking_config: usageTracking && { enabled: usageTracking.enabled },
    inference_table_config:
      inferenceTable &&
      present({
        enabled: inferenceTable.enabled,
        catalog_name: inferenceTable.catalogName,
        schema_name: inferenceTable.schemaName,
        table_name_prefix: inferenceTable.tableNamePrefix,
      }),
    rate_limits: rateLimits?.map(formatRateLimit),
    guardrails:
      guardrails && present({ input: formatRules(guardrails.input), output: formatRules(guardrails.output) }),
    fallback_config: fallback && { enabled: fallback.enabled },
    budgets: budgets?.map(({ key, principal, amount, renewalPeriod }) =>
      present({ key, principal, amount, renewal_period: renewalPeriod }),
    ),
    hedging: hedging && { quantile: hedging.quantile, max_extra_percent: hedging.maxExtraPercent },
    timeout_ms: timeoutMs,
  });
}

export function formatRateLimit({ key, principal, calls, tokens, renewalPeriod }: RateLimit): JsonObject {
  return present({ calls, tokens, key, principal, renewal_period: renewalPeriod });
}

function formatRules(side: GuardrailRules | undefined): JsonObject | undefined {
  return (
    side &&
    present({
      safety: side.safety,
      pii: side.pii && { behavior: side.pii.behavior },
      invalid_keywords: side.invalidKeywords,
      valid_topics: side.validTopics,
      judge_endpoint: side.judgeEndpoint,
      custom_endpoint: side.customEndpoint,
    })
  );
}

function toRules(side: WireRules): JsonObject | undefined {
  if (!side) return undefined;
  return drop({
    safety: side.safety,
    // An object without a behaviour asks for nothing.
    pii: side.pii && { behavior: side.pii.behavior ?? 'NONE' },
    invalidKeywords: side.invalid_keywords,
    validTopics: side.valid_topics,
    judgeEndpoint: side.judge_endpoint,
    customEndpoint: side.custom_endpoint,
  });
}

const toEnabled = (wire: { readonly enabled?: boolean | null | undefined }) => ({
  enabled: wire.enabled ?? false,
});

function drop(members: Readonly<Record<string, unknown>>): JsonObject {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== undefined && value !== null),
  ) as JsonObject;
}
