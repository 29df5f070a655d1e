// Stores as the floors above see them: answers already paid for, and the ledger of what was used.
// Implemented in storage; defined here because serving may not import storage.
import type { Origin, Output, Task, TokenUsage } from './call.ts';
import type { EngineKind } from './endpoint.ts';

/** One answer as it is kept. Errors and answers that did not parse are never kept. */
export interface StoredAnswer {
  readonly output: Output;
  readonly usage: TokenUsage;
  readonly endpoint: string;
  readonly model: string;
  readonly task: Task;
  /** Epoch milliseconds. */
  readonly createdAtMs: number;
}

/** Answers by key (`answerKey`, 43 characters). A read error is a miss; a lost entry is asked again. */
export interface AnswerStore {
  get(key: string): StoredAnswer | undefined;
  /** Visible to `get` at once in this process; on disk at the next flush (every few milliseconds). */
  put(key: string, answer: StoredAnswer): void;
  /** Resolves when everything put so far would survive SIGKILL. */
  flush(): Promise<void>;
  /** Newest last is not promised; a snapshot of what is on disk. */
  entries(): IterableIterator<readonly [key: string, answer: StoredAnswer]>;
  /** Forgets answers of one endpoint or model, or all; gives the number forgotten. */
  clear(filter?: { readonly endpoint?: string; readonly model?: string }): Promise<number>;
  readonly count: number;
}

/** One request to a target, or one call that never got that far (refused, or answered from the store alone). */
export interface UsageRow {
  readonly requestId: string;
  readonly callId: string;
  readonly clientRequestId: string | null;
  /** Epoch milliseconds at which the request began. */
  readonly requestTimeMs: number;
  readonly requester: string;
  readonly origin: Origin;
  readonly endpoint: string;
  /** Null when the call failed before it was resolved. */
  readonly servedEntity: string | null;
  readonly model: string | null;
  readonly engine: EngineKind | null;
  readonly task: Task;
  /** 200, or the HTTP status of the error. */
  readonly statusCode: number;
  readonly errorCode: string | null;
  readonly errorMessage: string | null;
  readonly inputCount: number;
  /** Inputs answered from the answer store; nothing was sent for them. */
  readonly cachedCount: number;
  /** Times the engine was asked, retries included: the requests a provider has in its own ledger. */
  readonly attempts: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** US dollars; null when the price is not known. */
  readonly cost: number | null;
  readonly durationMs: number;
  readonly isStreaming: boolean;
  readonly usageContext: Readonly<Record<string, string>> | null;
  /** Absent members are NULL in the table. */
  readonly endpointId?: string;
  readonly servedEntityId?: string;
  readonly requesterType?: 'user' | 'service_principal';
  readonly apiType?: string;
  readonly path?: string;
  readonly userAgent?: string;
  readonly requestTags?: Readonly<Record<string, string>>;
  /** Until the first event of a stream. */
  readonly timeToFirstByteMs?: number;
  readonly inputCharacters?: number;
  readonly outputCharacters?: number;
}

/** Request and answer of one call, for the inference table of its endpoint. */
export interface PayloadRow {
  readonly table: { readonly catalog: string; readonly schema: string; readonly name: string };
  readonly requestId: string;
  readonly clientRequestId: string | null;
  readonly requestTimeMs: number;
  readonly statusCode: number;
  readonly samplingFraction: number;
  readonly durationMs: number;
  /** JSON texts in the OpenAI or MLflow shape; null where they are over the limit or there is none. */
  readonly request: string | null;
  readonly response: string | null;
  readonly servedEntityId: string | null;
  readonly requester: string;
  /** E.g. `MAX_REQUEST_SIZE_EXCEEDED`. */
  readonly loggingErrorCodes: readonly string[];
}

export interface UsageStore {
  /** Queued; on disk at the next write, at most one interval (100 ms) later. Never throws. */
  add(row: UsageRow): void;
  /** Rows of another process of the same server, as lines of `encodeUsageRow`. Never throws. */
  addEncoded?(lines: string): void;
  /** Rows that are not on disk yet; many only where the disk refuses them. */
  readonly waitingRows?: number;
  /** Rows that were given up because the disk refused them for too long. */
  readonly lostRows?: number;
  /** Queued and written like usage rows. Never throws. */
  addPayload?(row: PayloadRow): void;
  /** Resolves when everything added so far would survive SIGKILL; callers at the same time share one write. */
  persist?(): Promise<void>;
  /** Resolves when everything added so far can be read in SQL. */
  flush(): Promise<void>;
  /** True: a call is answered only after its rows are on disk: `persist` is awaited before the answer is given. */
  readonly isDurable?: boolean;
}

/** How fast a model has answered before, also before this process began. */
export interface PastRate {
  /** The best that fifty requests in a row have reached. */
  readonly inputsPerSecond: number;
  /** Mean time of one request. */
  readonly requestMs: number;
}
