import { describe, expect, it } from 'vitest';
import type { Endpoint } from '#core/endpoint.ts';
import type { UsageRow } from '#core/stores.ts';
import { EndpointMetrics } from '#server/http/endpoint-metrics.ts';
import { family, Histogram, sample } from '#server/http/exposition.ts';
import { createMetrics } from '#server/http/metrics.ts';

function row(options: Partial<UsageRow> = {}): UsageRow {
  return {
    ...{
      requestId: 'r',
      callId: 'c',
      clientRequestId: null,
      requestTimeMs: 0,
      requester: 'alice',
      origin: 'http',
    },
    ...{ endpoint: 'chat', servedEntity: 'gpt', model: 'gpt-4o', engine: 'openai', task: 'llm/v1/chat' },
    ...{ statusCode: 200, errorCode: null, errorMessage: null, inputCount: 1, cachedCount: 0, attempts: 1 },
    ...{
      inputTokens: 10,
      outputTokens: 21,
      cost: 0.5,
      durationMs: 120,
      isStreaming: false,
      usageContext: null,
    },
    ...options,
  };
}

function metricsOf(rows: readonly UsageRow[]) {
  let hear: (heard: UsageRow) => void = () => {};
  const serving = {
    onUsage: (listener: typeof hear) => {
      hear = listener;
    },
    queueDepths: () => [
      { target: 'chat/gpt', waiting: 1, inFlight: 2, limit: 7 },
      { target: 'chatter/x', waiting: 0, inFlight: 0, limit: 100 },
    ],
  };
  const metrics = createMetrics({ serving } as never);
  for (const heard of rows) hear(heard);
  return metrics;
}

const linesOf = (text: string, name: string) => text.split('\n').filter((line) => line.startsWith(name));

describe('the exposition text', () => {
  it('escapes what would end a label or a line', () => {
    expect(sample('a', { b: 'x"y\\z\nw' }, 1)).toBe('a{b="x\\"y\\\\z\\nw"} 1\n');
    expect(family('a', 'gauge', 'one\ntwo', 'a 1\n')).toBe('# HELP a one\\ntwo\n# TYPE a gauge\na 1\n');
  });

  it('counts a value in every bucket from its bound on', () => {
    const histogram = new Histogram([1, 2]);
    for (const value of [0.5, 1, 1.5, 3]) histogram.observe(value);
    expect(histogram.lines('h', {})).toBe(
      'h_bucket{le="1"} 2\nh_bucket{le="2"} 3\nh_bucket{le="+Inf"} 4\nh_sum 6\nh_count 4\n',
    );
  });
});

describe('/metrics', () => {
  it('adds usage rows up under the names of OpenTelemetry and our own', async () => {
    const { text } = await metricsOf([
      row(),
      row({ statusCode: 504, errorCode: 'TIMEOUT', outputTokens: 0 }),
      row({ isStreaming: true, timeToFirstByteMs: 20 }),
      row({ engine: 'amazon-bedrock', model: 'claude', endpoint: 'b' }),
    ]).render();
    expect(linesOf(text, 'duckserve_requests_total{endpoint="chat"')).toEqual([
      'duckserve_requests_total{endpoint="chat",origin="http",status="200"} 2',
      'duckserve_requests_total{endpoint="chat",origin="http",status="504"} 1',
    ]);
    expect(linesOf(text, 'duckserve_tokens_total{endpoint="chat"')).toEqual([
      'duckserve_tokens_total{endpoint="chat",type="input"} 30',
      'duckserve_tokens_total{endpoint="chat",type="output"} 42',
    ]);
    expect(text).toContain('gen_ai_provider_name="aws.bedrock"');
    expect(text).toMatch(
      /gen_ai_client_operation_duration_seconds_count\{[^}]*error_type="TIMEOUT"[^}]*\} 1\n/,
    );
    expect(text).toMatch(/gen_ai_client_token_usage_sum\{[^}]*gen_ai_token_type="output"[^}]*\} 42\n/);
    expect(text).toMatch(/gen_ai_server_time_to_first_token_seconds_bucket\{[^}]*le="0.02"\} 1\n/);
    expect(text).toMatch(/gen_ai_server_time_per_output_token_seconds_sum\{[^}]*\} 0.005\n/);
  });

  it('has one series for all endpoints that do not exist', async () => {
    const unknown = Array.from({ length: 100 }, (_, index) =>
      row({
        endpoint: `made-up-${index}`,
        servedEntity: null,
        errorCode: 'ENDPOINT_NOT_FOUND',
        statusCode: 404,
      }),
    );
    const { text } = await metricsOf(unknown).render();
    expect(linesOf(text, 'duckserve_requests_total')).toEqual([
      'duckserve_requests_total{endpoint="(unknown)",origin="http",status="404"} 100',
    ]);
  });
});

describe('the export of an endpoint', () => {
  const endpoint = {
    name: 'chat',
    servedEntities: [{ name: 'gpt' }, { name: 'quiet' }],
  } as unknown as Endpoint;

  it('has every served entity, also one that was never asked, and the concurrency of its own models', () => {
    const text = metricsOf([row(), row({ statusCode: 429 }), row({ statusCode: 502 })]).renderEndpoint(
      endpoint,
    );
    expect(linesOf(text, 'request_count_total')).toEqual([
      'request_count_total{endpoint_name="chat",served_entity_name="gpt"} 3',
      'request_count_total{endpoint_name="chat",served_entity_name="quiet"} 0',
    ]);
    expect(text).toContain('request_4xx_count_total{endpoint_name="chat",served_entity_name="gpt"} 1\n');
    expect(text).toContain('request_5xx_count_total{endpoint_name="chat",served_entity_name="gpt"} 1\n');
    expect(text).toContain('provisioned_concurrent_requests_total{endpoint_name="chat"} 7\n');
    expect(text).toContain(
      'request_latency_ms_bucket{endpoint_name="chat",served_entity_name="gpt",le="200"} 3\n',
    );
  });

  it('counts the last minute and forgets what is older', () => {
    let nowMs = 1_000_000_000;
    const clock = { now: () => nowMs, random: () => 0, sleep: () => new Promise<void>(() => {}) };
    const metrics = new EndpointMetrics(clock);
    const count = () =>
      /request_count_total\{[^}]*\} (\d+)/.exec(metrics.render('chat', ['gpt'], { concurrency: 1 }))?.[1];
    metrics.add(row());
    nowMs += 30_000;
    metrics.add(row());
    expect(count()).toBe('2');
    nowMs += 31_000;
    expect(count()).toBe('1');
    nowMs += 3_600_000;
    expect(count()).toBe('0');
  });
});
