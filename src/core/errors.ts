// Words for failures: one class and one table. Lower floors throw codes; doors own status lines and body shapes.
import type { JsonObject } from './json.ts';

export interface ErrorRow {
  readonly httpStatus: number;
  readonly openaiType: string;
  readonly databricksCode: string;
  readonly sqlState: string;
  /** Whether asking the same again may succeed. */
  readonly isRetryable: boolean;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  readonly meaning: string;
}

const row = (
  httpStatus: number,
  openaiType: string,
  databricksCode: string,
  sqlState: string,
  isRetryable: boolean,
  logLevel: ErrorRow['logLevel'],
  meaning: string,
): ErrorRow => ({ httpStatus, openaiType, databricksCode, sqlState, isRetryable, logLevel, meaning });

/** Every code that can reach a user. `docs/errors.md` is this table; a test compares them both ways. */
// biome-ignore format: one row a line
export const ERRORS = {
  BAD_REQUEST: row(400, 'invalid_request_error', 'BAD_REQUEST', '22023', false, 'info', 'The request cannot be understood.'),
  INVALID_PARAMETER: row(400, 'invalid_request_error', 'INVALID_PARAMETER_VALUE', '22023', false, 'info', 'An argument has a value that is not allowed.'),
  WRONG_TASK: row(400, 'invalid_request_error', 'BAD_REQUEST', '22023', false, 'info', 'The endpoint serves another task than the one asked for.'),
  SCHEMA_MISMATCH: row(400, 'invalid_request_error', 'BAD_REQUEST', '22023', false, 'info', 'Features do not fit the signature of the model.'),
  UNSUPPORTED_RETURN_TYPE: row(400, 'invalid_request_error', 'INVALID_PARAMETER_VALUE', '0A000', false, 'info', 'A returnType or responseFormat cannot be used.'),
  SQL_ERROR: row(400, 'invalid_request_error', 'BAD_REQUEST', '42000', false, 'info', 'DuckDB refused the statement.'),
  AI_IN_TRANSACTION: row(400, 'invalid_request_error', 'INVALID_STATE', '25001', false, 'info', 'An AI write after another write in the same transaction.'),
  STATEMENT_NOT_SETTLING: row(400, 'invalid_request_error', 'BAD_REQUEST', '0A000', false, 'info', 'The prompts of a statement change with every pass.'),
  GUARDRAIL_TRIGGERED: row(400, 'invalid_request_error', 'BAD_REQUEST', '22023', false, 'info', 'A guardrail of the endpoint refused the input or the output.'),
  ENDPOINT_STOPPED: row(400, 'invalid_request_error', 'INVALID_STATE', '55000', false, 'info', 'The endpoint was stopped and takes no queries.'),
  UNAUTHENTICATED: row(401, 'authentication_error', 'UNAUTHENTICATED', '28000', false, 'info', 'No or unknown credentials.'),
  PERMISSION_DENIED: row(403, 'permission_error', 'PERMISSION_DENIED', '42501', false, 'info', 'The principal may not do this.'),
  ENDPOINT_NOT_FOUND: row(404, 'not_found_error', 'RESOURCE_DOES_NOT_EXIST', '42704', false, 'info', 'No endpoint has this name.'),
  NOT_FOUND: row(404, 'not_found_error', 'RESOURCE_DOES_NOT_EXIST', '42704', false, 'info', 'A model, version, statement or path does not exist.'),
  METHOD_NOT_ALLOWED: row(405, 'invalid_request_error', 'BAD_REQUEST', '0A000', false, 'info', 'The path exists for another method.'),
  ALREADY_EXISTS: row(409, 'invalid_request_error', 'RESOURCE_ALREADY_EXISTS', '42710', false, 'info', 'The name is taken.'),
  RESOURCE_CONFLICT: row(409, 'invalid_request_error', 'RESOURCE_CONFLICT', '55006', false, 'info', 'The thing is in use or built in and cannot be changed.'),
  PAYLOAD_TOO_LARGE: row(413, 'invalid_request_error', 'BAD_REQUEST', '54000', false, 'info', 'A request body or input is over the limit.'),
  UNSUPPORTED_MEDIA_TYPE: row(415, 'invalid_request_error', 'BAD_REQUEST', '0A000', false, 'info', 'The content type or charset of a body is not read here.'),
  MODEL_NOT_AVAILABLE: row(424, 'invalid_request_error', 'INVALID_STATE', '55000', false, 'warn', 'The weights or the engine of a model are not on this machine.'),
  SECRET_NOT_FOUND: row(424, 'invalid_request_error', 'INVALID_STATE', '55000', false, 'warn', 'A secret reference points to nothing.'),
  BUDGET_EXCEEDED: row(429, 'insufficient_quota', 'REQUEST_LIMIT_EXCEEDED', '53400', false, 'info', 'A limit on calls, tokens or cost would be crossed.'),
  RATE_LIMIT_EXCEEDED: row(429, 'rate_limit_error', 'REQUEST_LIMIT_EXCEEDED', '53400', true, 'info', 'A rate limit of the endpoint, user, group or service principal is reached.'),
  RATE_LIMITED: row(429, 'rate_limit_error', 'REQUEST_LIMIT_EXCEEDED', '53400', true, 'warn', 'The provider refused for its rate limit and retries ran out.'),
  QUEUE_FULL: row(429, 'rate_limit_error', 'REQUEST_LIMIT_EXCEEDED', '53300', true, 'info', 'As many inputs wait for a replica as the served entity allows.'),
  CANCELLED: row(499, 'cancelled', 'ABORTED', '57014', false, 'debug', 'The caller went away or cancelled.'),
  UPSTREAM_REJECTED: row(400, 'invalid_request_error', 'BAD_REQUEST', '08000', false, 'warn', 'The provider refused the request itself.'),
  UPSTREAM_AUTH: row(502, 'api_error', 'PERMISSION_DENIED', '08000', false, 'error', 'The provider refused the key of the endpoint.'),
  UPSTREAM_ERROR: row(502, 'api_error', 'INTERNAL_ERROR', '08000', true, 'warn', 'The provider failed or the connection broke and retries ran out.'),
  INVALID_RESPONSE: row(502, 'api_error', 'INTERNAL_ERROR', '2203G', true, 'warn', 'The answer of the model cannot be parsed or does not fit the schema.'),
  MODEL_CRASHED: row(502, 'api_error', 'INTERNAL_ERROR', '58000', false, 'error', 'The process of a model ended before it had answered.'),
  TIMEOUT: row(504, 'timeout_error', 'DEADLINE_EXCEEDED', '57014', true, 'warn', 'The model did not answer in time.'),
  OVERLOADED: row(503, 'api_error', 'TEMPORARILY_UNAVAILABLE', '53300', true, 'warn', 'More is waiting than can be answered in time.'),
  NOT_OFFERED: row(501, 'invalid_request_error', 'NOT_IMPLEMENTED', '0A000', false, 'info', 'Something the protocol has and duckserve does not.'),
  STORAGE_ERROR: row(500, 'api_error', 'INTERNAL_ERROR', '58030', false, 'error', 'The data directory cannot be read or written.'),
  INTERNAL: row(500, 'api_error', 'INTERNAL_ERROR', 'XX000', false, 'error', 'A defect of duckserve.'),
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof ERRORS;

/** The one error class. The message says what was wrong, shows the value (never a secret), says what to do. */
export class ServingError extends Error {
  readonly code: ErrorCode;
  readonly details: JsonObject;
  /** How long the provider asked to wait before the next try. */
  readonly retryAfterMs: number | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      readonly details?: JsonObject;
      readonly cause?: unknown;
      readonly retryAfterMs?: number | undefined;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'ServingError';
    this.code = code;
    this.details = options.details ?? {};
    this.retryAfterMs = options.retryAfterMs;
  }

  get row(): ErrorRow {
    return ERRORS[this.code];
  }
}

/** Any thrown thing as a ServingError; what is not one becomes `fallback` with the original as cause. */
export function toServingError(thrown: unknown, fallback: ErrorCode = 'INTERNAL'): ServingError {
  if (thrown instanceof ServingError) return thrown;
  if (thrown instanceof Error && thrown.name === 'AbortError') {
    return new ServingError('CANCELLED', 'The call was cancelled.', { cause: thrown });
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new ServingError(fallback, message, { cause: thrown });
}

/** Throws CANCELLED when the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    throw new ServingError('CANCELLED', 'The call was cancelled.', { cause: signal.reason });
}
