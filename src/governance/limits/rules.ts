// Which limits a caller falls under, of those an endpoint and the workspace have: pure rules, nothing counted.
import type { Principal } from '#core/call.ts';
import type { Endpoint, MoneyBudget, RateLimit } from '#core/endpoint.ts';
import { EVERYBODY } from '../access.ts';
import { type GaugeFacts, NANO } from './gauge.ts';

/** Limits that count over all endpoints together. */
export interface WorkspaceRules {
  readonly rateLimits: readonly RateLimit[];
  readonly budgets: readonly MoneyBudget[];
}

export const NO_RULES: WorkspaceRules = { rateLimits: [], budgets: [] };

/** One limit that applies to a caller. */
export type Applied =
  | { readonly facts: GaugeFacts; readonly limit: number; readonly budget?: undefined }
  | { readonly facts: GaugeFacts; readonly limit: number; readonly budget: MoneyBudget };

type Measure = 'calls' | 'tokens';
const MEASURES: readonly Measure[] = ['calls', 'tokens'];

/** All limits that a caller falls under at an endpoint. */
export function applyingRules(
  { name, aiGateway }: Endpoint,
  principal: Principal,
  workspace: WorkspaceRules,
): Applied[] {
  return [
    ...appliedRules(name, principal, aiGateway?.rateLimits, aiGateway?.budgets),
    ...appliedRules(null, principal, workspace.rateLimits, workspace.budgets),
  ];
}

/** `endpoint`: null for the rules of the workspace. Those that fewest share come first. */
function appliedRules(
  endpoint: string | null,
  principal: Principal,
  rateLimits: readonly RateLimit[] | undefined,
  budgets: readonly MoneyBudget[] | undefined,
): Applied[] {
  const applied: Applied[] = [];
  if (rateLimits && rateLimits.length > 0) {
    for (const measure of MEASURES) {
      for (const rule of ratesFor(principal, rateLimits, measure)) {
        const facts = factsOf(endpoint, principal, rule, `${measure}_per_minute`);
        applied.push({ facts, limit: rule[measure] ?? 0 });
      }
    }
  }
  for (const rule of budgetsFor(principal, budgets ?? [])) {
    const facts = factsOf(endpoint, principal, rule, `cost_per_${rule.renewalPeriod}`);
    applied.push({ facts, limit: Math.floor(rule.amount * NANO + 1e-3), budget: rule });
  }
  return applied;
}

/**
 * A limit of the caller's own goes before those of groups, and these before the one that every user has. Of several
 * groups the most permissive counts. The endpoint's own limit holds beside them, for everybody together.
 */
function ratesFor(principal: Principal, rules: readonly RateLimit[], measure: Measure): RateLimit[] {
  const having = rules.filter((rule) => rule[measure] !== undefined);
  const sizeOf = (rule: RateLimit) => rule[measure] ?? 0;
  const own = least(
    having.filter((rule) => isOwn(rule, principal)),
    sizeOf,
  );
  const ofGroups = least(
    having.filter((rule) => isOfGroup(rule, principal)),
    (rule) => -sizeOf(rule),
  );
  const ofEach = least(
    having.filter((rule) => isOfEach(rule, principal, having)),
    sizeOf,
  );
  const ofAll = least(
    having.filter(({ key }) => key === 'endpoint'),
    sizeOf,
  );
  return [own ?? ofGroups ?? ofEach, ofAll].filter((rule) => rule !== undefined);
}

/** Money is never gone twice: every budget counts that the caller, one of their groups or the endpoint has. */
function budgetsFor(principal: Principal, rules: readonly MoneyBudget[]): MoneyBudget[] {
  return (['day', 'month'] as const).flatMap((renewal) => {
    const having = rules.filter(({ renewalPeriod }) => renewalPeriod === renewal);
    const sizeOf = (rule: MoneyBudget) => rule.amount;
    const own = least(
      having.filter((rule) => isOwn(rule, principal)),
      sizeOf,
    );
    const ofEach = least(
      having.filter((rule) => isOfEach(rule, principal, having)),
      sizeOf,
    );
    const ofGroups = having.filter((rule) => isOfGroup(rule, principal));
    const ofAll = least(
      having.filter(({ key }) => key === 'endpoint'),
      sizeOf,
    );
    return [own ?? ofEach, ...ofGroups, ofAll].filter((rule) => rule !== undefined);
  });
}

type Subject = Pick<RateLimit, 'key' | 'principal'>;

function isOwn({ key, principal: name }: Subject, principal: Principal): boolean {
  return (key === 'user' || key === 'service_principal') && key === principal.kind && name === principal.name;
}

function isOfGroup({ key, principal: name }: Subject, { groups }: Principal): boolean {
  if (key !== 'user_group' || name === undefined) return false;
  return name === EVERYBODY || groups?.includes(name) === true;
}

/** The limit that each user has is each service principal's too, unless there is one that each of those has. */
function isOfEach({ key, principal: name }: Subject, { kind }: Principal, all: readonly Subject[]): boolean {
  if (name !== undefined || key === 'endpoint' || key === 'user_group') return false;
  if (key === kind) return true;
  const hasOne = (other: Subject) => other.key === 'service_principal' && other.principal === undefined;
  return key === 'user' && kind === 'service_principal' && !all.some(hasOne);
}

function least<T>(rules: readonly T[], sizeOf: (rule: T) => number): T | undefined {
  let found: T | undefined;
  for (const rule of rules) if (found === undefined || sizeOf(rule) < sizeOf(found)) found = rule;
  return found;
}

function factsOf(
  endpoint: string | null,
  principal: Principal,
  { key, principal: named }: Subject,
  type: GaugeFacts['type'],
): GaugeFacts {
  const name = key === 'endpoint' ? null : key === 'user_group' ? (named ?? null) : principal.name;
  return {
    id: gaugeId(endpoint, type, key === 'user_group' ? 'group' : 'principal', name),
    type,
    endpoint,
    key,
    principal: name,
  };
}

/** `name`: null for everybody together. */
export function gaugeId(
  endpoint: string | null,
  type: GaugeFacts['type'],
  kind: 'principal' | 'group',
  name: string | null,
): string {
  return JSON.stringify(name === null ? [endpoint, type] : [endpoint, type, kind, name]);
}
