// What an engine is: it opens a target and gives a runner that answers batches. Engines know no cache, no
// retry, no limits: they make one attempt and say honestly what came of it.
import type {
  AnswerItem,
  Budget,
  CacheMode,
  Input,
  Origin,
  Output,
  Parameters,
  Principal,
  StreamEvent,
  Task,
  TokenUsage,
} from '#core/call.ts';
import type { EngineKind, Signature, Target } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { Log } from '#core/log.ts';

/** What engines are given from outside. Secrets are resolved when used and never kept. */
export interface EngineContext {
  readonly log: Log;
  /** Directory of downloaded weights. */
  readonly modelCacheDir: string;
  /** Resolves `{{env/NAME}}` and `{{secrets/scope/key}}`; a plain text is returned as it is. Throws SECRET_NOT_FOUND. */
  resolveSecret(reference: string): string;
  /** May missing weights of this embedded model be fetched without being asked for? (MiniLM yes, TinyLlama no) */
  readonly allowDownload: (modelId: string) => boolean;
  /** One line for a person, e.g. what is being downloaded; standard error on a terminal. */
  readonly notify: (line: string) => void;
  /** Bytes so far and in all, while weights are fetched. */
  readonly onDownloadProgress?: (modelId: string, doneBytes: number, totalBytes: number) => void;
  /** Where environments of Python are built; absent: in a directory of their own among temporary files. */
  readonly environmentsDir?: string;
  /** The interpreter that was configured (`DUCKSERVE_PYTHON`). */
  readonly python?: string;
  /** Threads of one run of an ONNX model (`DUCKSERVE_ONNX_THREADS`). Absent: one a core, at most four. */
  readonly onnxThreads?: number;
  /**
   * Asks an endpoint of the same registry as `caller`: with the caller's permissions, limits and budgets, and a usage
   * row in its name. Throws for the whole call; the failure of the input is a value. Absent: nobody can be asked.
   */
  readonly ask?: (question: AskedByModel) => Promise<AnswerItem>;
  /** The same as events; chat and completions. */
  readonly askStream?: (question: AskedByModel) => Promise<AsyncIterable<StreamEvent>>;
}

export interface AskedByModel {
  readonly endpoint: string;
  readonly task: Task;
  readonly input: Input;
  readonly parameters?: Parameters;
  readonly caller: Caller;
  readonly signal?: AbortSignal;
  /** Absent: `on` where asking again would give the same, else `off`. */
  readonly cache?: CacheMode;
}

export interface Engine {
  readonly kind: EngineKind;
  /** Loads what the target needs (weights, a connection pool). Throws MODEL_NOT_AVAILABLE with the ways out. */
  open(target: Target, context: EngineContext): Promise<Runner>;
}

/** Inputs that travel together: same target, task and parameters. */
export interface Batch {
  readonly task: Task;
  readonly inputs: readonly Input[];
  readonly parameters: Parameters;
  readonly signal: AbortSignal;
  /** Who asks. Present for targets that are `isPersonal`, whose batches have one input. */
  readonly caller?: Caller;
}

/** In whose name a model asks other endpoints. */
export interface Caller {
  readonly principal: Principal;
  readonly origin: Origin;
  /** Of the call that the model answers; 0 for one that no model has asked. */
  readonly depth: number;
  /** Of the call that the model answers: usage rows of what it asks name it. */
  readonly callId?: string;
  readonly endpoint?: string;
  readonly clientRequestId?: string;
  readonly usageContext?: Readonly<Record<string, string>>;
  /** That of a statement or session; what the model asks is paid from it, too. */
  readonly budget?: Budget;
}

/** One item for each input, in order. A failure of the whole attempt is thrown as ServingError instead. */
export interface BatchAnswer {
  readonly items: readonly RunItem[];
}
export type RunItem =
  | { readonly ok: true; readonly output: Output; readonly usage: TokenUsage }
  | Extract<AnswerItem, { ok: false }>;

export interface RunnerLimits {
  /** Inputs in one invoke. 1 for chat. */
  readonly maxInputs: number;
  /** Tokens (as counted by `countTokens`, padding included for local text models) in one invoke. */
  readonly maxTokens: number;
  /** Upper bound of invokes at once. */
  readonly maxConcurrency: number;
  /** True: the provider's limit is unknown, so the queue finds it by itself. False: `maxConcurrency` is exact. */
  readonly isAdaptive: boolean;
  /** True: inputs of one invoke are padded to the longest, so the queue sorts by length before it cuts batches. */
  readonly isPadded: boolean;
  /** True: what two inputs begin with is computed once if they come one after the other; the queue sorts by text. */
  readonly sharesPrefixes?: boolean;
}

export interface Runner {
  readonly limits: RunnerLimits;
  readonly signature?: Signature;
  /** Tokens of an input: exact where the tokenizer is local, else an estimate of 1 token per 4 characters. */
  countTokens(input: Input): number;
  invoke(batch: Batch): Promise<BatchAnswer>;
  /** Chat and completions; one input. Absent: the engine does not stream and serving sends the whole answer as one delta. */
  stream?(batch: Batch): AsyncIterable<StreamEvent>;
  /** Present when the model is local, synchronous and cheap: answers inside the DuckDB callback. */
  readonly local?: LocalRunner;
  /** Present when requests of the OpenAI API may be passed on to it as they are. */
  readonly relay?: ByteRelay;
  /** Resolves, once, when it can answer no more (its process has died): serving opens another. Never rejects. */
  readonly lost?: Promise<ServingError>;
  close(): Promise<void>;
}

/** Passes a request and its answer on as bytes: chat and completions, one input. One attempt, like `invoke`. */
export interface ByteRelay {
  /** JSON text of the model's name at the provider, to stand where the caller has named the endpoint. */
  readonly model: Uint8Array;
  /** How the provider calls the limit on output tokens. */
  readonly limitField: 'max_tokens' | 'max_completion_tokens';
  /** Whether usage in streams can be asked for. */
  readonly hasStreamOptions: boolean;
  send(request: RelayRequest, listener: RelayListener): RelayExchange;
}

export interface RelayRequest {
  /** The body, in pieces that are sent one after the other. */
  readonly pieces: readonly Uint8Array[];
  readonly isStream: boolean;
  /** The event that carries nothing but usage is withheld: it was asked for on our own behalf. */
  readonly hidesUsage: boolean;
  /** Characters of the input, for an estimate where the provider does not count. */
  readonly inputLength: number;
  /** Epoch milliseconds by which the answer, of a stream its first event, must be there. */
  readonly deadlineMs?: number | undefined;
}

/** Hears either `onAnswer`, or `onEvents` any number of times and `onEnd`; in place of the rest `onFailure`. */
export interface RelayListener {
  /** A whole answer. `body` is valid only while the call lasts. */
  onAnswer(body: Buffer, usage: TokenUsage): void;
  /** Whole events of a stream, valid only while the call lasts. The first of them is no error. */
  onEvents(events: Buffer): void;
  onEnd(usage: TokenUsage): void;
  /** `usage`: what was generated before, as far as it was seen. */
  onFailure(error: ServingError, usage: TokenUsage): void;
}

export interface RelayExchange {
  /** Nothing more is read until `resume`. */
  pause(): void;
  resume(): void;
  /** Closes the connection; the listener hears nothing more. Gives what was generated, as far as it was seen. */
  abort(): TokenUsage;
}

/** A column of features straight from a DuckDB vector. `values[i]` is undefined behaviour where `isNull[i]`. */
export interface FeatureColumn {
  /** Struct member or column name; null for positional features. */
  readonly name: string | null;
  readonly values: Float64Array | readonly (string | number | boolean | bigint | null)[];
  /** 1 where NULL; null when no value is NULL. */
  readonly isNull: Uint8Array | null;
}

/** Predictions of one output column for one chunk. */
export interface PredictionColumn {
  readonly name: string;
  /** Lists (of lists) for tensors; an object by label where a model gives maps. NaN inside them is NULL. */
  readonly values: Float64Array | readonly Json[];
}

export interface LocalRunner {
  /** `predict`: one call per chunk; throws SCHEMA_MISMATCH. One column per signature output. */
  predictColumns?(columns: readonly FeatureColumn[], rowCount: number): readonly PredictionColumn[];
  /** `llm/v1/embeddings`: one vector a text. */
  embed?(texts: readonly string[]): readonly Float32Array[];
}
