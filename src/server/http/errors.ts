// Failures as HTTP answers: the OpenAI shape on OpenAI routes, the Databricks shape everywhere else.
// Which error has which status is not decided here but in the table of core/errors.ts.
import type { Context } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { z } from 'zod';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';

// An endpoint may be called `chat`: its invocations are no OpenAI route.
const OPENAI_PATH =
  /^\/(v1(\/|$)|serving-endpoints\/(chat\/completions|completions|embeddings|models(\/[^/]+)?)\/?$)/;
const LONGEST_VALUE = 80;

export function isOpenaiPath(path: string): boolean {
  return OPENAI_PATH.test(path);
}

export function toOpenaiError(error: ServingError): JsonObject {
  return { error: { message: error.message, type: error.row.openaiType, code: error.code, param: null } };
}

/** `details` carries our own code in google.rpc form, because several codes share one Databricks code. */
export function toDatabricksError(error: ServingError): JsonObject {
  return {
    error_code: error.row.databricksCode,
    message: error.message,
    details: [
      { '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason: error.code, domain: 'duckserve' },
    ],
  };
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

/** `status` only where HTTP knows a finer one than the table (405, 415). */
export function errorResponse(
  c: Context,
  error: ServingError,
  status: number = error.row.httpStatus,
): Response {
  const body = isOpenaiPath(c.req.path) ? toOpenaiError(error) : toDatabricksError(error);
  return c.json(body, status as ContentfulStatusCode, errorHeaders(error));
}

/** The value as JSON, cut short: messages show what was sent. Never used on fields that may hold a secret. */
export function showValue(value: unknown): string {
  const text = JSON.stringify(value) ?? 'undefined';
  return text.length > LONGEST_VALUE ? `${text.slice(0, LONGEST_VALUE)}…` : text;
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
