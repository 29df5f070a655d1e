// What is kept of principals, groups, tokens and access lists, and the rules for their names.
// Not here: how any of it is looked up (contents) or checked (access).
import type { Principal, TokenScope } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { RegistryChange } from '#storage/registry-store.ts';
import { ADMINISTRATORS, EVERYBODY, type PermissionLevel } from '../access.ts';

export interface PrincipalRecord {
  readonly id: string;
  readonly name: string;
  readonly kind: Principal['kind'];
  readonly isAdmin: boolean;
  readonly groups: readonly string[];
  /** Epoch milliseconds. */
  readonly createdAtMs: number;
}

export interface GroupRecord {
  readonly id: string;
  readonly name: string;
  readonly createdAtMs: number;
}

/** All there is to know of a token but its text, of which only the SHA-256 is kept. */
export interface TokenRecord {
  readonly id: string;
  /** SHA-256 of the text, hex. */
  readonly hash: string;
  /** Name of the principal. */
  readonly principal: string;
  /** Absent: for everything the principal may do. */
  readonly scopes?: readonly TokenScope[];
  /** Absent: for all endpoints. */
  readonly endpoints?: readonly string[];
  readonly comment: string;
  /** The first characters of the text, to tell tokens apart: `dsk_ab`. */
  readonly prefix: string;
  readonly createdBy: string;
  readonly createdAtMs: number;
  readonly expiresAtMs: number | null;
  readonly revokedAtMs: number | null;
}

export type PermissionHolder = 'user' | 'group' | 'service_principal';
export interface PermissionEntry {
  readonly kind: PermissionHolder;
  readonly name: string;
  readonly level: PermissionLevel;
}

export type RecordKind = 'token' | 'principal' | 'group' | 'acl';
export const RECORD_KINDS: readonly string[] = ['token', 'principal', 'group', 'acl'];

export function putRecord(kind: RecordKind, key: string, record: object): RegistryChange {
  return { type: 'put', kind, key, document: record as unknown as Json };
}

const LONGEST_NAME = 200;
/** Names that the program itself goes by. */
const RESERVED_PRINCIPALS: readonly string[] = ['duckserve', 'anonymous'];

/** A name as it is kept; throws INVALID_PARAMETER. `what`: principal, group, endpoint. */
export function checkName(what: string, given: unknown): string {
  const name = typeof given === 'string' ? given.normalize('NFC') : '';
  const isPlain = name === name.trim() && !/\p{C}/u.test(name);
  if (name !== '' && name.length <= LONGEST_NAME && isPlain) return name;
  throw new ServingError(
    'INVALID_PARAMETER',
    `The name of a ${what} is ${shown(given)}; it must have 1 to ${LONGEST_NAME} characters, none of them invisible, and no blanks around it.`,
  );
}

export function checkPrincipalName(given: unknown): string {
  const name = checkName('principal', given);
  if (!RESERVED_PRINCIPALS.includes(name)) return name;
  throw new ServingError(
    'INVALID_PARAMETER',
    `'${name}' is a name that duckserve itself uses: choose another name for the principal.`,
  );
}

/** Of a group that somebody can be put into. */
export function checkGroupName(given: unknown): string {
  const name = checkName('group', given);
  if (name === ADMINISTRATORS) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `'${ADMINISTRATORS}' is the group of the administrators: make the principal one (--admin) instead of a member.`,
    );
  }
  if (name === EVERYBODY) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `Everybody is in the group '${EVERYBODY}': choose another name for a group with some members.`,
    );
  }
  return name;
}

export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'missing';
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
