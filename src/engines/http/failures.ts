// What a provider's refusal means in our words: status and body to a ServingError, without the key in it.
// Not here: retries (serving decides from the code) and failures of the connection (connection.ts).
import { type ErrorCode, ServingError } from '#core/errors.ts';
import { isJsonObject } from '#core/json.ts';

/** What must not be shown: a key, or all of several. */
export type Secret = string | readonly string[] | undefined;

/** Who refused, for the message. */
export interface Asked {
  readonly provider: string;
  readonly model: string;
  /** Removed from the text, should the provider quote it. */
  readonly secret?: Secret;
}

type Headers = Readonly<Record<string, string | string[] | undefined>>;

const MESSAGE_LENGTH = 500;
/** Codes under status 429 that no waiting mends. */
const OUT_OF_MONEY = new Set(['insufficient_quota', 'billing_hard_limit_reached', 'billing_not_active']);

/** Types of errors inside streams and bodies, where there is no status line to go by. */
const STATUS_OF_TYPE: Readonly<Record<string, number>> = {
  invalid_request_error: 400,
  not_found_error: 404,
  authentication_error: 401,
  billing_error: 402,
  permission_error: 403,
  request_too_large: 413,
  rate_limit_error: 429,
  rate_limit_exceeded: 429,
  requests: 429,
  tokens: 429,
  insufficient_quota: 429,
  api_error: 500,
  server_error: 500,
  overloaded_error: 529,
  timeout_error: 504,
  // Google, in `status`.
  INVALID_ARGUMENT: 400,
  FAILED_PRECONDITION: 400,
  UNAUTHENTICATED: 401,
  PERMISSION_DENIED: 403,
  NOT_FOUND: 404,
  RESOURCE_EXHAUSTED: 429,
  INTERNAL: 500,
  UNAVAILABLE: 503,
  DEADLINE_EXCEEDED: 504,
  // Databricks, in `error_code`.
  REQUEST_LIMIT_EXCEEDED: 429,
  TEMPORARILY_UNAVAILABLE: 503,
  INTERNAL_ERROR: 500,
  // Cohere, reasons why an answer ended.
  TIMEOUT: 504,
  ERROR_LIMIT: 429,
  // Amazon, names of exceptions with a small first letter inside streams.
  validationException: 400,
  throttlingException: 429,
  serviceUnavailableException: 503,
  internalServerException: 500,
  modelStreamErrorException: 424,
  modelTimeoutException: 408,
};

const WAY_OUT: Readonly<Partial<Record<ErrorCode, string>>> = {
  UPSTREAM_AUTH: 'Check the API key of the endpoint and what it may do.',
  RATE_LIMITED: 'Wait, or lower the concurrency of the endpoint.',
  PAYLOAD_TOO_LARGE: 'Send a shorter input.',
};

/** The error of an answer whose status is not 2xx. */
export function failureOfStatus(
  asked: Asked,
  status: number,
  headers: Headers,
  body: string,
  nowMs: number,
): ServingError {
  const json = parseJson(body);
  // Google wraps the error of a request for a stream into a list.
  const parsed: unknown = Array.isArray(json) ? json[0] : json;
  const said = readError(parsed) ?? { text: body };
  return failure(asked, status, withType(said, headers), retryAfterOf(headers, parsed, nowMs));
}

/** Amazon names the exception in a header: `ThrottlingException:http://...`. */
function withType(said: Said, headers: Headers): Said {
  const type = first(headers['x-amzn-errortype']).split(':', 1)[0];
  return type ? { ...said, type, code: said.code ?? type } : said;
}

/** A refusal of which only a name and a text are known, such as an exception inside a stream. */
export function failureOfName(asked: Asked, name: string, text: string): ServingError {
  return failure(asked, STATUS_OF_TYPE[name] ?? 500, { text, code: name }, undefined);
}

/** The error an event of a stream (or a 200 body) carries; undefined when it carries none. */
export function failureOfEvent(asked: Asked, event: unknown): ServingError | undefined {
  const said = carriesError(event) ? readError(event) : undefined;
  if (said === undefined) return undefined;
  const named = STATUS_OF_TYPE[said.code ?? ''] ?? STATUS_OF_TYPE[said.type ?? ''];
  const numeric = Number(said.code);
  const status = numeric >= 400 && numeric < 600 ? numeric : (named ?? 500);
  return failure(asked, status, said, retryAfterOf({}, event, 0));
}

function carriesError(event: unknown): boolean {
  if (!isJsonObject(event)) return false;
  const { error, error_code: code } = event;
  return isJsonObject(error) || (typeof error === 'string' && error !== '') || typeof code === 'string';
}

interface Said {
  readonly text: string;
  readonly code?: string | undefined;
  readonly type?: string | undefined;
}

function failure(asked: Asked, status: number, said: Said, retryAfterMs: number | undefined): ServingError {
  const code = codeOf(status, said);
  const text = redact(said.text.slice(0, 4 * MESSAGE_LENGTH), asked.secret)
    .trim()
    .slice(0, MESSAGE_LENGTH);
  const wayOut = WAY_OUT[code];
  const isMoving = status >= 300 && status < 400;
  return new ServingError(
    code,
    [
      `${asked.provider} model "${asked.model}" answered ${status}${text === '' ? '.' : `: ${text}`}`,
      isMoving ? 'Redirects are not followed; give the final address as base URL.' : '',
      wayOut ?? '',
    ]
      .filter((part) => part !== '')
      .join(' '),
    {
      details: {
        status,
        provider: asked.provider,
        model: asked.model,
        ...(said.code ? { code: said.code } : {}),
      },
      retryAfterMs,
    },
  );
}

function codeOf(status: number, said: Said): ErrorCode {
  if (status === 401 || status === 403) return 'UPSTREAM_AUTH';
  if (status === 408 || status === 504) return 'TIMEOUT';
  if (status === 413) return 'PAYLOAD_TOO_LARGE';
  // The model behind the provider failed, not the request.
  if (status === 424) return 'UPSTREAM_ERROR';
  if (status === 429) {
    const isOutOfMoney = OUT_OF_MONEY.has(said.code ?? '') || OUT_OF_MONEY.has(said.type ?? '');
    return isOutOfMoney ? 'UPSTREAM_REJECTED' : 'RATE_LIMITED';
  }
  return status >= 500 ? 'UPSTREAM_ERROR' : 'UPSTREAM_REJECTED';
}

/** OpenAI and Anthropic `{error: {message, type, code}}`, and the simpler shapes of compatible servers. */
function readError(body: unknown): Said | undefined {
  if (!isJsonObject(body)) return undefined;
  const { error } = body;
  if (typeof error === 'string') {
    const { error_description: more } = body;
    return { text: typeof more === 'string' ? `${error}: ${more}` : error, ...typed(body) };
  }
  if (isJsonObject(error)) {
    return {
      text: typeof error.message === 'string' ? error.message : JSON.stringify(error),
      ...typed(error),
    };
  }
  for (const text of [body.message, body.Message, body.detail, body.error_description]) {
    if (typeof text === 'string') return { text, ...typed(body) };
    if (text !== undefined && text !== null) return { text: JSON.stringify(text), ...typed(body) };
  }
  return undefined;
}

function typed(error: Readonly<Record<string, unknown>>): {
  code?: string | undefined;
  type?: string | undefined;
} {
  const code = error.code ?? error.error_code;
  return {
    code: typeof code === 'string' || typeof code === 'number' ? String(code) : undefined,
    type: typeof error.type === 'string' ? error.type : textOf(error.status),
  };
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** Takes out the key itself and whatever looks like one. */
export function redact(text: string, secret?: Secret): string {
  let known = text;
  for (const one of typeof secret === 'string' ? [secret] : (secret ?? [])) {
    if (one.length >= 4) known = known.replaceAll(one, '[redacted]');
  }
  return known
    .replace(/-----BEGIN [\w ]+-----[^-]*(?:-----END [\w ]+-----)?/g, '[redacted]')
    .replace(/\b(?:AKIA|ASIA)[0-9A-Z]{12,}|\bya29\.[\w.-]+|\beyJ[\w-]+\.[\w.-]+/g, '[redacted]')
    .replace(/\bBearer\s+[^\s"',]+/gi, 'Bearer [redacted]')
    .replace(
      /\b(?:sk|pk|rk|sess|key|gsk|xai|hf)[-_][\w*-]{8,}|\bdapi[0-9a-f*]{8,}|\bAIza[\w*-]{8,}/g,
      '[redacted]',
    )
    .replace(/\b[0-9a-f]{32,}\b/gi, '[redacted]')
    .replace(/\b(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{40,}={0,2}/g, '[redacted]');
}

/**
 * `retry-after-ms`, `Retry-After` in seconds or as a date, `retry_after` seconds in the body, or Google's
 * `retryDelay` ("34s") among the details of an error.
 */
function retryAfterOf(headers: Headers, body: unknown, nowMs: number): number | undefined {
  const exact = Number.parseFloat(first(headers['retry-after-ms']));
  if (exact >= 0) return Math.ceil(exact);
  const text = first(headers['retry-after']).trim();
  if (/^\d+(\.\d+)?$/.test(text)) return Math.ceil(Number(text) * 1000);
  const dateMs = text === '' ? Number.NaN : Date.parse(text);
  if (!Number.isNaN(dateMs)) return Math.max(0, dateMs - nowMs);
  const inner = isJsonObject(body) && isJsonObject(body.error) ? body.error.retry_after : undefined;
  const seconds = Number(
    isJsonObject(body) ? (body.retry_after ?? inner ?? retryDelayOf(body.error)) : undefined,
  );
  return seconds >= 0 ? Math.ceil(seconds * 1000) : undefined;
}

function retryDelayOf(error: unknown): string | undefined {
  if (!isJsonObject(error) || !Array.isArray(error.details)) return undefined;
  for (const detail of error.details) {
    const delay: unknown = isJsonObject(detail) ? detail.retryDelay : undefined;
    if (typeof delay === 'string' && /^\d+(\.\d+)?s$/.test(delay)) return delay.slice(0, -1);
  }
  return undefined;
}

function first(header: string | string[] | undefined): string {
  return (Array.isArray(header) ? header[0] : header) ?? '';
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
