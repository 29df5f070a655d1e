// Who asks and what they may do, answered from memory. Every change goes to the store first, then to memory, then
// to the listeners. The rules are in access.ts, the forms of records in records.ts, JWTs in oidc.ts.
import { randomUUID } from 'node:crypto';
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { type Log, SILENT_LOG } from '#core/log.ts';
import type { Action, Authorize } from '#core/policies.ts';
import type { RegistryChange, RegistryStore } from '#storage/registry-store.ts';
import { authorize, levelOf, type PermissionLevel } from '../access.ts';
import { Contents } from './contents.ts';
import { readOidcSettings } from './oidc.ts';
import { entriesOf, mergeEntries, parseEntries } from './permissions.ts';
import {
  type GroupRecord,
  type PermissionEntry,
  type PrincipalRecord,
  putRecord,
  RECORD_KINDS,
  type TokenRecord,
} from './records.ts';
import { RememberedJwts } from './remembered-jwts.ts';
import { mayActFor, parseTokenRequest, type TokenRequest } from './token-request.ts';
import { createTokenText, hashToken, lookUpKey, prefixOf, toLookUpKey } from './token-text.ts';

type Env = Readonly<Record<string, string | undefined>>;

export interface IdentityOptions {
  readonly store: Pick<RegistryStore, 'transact'>;
  readonly clock: Clock;
  readonly env: Env;
  readonly log?: Log;
}

/** A token as it is listed: everything but its text and hash. */
export interface TokenInfo extends Omit<TokenRecord, 'hash'> {
  readonly kind: Principal['kind'];
  readonly isAdmin: boolean;
  readonly groups: readonly string[];
}

/** Longer than any JWT that fits into Node's limit of headers is worth hashing. */
const LONGEST_CREDENTIAL = 16_384;
const JWT = /^eyJ[\w-]*\.[\w-]*\.[\w-]*$/;

/** Loads what is kept. Throws INVALID_PARAMETER for settings that cannot be right. */
export async function openIdentity(
  options: IdentityOptions & { readonly store: RegistryStore },
): Promise<Identity> {
  const identity = new Identity(options);
  const documents = await options.store.loadAll();
  identity.apply(
    documents
      .filter(({ kind }) => RECORD_KINDS.includes(kind))
      .map(({ kind, key, document }) => ({ type: 'put', kind, key, document })),
  );
  return identity;
}

export class Identity {
  readonly #contents = new Contents();
  readonly #store: IdentityOptions['store'];
  readonly #clock: Clock;
  readonly #log: Log;
  /** Hashes of DUCKSERVE_TOKENS: whoever has one is the owner of the data directory. */
  readonly #ownerKeys: ReadonlySet<string>;
  readonly #jwts: RememberedJwts | undefined;
  readonly #listeners = new Set<(changes: readonly RegistryChange[]) => void>();
  #tail: Promise<unknown> = Promise.resolve();

  constructor({ store, clock, env, log = SILENT_LOG }: IdentityOptions) {
    this.#store = store;
    this.#clock = clock;
    this.#log = log;
    this.#ownerKeys = readOwnerKeys(env);
    const oidc = readOidcSettings(env);
    this.#jwts = oidc && new RememberedJwts(oidc, clock, this.#contents.principals);
  }

  /** Nobody has ever been given a token, and no issuer is trusted: programs of this machine are the owner. */
  get isOpen(): boolean {
    return this.#contents.tokenCount === 0 && this.#ownerKeys.size === 0 && this.#jwts === undefined;
  }

  /**
   * Who has this credential: at once for our tokens, a promise for a JWT that was not seen before.
   * Throws (or rejects with) UNAUTHENTICATED that says why; never with the credential in it.
   */
  authenticate(credential: string): Principal | Promise<Principal> {
    if (credential.length > LONGEST_CREDENTIAL) {
      throw unauthenticated(
        `The token has ${credential.length} characters, and none has more than ${LONGEST_CREDENTIAL}.`,
      );
    }
    const key = lookUpKey(credential);
    const entry = this.#contents.tokenByKey(key);
    if (entry === undefined) return this.#authenticateOther(credential, key);
    if (this.#clock.now() >= entry.endsAtMs) {
      const end = entry.record.revokedAtMs === null ? `expired on ${isoTime(entry.endsAtMs)}` : 'was revoked';
      throw unauthenticated(`The token ${end}: create a new one.`);
    }
    const principal = this.#contents.principalOf(entry);
    if (principal === undefined) throw unauthenticated('The principal of the token does not exist any more.');
    return principal;
  }

  /** Throws PERMISSION_DENIED. */
  readonly authorize: Authorize = (principal: Principal, endpoint: Endpoint, action: Action) =>
    authorize(principal, endpoint, action, this.#contents.lists.get(endpoint.id));

  /** Undefined: none. What GET of an endpoint says as `permission_level`. */
  levelOf(principal: Principal, endpoint: Endpoint): PermissionLevel | undefined {
    return levelOf(principal, endpoint, this.#contents.lists.get(endpoint.id));
  }

  /** Those of the endpoints that the principal may see, in the same order. */
  visible(principal: Principal, endpoints: readonly Endpoint[]): readonly Endpoint[] {
    return endpoints.filter((endpoint) => this.levelOf(principal, endpoint) !== undefined);
  }

  /** What was given, beside what the creator and administrators have anyhow. */
  permissionsOf(endpoint: Endpoint): readonly PermissionEntry[] {
    return this.#contents.lists.get(endpoint.id)?.entries ?? [];
  }

  /** Replaces what was given. Throws INVALID_PARAMETER, NOT_FOUND (a principal), RESOURCE_CONFLICT (built in). */
  setPermissions(endpoint: Endpoint, entries: readonly PermissionEntry[]): Promise<void> {
    return this.#inTurn(() => this.#writeList(endpoint, parseEntries(endpoint, entries, this.#known())));
  }

  /** Adds to what was given; an entry of the same principal is replaced. Same errors. */
  patchPermissions(endpoint: Endpoint, entries: readonly PermissionEntry[]): Promise<void> {
    return this.#inTurn(() => {
      const parsed = parseEntries(endpoint, entries, this.#known());
      return this.#writeList(endpoint, mergeEntries(this.permissionsOf(endpoint), parsed));
    });
  }

  /** Everything that is said of an endpoint, the creator and the administrators included. */
  describePermissions(endpoint: Endpoint): ReturnType<typeof entriesOf> {
    return entriesOf(endpoint, this.permissionsOf(endpoint), this.#contents.principals);
  }

  /** Forgets the access lists of all endpoints but these. Never throws: what is left over harms nobody. */
  async keepEndpoints(ids: Iterable<string>): Promise<void> {
    const kept = new Set(ids);
    const gone = [...this.#contents.lists.keys()].filter((id) => !kept.has(id));
    if (gone.length === 0) return;
    await this.#inTurn(() => this.#write(gone.map((key) => ({ type: 'delete', kind: 'acl', key })))).catch(
      (error: unknown) =>
        this.#log.warn({ err: error, endpoints: gone }, 'access lists of deleted endpoints remain'),
    );
  }

  /**
   * Makes a token, and its principal and groups where they do not exist. The text is given here and never again.
   * Throws INVALID_PARAMETER, PERMISSION_DENIED (`by` may not), RESOURCE_CONFLICT (the name is of another kind).
   */
  createToken(
    request: TokenRequest,
    by: Principal,
  ): Promise<{ readonly token: string; readonly info: TokenInfo }> {
    return this.#inTurn(async () => {
      const wanted = parseTokenRequest(request, by, this.#contents.principals);
      const nowMs = this.#clock.now();
      const text = createTokenText();
      const record: TokenRecord = {
        ...wanted.token,
        id: randomUUID().replaceAll('-', '').slice(0, 16),
        hash: hashToken(text),
        prefix: prefixOf(text),
        createdBy: by.name,
        createdAtMs: nowMs,
        expiresAtMs: wanted.lifetimeMs === undefined ? null : nowMs + wanted.lifetimeMs,
        revokedAtMs: null,
      };
      const changes: RegistryChange[] = [putRecord('token', record.id, record)];
      if (wanted.isPrincipalChanged) {
        const { id = randomUUID(), createdAtMs = nowMs, ...rest } = wanted.principal;
        changes.push(putRecord('principal', rest.name, { ...rest, id, createdAtMs }));
      }
      for (const name of wanted.principal.groups) {
        if (this.#contents.groups.has(name)) continue;
        changes.push(putRecord('group', name, { id: randomUUID(), name, createdAtMs: nowMs }));
      }
      await this.#write(changes);
      this.#log.info({ token: record.id, principal: record.principal, by: by.name }, 'token created');
      return { token: text, info: this.#toInfo(record) };
    });
  }

  /** From the oldest. Revoked and expired ones too. `principal`: only of this one. */
  listTokens(principal?: string): readonly TokenInfo[] {
    return this.#contents
      .tokens()
      .filter((record) => principal === undefined || record.principal === principal)
      .sort((left, right) => left.createdAtMs - right.createdAtMs || (left.id < right.id ? -1 : 1))
      .map((record) => this.#toInfo(record));
  }

  /** From now on it opens nothing. Throws NOT_FOUND, also for a token of somebody else unless `by` is an administrator. */
  revokeToken(id: string, by: Principal): Promise<TokenInfo> {
    return this.#inTurn(async () => {
      const record = this.#contents.tokenById(id);
      if (record === undefined || !mayActFor(by, record.principal)) {
        throw new ServingError(
          'NOT_FOUND',
          `There is no token '${id.slice(0, 80)}' of yours. List them for their ids.`,
        );
      }
      if (record.revokedAtMs !== null) return this.#toInfo(record);
      const revoked = { ...record, revokedAtMs: this.#clock.now() };
      await this.#write([putRecord('token', id, revoked)]);
      this.#log.info({ token: id, principal: record.principal, by: by.name }, 'token revoked');
      return this.#toInfo(revoked);
    });
  }

  /** From memory, by one look-up. */
  principalNamed(name: string): PrincipalRecord | undefined {
    return this.#contents.principals.get(name);
  }

  /** By name. */
  listPrincipals(kind?: Principal['kind']): readonly PrincipalRecord[] {
    const all = [...this.#contents.principals.values()];
    return all.filter((record) => kind === undefined || record.kind === kind).sort(byName);
  }

  /** By name. */
  listGroups(): readonly GroupRecord[] {
    return [...this.#contents.groups.values()].sort(byName);
  }

  /**
   * Heard after every change, with what has changed; gives a function that ends it. A process without the store
   * stays equal by `apply` of the same changes, beginning with `snapshot`.
   */
  onChange(listener: (changes: readonly RegistryChange[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Everything as changes that `apply` takes. Holds hashes of tokens, no tokens. */
  snapshot(): readonly RegistryChange[] {
    const { principals, groups, lists } = this.#contents;
    return [
      ...Array.from(principals, ([name, record]) => putRecord('principal', name, record)),
      ...Array.from(groups, ([name, record]) => putRecord('group', name, record)),
      ...this.#contents.tokens().map((record) => putRecord('token', record.id, record)),
      ...Array.from(lists, ([id, { entries }]) => putRecord('acl', id, { entries })),
    ];
  }

  /** Takes over changes that are in the store already. */
  apply(changes: readonly RegistryChange[]): void {
    this.#contents.apply(changes);
    // A principal of the same name may have become something else.
    this.#jwts?.forget();
    for (const listener of this.#listeners) listener(changes);
  }

  #authenticateOther(credential: string, key: string): Principal | Promise<Principal> {
    if (this.#ownerKeys.has(key)) return LOCAL_OWNER;
    if (this.#jwts !== undefined && JWT.test(credential)) return this.#jwts.authenticate(credential, key);
    throw unauthenticated('The token is not known to this server: check it or create a new one.');
  }

  #known() {
    const { principals, groups } = this.#contents;
    return { principals, groups, isOthersKnown: this.#jwts !== undefined };
  }

  async #writeList(endpoint: Endpoint, entries: readonly PermissionEntry[]): Promise<void> {
    const change: RegistryChange =
      entries.length === 0
        ? { type: 'delete', kind: 'acl', key: endpoint.id }
        : putRecord('acl', endpoint.id, { entries });
    await this.#write([change]);
    this.#log.info({ endpoint: endpoint.name, entries: entries.length }, 'permissions changed');
  }

  #toInfo({ hash: _hash, ...record }: TokenRecord): TokenInfo {
    const principal = this.#contents.principals.get(record.principal);
    return {
      ...record,
      kind: principal?.kind ?? 'user',
      isAdmin: principal?.isAdmin ?? false,
      groups: principal?.groups ?? [],
    };
  }

  /** One change after another, so that what was checked still holds when it is written. */
  #inTurn<T>(make: () => Promise<T>): Promise<T> {
    const done = this.#tail.then(make);
    this.#tail = done.catch(() => undefined);
    return done;
  }

  async #write(changes: readonly RegistryChange[]): Promise<void> {
    await this.#store.transact(changes);
    this.apply(changes);
  }
}

function readOwnerKeys(env: Env): ReadonlySet<string> {
  const hashes = (env.DUCKSERVE_TOKENS ?? '')
    .split(',')
    .map((hash) => hash.trim().toLowerCase())
    .filter((hash) => hash !== '');
  // The entry is not shown: it may be the token itself.
  const wrong = hashes.findIndex((hash) => !/^[0-9a-f]{64}$/.test(hash));
  if (wrong === -1) return new Set(hashes.map(toLookUpKey));
  throw new ServingError(
    'INVALID_PARAMETER',
    `DUCKSERVE_TOKENS: entry ${wrong + 1} is not a SHA-256 in hex (64 characters). Make it with: printf %s "$token" | sha256sum`,
  );
}

function byName(left: { readonly name: string }, right: { readonly name: string }): number {
  return left.name < right.name ? -1 : 1;
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

function unauthenticated(message: string): ServingError {
  return new ServingError('UNAUTHENTICATED', message);
}
