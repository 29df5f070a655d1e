// Prometheus metrics of this process, fed by usage rows (so every door counts, not only this one) and by the
// door's own requests. `gen_ai_*` follow OpenTelemetry's names, `duckserve_*` are ours; the help of each says
// what it counts. Not for billing: that is the usage table.
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Task } from '#core/call.ts';
import type { UsageRow } from '#core/stores.ts';
import type { HttpDeps } from './deps.ts';

const OPERATIONS: Readonly<Record<Task, string>> = {
  'llm/v1/chat': 'chat',
  'llm/v1/completions': 'text_completion',
  'llm/v1/embeddings': 'embeddings',
  predict: 'predict',
};
/** Names that do not exist share one label, else anybody could fill the memory with made-up ones. */
const UNKNOWN_ENDPOINT = '(unknown)';

export interface Metrics {
  observeRequest(method: string, route: string, status: number): void;
  /** The exposition text and its content type. */
  render(): Promise<{ readonly text: string; readonly contentType: string }>;
}

export function createMetrics(deps: Pick<HttpDeps, 'serving'>): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const registers = [registry];
  const counter = <Label extends string>(name: string, help: string, labelNames: readonly Label[]) =>
    new Counter({ name, help, labelNames, registers });

  const requests = counter(
    'duckserve_requests_total',
    'Requests to engines and calls that needed none, by endpoint, door and status.',
    ['endpoint', 'origin', 'status'],
  );
  const inputs = counter('duckserve_inputs_total', 'Inputs of calls (rows, texts, prompts).', ['endpoint']);
  const cached = counter('duckserve_cached_inputs_total', 'Inputs answered from the answer store.', [
    'endpoint',
  ]);
  const attempts = counter('duckserve_attempts_total', 'Requests to engines, retries included.', [
    'endpoint',
  ]);
  const tokens = counter('duckserve_tokens_total', 'Tokens by endpoint and direction.', ['endpoint', 'type']);
  const cost = counter('duckserve_cost_usd_total', 'US dollars, where the price is known.', ['endpoint']);
  const httpRequests = counter('duckserve_http_requests_total', 'HTTP requests by route.', [
    'method',
    'route',
    'status',
  ]);
  const duration = new Histogram({
    name: 'gen_ai_client_operation_duration_seconds',
    help: 'Time of a request to an engine, retries included.',
    labelNames: [
      'gen_ai_operation_name',
      'gen_ai_provider_name',
      'gen_ai_request_model',
      'error_type',
    ] as const,
    buckets: [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92],
    registers,
  });
  registerQueueGauges(deps, registers);

  deps.serving.onUsage((row: UsageRow) => {
    const endpoint = row.errorCode === 'ENDPOINT_NOT_FOUND' ? UNKNOWN_ENDPOINT : row.endpoint;
    requests.inc({ endpoint, origin: row.origin, status: String(row.statusCode) });
    inputs.inc({ endpoint }, row.inputCount);
    cached.inc({ endpoint }, row.cachedCount);
    attempts.inc({ endpoint }, row.attempts);
    tokens.inc({ endpoint, type: 'input' }, row.inputTokens);
    tokens.inc({ endpoint, type: 'output' }, row.outputTokens);
    if (row.cost !== null) cost.inc({ endpoint }, row.cost);
    // Calls answered from the store would hide how long the engine takes.
    if (row.attempts === 0) return;
    duration.observe(
      {
        gen_ai_operation_name: OPERATIONS[row.task],
        gen_ai_provider_name: row.engine ?? '',
        gen_ai_request_model: endpoint,
        error_type: row.errorCode ?? '',
      },
      row.durationMs / 1000,
    );
  });

  return {
    observeRequest: (method, route, status) => httpRequests.inc({ method, route, status: String(status) }),
    render: async () => ({ text: await registry.metrics(), contentType: registry.contentType }),
  };
}

/** Read when somebody looks: queues come and go, so the gauges start empty each time. */
function registerQueueGauges(deps: Pick<HttpDeps, 'serving'>, registers: Registry[]): void {
  const gauge = (name: string, help: string, field: 'waiting' | 'inFlight' | 'limit') =>
    new Gauge({
      name,
      help,
      labelNames: ['target'] as const,
      registers,
      collect() {
        this.reset();
        for (const depth of deps.serving.queueDepths()) this.inc({ target: depth.target }, depth[field]);
      },
    });
  gauge('duckserve_queue_waiting', 'Inputs waiting for a target.', 'waiting');
  gauge('duckserve_queue_in_flight', 'Requests a target is working on.', 'inFlight');
  gauge('duckserve_queue_limit', 'Requests a target may work on at once; adaptive for providers.', 'limit');
}
