// Prometheus metrics of the replicas of registered models: how many there are, how often and how long they started, how
// many were lost. Read from serving when somebody looks; counts since this process began.
import { Counter, Gauge, type Registry } from 'prom-client';
import type { ReplicaState } from '#serving/replicas-state.ts';
import type { HttpDeps } from './deps.ts';

const STATES = ['ready', 'starting', 'draining'] as const;

export function registerReplicaMetrics(
  { serving }: { readonly serving: Pick<HttpDeps['serving'], 'replicas'> },
  registers: Registry[],
): void {
  const all = () => serving.replicas?.() ?? [];
  new Gauge({
    name: 'duckserve_replicas',
    help: 'Replicas of registered models by state. Endpoints that share a model share its replicas.',
    labelNames: ['target', 'state'] as const,
    registers,
    collect() {
      this.reset();
      for (const { target, state } of all())
        for (const name of STATES) this.set({ target, state: name }, state[name]);
    },
  });
  const limit = (name: string, help: string, read: (state: ReplicaState) => number) =>
    new Gauge({
      name,
      help,
      labelNames: ['target'] as const,
      registers,
      collect() {
        this.reset();
        for (const { target, state } of all()) this.set({ target }, read(state));
      },
    });
  limit('duckserve_replicas_min', 'Replicas that are kept while nobody asks.', (state) => state.minReplicas);
  limit('duckserve_replicas_max', 'Most replicas there may be.', (state) => state.maxReplicas);
  const count = (name: string, help: string, read: (state: ReplicaState) => number) =>
    new Counter({
      name,
      help,
      labelNames: ['target'] as const,
      registers,
      collect() {
        this.reset();
        for (const { target, state } of all()) this.inc({ target }, read(state));
      },
    });
  count('duckserve_replica_starts_total', 'Replicas that were opened.', (state) => state.opened);
  count(
    'duckserve_cold_starts_total',
    'Replicas that were opened while no other could answer.',
    (state) => state.coldStarts,
  );
  count(
    'duckserve_cold_start_seconds_total',
    'Time that cold starts took.',
    (state) => state.coldStartMs / 1_000,
  );
  count('duckserve_replicas_lost_total', 'Replicas that ended by themselves.', (state) => state.lost);
}
