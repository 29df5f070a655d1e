// The object graph of one data directory: the only place that knows every floor. Doors are started on it by
// main.ts; another Node program gets it through index.ts.
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { resolveSettings } from '#config/settings.ts';
import { type Budget, LOCAL_OWNER } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { TINYLLAMA_ID } from '#core/embedded-models.ts';
import type { EngineKind } from '#core/endpoint.ts';
import { type Log, SILENT_LOG } from '#core/log.ts';
import type { AnswerStore, UsageStore } from '#core/stores.ts';
import { anthropicEngine } from '#engines/anthropic/anthropic.ts';
import { bedrockEngine } from '#engines/bedrock/bedrock.ts';
import { cohereEngine } from '#engines/cohere/cohere.ts';
import { echoEngine } from '#engines/echo.ts';
import type { Engine, EngineContext } from '#engines/engine.ts';
import { inspectModel } from '#engines/inspect-model.ts';
import { llamaEngine } from '#engines/llama/llama.ts';
import { moduleEngine } from '#engines/module/module.ts';
import { onnxEngine } from '#engines/onnx/onnx.ts';
import { customEngine, databricksEngine, openaiEngine } from '#engines/openai/openai.ts';
import { pythonEngine } from '#engines/python/python.ts';
import { staticEngine } from '#engines/static/static.ts';
import { treesEngine } from '#engines/trees/trees.ts';
import { vertexEngine } from '#engines/vertex/vertex.ts';
import { isPresent } from '#engines/weights/weights.ts';
import { createBudget } from '#governance/budget.ts';
import { type Identity, openIdentity } from '#governance/identity/identity.ts';
import { type Limits, openLimits } from '#governance/limits/limits.ts';
import { openRegistry, type Registry } from '#registry/registry.ts';
import { Serving } from '#serving/serving.ts';
import type { Session, SessionOptions } from '#session/session.ts';
import { Sessions } from '#session/sessions.ts';
import { openDatabase } from '#storage/database.ts';
import type { PriceStore } from '#storage/price-store.ts';
import type { DuckDbRegistryStore } from '#storage/registry-store.ts';
import type { SecretStore } from '#storage/secret-store.ts';
import { readSpent } from '#storage/spent.ts';
import { createAsk } from './app-ask.ts';
import { guardCommands } from './app-command-access.ts';
import { createCommands } from './app-commands.ts';
import { createDefaults } from './app-defaults.ts';
import { createAppGuards } from './app-guards.ts';
import { createPrepare } from './app-prepare.ts';
import { recordServedEntities } from './app-served-entities.ts';
import { openStores } from './app-stores.ts';
import { createSystemTables } from './app-tables.ts';

export interface AppOptions {
  /** Directory of registry, answers, usage, models; `:memory:` forgets all. Absent: `DUCKSERVE_DATA`, else `.duckserve`. */
  readonly dataDir?: string;
  /** The user's database: a file, or `:memory:` (default). */
  readonly dbPath?: string;
  /** SQL runs on this connection of the program instead of one of ours; `dbPath` is not used then. */
  readonly connection?: DuckDBConnection;
  readonly env?: NodeJS.ProcessEnv;
  readonly log?: Log;
  /** One line for a person, e.g. what is being downloaded. */
  readonly notify?: (line: string) => void;
  readonly onDownloadProgress?: (modelId: string, doneBytes: number, totalBytes: number) => void;
}

export interface App {
  /** Absolute; null when everything is in memory. */
  readonly dataDir: string | null;
  readonly modelCacheDir: string;
  readonly registry: Registry;
  readonly serving: Serving;
  readonly answers: AnswerStore;
  readonly secrets: SecretStore;
  readonly identity: Identity;
  readonly prices: PriceStore;
  readonly usage: UsageStore;
  readonly limits: Limits;
  /** Documents of registry, identity and secrets as they are stored. */
  readonly documents: Pick<DuckDbRegistryStore, 'loadAll' | 'onChange'>;
  /** A call is answered only after its usage rows are on disk. */
  readonly isDurable: boolean;
  openSession(options?: Partial<SessionOptions>): Promise<Session>;
  createBudget(limits: Budget['limits']): Budget;
  /** Ends statements and queues, writes what is queued, releases the files. */
  close(): Promise<void>;
}

const ENGINES: readonly Engine[] = [
  openaiEngine,
  customEngine,
  databricksEngine,
  anthropicEngine,
  cohereEngine,
  bedrockEngine,
  vertexEngine,
  onnxEngine,
  staticEngine,
  llamaEngine,
  moduleEngine,
  pythonEngine,
  treesEngine,
  echoEngine,
];

export async function openApp(options: AppOptions = {}): Promise<App> {
  const env = options.env ?? process.env;
  const settings = resolveSettings({
    flags: options.dataDir === undefined ? {} : { data: options.dataDir },
    env,
  });
  const { dataDir, modelCacheDir } = settings;
  // Never those of a data directory: a model deleted here may be in use there.
  const artifactsDir = dataDir === null ? join(tmpdir(), `duckserve-${randomUUID()}`) : settings.artifactsDir;
  const fileOf = (name: string) => (dataDir === null ? null : join(dataDir, name));
  const log = options.log ?? SILENT_LOG;
  const clock = SYSTEM_CLOCK;

  const database = await openDatabase({
    systemPath: fileOf('system.duckdb'),
    userPath: options.dbPath ?? ':memory:',
    log,
  });
  const open = async () => {
    const stores = await openStores({ database, settings, env, clock, log });
    const { documents: store, prices } = stores;
    const findPrice = (provider: string, model: string) => prices.findPrice(provider, model);
    const registry = await openRegistry({
      ...{ store, artifactsDir, clock, log, findPrice, secrets: stores.secrets },
      inspectModel: (path, request) =>
        inspectModel(path, { ...request, maxBytes: settings.modelMaxBytes, context: engineContext }),
      prepareTargets: createPrepare({
        resolveSecret: (reference) => stores.secrets.resolve(reference),
        load: (targets) => serving.prepare(targets),
      }),
    });
    const identity = await openIdentity({ store, clock, env, log });
    const spentSince = (fromMs: number) => readSpent(database, stores.usage, fromMs);
    const limits = await openLimits({ store, clock, log, spentSince });
    return { stores, registry, identity, limits };
  };
  const { stores, registry, identity, limits } = await open().catch(async (error: unknown) => {
    // Nobody else can: the files would stay locked for as long as the process lives.
    await database.close();
    throw error;
  });
  const { secrets, answers, usage, prices } = stores;
  recordServedEntities(registry, stores.servedEntities, clock, log);
  prices.onChange(() => registry.pricesChanged());

  const engineContext: EngineContext = {
    log,
    modelCacheDir,
    resolveSecret: (reference) => secrets.resolve(reference),
    // 319 MB are fetched only when asked for by name (`models pull`); 17 MB when they are first needed.
    allowDownload: (modelId) => modelId !== TINYLLAMA_ID,
    notify: options.notify ?? (() => {}),
    ...(options.onDownloadProgress ? { onDownloadProgress: options.onDownloadProgress } : {}),
    environmentsDir: settings.environmentsDir,
    ...(settings.python === undefined ? {} : { python: settings.python }),
    ...(settings.onnxThreads === undefined ? {} : { onnxThreads: settings.onnxThreads }),
    ...createAsk(() => serving),
  };
  const engines = new Map<EngineKind, Engine>(ENGINES.map((engine) => [engine.kind, engine]));
  const defaultEndpoint = createDefaults({
    getSetting: (name) => registry.getSetting(name),
    listEndpoints: () => registry.listEndpoints(),
    hasEmbeddedChat: () => isPresent(TINYLLAMA_ID, modelCacheDir),
  });
  const defaultJudge = () => defaultEndpoint('chat');
  const guards = createAppGuards({ serving: () => serving, identity, defaultJudge, clock, log });
  const serving: Serving = new Serving({
    resolver: registry,
    engines,
    engineContext,
    answers,
    usage,
    clock,
    log,
    authorize: identity.authorize,
    meters: limits,
    guards,
    pastRate: (target) => usage.pastRate(target.endpoint, target.model),
  });

  registry.onChange(({ kind }) => {
    if (kind !== 'endpoint') return;
    void identity.keepEndpoints(registry.listEndpoints().map(({ id }) => id));
  });

  const commands = guardCommands(createCommands({ registry, answers }), { identity, registry });
  const listEndpoints = () => registry.listEndpoints();
  const sessions = new Sessions({
    connect: () => (options.connection ? Promise.resolve(options.connection) : database.connect()),
    serving,
    clock,
    commands,
    createBudget,
    defaultEndpoint,
    flushStores: async () => void (await Promise.all([usage.flush(), answers.flush()])),
    pricesChanged: () => prices.reload(),
    systemTables: createSystemTables({
      listEndpoints,
      listModels: () => registry.listModels(),
      answers,
      replicasOf: (endpoint, servedEntity) => serving.replicasOf(endpoint, servedEntity),
      commands,
    }),
    systemCatalog: options.connection ? null : 'duckserve',
    ownsConnections: options.connection === undefined,
  });

  return {
    dataDir,
    modelCacheDir,
    registry,
    serving,
    answers,
    secrets,
    identity,
    prices,
    usage,
    limits,
    documents: stores.documents,
    isDurable: usage.isDurable,
    createBudget,
    openSession: (session = {}) => sessions.open({ principal: LOCAL_OWNER, origin: 'library', ...session }),
    close: async () => {
      limits.close();
      await serving.close();
      await sessions.close();
      await stores.close();
      await database.close();
      if (dataDir === null) await rm(artifactsDir, { recursive: true, force: true });
    },
  };
}
