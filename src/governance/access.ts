// Who may do what, as pure rules: administrators and creators everything, others what the access list of an
// endpoint says, everybody may ask what is built in; a token can be for less than its principal.
// Not here: who somebody is and where the access lists are kept (identity).
import type { Principal, TokenScope } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Action } from '#core/policies.ts';

/** From the least to the most; each includes those before it. */
export type PermissionLevel = 'CAN_VIEW' | 'CAN_QUERY' | 'CAN_MANAGE';
export const PERMISSION_LEVELS: readonly PermissionLevel[] = ['CAN_VIEW', 'CAN_QUERY', 'CAN_MANAGE'];

/** The group that everybody is in who has a principal. It exists in access lists alone. */
export const EVERYBODY = 'users';
/** The group of administrators, as access lists show it. Nobody is put into it: administrators are made by a flag. */
export const ADMINISTRATORS = 'admins';

/** The access list of one endpoint, for looking up. */
export interface AccessList {
  readonly users: ReadonlyMap<string, PermissionLevel>;
  readonly servicePrincipals: ReadonlyMap<string, PermissionLevel>;
  readonly groups: ReadonlyMap<string, PermissionLevel>;
}

const NEEDED: Readonly<Record<Action, PermissionLevel>> = {
  view: 'CAN_VIEW',
  query: 'CAN_QUERY',
  manage: 'CAN_MANAGE',
};
const RANK: Readonly<Record<PermissionLevel, number>> = { CAN_VIEW: 1, CAN_QUERY: 2, CAN_MANAGE: 3 };

/** The highest level a principal has; undefined where it has none and must not learn of the endpoint. */
export function levelOf(
  principal: Principal,
  endpoint: Endpoint,
  list?: AccessList,
): PermissionLevel | undefined {
  if (principal.endpoints !== undefined && !principal.endpoints.includes(endpoint.name)) return undefined;
  if (principal.isAdmin || endpoint.creator === principal.name) return 'CAN_MANAGE';
  let level: PermissionLevel | undefined = endpoint.isEmbedded ? 'CAN_QUERY' : undefined;
  if (list === undefined) return level;
  const named = principal.kind === 'user' ? list.users : list.servicePrincipals;
  level = higher(level, named.get(principal.name));
  if (list.groups.size === 0) return level;
  level = higher(level, list.groups.get(EVERYBODY));
  for (const group of principal.groups ?? []) level = higher(level, list.groups.get(group));
  return level;
}

/** Throws PERMISSION_DENIED. Who may not see an endpoint learns nothing but the name that was asked. */
export function authorize(principal: Principal, endpoint: Endpoint, action: Action, list?: AccessList): void {
  const level = levelOf(principal, endpoint, list);
  if (level !== undefined && RANK[level] >= RANK[NEEDED[action]]) {
    if (principal.scopes === undefined || action === 'view') return;
    requireScope(principal, action, `to ${action} endpoint '${endpoint.name}'`);
    return;
  }
  const what = `'${principal.name}' may not ${action} endpoint '${endpoint.name}'`;
  if (level === undefined) {
    const reason =
      principal.endpoints !== undefined && !principal.endpoints.includes(endpoint.name)
        ? 'The token is for other endpoints.'
        : 'Ask its owner or an administrator.';
    throw denied(`${what}. ${reason}`);
  }
  throw denied(
    `${what}: that takes ${NEEDED[action]}, and this is ${level}. Ask its owner '${endpoint.creator}' or an administrator.`,
  );
}

/** Everybody may create endpoints whose token may manage them. Throws PERMISSION_DENIED. */
export function authorizeCreate(principal: Principal, name: string): void {
  requireScope(principal, 'manage', `to create endpoint '${name}'`);
  if (principal.endpoints !== undefined && !principal.endpoints.includes(name)) {
    throw denied(`The token of '${principal.name}' is for other endpoints than '${name}'.`);
  }
}

/**
 * What is the business of administrators: principals, tokens of others, metrics of all endpoints.
 * `what` completes "Only administrators may ...".
 */
export function requireAdmin(principal: Principal, what: string, scope?: TokenScope): void {
  if (!principal.isAdmin) throw denied(`Only administrators may ${what}, and '${principal.name}' is none.`);
  if (principal.endpoints !== undefined) {
    throw denied(`A token that is for some endpoints only cannot be used to ${what}.`);
  }
  if (scope !== undefined) requireScope(principal, scope, `to ${what}`);
}

/** A statement can read and write every file that duckserve can, so it takes an administrator. */
export function requireSql(principal: Principal): void {
  requireAdmin(principal, 'run SQL over HTTP (it can read local files)', 'sql');
}

/** Throws PERMISSION_DENIED unless the token may be used for it. */
export function requireScope(principal: Principal, scope: TokenScope, purpose: string): void {
  if (principal.scopes === undefined || principal.scopes.includes(scope)) return;
  throw denied(
    `The token of '${principal.name}' is for ${principal.scopes.join(', ') || 'nothing'}, and ${purpose} takes a token with scope ${scope}.`,
  );
}

function higher(
  left: PermissionLevel | undefined,
  right: PermissionLevel | undefined,
): PermissionLevel | undefined {
  if (left === undefined || right === undefined) return left ?? right;
  return RANK[left] >= RANK[right] ? left : right;
}

function denied(message: string): ServingError {
  return new ServingError('PERMISSION_DENIED', message);
}
