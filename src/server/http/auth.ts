// Who may come through the door: bearer tokens by their hash or, without tokens, only programs of this machine.
// Not here: what a principal may do (governance).
import { timingSafeEqual } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import { LOCAL_OWNER } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import type { HttpContext, HttpEnv } from './request.ts';

const LOOPBACK_NAME = /^(localhost|[a-z0-9-]+\.localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/;
/** Probes have no token, and the answer tells nothing but the version. */
const OPEN_PATHS: ReadonlySet<string> = new Set(['/health']);

export function isLoopbackHost(host: string): boolean {
  return LOOPBACK_NAME.test(host.toLowerCase());
}

/** Sets the principal or throws. With tokens every caller is the owner of the data directory. */
export function authenticate(authTokens: readonly string[] | undefined): MiddlewareHandler<HttpEnv> {
  const accepted = authTokens?.map((hex) => Buffer.from(hex.toLowerCase(), 'hex'));
  return async (c, next) => {
    if (accepted === undefined) refuseOtherSites(c);
    else if (!OPEN_PATHS.has(c.req.path)) requireToken(c, accepted);
    c.set('principal', LOCAL_OWNER);
    await next();
  };
}

function requireToken(c: HttpContext, accepted: readonly Buffer[]): void {
  const token = readToken(c.req.header('authorization'));
  if (token === undefined) {
    throw new ServingError(
      'UNAUTHENTICATED',
      "The request has no credentials: send 'Authorization: Bearer <token>', or Basic with user 'token' and the token as password.",
    );
  }
  const hash = Buffer.from(sha256Hex(token), 'hex');
  let isKnown = false;
  // Every token is compared, so that the time taken does not tell which one came close.
  for (const candidate of accepted) {
    if (candidate.length === hash.length && timingSafeEqual(candidate, hash)) isKnown = true;
  }
  if (!isKnown) {
    throw new ServingError(
      'UNAUTHENTICATED',
      'The token is not known to this server: check it or create a new one.',
    );
  }
}

function readToken(header: string | undefined): string | undefined {
  const [scheme, credentials] = header?.trim().split(/\s+/, 2) ?? [];
  if (scheme === undefined || credentials === undefined) return undefined;
  if (scheme.toLowerCase() === 'bearer') return credentials;
  if (scheme.toLowerCase() !== 'basic') return undefined;
  const decoded = Buffer.from(credentials, 'base64').toString('utf8');
  return decoded.startsWith('token:') ? decoded.slice('token:'.length) : undefined;
}

/**
 * Without tokens the address is the only lock, and a web page can reach it through its visitor's browser: by a
 * name that resolves to 127.0.0.1 (the Host header tells) or by a plain cross-site POST (the Origin tells).
 */
function refuseOtherSites(c: HttpContext): void {
  const host = c.req.header('host') ?? new URL(c.req.url).host;
  const name = host.replace(/:\d+$/, '');
  if (!isLoopbackHost(name)) {
    throw new ServingError(
      'PERMISSION_DENIED',
      `The Host header is '${name}', and a server without tokens answers only to localhost, 127.0.0.1 and [::1]. Use one of these, or start the server with a token.`,
    );
  }
  const origin = c.req.header('origin');
  if (origin !== undefined && origin.toLowerCase() !== `http://${host.toLowerCase()}`) {
    throw new ServingError(
      'PERMISSION_DENIED',
      `The request comes from a page of '${origin}', and a server without tokens takes none from other sites. Start it with a token.`,
    );
  }
  if (c.req.header('sec-fetch-site') === 'cross-site' && c.req.header('sec-fetch-mode') !== 'navigate') {
    throw new ServingError(
      'PERMISSION_DENIED',
      'The browser marks the request as cross-site, and a server without tokens takes none from other sites. Start it with a token.',
    );
  }
}
