// What the parser of prometheus_client made of the metrics; the calls are in prometheus_calls.py.
import { describe, expect, it } from 'vitest';
import { runScript } from './stage.ts';

describe('prometheus_client (Python)', () => {
  const said = runScript('prometheus_calls.py');

  it('text_string_to_metric_families(/metrics): types; three calls count three', (test) => {
    expect(said(test)).toEqual({
      types: {
        duckserve_requests: 'counter',
        duckserve_tokens: 'counter',
        duckserve_http_requests: 'counter',
        gen_ai_client_operation_duration_seconds: 'histogram',
        duckserve_queue_in_flight: 'gauge',
      },
      more: 3,
    });
  });

  it('text_string_to_metric_families(export): the metrics of one endpoint under their Databricks names', (test) => {
    expect(said(test)).toMatchObject({
      cpu_usage_percentage: 'gauge',
      mem_usage_percentage: 'gauge',
      provisioned_concurrent_requests_total: 'gauge',
      request_count_total: 'gauge',
      request_4xx_count_total: 'gauge',
      request_5xx_count_total: 'gauge',
      request_latency_ms: 'histogram',
    });
  });

  it('requests.get: 403 for /metrics without an administrator', (test) => {
    expect(said(test)).toBe(403);
  });
});
