// Keeps duckserve.serving.served_entities in step with the registry.
import type { Clock } from '#core/clock.ts';
import type { Log } from '#core/log.ts';
import type { Registry } from '#registry/registry.ts';
import type { ServedEntityStore } from '#storage/served-entity-store.ts';

export function recordServedEntities(
  registry: Registry,
  store: ServedEntityStore,
  clock: Clock,
  log: Log,
): void {
  const failed = (error: unknown) =>
    log.error({ err: error }, 'served_entities could not be written; the registry itself is not affected');
  registry.onChange(({ kind, name }) => {
    if (kind !== 'endpoint') return;
    const endpoint = registry.listEndpoints().find((other) => other.name === name);
    const written = endpoint ? store.changed(endpoint) : store.deleted(name, clock.now());
    written.catch(failed);
  });
  for (const endpoint of registry.listEndpoints()) store.changed(endpoint).catch(failed);
}
