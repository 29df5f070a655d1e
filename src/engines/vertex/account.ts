// Access tokens of Google Cloud for a service account: a signed assertion in, bearer token out (RFC 7523).
// Not here: keeping and renewing them (http/token.ts).
import { createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { ExternalModel } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';
import type { EngineContext } from '../engine.ts';
import { askToken, TokenSource } from '../http/token.ts';

const SCOPE = 'https://www.googleapis.com/auth/cloud-platform';
const TOKEN_URI = 'https://oauth2.googleapis.com/token';
/** The longest that Google accepts. */
const LIFE_SECONDS = 3_600;

export interface ServiceAccount {
  readonly email: string;
  readonly keyId: string | undefined;
  readonly key: KeyObject;
  readonly tokenUri: string;
}

export function openAccountTokens({ name, vertex }: ExternalModel, context: EngineContext): TokenSource {
  const reference = vertex?.privateKey;
  if (reference === undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `External model "${name}" has no service account. Give the JSON of one as private key, as a secret reference.`,
    );
  }
  return new TokenSource(async () => {
    const account = parseAccount(context.resolveSecret(reference), name);
    const assertion = toAssertion(account, Math.floor(SYSTEM_CLOCK.now() / 1000));
    const form = { grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion };
    return askToken({ provider: 'Google for', model: name, url: account.tokenUri, form, secret: assertion });
  });
}

/** Reads the JSON that Google gives out for a service account. Never shows any of it. */
export function parseAccount(text: string, model: string): ServiceAccount {
  const account = parseObject(text);
  const { client_email: email, private_key: pem, private_key_id: keyId, token_uri: tokenUri } = account;
  const key = typeof pem === 'string' ? readKey(pem) : undefined;
  if (typeof email !== 'string' || key === undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The private key of external model "${model}" is not the JSON of a service account with client_email and private_key. Give the whole key file that Google Cloud makes.`,
    );
  }
  return {
    email,
    key,
    keyId: typeof keyId === 'string' ? keyId : undefined,
    tokenUri: typeof tokenUri === 'string' ? tokenUri : TOKEN_URI,
  };
}

/** A JWT signed with RS256. */
export function toAssertion({ email, keyId, key, tokenUri }: ServiceAccount, nowSeconds: number): string {
  const header = { alg: 'RS256', typ: 'JWT', ...(keyId === undefined ? {} : { kid: keyId }) };
  const claims = {
    iss: email,
    scope: SCOPE,
    aud: tokenUri,
    iat: nowSeconds,
    exp: nowSeconds + LIFE_SECONDS,
  };
  const content = [header, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.');
  return `${content}.${sign('RSA-SHA256', Buffer.from(content), key).toString('base64url')}`;
}

function parseObject(text: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    return isJsonObject(value) ? value : {};
  } catch {
    return {};
  }
}

function readKey(pem: string): KeyObject | undefined {
  try {
    const key = createPrivateKey(pem);
    return key.asymmetricKeyType === 'rsa' ? key : undefined;
  } catch {
    return undefined;
  }
}
