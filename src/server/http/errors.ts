// Failures as HTTP answers in the dialect of the path: OpenAI's, Anthropic's, KServe's, else Databricks'.
// Which error has which status is not decided here but in the table of core/errors.ts.
import type { Context } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { z } from 'zod';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';

// An endpoint may be called `chat` or `anthropic`: its invocations are no OpenAI or Anthropic route.
const OPENAI_PATH =
  /^\/((v1|(ai-)?gateway\/(openai|mlflow)\/v1)(\/|$)|serving-endpoints\/(chat\/completions|completions|embeddings|responses|models(\/[^/]+)?)\/?$)/;
const ANTHROPIC_PATH =
  /^\/(v1\/messages(\/|$)|serving-endpoints\/anthropic\/v1(\/|$)|(ai-)?gateway\/anthropic(\/|$))/;
const KSERVE_PATH = /^\/v2(\/|$)/;
const LONGEST_VALUE = 80;
/** What a refused caller is told of a limit, where the error knows it; the names are Databricks'. */
const LIMIT_FIELDS = ['limit_type', 'limit', 'current', 'retry_after'];
/** Anthropic's word for a status; what is not here is an invalid request or, from 500 on, `api_error`. */
const ANTHROPIC_TYPES: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  503: 'overloaded_error',
  504: 'timeout_error',
};

type Dialect = 'openai' | 'anthropic' | 'kserve' | 'databricks';

export function dialectOf(path: string): Dialect {
  if (ANTHROPIC_PATH.test(path)) return 'anthropic';
  if (OPENAI_PATH.test(path)) return 'openai';
  return KSERVE_PATH.test(path) ? 'kserve' : 'databricks';
}

export function toOpenaiError(error: ServingError): JsonObject {
  const { message, row, code, details } = error;
  const param = typeof details.field === 'string' ? details.field : null;
  return { error: { message, type: row.openaiType, code, param, ...limitFields(error) } };
}

export function toAnthropicError(error: ServingError, requestId?: string): JsonObject {
  const status = error.row.httpStatus;
  const type = ANTHROPIC_TYPES[status] ?? (status < 500 ? 'invalid_request_error' : 'api_error');
  return {
    type: 'error',
    error: { type, message: error.message },
    ...(requestId === undefined ? {} : { request_id: requestId }),
  };
}

/** `details` carries our own code in google.rpc form, because several codes share one Databricks code. */
export function toDatabricksError(error: ServingError): JsonObject {
  const info = {
    '@type': 'type.googleapis.com/google.rpc.ErrorInfo',
    reason: error.code,
    domain: 'duckserve',
  };
  const details: JsonObject[] = [info];
  if (error.retryAfterMs !== undefined) {
    const delay = `${Math.max(0, error.retryAfterMs) / 1000}s`;
    details.push({ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retry_delay: delay });
  }
  // Databricks' clients look for the record of a guardrail as JSON in the message.
  const message = error.code === 'GUARDRAIL_TRIGGERED' ? JSON.stringify(error.details) : error.message;
  return { error_code: error.row.databricksCode, message, details, ...limitFields(error) };
}

function limitFields(error: ServingError): JsonObject {
  if (error.row.httpStatus !== 429) return {};
  const fields = LIMIT_FIELDS.filter((name) => ['string', 'number'].includes(typeof error.details[name]));
  return Object.fromEntries(fields.map((name) => [name, error.details[name] ?? null]));
}

function formatError(dialect: Dialect, error: ServingError, requestId: string | undefined): JsonObject {
  switch (dialect) {
    case 'openai':
      return toOpenaiError(error);
    case 'anthropic':
      return toAnthropicError(error, requestId);
    case 'kserve':
      return { error: error.message };
    case 'databricks':
      return toDatabricksError(error);
  }
}

export function errorHeaders(error: ServingError): Record<string, string> {
  const headers: Record<string, string> = {};
  if (error.retryAfterMs !== undefined) {
    headers['retry-after'] = String(Math.ceil(error.retryAfterMs / 1000));
    headers['retry-after-ms'] = String(Math.ceil(error.retryAfterMs));
  }
  // The openai clients repeat every 409, 429 and 5xx on their own; this header is how they are told not to.
  if (!error.row.isRetryable) headers['x-should-retry'] = 'false';
  if (error.code === 'UNAUTHENTICATED') headers['www-authenticate'] = 'Bearer realm="duckserve"';
  return headers;
}

/** The body in the dialect of a path. */
export function errorBody(path: string, error: ServingError, requestId: string): JsonObject {
  return formatError(dialectOf(path), error, requestId);
}

/** `status` only where HTTP knows a finer one than the table (405, 415). */
export function errorResponse(
  c: Context,
  error: ServingError,
  status: number = error.row.httpStatus,
): Response {
  const body = formatError(dialectOf(c.req.path), error, c.get('requestId') as string | undefined);
  return c.json(body, status as ContentfulStatusCode, errorHeaders(error));
}

/** The value as JSON, cut short: messages show what was sent. Never used on fields that may hold a secret. */
export function showValue(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > LONGEST_VALUE ? `${text.slice(0, LONGEST_VALUE)}…` : text;
}

/** Names of the fields of a body, for messages about a body that is meant for something else. */
export function showKeys(body: JsonObject): string {
  return Object.keys(body).slice(0, 12).join(', ').slice(0, 200) || 'nothing';
}

/** Parses `body`; the error names the field by its path and says what was expected there. */
export function parseWith<T extends z.ZodType>(
  schema: T,
  body: unknown,
  options: { readonly mayHoldSecrets?: boolean } = {},
): z.output<T> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const issue = deepestIssue(parsed.error.issues);
  const value = issue.path.reduce<unknown>(
    (at, key) =>
      typeof at === 'object' && at !== null ? (at as Record<PropertyKey, unknown>)[key] : undefined,
    body,
  );
  const where = z.core.toDotPath(issue.path) || 'body';
  const got =
    value === undefined
      ? 'it is missing'
      : options.mayHoldSecrets
        ? 'what was sent is not shown'
        : `got ${showValue(value)}`;
  throw new ServingError('INVALID_PARAMETER', `'${where}': ${issue.message.replace(/\.$/, '')}; ${got}.`, {
    details: { field: where },
  });
}

interface Issue {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** Of a union's failures the one that got furthest is the one the caller meant. */
function deepestIssue(issues: readonly z.core.$ZodIssue[], prefix: readonly PropertyKey[] = []): Issue {
  let deepest: Issue = { path: prefix, message: 'cannot be understood' };
  for (const [position, issue] of issues.entries()) {
    const path = [...prefix, ...issue.path];
    let candidate: Issue = { path, message: issue.message };
    if (issue.code === 'invalid_union') {
      for (const branch of issue.errors) {
        const inner = deepestIssue(branch, path);
        if (inner.path.length > candidate.path.length) candidate = inner;
      }
    }
    if (position === 0 || candidate.path.length > deepest.path.length) deepest = candidate;
  }
  return deepest;
}
