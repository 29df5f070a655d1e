// Opens the models of which replicas are to be kept, when a server starts: without it the first caller after a restart
// would wait for them. Only where an endpoint asks for it by name; other models are opened when first needed.
import type { Log } from '#core/log.ts';
import type { App } from './app.ts';

/** Resolves when all are open or have failed, which is logged and changes nothing: the next call tries again. */
export async function warmModels(
  { registry, serving }: Pick<App, 'registry' | 'serving'>,
  log: Log,
): Promise<void> {
  const wanted = registry
    .listEndpoints()
    .filter(({ isStopped }) => !isStopped)
    .flatMap(({ name, servedEntities }) =>
      servedEntities
        .filter(({ scaling }) => (scaling?.minReplicas ?? 0) > 0)
        .map((entity) => ({ name, servedEntity: entity.name })),
    );
  await Promise.all(
    wanted.map(async ({ name, servedEntity }) => {
      try {
        const release = await serving.prepare([registry.resolve(name, { servedEntity }).target]);
        release();
      } catch (error) {
        log.warn({ err: error, endpoint: name, servedEntity }, 'A model could not be opened ahead.');
      }
    }),
  );
}
