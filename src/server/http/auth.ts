// Who comes through the door: the credential of a request as a principal or, as long as nobody was given a token,
// programs of this machine as its owner. Not here: what a principal may do (governance).
import type { IncomingHttpHeaders } from 'node:http';
import type { MiddlewareHandler } from 'hono';
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { Identity } from '#governance/identity/identity.ts';
import type { HttpContext, HttpEnv } from './request.ts';

type Authenticator = Pick<Identity, 'isOpen' | 'authenticate'>;
type Headers = Readonly<IncomingHttpHeaders>;

const LOOPBACK_NAME = /^(localhost|[a-z0-9-]+\.localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/;
/** Probes and what a client asks before it has a token. The answers tell nothing but the version. */
const OPEN_PATHS: ReadonlySet<string> = new Set([
  '/health',
  '/ping',
  '/v2/health/live',
  '/v2/health/ready',
  '/.well-known/databricks-config',
]);
/** Who asks an open path. May do nothing. */
const ANONYMOUS: Principal = { id: 'anonymous', name: 'anonymous', kind: 'user', isAdmin: false, scopes: [] };

export function isLoopbackHost(host: string): boolean {
  return LOOPBACK_NAME.test(host.toLowerCase());
}

export function isOpenPath(path: string): boolean {
  return OPEN_PATHS.has(path);
}

/**
 * Who sends these headers (names in lower case, as Node has them): at once, or a promise for a JWT that was not
 * seen before. Throws or rejects with UNAUTHENTICATED, or with PERMISSION_DENIED where no token is needed and a
 * page of another site asks. The fast path and the routes ask the same function.
 */
export function resolveCaller(identity: Authenticator, headers: Headers): Principal | Promise<Principal> {
  if (identity.isOpen) {
    refuseOtherSites(headers);
    return LOCAL_OWNER;
  }
  const credential = readCredential(headers);
  if (credential !== undefined) return identity.authenticate(credential);
  throw new ServingError(
    'UNAUTHENTICATED',
    "The request has no credentials: send 'Authorization: Bearer <token>', the header x-api-key or api-key, or Basic with user 'token' and the token as password.",
  );
}

/** Sets the principal or throws. */
export function authenticate(deps: { readonly identity: Authenticator }): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    c.set('principal', await callerOf(c, deps.identity));
    await next();
  };
}

function callerOf(c: HttpContext, identity: Authenticator): Principal | Promise<Principal> {
  // Only the control socket sets it, which the owner alone can open.
  if (c.env?.caller !== undefined) return c.env.caller;
  const headers = c.env?.incoming?.headers ?? headersOf(c);
  if (!isOpenPath(c.req.path)) return resolveCaller(identity, headers);
  if (identity.isOpen) refuseOtherSites(headers);
  return ANONYMOUS;
}

/** Where the app is asked without a socket. */
function headersOf(c: HttpContext): Headers {
  const headers = Object.fromEntries(c.req.raw.headers);
  return { host: new URL(c.req.url).host, ...headers };
}

/** `Authorization` goes first; a scheme of something else (a proxy's) leaves the word to the other headers. */
function readCredential(headers: Headers): string | undefined {
  return readAuthorization(headers.authorization) ?? plain(headers['x-api-key']) ?? plain(headers['api-key']);
}

function readAuthorization(header: string | undefined): string | undefined {
  if (header === undefined) return undefined;
  // What nearly every request has, without a regular expression.
  if (header.startsWith('Bearer ') && !header.includes(' ', 7) && header.length > 7) return header.slice(7);
  const [scheme, credentials] = header.trim().split(/\s+/, 2);
  if (scheme === undefined || credentials === undefined) return undefined;
  if (scheme.toLowerCase() === 'bearer') return credentials;
  if (scheme.toLowerCase() !== 'basic') return undefined;
  const decoded = Buffer.from(credentials, 'base64').toString('utf8');
  return decoded.startsWith('token:') ? decoded.slice('token:'.length) : undefined;
}

function plain(header: string | string[] | undefined): string | undefined {
  const text = typeof header === 'string' ? header.trim() : '';
  return text === '' ? undefined : text;
}

/**
 * Without tokens the address is the only lock, and a web page can reach it through its visitor's browser: by a
 * name that resolves to 127.0.0.1 (the Host header tells) or by a plain cross-site POST (the Origin tells).
 */
function refuseOtherSites(headers: Headers): void {
  const host = headers.host ?? '';
  const name = host.replace(/:\d+$/, '');
  if (!isLoopbackHost(name)) {
    throw new ServingError(
      'PERMISSION_DENIED',
      `The Host header is '${name}', and a server without tokens answers only to localhost, 127.0.0.1 and [::1]. Use one of these, or create a token (duckserve tokens create).`,
    );
  }
  const { origin } = headers;
  if (origin !== undefined && origin.toLowerCase().replace(/^https?:\/\//, '') !== host.toLowerCase()) {
    throw new ServingError(
      'PERMISSION_DENIED',
      `The request comes from a page of '${origin}', and a server without tokens takes none from other sites. Create a token (duckserve tokens create).`,
    );
  }
  if (headers['sec-fetch-site'] === 'cross-site' && headers['sec-fetch-mode'] !== 'navigate') {
    throw new ServingError(
      'PERMISSION_DENIED',
      'The browser marks the request as cross-site, and a server without tokens takes none from other sites. Create a token (duckserve tokens create).',
    );
  }
}
