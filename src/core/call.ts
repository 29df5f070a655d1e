// The nouns Call, Answer and Principal: one request to one endpoint, and what came back.
// Not here: how a call is carried out (serving), nor any wire's spelling of it (doors).
import { randomUUID } from 'node:crypto';
import type { ServingError } from './errors.ts';
import type { Json, JsonObject } from './json.ts';

/** Task names are those of Databricks Model Serving; `predict` stands for its task-less custom models. */
export type Task = 'llm/v1/chat' | 'llm/v1/completions' | 'llm/v1/embeddings' | 'predict';
export const TASKS: readonly Task[] = ['llm/v1/chat', 'llm/v1/completions', 'llm/v1/embeddings', 'predict'];

export type Origin = 'sql' | 'http' | 'pg' | 'cli' | 'library';

/** Who asks. Without authentication there is one: the local owner of the data directory. */
export interface Principal {
  readonly id: string;
  /** A user's name or mail address, a service principal's application id. Limits, permissions and usage rows use it. */
  readonly name: string;
  readonly kind: 'user' | 'service_principal';
  readonly isAdmin: boolean;
  /** Names of the groups it is in. */
  readonly groups?: readonly string[];
  /** What its token may be used for; absent: for everything the principal may do. */
  readonly scopes?: readonly TokenScope[];
  /** Endpoints its token is for; absent: for all that the principal may use. */
  readonly endpoints?: readonly string[];
}

/** `query`: ask endpoints; `manage`: create and change them; `sql`: run statements. */
export type TokenScope = 'query' | 'manage' | 'sql';
export const TOKEN_SCOPES: readonly TokenScope[] = ['query', 'manage', 'sql'];

/** The owner of the data directory: who asks where nobody has to say who they are. */
export const LOCAL_OWNER: Principal = { id: 'local-owner', name: 'local', kind: 'user', isAdmin: true };

export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON text, as the model wrote it. */
  readonly arguments: string;
}

export type ContentPart =
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'image_url'; readonly url: string };

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content: string | readonly ContentPart[] | null;
  readonly name?: string;
  readonly toolCalls?: readonly ToolCall[];
  readonly toolCallId?: string;
}

/** One input, by task. A call carries 1..n inputs of its task. */
export interface ChatInput {
  readonly messages: readonly ChatMessage[];
}
export interface CompletionInput {
  readonly prompt: string;
}
export interface EmbeddingInput {
  readonly text: string;
}
/** One row of features: by name (struct, dataframe_records) or by position (several columns, a list). */
export interface FeatureInput {
  readonly features: JsonObject | readonly Json[];
}
export type Input = ChatInput | CompletionInput | EmbeddingInput | FeatureInput;

export type FinishReason = 'stop' | 'length' | 'tool_calls' | 'content_filter';

/** One output, by task. */
export interface ChatOutput {
  readonly content: string | null;
  readonly toolCalls?: readonly ToolCall[];
  readonly finishReason: FinishReason;
  /** What an agent gives beside its text. */
  readonly customOutputs?: JsonObject;
}
export interface CompletionOutput {
  readonly text: string;
  readonly finishReason: FinishReason;
}
export interface EmbeddingOutput {
  readonly embedding: Float32Array;
}
/** A scalar for a model with one output, else an object by output name. */
export interface PredictOutput {
  readonly prediction: Json;
}
export type Output = ChatOutput | CompletionOutput | EmbeddingOutput | PredictOutput;

export type ResponseFormat =
  | { readonly type: 'text' }
  | { readonly type: 'json_object' }
  | {
      readonly type: 'json_schema';
      readonly name: string;
      readonly schema: JsonObject;
      readonly strict?: boolean;
    };

export interface Tool {
  readonly name: string;
  readonly description?: string;
  readonly parameters?: JsonObject;
}
export type ToolChoice = 'auto' | 'required' | 'none' | { readonly name: string };

/** Parameters shared by all inputs of a call. `extra` holds provider fields that are passed through as they are. */
export interface Parameters {
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly stop?: readonly string[];
  readonly seed?: number;
  readonly responseFormat?: ResponseFormat;
  readonly tools?: readonly Tool[];
  readonly toolChoice?: ToolChoice;
  /** Requested embedding dimensions, for models that can shorten their vectors. */
  readonly dimensions?: number;
  readonly extra?: JsonObject;
  /** For agents: what their caller gives them beside the messages. Models are not shown it. */
  readonly customInputs?: JsonObject;
  /** For agents: which conversation and which user of the caller this belongs to. Models are not shown it. */
  readonly conversation?: JsonObject;
}

/** `off`: neither read nor written; `read`: only read; `write`: only written (asked anew); `on`: both. */
export type CacheMode = 'on' | 'off' | 'read' | 'write';
export const CACHE_MODES: readonly CacheMode[] = ['on', 'off', 'read', 'write'];

export interface TokenUsage {
  readonly inputTokens: number;
  readonly outputTokens: number;
}

/** What a reservation holds back before a call, and what it is settled to afterwards. Cost in US dollars. */
export interface Spend {
  readonly calls: number;
  readonly tokens: number;
  readonly cost: number;
}

/**
 * A limit over several calls: of a statement or session, or a meter of governance (rates and money of a principal
 * and an endpoint). Reserved for each request before the engine is asked, settled after.
 */
export interface Budget {
  readonly limits: { readonly maxCalls?: number; readonly maxTokens?: number; readonly maxCost?: number };
  /**
   * Resolves when the spend is held back; waits while reservations in flight (of a meter: also the turn of the
   * minute, where its caller can wait) could still free enough; throws BUDGET_EXCEEDED, RATE_LIMIT_EXCEEDED.
   */
  reserve(spend: Spend, signal?: AbortSignal): Promise<Reservation>;
  /** The same without waiting, for the hot path: undefined where `reserve` would wait. Same errors. Absent: it always waits. */
  tryReserve?(spend: Spend): Reservation | undefined;
}
export interface Reservation {
  /** Replaces what was held back by what was really spent. Exactly once. */
  settle(actual: Spend): void;
}

/** What a door knows of the program that asks. For the usage tables; decides nothing. */
export interface ClientFacts {
  /** The interface that was spoken, e.g. `openai/v1/chat/completions`, `anthropic/v1/messages`, `mlflow/invocations`. */
  readonly apiType: string;
  readonly path?: string;
  readonly userAgent?: string;
  readonly requestTags?: Readonly<Record<string, string>>;
}

export interface Call {
  readonly id: string;
  readonly endpoint: string;
  readonly task: Task;
  readonly inputs: readonly Input[];
  readonly parameters: Parameters;
  readonly principal: Principal;
  readonly origin: Origin;
  readonly cache: CacheMode;
  /** The caller has named the cache mode itself; else it is a default of the door. */
  readonly isCacheChosen?: boolean;
  readonly signal?: AbortSignal;
  /** Epoch milliseconds at which its caller began to wait, where that was before serving was asked. Deadlines count from it. */
  readonly startedAtMs?: number;
  /** Epoch milliseconds by which all of it (queue, retries, fallbacks) must be over; then TIMEOUT. */
  readonly deadlineMs?: number;
  readonly budget?: Budget;
  readonly client?: ClientFacts;
  /** Asks one served entity directly; the traffic split is ignored. */
  readonly servedEntity?: string;
  readonly clientRequestId?: string;
  readonly usageContext?: Readonly<Record<string, string>>;
  /** Heard once per input as its answer arrives, in any order; must not throw. For progress. */
  readonly onItem?: (index: number, item: AnswerItem) => void;
  /** How many models stand between this call and whoever asked first: a model has asked it. Absent: 0. */
  readonly depth?: number;
}

export interface AnsweredItem {
  readonly ok: true;
  readonly output: Output;
  readonly usage: TokenUsage;
  readonly cached: boolean;
}
export interface FailedItem {
  readonly ok: false;
  readonly error: ServingError;
}
export type AnswerItem = AnsweredItem | FailedItem;

export interface Answer {
  /** In input order, one for each input. */
  readonly items: readonly AnswerItem[];
  readonly usage: TokenUsage;
  /** US dollars; null when the price of the model is not known. */
  readonly cost: number | null;
  /** Name of the served entity that answered. */
  readonly servedEntity: string;
  /** Model name as the target knows it, e.g. `gpt-4o-mini` or `embedded/all-minilm-l6-v2@1`. */
  readonly model: string;
}

/** Events of a streamed chat or completion. `end` comes exactly once, last. */
export type StreamEvent =
  | { readonly type: 'delta'; readonly text: string }
  | {
      readonly type: 'tool_call';
      readonly index: number;
      readonly id?: string;
      readonly name?: string;
      readonly arguments?: string;
    }
  | {
      readonly type: 'end';
      readonly finishReason: FinishReason;
      readonly usage: TokenUsage;
      /** What an agent gives beside its text. */
      readonly customOutputs?: JsonObject;
    };

export interface CallOptions extends Partial<Omit<Call, 'endpoint' | 'task' | 'inputs'>> {}

/** A call with defaults filled in: new id, local owner, origin `library`, cache on. */
export function createCall(
  endpoint: string,
  task: Task,
  inputs: readonly Input[],
  options: CallOptions = {},
): Call {
  return {
    id: randomUUID(),
    parameters: {},
    principal: LOCAL_OWNER,
    origin: 'library',
    cache: 'on',
    ...options,
    endpoint,
    task,
    inputs,
  };
}
