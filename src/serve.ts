// `duckserve serve`: the HTTP door on an open application, with tracing beside it when a collector is configured.
import type { ServeOptions } from '#cli/deps.ts';
import type { Log } from '#core/log.ts';
import type { HttpDeps } from '#server/http/deps.ts';
import { startHttpServer } from '#server/http/server.ts';
import type { App } from './app.ts';
import { warmModels } from './app-warm.ts';
import { openTracing } from './telemetry/tracing.ts';

export interface ServeContext {
  readonly log: Log;
  readonly version: string;
  readonly env: NodeJS.ProcessEnv;
}

export interface Served {
  readonly url: string;
  close(): Promise<void>;
}

export async function serve(app: App, options: ServeOptions, context: ServeContext): Promise<Served> {
  const { log, version, env } = context;
  const tracing = await openTracing(env, version);
  if (tracing) app.serving.onUsage((row) => tracing.addUsage(row));
  const deps: HttpDeps = {
    serving: app.serving,
    registry: app.registry,
    limits: app.limits,
    usage: app.usage,
    identity: app.identity,
    openSession: (session) => app.openSession(session),
    createBudget: app.createBudget,
    log,
    version,
    ...(tracing && { tracing }),
  };
  const server = options.workers
    ? await serveByWorkers(app, deps, options, options.workers)
    : await startHttpServer(deps, { ...options, ...(app.dataDir !== null && { controlDir: app.dataDir }) });
  // Not awaited: who asks meanwhile waits for the same opening.
  void warmModels(app, log);
  const close = async () => {
    await server.close();
    await tracing?.close();
  };
  return { ...server, close };
}

async function serveByWorkers(
  app: App,
  deps: HttpDeps,
  edge: ServeOptions,
  workers: number,
): Promise<Served> {
  const { startPrimary } = await import('./workers/primary.ts');
  return startPrimary({ app, deps, edge, workers });
}
