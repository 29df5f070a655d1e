// The metrics export of one endpoint, as Databricks' GET /api/2.0/serving-endpoints/{name}/metrics gives it: counts are
// gauges over the last minute and not cumulative, latencies are histograms in milliseconds. Memory is bounded.
import { totalmem } from 'node:os';
import { cpuUsage, memoryUsage } from 'node:process';
import type { Clock } from '#core/clock.ts';
import type { UsageRow } from '#core/stores.ts';
import { family, Histogram, sample } from './exposition.ts';

const SECONDS = 60;
const MOST_ENDPOINTS = 2_000;
const LATENCY_MS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000,
];
/** What the last minute was made of. */
interface Second {
  at: number;
  requests: number;
  errors4xx: number;
  errors5xx: number;
}

interface Entity {
  readonly seconds: readonly Second[];
  readonly latency: Histogram;
}

export interface EndpointLoad {
  /** Requests its models may work on at once. */
  readonly concurrency: number;
}

export class EndpointMetrics {
  readonly #clock: Clock;
  readonly #endpoints = new Map<string, Map<string, Entity>>();
  #cpu = { atMs: performance.now(), usage: cpuUsage(), percentage: 0 };

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(row: UsageRow): void {
    // Requests that reached no endpoint belong to none.
    if (row.servedEntity === null) return;
    const entity = this.#entityOf(row.endpoint, row.servedEntity);
    const at = Math.floor(this.#clock.now() / 1_000);
    const second = entity.seconds[at % SECONDS];
    if (second === undefined) return;
    if (second.at !== at) Object.assign(second, { at, requests: 0, errors4xx: 0, errors5xx: 0 });
    second.requests += 1;
    if (row.statusCode >= 500) second.errors5xx += 1;
    else if (row.statusCode >= 400) second.errors4xx += 1;
    entity.latency.observe(row.durationMs);
  }

  render(endpoint: string, servedEntities: readonly string[], load: EndpointLoad): string {
    const known = this.#endpoints.get(endpoint);
    const entities = servedEntities.map((name) => ({ name, entity: known?.get(name) ?? newEntity() }));
    const gauge = (name: string, help: string, value: (entity: Entity) => number) =>
      family(
        name,
        'gauge',
        help,
        entities
          .map(({ name: entity, entity: data }) => sample(name, label(endpoint, entity), value(data)))
          .join(''),
      );
    const whole = (name: string, help: string, value: number) =>
      family(name, 'gauge', help, sample(name, { endpoint_name: endpoint }, value));
    const now = Math.floor(this.#clock.now() / 1_000);
    const lastMinute = (field: 'requests' | 'errors4xx' | 'errors5xx') => (entity: Entity) =>
      entity.seconds.reduce((sum, second) => sum + (second.at > now - SECONDS ? second[field] : 0), 0);
    return [
      whole(
        'cpu_usage_percentage',
        'Processor time of the server, of one core, since the last look.',
        this.#cpuPercentage(),
      ),
      whole('mem_usage_percentage', 'Memory of the server, of what it may use.', memoryPercentage()),
      whole(
        'provisioned_concurrent_requests_total',
        'Requests the models of the endpoint work on at once.',
        load.concurrency,
      ),
      gauge('request_count_total', 'Requests of the last minute.', lastMinute('requests')),
      gauge(
        'request_4xx_count_total',
        'Requests of the last minute that failed by the caller.',
        lastMinute('errors4xx'),
      ),
      gauge(
        'request_5xx_count_total',
        'Requests of the last minute that failed by the model.',
        lastMinute('errors5xx'),
      ),
      family(
        'request_latency_ms',
        'histogram',
        'Time of a request to a model, retries included.',
        entities
          .map(({ name, entity }) => entity.latency.lines('request_latency_ms', label(endpoint, name)))
          .join(''),
      ),
    ].join('');
  }

  #entityOf(endpoint: string, name: string): Entity {
    let entities = this.#endpoints.get(endpoint);
    if (!entities) {
      // Deleted endpoints are not told of here: the one known longest goes.
      const [oldest] = this.#endpoints.keys();
      if (this.#endpoints.size >= MOST_ENDPOINTS && oldest !== undefined) this.#endpoints.delete(oldest);
      this.#endpoints.set(endpoint, (entities = new Map()));
    }
    let entity = entities.get(name);
    if (!entity) entities.set(name, (entity = newEntity()));
    return entity;
  }

  #cpuPercentage(): number {
    const atMs = performance.now();
    const elapsedMs = atMs - this.#cpu.atMs;
    // Looked at twice in a row it would be noise.
    if (elapsedMs < 1_000) return this.#cpu.percentage;
    const used = cpuUsage(this.#cpu.usage);
    const percentage = ((used.user + used.system) / 1_000 / elapsedMs) * 100;
    this.#cpu = { atMs, usage: cpuUsage(), percentage: Math.round(percentage * 10) / 10 };
    return this.#cpu.percentage;
  }
}

function newEntity(): Entity {
  const seconds = Array.from({ length: SECONDS }, () => ({ at: 0, requests: 0, errors4xx: 0, errors5xx: 0 }));
  return { seconds, latency: new Histogram(LATENCY_MS) };
}

function label(endpoint: string, entity: string) {
  return { endpoint_name: endpoint, served_entity_name: entity };
}

function memoryPercentage(): number {
  const limit = process.constrainedMemory?.() || Number.POSITIVE_INFINITY;
  const total = Math.min(limit, totalmem());
  return Math.round((memoryUsage.rss() / total) * 1_000) / 10;
}
