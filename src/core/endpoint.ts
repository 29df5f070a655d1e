// The nouns Endpoint, served entity, model version and Target. Plain data: what is stored, served and resolved.
import type { Task } from './call.ts';
import type { Json, JsonObject } from './json.ts';

/**
 * External providers, by Databricks' names. `openai` is any server of the OpenAI API (Azure, vLLM, Ollama,
 * llama.cpp, LM Studio); `custom` is one too, with its own way to send the key.
 */
export type Provider =
  | 'openai'
  | 'anthropic'
  | 'cohere'
  | 'amazon-bedrock'
  | 'google-cloud-vertex-ai'
  | 'databricks-model-serving'
  | 'custom';
export const PROVIDERS: readonly Provider[] = [
  'openai',
  'anthropic',
  'cohere',
  'amazon-bedrock',
  'google-cloud-vertex-ai',
  'databricks-model-serving',
  'custom',
];

/**
 * Engines that run models. The providers are engines of the same name. `python`: MLflow models with a process of
 * Python; `trees`: XGBoost and LightGBM without one; `module`: agents written as a module of JavaScript or TypeScript.
 */
export type EngineKind = Provider | 'onnx' | 'static' | 'llama' | 'echo' | 'python' | 'trees' | 'module';
export const ENGINE_KINDS: readonly EngineKind[] = [
  ...PROVIDERS,
  'onnx',
  'static',
  'llama',
  'echo',
  'python',
  'trees',
  'module',
];

/** US dollars per million tokens. */
export interface Price {
  readonly inputPerMillion: number;
  readonly outputPerMillion: number;
}

/**
 * A model that another server runs. Whatever is secret (`apiKey`, `privateKey`, ...) is a reference such as
 * `{{env/OPENAI_API_KEY}}` or `{{secrets/scope/key}}`, never the secret itself.
 */
export interface ExternalModel {
  readonly name: string;
  readonly provider: Provider;
  readonly task: Exclude<Task, 'predict'>;
  /** Workspace URL of `databricks-model-serving`; for the clouds an override of the address made of the region. */
  readonly baseUrl?: string;
  readonly apiKey?: string;
  readonly organization?: string;
  /** `azure` puts the deployment into the path and the key into the `api-key` header; `azuread` asks Entra for a token. */
  readonly apiType?: 'openai' | 'azure' | 'azuread';
  readonly apiVersion?: string;
  /** `openai` with `azure` or `azuread`: name of the deployment; absent: the name of the model. */
  readonly deployment?: string;
  readonly entra?: {
    readonly tenantId: string;
    readonly clientId: string;
    readonly clientSecret: string;
    /** Where tokens are asked for; absent: `https://login.microsoftonline.com`. */
    readonly authorityUrl?: string;
  };
  readonly bedrock?: {
    readonly region: string;
    /** `anthropic`, `cohere`, `ai21labs`, `amazon` or `grok`. */
    readonly modelProvider: string;
    readonly accessKeyId?: string;
    readonly secretAccessKey?: string;
    readonly sessionToken?: string;
  };
  readonly vertex?: {
    readonly projectId: string;
    readonly region: string;
    /** The JSON of a service account. */
    readonly privateKey?: string;
  };
  /** `custom`: the header that carries `apiKey`; absent: `Authorization: Bearer`. */
  readonly apiKeyHeader?: string;
  /** Upper bound for the adaptive concurrency; the target starts lower and finds its own limit. */
  readonly maxConcurrency?: number;
  /** Per request, in milliseconds. */
  readonly timeoutMs?: number;
  /** Absent: that of the price table, where it has one. */
  readonly price?: Price;
}

/** How many copies of a registered model run. What is absent follows from the engine. */
export interface Scaling {
  /** Copies kept while nobody asks. 0: the last one is closed after `idleSeconds`, and opened again by the next call. */
  readonly minReplicas?: number;
  readonly maxReplicas?: number;
  /** Requests one copy works on at once before another copy is opened. */
  readonly targetConcurrency?: number;
  readonly idleSeconds?: number;
  /** Inputs that may wait for a copy; more are refused with QUEUE_FULL. */
  readonly maxQueue?: number;
}

export interface ServedEntity {
  readonly name: string;
  /** Stays the same while the entity is in the endpoint's configuration; in usage rows. */
  readonly id?: string;
  readonly externalModel?: ExternalModel;
  /** A registered model (name) and its version number or alias; exclusive with `externalModel`. */
  readonly entityName?: string;
  readonly entityVersion?: string;
  /** Registered models only. */
  readonly scaling?: Scaling;
  /** Environment variables of the model's process; values may be `{{secrets/scope/key}}`. Registered models only. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Databricks' fields that mean nothing here (workload_size, ...), in their spelling; given back as they were set. */
  readonly settings?: JsonObject;
}

/** `user` without principal: each user has a limit of this size; `user_group`: all members share one. */
export interface RateLimit {
  readonly key: 'endpoint' | 'user' | 'user_group' | 'service_principal';
  /** Name of the user, group or service principal. */
  readonly principal?: string;
  /** Requests to a model per period. */
  readonly calls?: number;
  /** Input and output tokens per period. */
  readonly tokens?: number;
  readonly renewalPeriod: 'minute';
}

/** Ours: money per UTC day or calendar month, reserved before a request and settled after it; never crossed. */
export interface MoneyBudget {
  readonly key: RateLimit['key'];
  readonly principal?: string;
  /** US dollars. */
  readonly amount: number;
  readonly renewalPeriod: 'day' | 'month';
}

export interface GuardrailRules {
  readonly safety?: boolean;
  readonly pii?: { readonly behavior: 'NONE' | 'BLOCK' | 'MASK' };
  readonly invalidKeywords?: readonly string[];
  /** Input only. */
  readonly validTopics?: readonly string[];
  /** Ours: the chat endpoint that judges safety and topics. */
  readonly judgeEndpoint?: string;
  /** Ours: an endpoint that answers `{"decision": "proceed|sanitize|reject", ...}`. */
  readonly customEndpoint?: string;
}

/** Policies of an endpoint, after Databricks' `ai_gateway`. What is absent was not set. */
export interface AiGateway {
  readonly usageTracking?: { readonly enabled: boolean };
  readonly inferenceTable?: {
    readonly enabled: boolean;
    readonly catalogName?: string;
    readonly schemaName?: string;
    readonly tableNamePrefix?: string;
  };
  readonly rateLimits?: readonly RateLimit[];
  readonly guardrails?: { readonly input?: GuardrailRules; readonly output?: GuardrailRules };
  readonly fallback?: { readonly enabled: boolean };
  /** Ours. */
  readonly budgets?: readonly MoneyBudget[];
  /** Ours: a second request to the same target when the first takes longer than this quantile of the past ones. */
  readonly hedging?: { readonly quantile: number; readonly maxExtraPercent: number };
  /** Ours: deadline of a whole call, retries and fallbacks included, in milliseconds. */
  readonly timeoutMs?: number;
}

export interface Route {
  readonly servedEntityName: string;
  /** 0..100; the routes of an endpoint add up to 100. */
  readonly trafficPercentage: number;
}

export interface Endpoint {
  readonly id: string;
  readonly name: string;
  readonly task: Task;
  readonly servedEntities: readonly ServedEntity[];
  readonly routes: readonly Route[];
  readonly configVersion: number;
  readonly description: string;
  readonly tags: readonly { readonly key: string; readonly value: string }[];
  readonly creator: string;
  /** Absent: a user. */
  readonly creatorKind?: 'user' | 'service_principal';
  /** Epoch milliseconds. */
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  /** Built in: exists in every data directory, cannot be changed or deleted. */
  readonly isEmbedded: boolean;
  readonly aiGateway?: AiGateway;
  /** Stopped by hand: refuses queries with ENDPOINT_STOPPED until it is started. */
  readonly isStopped?: boolean;
  /** Databricks' fields that mean nothing here (email_notifications, ...), in their spelling; given back as set. */
  readonly settings?: JsonObject;
}

/** Column types of MLflow signatures. `json`: arrays, objects and maps, whose shape is in `spec`. */
export type ColumnType =
  | 'boolean'
  | 'integer'
  | 'long'
  | 'float'
  | 'double'
  | 'string'
  | 'binary'
  | 'datetime'
  | 'json';

export interface SignatureColumn {
  readonly name: string;
  readonly type: ColumnType;
  readonly required: boolean;
  /** -1 or absent: one value a row; n: a list of n values a row. */
  readonly width?: number;
  /** A tensor: the sizes of one row's value, outermost first, -1 where any will do; `[]` is one number a row. */
  readonly shape?: readonly number[];
  /** A nested type (`{"type": "array", "items": ...}`) or a tensor's (`{"dtype": "uint8", "shape": [-1, 28]}`) as the signature has it. */
  readonly spec?: JsonObject;
  /** The signature has no name for it: `name` was made up, and the model wants the bare value. */
  readonly isUnnamed?: boolean;
}

/** A parameter of inference: the same for all rows of a request. */
export interface SignatureParam {
  readonly name: string;
  readonly type: Exclude<ColumnType, 'binary'>;
  readonly default: Json;
  /** A list of values; absent: one value. */
  readonly isList?: boolean;
}

/** DuckDB's names of the column types. */
export const DUCKDB_COLUMN_TYPES: Readonly<Record<ColumnType, string>> = {
  boolean: 'BOOLEAN',
  integer: 'INTEGER',
  long: 'BIGINT',
  float: 'FLOAT',
  double: 'DOUBLE',
  string: 'VARCHAR',
  binary: 'BLOB',
  datetime: 'TIMESTAMP',
  json: 'JSON',
};

/** What goes into a custom model and what comes out; the order of inputs is the order of positional features. */
export interface Signature {
  readonly inputs: readonly SignatureColumn[];
  readonly outputs: readonly SignatureColumn[];
  /** Absent: none, and none are taken. */
  readonly params?: readonly SignatureParam[];
}

export interface ModelVersion {
  readonly model: string;
  readonly version: string;
  readonly engine: EngineKind;
  readonly task: Task;
  /** Where the files are: an absolute path, or `embedded:` + id for weights fetched or carried by duckserve. */
  readonly source: string;
  /** SHA-256 of the main artifact; empty for `echo`. The identity of a model in vectors and cached answers. */
  readonly sha256: string;
  readonly sizeBytes: number;
  readonly signature?: Signature;
  /** Dimensions of the vectors of an embedding model. */
  readonly dimensions?: number;
  readonly licence?: string;
  readonly description?: string;
  /** Engine settings of this version (pooling, context size, class labels). */
  readonly options: JsonObject;
  readonly createdAtMs: number;
}

/** What an engine says of a file before it is registered: which engine runs it, for what. */
export interface ModelInspection {
  readonly engine: EngineKind;
  readonly task: Task;
  readonly signature?: Signature;
  readonly dimensions?: number;
  readonly options: JsonObject;
  /** The file an engine opens, relative to a folder that was given; absent: the registry looks for it. */
  readonly mainFile?: string;
  /** A temporary file or folder to take in place of what was given (an unpacked archive, a converted model). */
  readonly files?: string;
  /** MLflow's name of what was chosen (`onnx`, `python_function`). */
  readonly flavour?: string;
  /** For the person who registers it: what was chosen or changed, and why. */
  readonly notes?: readonly string[];
}

export interface RegisteredModel {
  readonly name: string;
  readonly description: string;
  readonly aliases: Readonly<Record<string, string>>;
  readonly createdAtMs: number;
}

/** What an endpoint resolves to: one model behind one engine. */
export interface Target {
  readonly endpoint: string;
  readonly servedEntity: string;
  readonly engine: EngineKind;
  readonly task: Task;
  /** Identity of what answers: equal fingerprints give interchangeable answers. Part of every answer's key. */
  readonly fingerprint: string;
  readonly model: string;
  readonly externalModel?: ExternalModel;
  readonly modelVersion?: ModelVersion;
  readonly endpointId?: string;
  readonly servedEntityId?: string;
  readonly configVersion?: number;
  /**
   * An answer may depend on who asks, as agents ask others in their caller's name: answers are not shared between
   * principals, and not kept unless the caller asks for that.
   */
  readonly isPersonal?: boolean;
  /** Of its served entity. */
  readonly scaling?: Scaling;
  readonly environment?: Readonly<Record<string, string>>;
  /** That of the external model, or of the price table. Absent for an external model: not known. */
  readonly price?: Price;
}
