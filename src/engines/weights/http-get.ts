// One GET of a file that may be large: redirects are followed by hand, so that a token stays with the host it is for.
// Retries, ranges and files are in download.ts.
import type { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import { ServingError } from '#core/errors.ts';

const MAX_REDIRECTS = 5;
const HEADERS_TIMEOUT_MS = 30_000;
/** Silence in the middle of a file, not the time for the whole of it. */
const SILENCE_TIMEOUT_MS = 60_000;

interface GetRequest {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Sent to the origin of `url` only. */
  readonly bearer?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Readable;
  /** What the first host said of the file; a hub names its hash there, before it points to where the bytes are. */
  readonly firstHeaders: Headers;
}
type Headers = Readonly<Record<string, string | undefined>>;

/** A client whose connections are closed by `close`. Proxies of the environment are used. */
export async function openClient(env: NodeJS.ProcessEnv): Promise<Dispatcher> {
  const { Agent, EnvHttpProxyAgent } = await import('undici');
  const options = { headersTimeout: HEADERS_TIMEOUT_MS, bodyTimeout: SILENCE_TIMEOUT_MS, allowH2: false };
  const httpProxy = env.http_proxy ?? env.HTTP_PROXY;
  const httpsProxy = env.https_proxy ?? env.HTTPS_PROXY;
  if (!httpProxy && !httpsProxy) return new Agent(options);
  return new EnvHttpProxyAgent({
    ...options,
    ...(httpProxy ? { httpProxy } : {}),
    ...(httpsProxy ? { httpsProxy } : {}),
    noProxy: env.no_proxy ?? env.NO_PROXY ?? '',
  });
}

/** The last answer of a chain of redirects, its body unread. Throws MODEL_NOT_AVAILABLE for a chain that is not followed. */
export async function getFile(client: Dispatcher, request: GetRequest): Promise<Reply> {
  const { request: send } = await import('undici');
  let { url } = request;
  let firstHeaders: Headers | undefined;
  for (let hops = 0; ; hops++) {
    const isHome = url.origin === request.url.origin;
    const { statusCode, headers, body } = await send(url, {
      dispatcher: client,
      headers: {
        ...request.headers,
        ...(isHome && request.bearer !== undefined ? { authorization: `Bearer ${request.bearer}` } : {}),
      },
      signal: request.signal ?? null,
    });
    const flat = flatten(headers);
    firstHeaders = mergeHome(firstHeaders, flat, isHome);
    const { location } = flat;
    if (![301, 302, 303, 307, 308].includes(statusCode) || location === undefined) {
      return { status: statusCode, headers: flat, body, firstHeaders };
    }
    // Not read to its end: a redirect may have a body of any length.
    body.on('error', () => {}).destroy();
    if (hops === MAX_REDIRECTS)
      throw refused(`${request.url.host} redirects more than ${MAX_REDIRECTS} times`);
    const next = nextUrl(location, url);
    if (next === undefined) throw refused(`${url.host} redirects to something that is no http address`);
    if (url.protocol === 'https:' && next.protocol === 'http:') {
      throw refused(
        `${url.host} redirects from https to http (${next.host}), where the file could be changed`,
      );
    }
    url = next;
  }
}

function nextUrl(location: string, base: URL): URL | undefined {
  if (!URL.canParse(location, base.href)) return undefined;
  const url = new URL(location, base.href);
  return url.protocol === 'http:' || url.protocol === 'https:' ? url : undefined;
}

/** Headers of all answers of the first host: it may redirect to itself before it points elsewhere. */
function mergeHome(before: Headers | undefined, headers: Headers, isHome: boolean): Headers {
  if (!isHome) return before ?? {};
  return { ...before, ...headers };
}

function flatten(headers: Record<string, string | string[] | undefined>): Headers {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [
      name.toLowerCase(),
      Array.isArray(value) ? value[0] : value,
    ]),
  );
}

function refused(reason: string): ServingError {
  return new ServingError('MODEL_NOT_AVAILABLE', `The file was not fetched: ${reason}.`);
}
