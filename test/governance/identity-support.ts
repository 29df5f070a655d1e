// An identity over a store in memory, with a clock of the test's own, and an issuer of JWTs on loopback.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose';
import type { Clock } from '#core/clock.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { type Identity, openIdentity } from '#governance/identity/identity.ts';
import type { RegistryChange, RegistryStore, StoredDocument } from '#storage/registry-store.ts';

export const NOW_MS = Date.UTC(2026, 0, 1);

export class MemoryStore implements RegistryStore {
  readonly documents = new Map<string, StoredDocument>();
  /** Set to make the next write fail. */
  failure: Error | undefined;

  async loadAll(): Promise<readonly StoredDocument[]> {
    return [...this.documents.values()];
  }
  put(kind: string, key: string, document: StoredDocument['document']): Promise<void> {
    return this.transact([{ type: 'put', kind, key, document }]);
  }
  delete(kind: string, key: string): Promise<void> {
    return this.transact([{ type: 'delete', kind, key }]);
  }
  async transact(changes: readonly RegistryChange[]): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    for (const change of changes) {
      const name = `${change.kind} ${change.key}`;
      if (change.type === 'delete') this.documents.delete(name);
      else
        this.documents.set(name, { ...change, document: structuredClone(change.document), updatedAtMs: 0 });
    }
  }
}

export interface Setting {
  readonly identity: Identity;
  readonly store: MemoryStore;
  readonly clock: Clock & { nowMs: number };
}

export async function openTestIdentity(
  env: Readonly<Record<string, string>> = {},
  store = new MemoryStore(),
): Promise<Setting> {
  const clock = { nowMs: NOW_MS, now: () => clock.nowMs, random: () => 0, sleep: async () => {} };
  return { identity: await openIdentity({ store, clock, env }), store, clock };
}

export function endpointOf(name: string, more: Partial<Endpoint> = {}): Endpoint {
  return {
    id: `id-of-${name}`,
    name,
    task: 'llm/v1/chat',
    servedEntities: [],
    routes: [],
    configVersion: 1,
    description: '',
    tags: [],
    creator: 'bob',
    createdAtMs: 0,
    updatedAtMs: 0,
    isEmbedded: false,
    ...more,
  };
}

export interface Issuer {
  readonly url: string;
  readonly keys: object;
  sign(
    claims: JWTPayload,
    options?: { readonly expires?: number | null; readonly audience?: string },
  ): Promise<string>;
  /** Requests it has answered, by path. */
  readonly asked: string[];
  close(): Promise<void>;
}

/** Signs with ES256. `expires`: seconds since 1970; null: never. */
export async function startIssuer(): Promise<Issuer> {
  const { privateKey, publicKey } = await generateKeyPair('ES256');
  const keys = { keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256', use: 'sig' }] };
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    const body =
      request.url === '/.well-known/openid-configuration' ? { issuer: url, jwks_uri: `${url}/jwks` } : keys;
    response.setHeader('content-type', 'application/json').end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url,
    keys,
    asked,
    sign: (claims, { expires = NOW_MS / 1_000 + 600, audience = 'duckserve' } = {}) =>
      new SignJWT({ iss: url, aud: audience, ...(expires === null ? {} : { exp: expires }), ...claims })
        .setProtectedHeader({ alg: 'ES256', kid: 'k1' })
        .sign(privateKey),
    close: () => new Promise((resolve) => void server.close(() => resolve())),
  };
}
