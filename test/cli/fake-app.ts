// An application for the command line's unit tests: remembers what it was asked, answers what the test says.
import { EventEmitter } from 'node:events';
import { PassThrough, Readable, Writable } from 'node:stream';
import type { Clock } from '#core/clock.ts';
import type { Endpoint, ModelVersion } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';
import type { TokenInfo } from '#governance/identity/identity.ts';
import type {
  AppHandle,
  AppOptions,
  CliDeps,
  Progress,
  RunOptions,
  SessionLike,
  StatementEstimate,
  StatementResult,
} from '../../src/cli/deps.ts';
import { runCli } from '../../src/cli/program.ts';

export class Collected extends Writable {
  text = '';
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString('utf8');
    done();
  }
}

export function rowsResult(
  columns: readonly (readonly [name: string, type: string])[],
  rows: readonly (readonly Json[])[],
  more: Partial<StatementResult> = {},
): StatementResult {
  return {
    kind: 'rows',
    columns: columns.map(([name, type]) => ({ name, type })),
    rowCount: rows.length,
    changedRows: null,
    rows: () => rows.values(),
    calls: { asked: 0, cached: 0, passes: 1 },
    ...more,
  };
}

export const progressOf = (more: Partial<Progress> = {}): Progress => ({
  answered: 0,
  total: 0,
  pass: 1,
  cached: 0,
  failed: 0,
  tokens: 0,
  cost: null,
  elapsedMs: 0,
  isFinal: false,
  ...more,
});

const ENDPOINT: Endpoint = {
  id: 'e1',
  name: 'tickets-llm',
  task: 'llm/v1/chat',
  servedEntities: [
    {
      name: 'm',
      externalModel: { name: 'gpt-4o-mini', provider: 'openai', task: 'llm/v1/chat', apiKey: '{{env/KEY}}' },
    },
  ],
  routes: [{ servedEntityName: 'm', trafficPercentage: 100 }],
  configVersion: 1,
  description: '',
  tags: [],
  creator: 'local',
  createdAtMs: 1,
  updatedAtMs: 1,
  isEmbedded: false,
};

const VERSION: ModelVersion = {
  model: 'penguins',
  version: '2',
  engine: 'onnx',
  task: 'predict',
  source: '/artifacts/x',
  sha256: 'ab',
  sizeBytes: 2048,
  options: { camelCase: 1 },
  createdAtMs: 1,
};

const TOKEN: TokenInfo = {
  id: 't1',
  principal: 'ann',
  kind: 'user',
  isAdmin: false,
  groups: ['team'],
  scopes: ['query'],
  comment: 'laptop',
  prefix: 'dsk_ab',
  createdBy: 'local',
  createdAtMs: 0,
  expiresAtMs: 86_400_000,
  revokedAtMs: null,
};

export interface World {
  /** Results by SQL text, or what running it does. */
  readonly run?: (sql: string, options: RunOptions) => Promise<readonly StatementResult[]>;
  readonly estimate?: StatementEstimate;
  readonly stdin?: string | readonly string[] | NodeJS.ReadableStream;
  readonly isTty?: boolean;
  readonly columns?: number;
  readonly env?: NodeJS.ProcessEnv;
  readonly stdout?: Writable;
  readonly startHttp?: CliDeps['startHttp'];
  readonly openApp?: CliDeps['openApp'];
  readonly askServer?: CliDeps['askServer'];
  readonly nowMs?: () => number;
}

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** What was asked of the application, in order: name and arguments. */
  readonly asked: readonly (readonly unknown[])[];
  readonly opened: readonly AppOptions[];
}

export class FakeSignals extends EventEmitter {
  kills = 0;
  kill(): void {
    this.kills += 1;
  }
}

export function fakeDeps(world: World = {}) {
  const stdout = world.stdout ?? new Collected();
  const stderr = new Collected();
  const asked: (readonly unknown[])[] = [];
  const opened: AppOptions[] = [];
  const signals = new FakeSignals();
  const settings = new Map([['default_chat_endpoint', 'tickets-llm']]);
  const note = (...call: unknown[]) => void asked.push(call);

  const session: SessionLike = {
    async run(sql, options = {}) {
      note('run', sql, options.cache, options.budget === undefined ? undefined : options.budget.limits);
      const results = world.run === undefined ? [] : await world.run(sql, options);
      for (const result of results) await options.onResult?.(result);
      return results;
    },
    async estimate(sql) {
      note('estimate', sql);
      if (world.estimate === undefined) throw new Error('the test gives no estimate');
      return world.estimate;
    },
    complete: async (before) => (before.endsWith('ai_q') ? ['ai_query'] : []),
    close: async () => note('session.close'),
  };
  const app: AppHandle = {
    registry: {
      listEndpoints: () => [ENDPOINT],
      getEndpoint: () => ENDPOINT,
      async createEndpoint(spec, principal) {
        note('createEndpoint', spec, principal.id);
        return ENDPOINT;
      },
      deleteEndpoint: async (name) => note('deleteEndpoint', name),
      async updateEndpointAndWait(name, spec) {
        note('updateEndpoint', name, spec);
        return ENDPOINT;
      },
      async setGateway(name, gateway) {
        note('setGateway', name, gateway);
        return ENDPOINT;
      },
      async stopEndpoint(name) {
        note('stopEndpoint', name);
        return ENDPOINT;
      },
      async startEndpoint(name) {
        note('startEndpoint', name);
        return ENDPOINT;
      },
      async registerModel(name, path, options) {
        note('registerModel', name, path, options);
        return VERSION;
      },
      listModels: () => [
        {
          model: { name: 'penguins', description: '', aliases: { theBest: '2' }, createdAtMs: 1 },
          versions: [VERSION],
        },
      ],
      setAlias: async (...call) => note('setAlias', ...call),
      deleteModelVersion: async (...call) => note('deleteModelVersion', ...call),
      getSetting: (name) => settings.get(name),
      setSetting: async (...call) => note('setSetting', ...call),
    },
    answers: {
      get: () => undefined,
      put: () => {},
      flush: async () => {},
      entries: () => [].values(),
      async clear(filter) {
        note('clear', filter);
        return 3;
      },
      count: 12,
    },
    prices: { list: () => [], set: async () => {}, delete: async () => {} },
    limits: {
      rules: { rateLimits: [], budgets: [] },
      readings: () => [],
      async setRules(document) {
        note('setRules', document);
        return { rateLimits: [], budgets: [] };
      },
    },
    secrets: {
      setSecret: async (...call) => note('setSecret', ...call),
      deleteSecret: async (...call) => note('deleteSecret', ...call),
      listSecrets: () => [{ scope: 'openai', key: 'main' }],
    },
    identity: {
      createToken: async (request, by) => {
        note('createToken', request, by.id);
        return { token: 'dsk_secret', info: TOKEN };
      },
      listTokens: () => [TOKEN],
      revokeToken: async (id, by) => {
        note('revokeToken', id, by.id);
        return TOKEN;
      },
    },
    openSession: async () => session,
    createBudget: (limits) => ({ limits, reserve: async () => ({ settle: () => {} }) }),
    close: async () => note('app.close'),
  };
  const clock: Clock = { now: world.nowMs ?? (() => 0), sleep: async () => {}, random: () => 0 };
  const stdin =
    typeof world.stdin === 'string' || Array.isArray(world.stdin)
      ? Readable.from([...toLines(world.stdin)])
      : world.stdin;
  const deps: CliDeps = {
    async openApp(options) {
      opened.push(options);
      return world.openApp === undefined ? app : await world.openApp(options);
    },
    startHttp:
      world.startHttp ??
      (async () => ({ url: 'http://127.0.0.1:8080', close: async () => note('http.close') })),
    askServer: world.askServer ?? (async () => undefined),
    runDemo: async ({ chat, dataDir }) => note('runDemo', chat, dataDir),
    pullWeights: async (id, dataDir, _io, request = {}) => {
      note('pullWeights', id, dataDir, ...(Object.keys(request).length > 0 ? [request] : []));
      return { path: '/pulled/model.gguf', drop: async () => note('drop') };
    },
    version: '1.2.3',
    io: {
      stdout,
      stderr,
      stdin:
        (stdin as NodeJS.ReadableStream | undefined) ?? Object.assign(new PassThrough(), { isTTY: true }),
      isStdoutTty: world.isTty ?? false,
      isStderrTty: world.isTty ?? false,
      columns: world.columns ?? 80,
    },
    env: world.env ?? { NO_COLOR: '1' },
    signals,
    clock,
  };
  const outcome = (code: number): Outcome => ({
    code,
    stdout: stdout instanceof Collected ? stdout.text : '',
    stderr: stderr.text,
    asked,
    opened,
  });
  return { deps, signals, asked, stderr, outcome };
}

function toLines(stdin: string | readonly unknown[]): readonly string[] {
  return typeof stdin === 'string' ? [stdin] : (stdin as readonly string[]);
}

export async function cli(argv: readonly string[], world: World = {}): Promise<Outcome> {
  const { deps, outcome } = fakeDeps(world);
  return outcome(await runCli(argv, deps));
}
