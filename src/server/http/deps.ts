// What the HTTP door is given from outside, as shapes: serving, the registry, SQL sessions. The application
// builds them; this door neither opens nor closes any of it, except the sessions it asks for itself.
import type { Answer, Budget, CacheMode, Call, Origin, Principal, StreamEvent } from '#core/call.ts';
import type { Endpoint, Target } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import type { UsageRow } from '#core/stores.ts';
import type { StatementResult } from '#session/result.ts';

export interface QueueDepth {
  readonly target: string;
  readonly waiting: number;
  readonly inFlight: number;
  readonly limit: number;
}

export interface SqlSession {
  run(
    sql: string,
    options?: {
      readonly parameters?: readonly Json[];
      readonly signal?: AbortSignal;
      readonly budget?: Budget;
      readonly cache?: CacheMode;
      readonly maxRows?: number;
    },
  ): Promise<readonly StatementResult[]>;
  close(): Promise<void>;
}

export interface HttpDeps {
  readonly serving: {
    invoke(call: Call): Promise<Answer>;
    stream(call: Call): Promise<{ readonly target: Target; readonly events: AsyncIterable<StreamEvent> }>;
    onUsage(listener: (row: UsageRow) => void): void;
    queueDepths(): readonly QueueDepth[];
  };
  readonly registry: {
    listEndpoints(): readonly Endpoint[];
    /** Throws ENDPOINT_NOT_FOUND. */
    getEndpoint(name: string): Endpoint;
    createEndpoint(spec: unknown, principal: Principal): Promise<Endpoint>;
    deleteEndpoint(name: string): Promise<void>;
  };
  openSession(options: { readonly principal: Principal; readonly origin: Origin }): Promise<SqlSession>;
  createBudget(limits: Budget['limits']): Budget;
  readonly log: Log;
  readonly version: string;
  /** SHA-256 (hex) of the bearer tokens that are accepted. Absent: no authentication, loopback only. */
  readonly authTokens?: readonly string[];
}
