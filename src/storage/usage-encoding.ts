// Usage and payload rows as lines of JSON, and how DuckDB reads them back: the format of the journal, and of rows
// that another process of the same server sends. Not here: when they are written and imported.
import type { PayloadRow, UsageRow } from '#core/stores.ts';
import { toJsonText } from './json-text.ts';

/** Columns of duckserve.usage and their types in a line; what is NULL is left out of it. */
const USAGE_COLUMNS = {
  request_id: 'VARCHAR',
  call_id: 'VARCHAR',
  client_request_id: 'VARCHAR',
  /** Microseconds since the epoch. */
  request_time: 'BIGINT',
  requester: 'VARCHAR',
  origin: 'VARCHAR',
  endpoint: 'VARCHAR',
  served_entity: 'VARCHAR',
  model: 'VARCHAR',
  engine: 'VARCHAR',
  task: 'VARCHAR',
  status_code: 'INTEGER',
  error_code: 'VARCHAR',
  error_message: 'VARCHAR',
  input_count: 'INTEGER',
  cached_count: 'INTEGER',
  attempts: 'INTEGER',
  input_tokens: 'BIGINT',
  output_tokens: 'BIGINT',
  cost: 'DOUBLE',
  duration_ms: 'DOUBLE',
  is_streaming: 'BOOLEAN',
  usage_context: 'MAP(VARCHAR, VARCHAR)',
  endpoint_id: 'VARCHAR',
  served_entity_id: 'VARCHAR',
  requester_type: 'VARCHAR',
  api_type: 'VARCHAR',
  path: 'VARCHAR',
  user_agent: 'VARCHAR',
  request_tags: 'MAP(VARCHAR, VARCHAR)',
  time_to_first_byte_ms: 'DOUBLE',
  input_characters: 'BIGINT',
  output_characters: 'BIGINT',
} as const;

/** Columns of an inference table, after those that say which table it is. */
const PAYLOAD_COLUMNS = {
  table_catalog: 'VARCHAR',
  table_schema: 'VARCHAR',
  table_name: 'VARCHAR',
  databricks_request_id: 'VARCHAR',
  client_request_id: 'VARCHAR',
  request_time: 'BIGINT',
  status_code: 'INTEGER',
  sampling_fraction: 'DOUBLE',
  execution_duration_ms: 'BIGINT',
  request: 'VARCHAR',
  response: 'VARCHAR',
  served_entity_id: 'VARCHAR',
  requester: 'VARCHAR',
  logging_error_codes: 'VARCHAR[]',
} as const;

type Line<Columns> = { readonly [Name in keyof Columns]: unknown };

/** One line, without its end. */
export function encodeUsageRow(row: UsageRow): string {
  const line: Line<typeof USAGE_COLUMNS> = {
    request_id: row.requestId,
    call_id: row.callId,
    client_request_id: row.clientRequestId ?? undefined,
    request_time: toWhole(row.requestTimeMs * 1_000),
    requester: row.requester,
    origin: row.origin,
    endpoint: row.endpoint,
    served_entity: row.servedEntity ?? undefined,
    model: row.model ?? undefined,
    engine: row.engine ?? undefined,
    task: row.task,
    status_code: row.statusCode,
    error_code: row.errorCode ?? undefined,
    error_message: row.errorMessage ?? undefined,
    input_count: row.inputCount,
    cached_count: row.cachedCount,
    attempts: row.attempts,
    input_tokens: toWhole(row.inputTokens),
    output_tokens: toWhole(row.outputTokens),
    cost: row.cost ?? undefined,
    duration_ms: Number.isFinite(row.durationMs) ? row.durationMs : 0,
    is_streaming: row.isStreaming,
    usage_context: row.usageContext ?? undefined,
    endpoint_id: row.endpointId,
    served_entity_id: row.servedEntityId,
    requester_type: row.requesterType,
    api_type: row.apiType,
    path: row.path,
    user_agent: row.userAgent,
    request_tags: row.requestTags,
    time_to_first_byte_ms: row.timeToFirstByteMs,
    input_characters: row.inputCharacters,
    output_characters: row.outputCharacters,
  };
  return toJsonText(line);
}

export function encodePayloadRow(row: PayloadRow): string {
  const line: Line<typeof PAYLOAD_COLUMNS> = {
    table_catalog: row.table.catalog,
    table_schema: row.table.schema,
    table_name: row.table.name,
    databricks_request_id: row.requestId,
    client_request_id: row.clientRequestId ?? undefined,
    request_time: toWhole(row.requestTimeMs * 1_000),
    status_code: row.statusCode,
    sampling_fraction: row.samplingFraction,
    execution_duration_ms: toWhole(row.durationMs),
    request: row.request ?? undefined,
    response: row.response ?? undefined,
    served_entity_id: row.servedEntityId ?? undefined,
    requester: row.requester,
    logging_error_codes: row.loggingErrorCodes,
  };
  return toJsonText(line);
}

/** Rows in SQL: of a file of lines, or with `path` null of the lines as one JSON list in parameter $1. */
export function usageRowsSql(path: string | null): string {
  return rowsSql(path, USAGE_COLUMNS);
}

export function payloadRowsSql(path: string | null): string {
  return rowsSql(path, PAYLOAD_COLUMNS);
}

/** What the table demands: a line that lacks it is left out, as it would keep all others of its piece out for ever. */
const REQUIRED =
  `request_id call_id request_time requester origin endpoint task status_code input_count cached_count
  attempts input_tokens output_tokens duration_ms is_streaming`.split(/\s+/);

export const INSERT_USAGE = (path: string | null): string =>
  `INSERT INTO duckserve.main.usage (${Object.keys(USAGE_COLUMNS).join(', ')}) SELECT ${Object.keys(
    USAGE_COLUMNS,
  )
    .map((name) => (name === 'request_time' ? 'make_timestamp(r.request_time)' : `r.${name}`))
    .join(
      ', ',
    )} FROM (${usageRowsSql(path)}) AS r WHERE ${REQUIRED.map((name) => `r.${name} IS NOT NULL`).join(' AND ')}`;

/** A line that was cut by a crash is no JSON, and comes out with NULL in every column. */
function rowsSql(path: string | null, columns: Readonly<Record<string, string>>): string {
  const entries = Object.entries(columns);
  if (path === null) {
    const shape = entries.map(([name, type]) => `"${name}": "${type}"`).join(', ');
    return `SELECT unnest(r) FROM (SELECT unnest(from_json($1::JSON, '[{${shape}}]')) AS r)`;
  }
  const shape = entries.map(([name, type]) => `${name}: '${type}'`).join(', ');
  return `SELECT * FROM read_json('${path.replaceAll("'", "''")}', format = 'newline_delimited', ignore_errors = true, columns = {${shape}})`;
}

/** A count that is none must not hold up the rows around it. */
function toWhole(value: number): number {
  const whole = Math.round(value);
  return Number.isSafeInteger(whole) ? whole : 0;
}
