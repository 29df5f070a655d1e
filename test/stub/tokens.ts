// Identity providers of the stub: Microsoft Entra's client credentials and Google's signed assertions, checked.
import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import type { JsonObject } from '#core/json.ts';

export const ENTRA = { tenantId: 'tenant-1', clientId: 'client-1', clientSecret: 'entra-secret-0123456789' };
const ENTRA_PATH = `/${ENTRA.tenantId}/oauth2/v2.0/token`;
const GOOGLE_PATH = '/google/token';

export interface TokenAnswer {
  readonly status: number;
  readonly body: JsonObject;
}

export class TokenDesk {
  #count = 0;
  readonly #good = new Set<string>();
  /** Of tokens given out from now on. */
  lifeSeconds = 3_600;
  /** Verifies assertions for `/google/token`; issuer and audience are checked too. */
  google: { readonly publicKey: string; readonly email: string; readonly audience: string } | undefined;

  get issued(): number {
    return this.#count;
  }

  isTokenPath(path: string): boolean {
    return path === ENTRA_PATH || path === GOOGLE_PATH;
  }

  isGood(authorization: string | undefined): boolean {
    return this.#good.has((authorization ?? '').replace(/^Bearer /, ''));
  }

  revokeAll(): void {
    this.#good.clear();
  }

  answer(path: string, contentType: string | undefined, text: string): TokenAnswer {
    const form = new URLSearchParams(text);
    if (contentType !== 'application/x-www-form-urlencoded') return refuse(400, 'invalid_request', 'no form');
    const problem = path === ENTRA_PATH ? checkEntra(form) : this.#checkGoogle(form);
    if (problem) return problem;
    const token = `stub-access-token-${++this.#count}`;
    this.#good.add(token);
    return {
      status: 200,
      body: { access_token: token, token_type: 'Bearer', expires_in: this.lifeSeconds },
    };
  }

  #checkGoogle(form: URLSearchParams): TokenAnswer | undefined {
    if (form.get('grant_type') !== 'urn:ietf:params:oauth:grant-type:jwt-bearer') {
      return refuse(400, 'unsupported_grant_type', String(form.get('grant_type')));
    }
    const [header = '', claims = '', signature = ''] = (form.get('assertion') ?? '').split('.');
    if (this.google === undefined) return refuse(400, 'invalid_grant', 'no account is known');
    const key: KeyObject = createPublicKey(this.google.publicKey);
    const isSigned = verify(
      'RSA-SHA256',
      Buffer.from(`${header}.${claims}`),
      key,
      Buffer.from(signature, 'base64url'),
    );
    if (!isSigned) return refuse(400, 'invalid_grant', 'Invalid JWT Signature.');
    const said = JSON.parse(Buffer.from(claims, 'base64url').toString());
    const { alg, typ } = JSON.parse(Buffer.from(header, 'base64url').toString());
    const isRight =
      alg === 'RS256' &&
      typ === 'JWT' &&
      said.iss === this.google.email &&
      said.aud === this.google.audience &&
      said.scope === 'https://www.googleapis.com/auth/cloud-platform' &&
      said.exp - said.iat <= 3_600 &&
      Math.abs(said.iat - Date.now() / 1000) < 60;
    return isRight ? undefined : refuse(400, 'invalid_grant', 'Invalid JWT: check its claims.');
  }
}

function checkEntra(form: URLSearchParams): TokenAnswer | undefined {
  const isRight =
    form.get('grant_type') === 'client_credentials' &&
    form.get('scope') === 'https://cognitiveservices.azure.com/.default' &&
    form.get('client_id') === ENTRA.clientId;
  if (!isRight) return refuse(400, 'invalid_request', 'AADSTS900144: the request is not understood.');
  const secret = form.get('client_secret');
  if (secret === ENTRA.clientSecret) return undefined;
  // Real ones do not quote the secret; that they might is what the redaction is for.
  return refuse(401, 'invalid_client', `AADSTS7000215: Invalid client secret provided: ${secret}.`);
}

function refuse(status: number, error: string, description: string): TokenAnswer {
  return { status, body: { error, error_description: description, error_codes: [7000215] } };
}
