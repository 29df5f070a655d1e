// Lines of usage rows as rows again, for those in the primary who look at each: metrics and spans.
import type { Origin, Task } from '#core/call.ts';
import type { EngineKind } from '#core/endpoint.ts';
import type { UsageRow } from '#core/stores.ts';

/** As `encodeUsageRow` writes them. */
export function* readUsageLines(lines: string): Generator<UsageRow> {
  let from = 0;
  for (let end = lines.indexOf('\n'); end >= 0; end = lines.indexOf('\n', from)) {
    yield toRow(JSON.parse(lines.slice(from, end)) as Line);
    from = end + 1;
  }
}

type Line = { readonly [name: string]: unknown };

function toRow(line: Line): UsageRow {
  const row: { -readonly [Name in keyof UsageRow]: UsageRow[Name] } = {
    requestId: line.request_id as string,
    callId: line.call_id as string,
    clientRequestId: (line.client_request_id as string | undefined) ?? null,
    requestTimeMs: (line.request_time as number) / 1_000,
    requester: line.requester as string,
    origin: line.origin as Origin,
    endpoint: line.endpoint as string,
    servedEntity: (line.served_entity as string | undefined) ?? null,
    model: (line.model as string | undefined) ?? null,
    engine: (line.engine as EngineKind | undefined) ?? null,
    task: line.task as Task,
    statusCode: line.status_code as number,
    errorCode: (line.error_code as string | undefined) ?? null,
    errorMessage: (line.error_message as string | undefined) ?? null,
    inputCount: line.input_count as number,
    cachedCount: line.cached_count as number,
    attempts: line.attempts as number,
    inputTokens: line.input_tokens as number,
    outputTokens: line.output_tokens as number,
    cost: (line.cost as number | undefined) ?? null,
    durationMs: line.duration_ms as number,
    isStreaming: line.is_streaming as boolean,
    usageContext: (line.usage_context as Record<string, string> | undefined) ?? null,
  };
  if (line.endpoint_id !== undefined) row.endpointId = line.endpoint_id as string;
  if (line.served_entity_id !== undefined) row.servedEntityId = line.served_entity_id as string;
  if (line.requester_type !== undefined) {
    row.requesterType = line.requester_type as NonNullable<UsageRow['requesterType']>;
  }
  if (line.api_type !== undefined) row.apiType = line.api_type as string;
  if (line.path !== undefined) row.path = line.path as string;
  if (line.user_agent !== undefined) row.userAgent = line.user_agent as string;
  if (line.request_tags !== undefined) row.requestTags = line.request_tags as Record<string, string>;
  if (line.time_to_first_byte_ms !== undefined) row.timeToFirstByteMs = line.time_to_first_byte_ms as number;
  if (line.input_characters !== undefined) row.inputCharacters = line.input_characters as number;
  if (line.output_characters !== undefined) row.outputCharacters = line.output_characters as number;
  return row;
}
