// What the HTTP door is given from outside, as shapes: serving, the registry, SQL sessions. The application
// builds them; this door neither opens nor closes any of it, except the sessions it asks for itself.
import type { Answer, Budget, CacheMode, Call, Origin, Principal, StreamEvent, Task } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Signature, Target } from '#core/endpoint.ts';
import type { Estimate } from '#core/estimate.ts';
import type { Json } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import type { UsageRow, UsageStore } from '#core/stores.ts';
import type { Identity } from '#governance/identity/identity.ts';
import type { Relay } from '#serving/relay.ts';
import type { RelayHits } from '#serving/relay-hits.ts';
import type { ReplicaState } from '#serving/replicas-state.ts';
import type { StatementResult } from '#session/result.ts';
import type { ControlRegistry } from './control/deps.ts';
import type { LimitsDoor } from './limits-routes.ts';

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

/** Spans of requests; what they become is not known here. */
export interface RequestTracing {
  begin(request: {
    readonly id: string;
    readonly method: string;
    readonly path: string;
    readonly traceparent: string | undefined;
  }): void;
  end(
    id: string,
    outcome: { readonly status: number; readonly route: string; readonly endpoint?: string },
  ): void;
}

export interface HttpDeps {
  /** Present when a collector is configured. */
  readonly tracing?: RequestTracing;
  readonly serving: {
    invoke(call: Call): Promise<Answer>;
    stream(call: Call): Promise<{ readonly target: Target; readonly events: AsyncIterable<StreamEvent> }>;
    /** What the endpoint resolves to now, and the columns of its model where they are known. From memory. */
    describe?(endpoint: string, task?: Task): { readonly target: Target; readonly signature?: Signature };
    /** What a call would cost; asks no model. */
    estimate?(call: Call): Promise<Estimate>;
    /** The short way of calls that need nothing but to be passed on; absent: every call takes the long one. */
    readonly relay?: Pick<Relay, 'start'>;
    /** Exact repeats; absent: none are known. */
    readonly hits?: RelayHits;
    onUsage(listener: (row: UsageRow) => void): void;
    queueDepths(): readonly QueueDepth[];
    /** Of a served entity; undefined where it is an external model. */
    replicasOf?(endpoint: string, servedEntity: string): ReplicaState | undefined;
    replicas?(): Iterable<{ readonly target: string; readonly state: ReplicaState }>;
  };
  readonly registry: ControlRegistry;
  /** How the ledger is doing, for metrics. */
  readonly usage?: Pick<UsageStore, 'waitingRows' | 'lostRows'>;
  /** Rate limits and budgets of the workspace. */
  readonly limits?: LimitsDoor;
  /** The metrics of one endpoint in Prometheus' text form. */
  endpointMetrics?(name: string): Promise<string>;
  openSession(options: { readonly principal: Principal; readonly origin: Origin }): Promise<SqlSession>;
  createBudget(limits: Budget['limits']): Budget;
  readonly log: Log;
  /** For heartbeats of streams; absent: the system's. */
  readonly clock?: Clock;
  readonly version: string;
  /** Who asks and what they may do. */
  readonly identity: Identity;
}
