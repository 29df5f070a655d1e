// The nouns Endpoint, served entity, model version and Target. Plain data: what is stored, served and resolved.
import type { Task } from './call.ts';
import type { JsonObject } from './json.ts';

/** External providers. `openai` is any server of the OpenAI API (Azure, vLLM, Ollama, llama.cpp, LM Studio). */
export type Provider = 'openai' | 'anthropic';
export const PROVIDERS: readonly Provider[] = ['openai', 'anthropic'];

/** Engines that run models. The providers are engines of the same name. */
export type EngineKind = Provider | 'onnx' | 'static' | 'llama' | 'echo';
export const ENGINE_KINDS: readonly EngineKind[] = ['openai', 'anthropic', 'onnx', 'static', 'llama', 'echo'];

/** US dollars per million tokens. */
export interface Price {
  readonly inputPerMillion: number;
  readonly outputPerMillion: number;
}

/** A model that another server runs. `apiKey` is a reference such as `{{env/OPENAI_API_KEY}}`, never the key. */
export interface ExternalModel {
  readonly name: string;
  readonly provider: Provider;
  readonly task: Exclude<Task, 'predict'>;
  readonly baseUrl?: string;
  readonly apiKey?: string;
  readonly organization?: string;
  /** `azure` puts the deployment into the path and the key into the `api-key` header. */
  readonly apiType?: 'openai' | 'azure';
  readonly apiVersion?: string;
  /** Upper bound for the adaptive concurrency; the target starts lower and finds its own limit. */
  readonly maxConcurrency?: number;
  /** Per request, in milliseconds. */
  readonly timeoutMs?: number;
  readonly price?: Price;
}

export interface ServedEntity {
  readonly name: string;
  readonly externalModel?: ExternalModel;
  /** A registered model (name) and its version number or alias; exclusive with `externalModel`. */
  readonly entityName?: string;
  readonly entityVersion?: string;
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
  /** Epoch milliseconds. */
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  /** Built in: exists in every data directory, cannot be changed or deleted. */
  readonly isEmbedded: boolean;
}

/** Column types of MLflow signatures. */
export type ColumnType = 'boolean' | 'integer' | 'long' | 'float' | 'double' | 'string';

export interface SignatureColumn {
  readonly name: string;
  readonly type: ColumnType;
  readonly required: boolean;
  /** -1 or absent: one value a row; n: a list of n values a row. */
  readonly width?: number;
}

/** DuckDB's names of the column types. */
export const DUCKDB_COLUMN_TYPES: Readonly<Record<ColumnType, string>> = {
  boolean: 'BOOLEAN',
  integer: 'INTEGER',
  long: 'BIGINT',
  float: 'FLOAT',
  double: 'DOUBLE',
  string: 'VARCHAR',
};

/** What goes into a custom model and what comes out; the order of inputs is the order of positional features. */
export interface Signature {
  readonly inputs: readonly SignatureColumn[];
  readonly outputs: readonly SignatureColumn[];
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
}
