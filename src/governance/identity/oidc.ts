// JSON Web Tokens of an OpenID Connect issuer: which issuer is trusted, with which keys a signature is checked,
// and what the claims say of the caller. Not here: remembering what was checked (identity).
import { readFileSync } from 'node:fs';
import type { JSONWebKeySet, JWTPayload, JWTVerifyGetKey } from 'jose';
import type { Principal } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import { isJsonObject } from '#core/json.ts';
import { checkPrincipalName } from './records.ts';

type Env = Readonly<Record<string, string | undefined>>;
type Jose = typeof import('jose');

export interface OidcSettings {
  readonly issuer: string;
  readonly audiences: readonly string[];
  /** Where the keys are: an address, or the set itself, read from a file. Absent: where the issuer says. */
  readonly keys?: URL | JSONWebKeySet;
  /** The first claim that is there names the caller. */
  readonly nameClaims: readonly string[];
  readonly groupsClaim: string;
  readonly adminGroup?: string;
}

export interface VerifiedToken {
  readonly principal: Principal;
  /** Epoch milliseconds. */
  readonly expiresAtMs: number;
}

/** Signatures by a key that only the issuer has. HMAC would let whoever knows the public key sign. */
const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'];
const NAME_CLAIMS = ['email', 'preferred_username', 'sub'];
/** Clocks of two machines are never quite the same. */
const CLOCK_TOLERANCE_SECONDS = 30;
const FETCH_TIMEOUT_MS = 5_000;
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/** From the environment; undefined where no issuer is named. Throws INVALID_PARAMETER. */
export function readOidcSettings(env: Env): OidcSettings | undefined {
  const issuer = env.DUCKSERVE_OIDC_ISSUER?.trim();
  if (!issuer) return undefined;
  checkAddress('DUCKSERVE_OIDC_ISSUER', issuer);
  const audiences = (env.DUCKSERVE_OIDC_AUDIENCE ?? '')
    .split(',')
    .map((audience) => audience.trim())
    .filter((audience) => audience !== '');
  if (audiences.length === 0) {
    throw new ServingError(
      'INVALID_PARAMETER',
      'DUCKSERVE_OIDC_ISSUER is set and DUCKSERVE_OIDC_AUDIENCE is not: without it every token of that issuer, made for whatever program, would be accepted here. Set it to the audience of the tokens.',
    );
  }
  const keys = env.DUCKSERVE_OIDC_JWKS?.trim();
  const nameClaim = env.DUCKSERVE_OIDC_NAME_CLAIM?.trim();
  const adminGroup = env.DUCKSERVE_OIDC_ADMIN_GROUP?.trim();
  return {
    issuer,
    audiences,
    ...(keys ? { keys: readKeys(keys) } : {}),
    nameClaims: nameClaim ? [nameClaim] : NAME_CLAIMS,
    groupsClaim: env.DUCKSERVE_OIDC_GROUPS_CLAIM?.trim() || 'groups',
    ...(adminGroup ? { adminGroup } : {}),
  };
}

export class OidcVerifier {
  readonly #settings: OidcSettings;
  readonly #clock: Clock;
  #key: Promise<JWTVerifyGetKey> | undefined;

  constructor(settings: OidcSettings, clock: Clock) {
    this.#settings = settings;
    this.#clock = clock;
  }

  /** Throws UNAUTHENTICATED with the reason, UPSTREAM_ERROR where the keys of the issuer cannot be had. */
  async verify(text: string): Promise<VerifiedToken> {
    const jose = await import('jose');
    const { issuer, audiences } = this.#settings;
    this.#key ??= this.#findKeys(jose).catch((error: unknown) => {
      // The next token may find the issuer at home.
      this.#key = undefined;
      throw error;
    });
    const key = await this.#key;
    try {
      const { payload } = await jose.jwtVerify(text, key, {
        algorithms: ALGORITHMS,
        issuer,
        audience: [...audiences],
        clockTolerance: CLOCK_TOLERANCE_SECONDS,
        currentDate: new Date(this.#clock.now()),
        requiredClaims: ['exp'],
      });
      return { principal: this.#toPrincipal(payload), expiresAtMs: (payload.exp ?? 0) * 1_000 };
    } catch (error) {
      throw this.#explain(jose, error);
    }
  }

  async #findKeys(jose: Jose): Promise<JWTVerifyGetKey> {
    const { keys } = this.#settings;
    if (keys !== undefined && !(keys instanceof URL)) return jose.createLocalJWKSet(keys);
    const url = keys ?? (await this.#discover());
    return jose.createRemoteJWKSet(url, { timeoutDuration: FETCH_TIMEOUT_MS });
  }

  /** OpenID Connect Discovery 1.0, section 4: the document must be about the very issuer that was asked. */
  async #discover(): Promise<URL> {
    const { issuer } = this.#settings;
    const address = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
    const document: unknown = await fetch(address, {
      redirect: 'error',
      signal: AbortSignal.timeout(FETCH_TIMEOUT_MS),
    })
      .then((response) => {
        if (response.ok) return response.json();
        throw new Error(`it answers ${response.status}`);
      })
      .catch((error: unknown) => {
        throw unreachable(address, error);
      });
    const found = isJsonObject(document) ? document : {};
    if (found.issuer !== issuer || typeof found.jwks_uri !== 'string') {
      throw unreachable(address, new Error('it is not the configuration of this issuer'));
    }
    checkAddress('The jwks_uri of the issuer', found.jwks_uri);
    return new URL(found.jwks_uri);
  }

  #toPrincipal(payload: JWTPayload): Principal {
    const { issuer, nameClaims, groupsClaim, adminGroup } = this.#settings;
    const name = nameClaims.map((claim) => readName(payload, claim)).find((found) => found !== undefined);
    if (name === undefined) {
      throw new ServingError(
        'UNAUTHENTICATED',
        `The JWT does not say who the caller is: it has none of the claims ${nameClaims.join(', ')}.`,
      );
    }
    const groups = readGroups(payload[groupsClaim]);
    return {
      id: `${issuer}#${payload.sub ?? name}`,
      name: checkPrincipalName(name),
      kind: isOfProgram(payload) ? 'service_principal' : 'user',
      isAdmin: adminGroup !== undefined && groups.includes(adminGroup),
      groups,
    };
  }

  #explain(jose: Jose, error: unknown): ServingError {
    if (error instanceof ServingError) {
      return error.code === 'INVALID_PARAMETER'
        ? refused(`its name cannot be used: ${error.message}`)
        : error;
    }
    const { issuer, audiences } = this.#settings;
    const { errors } = jose;
    if (error instanceof errors.JWTExpired) {
      return refused(`it expired on ${new Date(Number(error.payload.exp) * 1_000).toISOString()}`);
    }
    if (error instanceof errors.JWTClaimValidationFailed) {
      if (error.claim === 'iss') return refused(`its issuer (iss) is not ${issuer}`);
      if (error.claim === 'aud') return refused(`its audience (aud) is not ${audiences.join(' or ')}`);
      if (error.claim === 'nbf') return refused('it is not valid yet (nbf)');
      return refused(`its claim ${error.claim} is ${error.reason === 'missing' ? 'missing' : 'not valid'}`);
    }
    if (error instanceof errors.JOSEAlgNotAllowed || error instanceof errors.JOSENotSupported) {
      return refused(`its algorithm is not one of ${ALGORITHMS.join(', ')}`);
    }
    if (error instanceof errors.JWSSignatureVerificationFailed) return refused('its signature is wrong');
    if (error instanceof errors.JWKSNoMatchingKey)
      return refused('the issuer has no key like the one it names');
    if (error instanceof errors.JWKSMultipleMatchingKeys) {
      return refused('it does not say which of the keys of the issuer has signed it (kid)');
    }
    if (error instanceof errors.JWSInvalid || error instanceof errors.JWTInvalid) {
      return refused('it is not well-formed');
    }
    return unreachable(`the keys of ${issuer}`, error);
  }
}

/** What is not the caller's own address must not name them. */
function readName(payload: JWTPayload, claim: string): string | undefined {
  const value = payload[claim];
  if (typeof value !== 'string' || value === '') return undefined;
  return claim === 'email' && payload.email_verified === false ? undefined : value;
}

function readGroups(claim: unknown): readonly string[] {
  const list: readonly unknown[] = Array.isArray(claim) ? claim : [claim];
  return list.filter((group): group is string => typeof group === 'string' && group !== '');
}

/** Client credentials, as Entra, Auth0 and plain OAuth servers mark them. */
function isOfProgram(payload: JWTPayload): boolean {
  if (payload.idtyp === 'app' || payload.gty === 'client-credentials') return true;
  return payload.sub !== undefined && (payload.sub === payload.client_id || payload.sub === payload.azp);
}

function readKeys(place: string): URL | JSONWebKeySet {
  if (/^https?:/i.test(place)) return checkAddress('DUCKSERVE_OIDC_JWKS', place);
  try {
    const keys = JSON.parse(readFileSync(place, 'utf8')) as JSONWebKeySet;
    if (Array.isArray(keys.keys)) return keys;
  } catch (error) {
    throw badKeys(place, error);
  }
  throw badKeys(place);
}

function badKeys(place: string, cause?: unknown): ServingError {
  const reason = cause === undefined ? "it has no list 'keys'" : toServingError(cause).message.split('\n')[0];
  return new ServingError(
    'INVALID_PARAMETER',
    `DUCKSERVE_OIDC_JWKS is ${JSON.stringify(place)}; it must be an https address or a file with a JSON Web Key Set: ${reason}.`,
    { cause },
  );
}

/** Keys that come without TLS can be anybody's. On the machine itself nobody stands between. */
function checkAddress(what: string, text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === 'https:' || (url?.protocol === 'http:' && LOOPBACK.test(url.hostname))) return url;
  throw new ServingError(
    'INVALID_PARAMETER',
    `${what} is ${JSON.stringify(text)}; it must be an https address (http only on loopback).`,
  );
}

function refused(reason: string): ServingError {
  return new ServingError('UNAUTHENTICATED', `The JWT is refused: ${reason}.`);
}

function unreachable(what: string, error: unknown): ServingError {
  return new ServingError(
    'UPSTREAM_ERROR',
    `The caller cannot be known: ${what} cannot be read (${toServingError(error).message}).`,
    { cause: error },
  );
}
