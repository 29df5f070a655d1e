// Secrets, encrypted with AES-256-GCM in documents of the registry; the key lies outside the database. Also what
// resolves `{{secrets/scope/key}}` and `{{env/NAME}}`. A value is never logged, listed or put into a message.
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import type { Clock } from '#core/clock.ts';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import type { Json } from '#core/json.ts';
import { isJsonObject } from '#core/json.ts';
import { createMasterKey, readMasterKey } from './master-key.ts';
import type { RegistryStore } from './registry-store.ts';

export interface SecretStoreOptions {
  readonly store: RegistryStore;
  /** Where `master.key` lies; null: a key that is forgotten with the process. */
  readonly dataDir: string | null;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
}

export interface SecretName {
  readonly scope: string;
  readonly key: string;
  /** Epoch milliseconds. */
  readonly updatedAtMs: number;
}

/** As kept; all but `keyId` in base64. */
interface SealedSecret {
  readonly keyId: string;
  readonly nonce: string;
  readonly ciphertext: string;
  readonly tag: string;
}
type Entry = SecretName & { readonly sealed: SealedSecret };

const KIND = 'secret';
const NAME = /^[A-Za-z0-9_.-]{1,128}$/;
const REFERENCE =
  /\{\{\s*(?:env\/([A-Za-z_][A-Za-z0-9_]*)|secrets\/([A-Za-z0-9_.-]+)\/([A-Za-z0-9_.-]+))\s*\}\}/g;

export async function openSecretStore(options: SecretStoreOptions): Promise<SecretStore> {
  const entries = new Map<string, Entry>();
  for (const { kind, key, document, updatedAtMs } of await options.store.loadAll()) {
    if (kind !== KIND) continue;
    const [scope = '', name = ''] = key.split('/');
    entries.set(key, { scope, key: name, updatedAtMs, sealed: toSealed(document) });
  }
  return new SecretStore(entries, options);
}

export class SecretStore {
  readonly #entries: Map<string, Entry>;
  readonly #options: SecretStoreOptions;
  #masterKey: Buffer | undefined;

  constructor(entries: Map<string, Entry>, options: SecretStoreOptions) {
    this.#entries = entries;
    this.#options = options;
  }

  /** Replaces a secret of the same name. */
  async setSecret(scope: string, key: string, value: string): Promise<void> {
    for (const [what, name] of [
      ['scope', scope],
      ['key', key],
    ] as const) {
      if (NAME.test(name)) continue;
      throw new ServingError(
        'INVALID_PARAMETER',
        `The ${what} of a secret is ${JSON.stringify(name)}; it must be 1 to 128 letters, digits, '.', '-' or '_'.`,
      );
    }
    if (value === '')
      throw new ServingError('INVALID_PARAMETER', `The secret ${scope}/${key} would be empty.`);
    const { dataDir, env, store, clock } = this.#options;
    this.#masterKey ??= readMasterKey(dataDir, env) ?? createMasterKey(dataDir);
    const name = `${scope}/${key}`;
    const sealed = seal(this.#masterKey, name, value);
    await store.put(KIND, name, { ...sealed });
    this.#entries.set(name, { scope, key, updatedAtMs: clock.now(), sealed });
  }

  /** Throws SECRET_NOT_FOUND. */
  async deleteSecret(scope: string, key: string): Promise<void> {
    const name = `${scope}/${key}`;
    if (!this.#entries.has(name)) throw notFound(`{{secrets/${name}}}`);
    await this.#options.store.delete(KIND, name);
    this.#entries.delete(name);
  }

  /** Names only, in order. */
  listSecrets(): readonly SecretName[] {
    return [...this.#entries.values()]
      .map(({ scope, key, updatedAtMs }) => ({ scope, key, updatedAtMs }))
      .sort((left, right) => (`${left.scope}/${left.key}` < `${right.scope}/${right.key}` ? -1 : 1));
  }

  /** The text with every reference in it replaced. Throws SECRET_NOT_FOUND, which names the reference. */
  resolve(reference: string): string {
    return reference.replaceAll(REFERENCE, (text, variable?: string, scope?: string, key?: string) => {
      if (variable === undefined) return this.#reveal(text, `${scope}/${key}`);
      const value = this.#options.env[variable];
      if (value !== undefined && value !== '') return value;
      throw new ServingError(
        'SECRET_NOT_FOUND',
        `${text} points to nothing: the environment variable ${variable} is not set where duckserve runs.`,
      );
    });
  }

  #reveal(reference: string, name: string): string {
    const entry = this.#entries.get(name);
    if (entry === undefined) throw notFound(reference);
    const { dataDir, env } = this.#options;
    this.#masterKey ??= readMasterKey(dataDir, env);
    if (this.#masterKey === undefined || idOf(this.#masterKey) !== entry.sealed.keyId) {
      throw new ServingError(
        'SECRET_NOT_FOUND',
        `${reference} was encrypted with the master key ${entry.sealed.keyId}, which is not here. ` +
          'Restore master.key or DUCKSERVE_MASTER_KEY, or set the secret again.',
      );
    }
    return open(this.#masterKey, name, entry.sealed, reference);
  }
}

function seal(masterKey: Buffer, name: string, value: string): SealedSecret {
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', masterKey, nonce);
  // Bound to its name: a ciphertext moved to another name does not open.
  cipher.setAAD(Buffer.from(name));
  const ciphertext = Buffer.concat([cipher.update(value, 'utf8'), cipher.final()]);
  return {
    keyId: idOf(masterKey),
    nonce: nonce.toString('base64'),
    ciphertext: ciphertext.toString('base64'),
    tag: cipher.getAuthTag().toString('base64'),
  };
}

function open(masterKey: Buffer, name: string, sealed: SealedSecret, reference: string): string {
  try {
    const decipher = createDecipheriv('aes-256-gcm', masterKey, Buffer.from(sealed.nonce, 'base64'), {
      authTagLength: 16,
    });
    decipher.setAAD(Buffer.from(name));
    decipher.setAuthTag(Buffer.from(sealed.tag, 'base64'));
    return Buffer.concat([
      decipher.update(Buffer.from(sealed.ciphertext, 'base64')),
      decipher.final(),
    ]).toString('utf8');
  } catch (error) {
    throw new ServingError(
      'SECRET_NOT_FOUND',
      `${reference} is damaged and cannot be decrypted. Set the secret again.`,
      {
        cause: error,
      },
    );
  }
}

/** Names a key without telling it. */
function idOf(masterKey: Buffer): string {
  return sha256Hex(Buffer.concat([Buffer.from('duckserve key id '), masterKey])).slice(0, 12);
}

function notFound(reference: string): ServingError {
  return new ServingError(
    'SECRET_NOT_FOUND',
    `${reference} points to nothing: there is no such secret. Make it with duckserve secrets set.`,
  );
}

function toSealed(document: Json): SealedSecret {
  const member = (name: string): string => {
    const value = isJsonObject(document) ? document[name] : undefined;
    return typeof value === 'string' ? value : '';
  };
  return {
    keyId: member('keyId'),
    nonce: member('nonce'),
    ciphertext: member('ciphertext'),
    tag: member('tag'),
  };
}
