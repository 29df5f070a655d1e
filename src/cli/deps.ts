// What the command line is given from outside: streams, and functions that open an application.
// Only shapes; main.ts brings the real things, tests bring small ones.
import type { Budget, CacheMode, Origin, Principal, Task } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint, EngineKind, ModelInspection, ModelVersion, RegisteredModel } from '#core/endpoint.ts';
import type { Json, JsonObject } from '#core/json.ts';
import type { AnswerStore } from '#core/stores.ts';
import type { TokenInfo } from '#governance/identity/identity.ts';
import type { TokenRequest } from '#governance/identity/token-request.ts';
import type { Limits } from '#governance/limits/limits.ts';
import type { StatementEstimate } from '#session/estimate.ts';
import type { Progress } from '#session/progress.ts';
import type { StatementResult } from '#session/result.ts';

export type { Progress, StatementEstimate, StatementResult };

export interface Io {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
  readonly stdin: NodeJS.ReadableStream;
  readonly isStdoutTty: boolean;
  readonly isStderrTty: boolean;
  /** Width of the terminal; only looked at when an output is one. */
  readonly columns: number;
}

export interface AppOptions {
  readonly dataDir: string;
  /** A file, or `:memory:`. */
  readonly dbPath: string;
  readonly verbose: boolean;
  /** One line for a person. */
  readonly notify: (line: string) => void;
  readonly onDownloadProgress?: (id: string, doneBytes: number, totalBytes: number) => void;
}

export interface RegisterFlags {
  readonly alias?: string;
  readonly description?: string;
  readonly engine?: EngineKind;
  readonly task?: Task;
  readonly options?: JsonObject;
  readonly allowCode?: boolean;
  readonly convert?: boolean;
  readonly createsEndpoint?: boolean;
  readonly onFound?: (found: ModelInspection) => void;
}

export interface RegistryLike {
  listEndpoints(): readonly Endpoint[];
  getEndpoint(name: string): Endpoint;
  createEndpoint(spec: unknown, principal: Principal): Promise<Endpoint>;
  deleteEndpoint(name: string): Promise<void>;
  updateEndpointAndWait(name: string, spec: unknown, principal: Principal): Promise<Endpoint>;
  setGateway(name: string, gateway: unknown): Promise<Endpoint>;
  stopEndpoint(name: string): Promise<Endpoint>;
  startEndpoint(name: string): Promise<Endpoint>;
  registerModel(name: string, path: string, options: RegisterFlags): Promise<ModelVersion>;
  listModels(): readonly { readonly model: RegisteredModel; readonly versions: readonly ModelVersion[] }[];
  setAlias(model: string, alias: string, version: string): Promise<void>;
  deleteModelVersion(model: string, version: string): Promise<void>;
  getSetting(name: string): string | undefined;
  setSetting(name: string, value: string): Promise<void>;
}

interface SecretsLike {
  setSecret(scope: string, key: string, value: string): Promise<void>;
  deleteSecret(scope: string, key: string): Promise<void>;
  listSecrets(): readonly { readonly scope: string; readonly key: string }[];
}

export interface PriceRow {
  readonly provider: string;
  readonly model: string;
  /** US dollars per million tokens. */
  readonly inputPerMillion: number;
  readonly outputPerMillion: number;
  readonly note: string | null;
}

interface IdentityLike {
  createToken(
    request: TokenRequest,
    by: Principal,
  ): Promise<{ readonly token: string; readonly info: TokenInfo }>;
  listTokens(): readonly TokenInfo[];
  revokeToken(id: string, by: Principal): Promise<TokenInfo>;
}

interface PricesLike {
  list(): readonly PriceRow[];
  set(row: PriceRow): Promise<void>;
  delete(provider: string, model: string): Promise<void>;
}

export interface RunOptions {
  readonly signal?: AbortSignal;
  readonly budget?: Budget;
  readonly cache?: CacheMode;
  readonly onProgress?: (progress: Progress) => void;
  readonly onResult?: (result: StatementResult) => void | Promise<void>;
}

export interface SessionLike {
  run(sql: string, options?: RunOptions): Promise<readonly StatementResult[]>;
  estimate(
    sql: string,
    options?: { readonly signal?: AbortSignal; readonly cache?: CacheMode },
  ): Promise<StatementEstimate>;
  complete(textBeforeCursor: string): Promise<readonly string[]>;
  close(): Promise<void>;
}

export interface AppHandle {
  readonly registry: RegistryLike;
  readonly answers: AnswerStore;
  readonly secrets: SecretsLike;
  readonly prices: PricesLike;
  readonly limits: Pick<Limits, 'rules' | 'readings' | 'setRules'>;
  readonly identity: IdentityLike;
  openSession(options: { readonly principal: Principal; readonly origin: Origin }): Promise<SessionLike>;
  createBudget(limits: Budget['limits']): Budget;
  close(): Promise<void>;
}

/** Where interrupts come from. The default is this process; `kill` ends it the way Ctrl-C would. */
export interface Signals {
  on(name: 'SIGINT' | 'SIGTERM', listener: () => void): void;
  off(name: 'SIGINT' | 'SIGTERM', listener: () => void): void;
  kill(): void;
}

export interface ServeOptions {
  readonly host: string;
  readonly port: number;
  readonly tls?: { readonly certFile: string; readonly keyFile: string };
  readonly addresses: { readonly allow: readonly string[]; readonly trustedProxies: readonly string[] };
  readonly drainMs: number;
  /** Gateway processes beside the one that holds the database; absent: none, it answers itself. */
  readonly workers?: number;
}

export interface CliDeps {
  openApp(options: AppOptions): Promise<AppHandle>;
  startHttp(app: AppHandle, options: ServeOptions): Promise<{ url: string; close(): Promise<void> }>;
  /** Asks the server that runs on a data directory; undefined where none does. Throws what it answers as an error. */
  askServer(
    dataDir: string,
    request: {
      readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE';
      readonly path: string;
      readonly body?: JsonObject;
    },
  ): Promise<Json | undefined>;
  runDemo(options: { dataDir: string; chat: boolean; io: Io }): Promise<void>;
  /** `from`: a local file or folder instead of a download of embedded weights; the same hashes are required. */
  pullWeights(
    source: string,
    dataDir: string,
    io: Io,
    request?: { readonly from?: string; readonly sha256?: string; readonly isRegistered?: boolean },
  ): Promise<{
    readonly path: string;
    /** Removes what was fetched only to be registered. */
    drop(): Promise<void>;
  }>;
  readonly version: string;
  readonly io: Io;
  readonly env: NodeJS.ProcessEnv;
  readonly signals?: Signals;
  readonly clock?: Clock;
}
