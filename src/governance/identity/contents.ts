// Principals, groups, tokens and access lists in memory, for looking up. Changed only by the changes that the
// store has written (or, in a process without one, by those of the process that has); checks nothing.
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import type { Json } from '#core/json.ts';
import type { RegistryChange } from '#storage/registry-store.ts';
import type { AccessList, PermissionLevel } from '../access.ts';
import type { GroupRecord, PermissionEntry, PrincipalRecord, TokenRecord } from './records.ts';
import { toLookUpKey } from './token-text.ts';

/** The owner of the data directory is there without being kept. */
const OWNER: PrincipalRecord = {
  id: LOCAL_OWNER.id,
  name: LOCAL_OWNER.name,
  kind: 'user',
  isAdmin: true,
  groups: [],
  createdAtMs: 0,
};

export interface TokenEntry {
  readonly record: TokenRecord;
  /** Epoch milliseconds from which on it opens nothing. Beside the principal, as every request reads both. */
  readonly endsAtMs: number;
  /** Made when first asked after a change; the same object until the next one. */
  principal: Principal | undefined;
}

export interface KeptList extends AccessList {
  readonly entries: readonly PermissionEntry[];
}

export class Contents {
  readonly principals = new Map<string, PrincipalRecord>([[OWNER.name, OWNER]]);
  readonly groups = new Map<string, GroupRecord>();
  /** By the id of the endpoint. */
  readonly lists = new Map<string, KeptList>();
  /** By `lookUpKey`. */
  readonly #tokensByKey = new Map<string, TokenEntry>();
  readonly #tokensById = new Map<string, TokenEntry>();

  get tokenCount(): number {
    return this.#tokensById.size;
  }

  tokenByKey(key: string): TokenEntry | undefined {
    return this.#tokensByKey.get(key);
  }

  tokenById(id: string): TokenRecord | undefined {
    return this.#tokensById.get(id)?.record;
  }

  tokens(): readonly TokenRecord[] {
    return Array.from(this.#tokensById.values(), ({ record }) => record);
  }

  /** Undefined where the principal is gone: its tokens are worth nothing then. */
  principalOf(entry: TokenEntry): Principal | undefined {
    if (entry.principal !== undefined) return entry.principal;
    const { principal: name, scopes, endpoints } = entry.record;
    const record = this.principals.get(name);
    if (record === undefined) return undefined;
    entry.principal = {
      ...toPrincipal(record),
      ...(scopes === undefined ? {} : { scopes }),
      ...(endpoints === undefined ? {} : { endpoints }),
    };
    return entry.principal;
  }

  /** Kinds of others are passed over. Documents are what this program wrote, so their shape is known. */
  apply(changes: readonly RegistryChange[]): void {
    for (const change of changes) {
      const { kind, key } = change;
      const document = change.type === 'put' ? change.document : undefined;
      if (kind === 'token') this.#setToken(key, document as unknown as TokenRecord | undefined);
      else if (kind === 'principal')
        this.#setPrincipal(key, document as unknown as PrincipalRecord | undefined);
      else if (kind === 'group') set(this.groups, key, document as unknown as GroupRecord | undefined);
      else if (kind === 'acl') set(this.lists, key, document === undefined ? undefined : toList(document));
    }
  }

  #setToken(id: string, record: TokenRecord | undefined): void {
    const old = this.#tokensById.get(id);
    if (old !== undefined) this.#tokensByKey.delete(toLookUpKey(old.record.hash));
    if (record === undefined) return void this.#tokensById.delete(id);
    const endsAtMs =
      record.revokedAtMs === null
        ? (record.expiresAtMs ?? Number.POSITIVE_INFINITY)
        : Number.NEGATIVE_INFINITY;
    const entry: TokenEntry = { endsAtMs, principal: undefined, record };
    this.#tokensById.set(id, entry);
    this.#tokensByKey.set(toLookUpKey(record.hash), entry);
  }

  #setPrincipal(name: string, record: PrincipalRecord | undefined): void {
    set(this.principals, name, record ?? (name === OWNER.name ? OWNER : undefined));
    for (const entry of this.#tokensById.values()) {
      if (entry.record.principal === name) entry.principal = undefined;
    }
  }
}

export function toPrincipal({ id, name, kind, isAdmin, groups }: PrincipalRecord): Principal {
  return { id, name, kind, isAdmin, groups };
}

function toList(document: Json): KeptList {
  const { entries } = document as unknown as { readonly entries: readonly PermissionEntry[] };
  const of = (kind: PermissionEntry['kind']): ReadonlyMap<string, PermissionLevel> =>
    new Map(entries.filter((entry) => entry.kind === kind).map(({ name, level }) => [name, level]));
  return {
    entries,
    users: of('user'),
    groups: of('group'),
    servicePrincipals: of('service_principal'),
  };
}

function set<Value>(map: Map<string, Value>, key: string, value: Value | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}
