// Prometheus metrics of this process, fed by usage rows (so every door counts, not only this one) and by the door's own
// requests. The help of each says what it counts. Not for billing: that is the usage table.
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { Endpoint } from '#core/endpoint.ts';
import type { UsageRow } from '#core/stores.ts';
import type { HttpDeps } from './deps.ts';
import { EndpointMetrics } from './endpoint-metrics.ts';
import { registerReplicaMetrics } from './replica-metrics.ts';
import { UsageMetrics } from './usage-metrics.ts';

export interface Metrics {
  observeRequest(method: string, route: string, status: number): void;
  /** The exposition text and its content type. */
  render(): Promise<{ readonly text: string; readonly contentType: string }>;
  /** The export of one endpoint. */
  renderEndpoint(endpoint: Endpoint): string;
}

export function createMetrics(deps: Pick<HttpDeps, 'serving' | 'clock' | 'usage'>): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const httpRequests = new Counter({
    name: 'duckserve_http_requests_total',
    help: 'HTTP requests by route.',
    labelNames: ['method', 'route', 'status'] as const,
    registers: [registry],
  });
  registerQueueGauges(deps, [registry]);
  registerReplicaMetrics(deps, [registry]);
  registerLedgerGauges(deps, [registry]);
  const usage = new UsageMetrics();
  const endpoints = new EndpointMetrics(deps.clock ?? SYSTEM_CLOCK);
  deps.serving.onUsage((row: UsageRow) => {
    usage.add(row);
    endpoints.add(row);
  });
  const ofRequests = new Map<string, { inc(): void }>();
  return {
    observeRequest: (method, route, status) => {
      const key = `${method} ${status} ${route}`;
      const known = ofRequests.get(key) ?? httpRequests.labels({ method, route, status: String(status) });
      ofRequests.set(key, known);
      known.inc();
    },
    render: async () => ({
      text: (await registry.metrics()) + usage.render(),
      contentType: registry.contentType,
    }),
    renderEndpoint: ({ name, servedEntities }) => {
      const concurrency = deps.serving
        .queueDepths()
        .filter(({ target }) => target.startsWith(`${name}/`))
        .reduce((sum, { limit }) => sum + limit, 0);
      return endpoints.render(
        name,
        servedEntities.map((entity) => entity.name),
        { concurrency },
      );
    },
  };
}

/** What the disk has refused: the first means that more may be lost, the second that it is. */
function registerLedgerGauges({ usage }: Pick<HttpDeps, 'usage'>, registers: Registry[]): void {
  const gauge = (name: string, help: string, read: () => number | undefined) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read() ?? 0);
      },
    });
  gauge('duckserve_usage_rows_waiting', 'Usage rows that are not on disk yet.', () => usage?.waitingRows);
  gauge('duckserve_usage_rows_lost', 'Usage rows given up as the disk refused them.', () => usage?.lostRows);
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
