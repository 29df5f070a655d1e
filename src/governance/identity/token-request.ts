// What somebody asks for when they want a token, checked: who may ask for it, and what its principal becomes.
// Not here: making and keeping it (identity).
import { type Principal, TOKEN_SCOPES, type TokenScope } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { toPrincipal } from './contents.ts';
import {
  checkGroupName,
  checkName,
  checkPrincipalName,
  type PrincipalRecord,
  shown,
  type TokenRecord,
} from './records.ts';
import { checkLifetime } from './token-text.ts';

export interface TokenRequest {
  /** Absent: whoever asks. Made where it does not exist. */
  readonly principal?: string | undefined;
  /** Of a principal that is made; of one that exists it must be what it is. Absent: a user. */
  readonly kind?: Principal['kind'] | undefined;
  /** The principal is put into these, beside those it is in. */
  readonly groups?: readonly string[] | undefined;
  /** Makes the principal an administrator. */
  readonly isAdmin?: boolean | undefined;
  readonly scopes?: readonly string[] | undefined;
  readonly endpoints?: readonly string[] | undefined;
  readonly comment?: string | undefined;
  /** Absent: until it is revoked. */
  readonly lifetimeMs?: number | undefined;
}

export interface ParsedRequest {
  readonly token: Pick<TokenRecord, 'principal' | 'scopes' | 'endpoints' | 'comment'>;
  readonly lifetimeMs: number | undefined;
  /** As it will be. Without id and time where it does not exist yet. */
  readonly principal: Omit<PrincipalRecord, 'id' | 'createdAtMs'> & Partial<PrincipalRecord>;
  readonly isPrincipalChanged: boolean;
}

const LONGEST_COMMENT = 256;
const MOST_NAMES = 100;

/** Tokens of oneself are one's own business, those of others that of administrators. */
export function mayActFor(by: Principal, principal: string): boolean {
  return by.isAdmin || by.name === principal;
}

export function parseTokenRequest(
  request: TokenRequest,
  by: Principal,
  principals: ReadonlyMap<string, PrincipalRecord>,
): ParsedRequest {
  refuseRestricted(by);
  const name = request.principal === undefined ? by.name : checkPrincipalName(request.principal);
  const groups = checkList('groups', request.groups ?? []).map(checkGroupName);
  if (!by.isAdmin && (name !== by.name || groups.length > 0 || request.isAdmin || request.kind)) {
    throw new ServingError(
      'PERMISSION_DENIED',
      `'${by.name}' may create tokens for themselves alone. Principals, groups and administrators are made by administrators.`,
    );
  }
  const existing = principals.get(name);
  if (!by.isAdmin && existing !== undefined && existing.id !== by.id) {
    // A JWT brings its own groups and rights; the principal that is kept may have more.
    throw new ServingError(
      'PERMISSION_DENIED',
      `'${name}' is kept here with rights that a JWT of the same name does not have: an administrator makes its tokens.`,
    );
  }
  const principal = toWantedPrincipal(name, groups, request, by, existing);
  return {
    token: {
      principal: name,
      ...(request.scopes === undefined ? {} : { scopes: checkScopes(request.scopes) }),
      ...(request.endpoints === undefined ? {} : { endpoints: checkEndpoints(request.endpoints) }),
      comment: checkComment(request.comment ?? ''),
    },
    lifetimeMs: request.lifetimeMs === undefined ? undefined : checkLifetime(request.lifetimeMs),
    ...principal,
  };
}

/** Or it could make one that is not. */
export function refuseRestricted(by: Principal): void {
  if (by.scopes === undefined && by.endpoints === undefined) return;
  throw new ServingError(
    'PERMISSION_DENIED',
    `The token of '${by.name}' is restricted to some scopes or endpoints, and such a token is not for making or seeing tokens. Use one that is not restricted.`,
  );
}

function toWantedPrincipal(
  name: string,
  groups: readonly string[],
  request: TokenRequest,
  by: Principal,
  existing: PrincipalRecord | undefined,
): Pick<ParsedRequest, 'principal' | 'isPrincipalChanged'> {
  if (existing === undefined) {
    const kind = request.kind ?? (name === by.name ? by.kind : 'user');
    // Groups of a JWT are not taken over: they end with the JWT, and a token lives longer.
    return {
      principal: { name, kind, isAdmin: request.isAdmin === true, groups: [...new Set(groups)] },
      isPrincipalChanged: true,
    };
  }
  if (request.kind !== undefined && request.kind !== existing.kind) {
    const is = existing.kind === 'user' ? 'a user' : 'a service principal';
    throw new ServingError('RESOURCE_CONFLICT', `'${name}' is ${is} already: choose another name.`);
  }
  const isAdmin = existing.isAdmin || request.isAdmin === true;
  const all = [...new Set([...existing.groups, ...groups])];
  return {
    principal: { ...toPrincipal(existing), createdAtMs: existing.createdAtMs, isAdmin, groups: all },
    isPrincipalChanged: isAdmin !== existing.isAdmin || all.length !== existing.groups.length,
  };
}

function checkScopes(scopes: readonly string[]): readonly TokenScope[] {
  const wrong = scopes.find((scope) => !TOKEN_SCOPES.some((known) => known === scope));
  if (wrong === undefined && scopes.length > 0) return [...new Set(scopes as readonly TokenScope[])];
  throw new ServingError(
    'INVALID_PARAMETER',
    `'scopes' is ${shown(scopes)}; it takes ${TOKEN_SCOPES.join(', ')}, at least one. Leave it out for all.`,
  );
}

function checkEndpoints(endpoints: readonly string[]): readonly string[] {
  if (endpoints.length > 0)
    return checkList('endpoints', endpoints).map((name) => checkName('endpoint', name));
  throw new ServingError(
    'INVALID_PARAMETER',
    "'endpoints' is empty: name at least one endpoint, or leave it out for all.",
  );
}

function checkList(what: string, names: readonly string[]): readonly string[] {
  if (names.length <= MOST_NAMES) return [...new Set(names)];
  throw new ServingError(
    'INVALID_PARAMETER',
    `'${what}' has ${names.length} names; it takes ${MOST_NAMES} at most.`,
  );
}

function checkComment(comment: string): string {
  if (comment.length <= LONGEST_COMMENT && !/\p{Cc}/u.test(comment)) return comment;
  throw new ServingError(
    'INVALID_PARAMETER',
    `'comment' must be one line of at most ${LONGEST_COMMENT} characters.`,
  );
}
