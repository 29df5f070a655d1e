// What the policies of an endpoint (its `ai_gateway`) must look like, and the one rule about changing them.
// What they do is decided elsewhere: limits and guardrails in governance, the rest in serving.
import { z } from 'zod';
import type { AiGateway } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { parseShape } from './parse.ts';

const MAX_RATE_LIMITS = 20;
const MAX_GROUP_LIMITS = 5;
const KEYS = ['endpoint', 'user', 'user_group', 'service_principal'] as const;

const principal = z.string().min(1).max(256);
const tableWord = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9_-]{0,127}$/, 'must begin with a letter or _ and hold letters, digits, _ or -');
const endpointName = z.string().regex(/^[A-Za-z0-9_-]{1,63}$/, 'must be the name of an endpoint');
const enabled = z.strictObject({ enabled: z.boolean() });

type Subject = { readonly key: (typeof KEYS)[number]; readonly principal?: string | undefined };

/** Which subjects a limit may name: everybody of a kind, or one of them. */
function checkSubject({ key, principal: name }: Subject, context: z.RefinementCtx): void {
  if (key === 'endpoint' && name !== undefined) {
    const message = "does not go with key 'endpoint', which counts all callers together";
    context.addIssue({ code: 'custom', path: ['principal'], message, input: name });
  }
  if (key === 'user_group' && name === undefined) {
    const message = "is needed with key 'user_group': the name of the group";
    context.addIssue({ code: 'custom', path: ['principal'], message });
  }
}

const rateLimit = z
  .strictObject({
    key: z.enum(KEYS).default('endpoint'),
    principal: principal.optional(),
    calls: z.int().nonnegative().optional(),
    tokens: z.int().nonnegative().optional(),
    renewalPeriod: z.literal('minute', "must be 'minute'; there is no other period"),
  })
  .superRefine((limit, context) => {
    checkSubject(limit, context);
    if (limit.calls === undefined && limit.tokens === undefined) {
      context.addIssue({ code: 'custom', path: ['calls'], message: 'is needed, or tokens, or both' });
    }
  });

const rateLimits = z
  .array(rateLimit)
  .max(MAX_RATE_LIMITS, `must be at most ${MAX_RATE_LIMITS} limits`)
  .superRefine((limits, context) => {
    if (limits.filter(({ key }) => key === 'user_group').length > MAX_GROUP_LIMITS) {
      context.addIssue({ code: 'custom', message: `must hold at most ${MAX_GROUP_LIMITS} limits of groups` });
    }
    refuseTwice(limits, context, ({ key, principal: name }) => `${key} ${name ?? ''}`);
  });

const budget = z
  .strictObject({
    key: z.enum(KEYS).default('endpoint'),
    principal: principal.optional(),
    amount: z.number().nonnegative(),
    renewalPeriod: z.enum(['day', 'month']),
  })
  .superRefine(checkSubject);

const budgets = z
  .array(budget)
  .max(MAX_RATE_LIMITS, `must be at most ${MAX_RATE_LIMITS} budgets`)
  .superRefine((all, context) =>
    refuseTwice(
      all,
      context,
      ({ key, principal: name, renewalPeriod }) => `${key} ${name ?? ''} ${renewalPeriod}`,
    ),
  );

function refuseTwice<T>(limits: readonly T[], context: z.RefinementCtx, nameOf: (limit: T) => string): void {
  const seen = new Set<string>();
  for (const [index, limit] of limits.entries()) {
    const name = nameOf(limit);
    const message = `is the second limit for ${name.trim()}; give one`;
    if (seen.has(name)) context.addIssue({ code: 'custom', path: [index], message });
    seen.add(name);
  }
}

const words = z.array(z.string().trim().min(1).max(256)).max(1_000);
const rules = {
  safety: z.boolean().optional(),
  pii: z.strictObject({ behavior: z.enum(['NONE', 'BLOCK', 'MASK']) }).optional(),
  invalidKeywords: words.optional(),
  judgeEndpoint: endpointName.optional(),
  customEndpoint: endpointName.optional(),
};

const gateway = z.strictObject({
  usageTracking: enabled.optional(),
  inferenceTable: z
    .strictObject({
      enabled: z.boolean(),
      catalogName: tableWord.optional(),
      schemaName: tableWord.optional(),
      tableNamePrefix: tableWord.optional(),
    })
    .optional(),
  rateLimits: rateLimits.optional(),
  guardrails: z
    .strictObject({
      input: z.strictObject({ ...rules, validTopics: words.optional() }).optional(),
      output: z.strictObject(rules).optional(),
    })
    .optional(),
  fallback: enabled.optional(),
  budgets: budgets.optional(),
  hedging: z
    .strictObject({
      quantile: z.number().min(0.5).max(0.999),
      maxExtraPercent: z.number().positive().max(100),
    })
    .optional(),
  timeoutMs: z
    .int()
    .positive()
    .max(24 * 60 * 60 * 1_000)
    .optional(),
});

export const gatewaySchema = gateway;

/** Undefined: nothing was set, which is how a gateway is cleared. */
export function parseGateway(value: unknown): AiGateway | undefined {
  const parsed = parseShape(gateway, value, 'The gateway') as AiGateway;
  return Object.keys(parsed).length === 0 ? undefined : parsed;
}

/** Endpoints that guardrails ask. */
export function endpointsAskedBy(aiGateway: AiGateway | undefined): readonly string[] {
  return [aiGateway?.guardrails?.input, aiGateway?.guardrails?.output].flatMap((side) =>
    [side?.judgeEndpoint, side?.customEndpoint].filter((name) => name !== undefined),
  );
}

/** A table that is being written keeps its name: rows would go on elsewhere without a word. */
export function checkTableChange(
  endpoint: string,
  before: AiGateway['inferenceTable'],
  after: AiGateway['inferenceTable'],
): void {
  if (!before?.enabled || !after?.enabled) return;
  const nameOf = ({ catalogName, schemaName, tableNamePrefix }: NonNullable<typeof before>) =>
    [catalogName ?? '(default)', schemaName ?? '(default)', tableNamePrefix ?? '(default)'].join('.');
  if (nameOf(before) === nameOf(after)) return;
  throw new ServingError(
    'INVALID_PARAMETER',
    `The inference table of endpoint '${endpoint}' is ${nameOf(before)} and would become ${nameOf(after)} while it is enabled. Disable it first (enabled: false), then enable it with the new names.`,
  );
}
