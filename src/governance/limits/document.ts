// The limits of the workspace as a JSON document: what `PUT /api/2.0/duckserve/limits`, a file for the command line
// and the registry store hold. Its rate limits are spelled like those of an endpoint's `ai_gateway`.
import { z } from 'zod';
import type { MoneyBudget, RateLimit } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { GaugeReading } from './gauges.ts';
import type { WorkspaceRules } from './rules.ts';

const MAX_RULES = 100;
const KEYS = ['endpoint', 'user', 'user_group', 'service_principal'] as const;

const subject = { key: z.enum(KEYS).default('endpoint'), principal: z.string().min(1).max(256).nullish() };

const rateLimit = z
  .strictObject({
    ...subject,
    calls: z.int().nonnegative().nullish(),
    tokens: z.int().nonnegative().nullish(),
    renewal_period: z.literal('minute', "must be 'minute'; there is no other period"),
  })
  .superRefine((limit, context) => {
    checkSubject(limit, context);
    if (limit.calls == null && limit.tokens == null) {
      context.addIssue({ code: 'custom', path: ['calls'], message: 'is needed, or tokens, or both' });
    }
  });

const budget = z
  .strictObject({
    ...subject,
    amount: z.number().nonnegative().max(1e9),
    renewal_period: z.enum(['day', 'month']),
  })
  .superRefine(checkSubject);

const document = z.strictObject({
  rate_limits: z.array(rateLimit).max(MAX_RULES).nullish(),
  budgets: z.array(budget).max(MAX_RULES).nullish(),
});

interface Subject {
  readonly key: (typeof KEYS)[number];
  readonly principal?: string | null | undefined;
}

function checkSubject({ key, principal }: Subject, context: z.RefinementCtx): void {
  const add = (message: string) => context.addIssue({ code: 'custom', path: ['principal'], message });
  if (key === 'endpoint' && principal != null) {
    add("does not go with key 'endpoint', which counts all callers together");
  }
  if (key === 'user_group' && principal == null)
    add("is needed with key 'user_group': the name of the group");
}

/** Throws INVALID_PARAMETER with all that is wrong. */
export function parseLimits(value: unknown): WorkspaceRules {
  const result = document.safeParse(value, { reportInput: true });
  if (!result.success) {
    const problems = result.error.issues.map(({ path, message, input }) => {
      const isPlain = ['string', 'number', 'boolean'].includes(typeof input);
      return `${path.join('.') || 'it'}${isPlain ? ` (${JSON.stringify(input)?.slice(0, 200)})` : ''}: ${message}`;
    });
    throw invalid(`The limits are not valid: ${problems.join('; ')}.`);
  }
  const rateLimits = (result.data.rate_limits ?? []).map(
    ({ key, principal, calls, tokens }): RateLimit => ({
      key,
      ...(principal == null ? {} : { principal }),
      ...(calls == null ? {} : { calls }),
      ...(tokens == null ? {} : { tokens }),
      renewalPeriod: 'minute',
    }),
  );
  const budgets = (result.data.budgets ?? []).map(
    ({ key, principal, amount, renewal_period }): MoneyBudget => ({
      key,
      ...(principal == null ? {} : { principal }),
      amount,
      renewalPeriod: renewal_period,
    }),
  );
  refuseTwice(rateLimits);
  refuseTwice(budgets);
  return { rateLimits, budgets };
}

function refuseTwice(rules: readonly (RateLimit | MoneyBudget)[]): void {
  const seen = new Set<string>();
  for (const { key, principal, renewalPeriod } of rules) {
    const name = `${key}${principal === undefined ? '' : ` '${principal}'`} per ${renewalPeriod}`;
    if (seen.has(name)) throw invalid(`The limits are not valid: there are two for ${name}; give one.`);
    seen.add(name);
  }
}

function invalid(message: string): ServingError {
  return new ServingError('INVALID_PARAMETER', message);
}

/** What `parseLimits` reads, as JSON. */
export function formatLimits({ rateLimits, budgets }: WorkspaceRules): JsonObject {
  return {
    rate_limits: rateLimits.map(({ key, principal, calls, tokens, renewalPeriod }) => ({
      key,
      ...(principal === undefined ? {} : { principal }),
      ...(calls === undefined ? {} : { calls }),
      ...(tokens === undefined ? {} : { tokens }),
      renewal_period: renewalPeriod,
    })),
    budgets: budgets.map(({ key, principal, amount, renewalPeriod }) => ({
      key,
      ...(principal === undefined ? {} : { principal }),
      amount,
      renewal_period: renewalPeriod,
    })),
  };
}

/** The rules of the workspace, and what is used now of every limit that is in use, of endpoints too. */
export function formatUse(rules: WorkspaceRules, readings: readonly GaugeReading[]): JsonObject {
  return {
    ...formatLimits(rules),
    usage: readings.map(({ endpoint, type, key, principal, limit, current, held, renewsAtMs }) => ({
      limit_type: type,
      endpoint,
      key,
      principal,
      limit,
      current,
      held,
      ...(renewsAtMs === undefined ? {} : { renews_at: new Date(renewsAtMs).toISOString() }),
    })),
  };
}
