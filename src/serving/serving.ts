// The pipeline every call goes through, whichever door it came in by. Read it as a table of contents: the stages
// in their order, each in a file of its own. What a stage does is not decided here, and no engine is known here.
import { randomUUID } from 'node:crypto';
import type { Answer, Call, Origin, Principal, Reservation, StreamEvent, Task } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint, EngineKind, Signature, Target } from '#core/endpoint.ts';
import { ServingError, throwIfAborted, toServingError } from '#core/errors.ts';
import type { Estimate } from '#core/estimate.ts';
import type { Log } from '#core/log.ts';
import type { Authorize, Guards, Meters } from '#core/policies.ts';
import type { AnswerStore, PastRate, UsageRow, UsageStore } from '#core/stores.ts';
import type { Engine, EngineContext, LocalRunner } from '#engines/engine.ts';
import { CallRun } from './call-run.ts';
import { Carrier } from './carrier.ts';
import { NO_SPEND } from './combined-budget.ts';
import { CallWatch } from './deadline.ts';
import { estimateCall } from './estimate.ts';
import { guardInputs } from './guarding.ts';
import { checkInputs } from './inputs.ts';
import { Ledger, type LocalRows } from './ledger.ts';
import { lookUp } from './look-up.ts';
import { OpenTargets } from './open-targets.ts';
import type { QueueSink } from './outcomes.ts';
import { payloadOf, payloadTableOf } from './payload.ts';
import { requirePrice } from './price.ts';
import { Relay } from './relay.ts';
import { RelayHits } from './relay-hits.ts';
import type { ReplicaState } from './replicas-state.ts';
import type { Resolution, Resolver } from './resolver.ts';
import { DEFAULT_RETRY, type RetryPolicy } from './retry.ts';
import { StreamOpener } from './stream-opener.ts';
import type { TargetQueue } from './target-queue.ts';
import { prepareTerms } from './terms.ts';

export interface ServingOptions {
  readonly resolver: Resolver;
  readonly engines: ReadonlyMap<EngineKind, Engine>;
  readonly engineContext: EngineContext;
  readonly answers: AnswerStore;
  readonly usage: UsageStore;
  readonly clock: Clock;
  readonly log: Log;
  readonly authorize: Authorize;
  /** Rate limits and money budgets of governance. Absent: none. */
  readonly meters?: Meters;
  /** Guardrails. Absent: none. */
  readonly guards?: Guards;
  readonly retry?: Partial<RetryPolicy>;
  /** The ledger's word on a target that has not answered in this process. For estimates. */
  readonly pastRate?: (target: Target) => Promise<PastRate | undefined>;
}

/** A model that answers inside a DuckDB callback, without a queue. */
export interface LocalTarget {
  readonly target: Target;
  readonly runner: LocalRunner;
  readonly signature?: Signature;
  /**
   * Counts rows against the limits of their caller before they are answered. Undefined: it would have to wait, so
   * they are to be asked as questions, which can. Throws RATE_LIMIT_EXCEEDED, BUDGET_EXCEEDED. Absent: no limits.
   */
  tryReserve?(rows: number): Reservation | undefined;
  /** The model stays open until the function it gives is called, whatever becomes of its endpoint. */
  hold?(): () => void;
  /** Exactly one usage row for each time it is called; in durable mode to be awaited before the rows are given. */
  record(rows: LocalRows): Promise<void> | undefined;
}

export class Serving {
  /** The short way for calls that need nothing but to be passed on. */
  readonly relay: Relay;
  /** Exact repeats of calls whose answers are kept. */
  readonly hits: RelayHits;
  readonly #resolver: Resolver;
  readonly #answers: AnswerStore;
  readonly #clock: Clock;
  readonly #authorize: Authorize;
  readonly #meters: Meters | undefined;
  readonly #guards: Guards | undefined;
  readonly #usage: UsageStore;
  readonly #log: Log;
  readonly #pastRate: NonNullable<ServingOptions['pastRate']>;
  readonly #ledger: Ledger;
  readonly #carrier: Carrier;
  readonly #targets: OpenTargets;
  readonly #streams: StreamOpener;

  constructor(options: ServingOptions) {
    const { resolver, answers, clock, log } = options;
    const policy = { ...DEFAULT_RETRY, ...options.retry };
    this.#resolver = resolver;
    this.#answers = answers;
    this.#clock = clock;
    this.#authorize = options.authorize;
    this.#meters = options.meters;
    this.#guards = options.guards;
    this.#usage = options.usage;
    this.#log = log;
    this.#pastRate = options.pastRate ?? (async () => undefined);
    const ledger = new Ledger(options.usage, clock, log);
    this.#ledger = ledger;
    const openTargets = (sink: QueueSink) => new OpenTargets({ ...options, policy, sink });
    this.#carrier = new Carrier({ answers, ledger, clock, log, policy, openTargets });
    const targets = this.#carrier.targets;
    this.#targets = targets;
    const { authorize, meters, guards } = options;
    const isDurable = options.usage.isDurable === true;
    this.relay = new Relay({
      resolver,
      authorize,
      meters,
      guards,
      targets,
      ledger,
      clock,
      policy,
      isDurable,
    });
    this.hits = new RelayHits({ resolver, authorize, guards, answers, ledger, clock, isDurable });
    const onEnd = (run: CallRun) => this.#end(run);
    this.#streams = new StreamOpener({ targets, answers, ledger, policy, clock, onEnd });
    resolver.onChange(() => targets.retireStale());
  }

  /** Whole-call failures are thrown; the failure of one input is a value. */
  async invoke(call: Call): Promise<Answer> {
    const run = new CallRun(call, call.startedAtMs ?? this.#clock.now());
    const watch = this.#watch(run);
    try {
      await this.#admit(run, watch);
      const questions = await lookUp(run, this.#answers, this.#carrier.inFlight);
      // Not awaited: a cancelled call does not wait for a model to load. Failures reach the run.
      void this.#carrier.carry(run.target, questions);
      await run.settled();
      this.hits.note(run);
      return run.toAnswer();
    } catch (thrown) {
      const error = toServingError(thrown);
      this.#carrier.abandon(run, error);
      throw run.fail(error);
    } finally {
      watch.stop();
      this.#end(run);
      await this.#ledger.settled();
    }
  }

  /** Chat and completions, one input. Failures before the first event are thrown here, later ones by the events. */
  async stream(call: Call): Promise<{ target: Target; events: AsyncIterable<StreamEvent> }> {
    const run = new CallRun(call, call.startedAtMs ?? this.#clock.now());
    run.isStreaming = true;
    const watch = this.#watch(run);
    try {
      requireStreamable(call);
      await this.#admit(run, watch);
      return await this.#streams.open(run);
    } catch (thrown) {
      const error = run.fail(toServingError(thrown));
      this.#end(run);
      await this.#ledger.settled();
      throw error;
    } finally {
      // From the first event on the stream itself listens to its caller, and no deadline holds any more.
      watch.stop();
    }
  }

  /** What the call would cost. Spends nothing and loads nothing. */
  async estimate(call: Call): Promise<Estimate> {
    const { endpoint, target } = this.#resolve(call);
    this.#permit(call.principal, endpoint);
    const guard = this.#guards?.guardOf(endpoint);
    return estimateCall(call, target, this.#targets.get(target), this.#answers, this.#pastRate, guard);
  }

  /** The target an endpoint resolves to now, from memory. Throws ENDPOINT_NOT_FOUND, WRONG_TASK. */
  describe(endpoint: string, task?: Task): { target: Target; signature?: Signature } {
    const { target } = this.#resolve({ endpoint, ...(task && { task }) });
    const signature = target.modelVersion?.signature ?? this.#targets.get(target)?.runner.signature;
    return { target, ...(signature && { signature }) };
  }

  /**
   * A local runner that is open already; undefined when the engine is not local, the model not loaded, or the
   * inputs have to pass a guard, which a callback cannot wait for.
   */
  local(endpoint: string, task: Task, principal: Principal, origin: Origin): LocalTarget | undefined {
    const resolution = this.#resolve({ endpoint, task, principal });
    this.#permit(principal, resolution.endpoint);
    return this.#localTarget(resolution, this.#targets.get(resolution.target), { principal, origin });
  }

  /** Loads it. */
  async openLocal(
    endpoint: string,
    task: Task,
    principal: Principal,
    origin: Origin,
  ): Promise<LocalTarget | undefined> {
    const resolution = this.#resolve({ endpoint, task, principal });
    this.#permit(principal, resolution.endpoint);
    const queue = await this.#targets.openLoaded(resolution.target);
    return this.#localTarget(resolution, queue, { principal, origin });
  }

  /** Loads models before anybody resolves to them, and keeps them until the function it gives is called. */
  prepare(targets: readonly Target[]): Promise<() => void> {
    return this.#targets.hold(targets);
  }

  /** Usage rows of another process of this server. */
  recordElsewhere(lines: string, read: (lines: string) => Iterable<UsageRow>): void {
    this.#ledger.addElsewhere(lines, read);
  }

  onUsage(listener: (row: UsageRow) => void): void {
    this.#ledger.onRow(listener);
  }

  /** For who shares the places of targets out among processes. */
  onTarget(listener: (key: string, queue: TargetQueue) => void): void {
    this.#targets.onOpen(listener);
  }

  /** Of a served entity as it is now; undefined where it is an external model, or its model is not there. */
  replicasOf(endpoint: string, servedEntity: string): ReplicaState | undefined {
    try {
      return this.#targets.replicasOf(this.#resolver.resolve(endpoint, { servedEntity }).target);
    } catch {
      return undefined;
    }
  }

  /** Of all that were opened since this process began. `target`: endpoint and served entity. */
  replicas(): Iterable<{ readonly target: string; readonly state: ReplicaState }> {
    return this.#targets.replicas();
  }

  queueDepths(): readonly { target: string; waiting: number; inFlight: number; limit: number }[] {
    return this.#targets.depths();
  }

  /** Cancels what waits and what is in flight, and closes the models. */
  async close(): Promise<void> {
    this.#streams.close();
    await this.#targets.close();
  }

  /** The stages before the first look at an answer; their order is part of the contract. */
  async #admit(run: CallRun, watch: CallWatch): Promise<void> {
    throwIfAborted(run.call.signal);
    run.resolution = this.#resolve(run.call);
    const { endpoint } = run.resolution;
    this.#permit(run.call.principal, endpoint);
    watch.startClock(endpoint);
    checkInputs(run.call, run.target.task);
    const guard = this.#guards?.guardOf(endpoint);
    await guardInputs(run, guard);
    const meter = this.#meters?.meterOf(run.call, endpoint);
    run.terms = await prepareTerms(run.call, { endpoint, meter, guard, isPersonal: run.isPersonal });
    requirePrice(run.target, run.terms.budget);
  }

  #permit(principal: Principal, endpoint: Endpoint): void {
    this.#authorize(principal, endpoint, 'query');
    if (!endpoint.isStopped) return;
    throw new ServingError(
      'ENDPOINT_STOPPED',
      `Endpoint '${endpoint.name}' was stopped and takes no queries. Start it, or ask another one.`,
    );
  }

  #watch(run: CallRun): CallWatch {
    return new CallWatch(run, this.#clock, (error) => this.#carrier.abandon(run, error));
  }

  #resolve({
    endpoint,
    task,
    servedEntity,
    principal,
  }: Pick<Partial<Call>, 'task' | 'servedEntity' | 'principal'> & { endpoint: string }): Resolution {
    const options = { ...(task && { task }), ...(servedEntity !== undefined && { servedEntity }) };
    const random = this.#clock.random();
    try {
      return this.#resolver.resolve(endpoint, { ...options, random });
    } catch (thrown) {
      // That there is no such endpoint is told to everybody; what it serves, only to those who may ask it.
      const found = this.#resolver.resolve(endpoint, { random }).endpoint;
      if (principal) this.#authorize(principal, found, 'query');
      throw thrown;
    }
  }

  /** The rows of a call that is over. Whoever awaits its answer may have to await them (`ledger.settled`). */
  #end(run: CallRun): void {
    this.#ledger.callEnded(run);
    const table = run.knownResolution && payloadTableOf(run.knownResolution.endpoint);
    if (!table || !this.#usage.addPayload) return;
    try {
      this.#usage.addPayload(payloadOf(run, table, this.#clock.now()));
    } catch (cause) {
      this.#log.error({ err: cause, callId: run.call.id }, 'A row of an inference table could not be made.');
    }
  }

  #localTarget(
    { endpoint, target }: Resolution,
    queue: TargetQueue | undefined,
    asking: Pick<Call, 'principal' | 'origin'>,
  ): LocalTarget | undefined {
    const runner = queue?.local;
    if (!queue || !runner || this.#guards?.guardOf(endpoint)?.inputs) return undefined;
    const signature = target.modelVersion?.signature ?? queue.runner.signature;
    const meter = this.#meters?.meterOf(asking, endpoint);
    return {
      target,
      runner,
      ...(signature && { signature }),
      ...(meter && { tryReserve: (rows: number) => meter.tryReserve?.({ ...NO_SPEND, calls: rows }) }),
      hold: () => queue.hold(),
      record: (rows: LocalRows) => {
        this.#ledger.local(randomUUID(), target, rows);
        return this.#ledger.settled();
      },
    };
  }
}

function requireStreamable({ task, inputs }: Call): void {
  if ((task === 'llm/v1/chat' || task === 'llm/v1/completions') && inputs.length === 1) return;
  throw new ServingError(
    'INVALID_PARAMETER',
    `Only one chat or completion can be streamed at a time, not ${inputs.length} inputs of ${task}. Send them without streaming.`,
  );
}
