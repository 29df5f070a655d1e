// The pipeline every call goes through, whichever door it came in by. Read it as a table of contents: the stages
// in their order, each in a file of its own. What a stage does is not decided here, and no engine is known here.
import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import type { Answer, Call, Principal, StreamEvent, Task } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { EngineKind, Signature, Target } from '#core/endpoint.ts';
import { ServingError, throwIfAborted, toServingError } from '#core/errors.ts';
import type { Estimate } from '#core/estimate.ts';
import type { Log } from '#core/log.ts';
import type { AnswerStore, PastRate, UsageRow, UsageStore } from '#core/stores.ts';
import type { Engine, EngineContext, LocalRunner } from '#engines/engine.ts';
import { authorize } from '#governance/access.ts';
import { CallRun } from './call-run.ts';
import { Carrier } from './carrier.ts';
import { estimateCall } from './estimate.ts';
import { checkInputs } from './inputs.ts';
import { Ledger, type LocalRows } from './ledger.ts';
import { lookUp } from './look-up.ts';
import { OpenTargets } from './open-targets.ts';
import type { QueueSink } from './outcomes.ts';
import { requirePrice } from './price.ts';
import { type Authorize, type Limits, NO_LIMITS, type Resolution, type Resolver } from './resolver.ts';
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
  /** Absent: the rule of governance. */
  readonly authorize?: Authorize;
  readonly limits?: Limits;
  readonly retry?: Partial<RetryPolicy>;
  /** The ledger's word on a target that has not answered in this process. For estimates. */
  readonly pastRate?: (target: Target) => Promise<PastRate | undefined>;
}

/** A model that answers inside a DuckDB callback, without a queue. */
export interface LocalTarget {
  readonly target: Target;
  readonly runner: LocalRunner;
  readonly signature?: Signature;
  /** Exactly one usage row for each time it is called. */
  record(rows: LocalRows): void;
}

export class Serving {
  readonly #resolver: Resolver;
  readonly #answers: AnswerStore;
  readonly #clock: Clock;
  readonly #authorize: Authorize;
  readonly #limits: Limits;
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
    this.#authorize = options.authorize ?? authorize;
    this.#limits = options.limits ?? NO_LIMITS;
    this.#pastRate = options.pastRate ?? (async () => undefined);
    const ledger = new Ledger(options.usage, clock, log);
    this.#ledger = ledger;
    const openTargets = (sink: QueueSink) => new OpenTargets({ ...options, policy, sink });
    this.#carrier = new Carrier({ answers, ledger, clock, log, openTargets });
    const targets = this.#carrier.targets;
    this.#targets = targets;
    const onEnd = (run: CallRun) => this.#end(run);
    this.#streams = new StreamOpener({ targets, answers, ledger, policy, clock, onEnd });
    resolver.onChange(() => targets.retireStale(resolver));
  }

  /** Whole-call failures are thrown; the failure of one input is a value. */
  async invoke(call: Call): Promise<Answer> {
    const run = new CallRun(call, this.#clock.now());
    shareSignal(call.signal);
    const cancel = () => this.#carrier.abandon(run, cancelled(call.signal));
    call.signal?.addEventListener('abort', cancel, { once: true });
    try {
      await this.#admit(run);
      const questions = await lookUp(run, this.#answers, this.#carrier.inFlight);
      // Not awaited: a cancelled call does not wait for a model to load. Failures reach the run.
      void this.#carrier.carry(run.target, questions);
      await run.settled();
      return run.toAnswer();
    } catch (thrown) {
      const error = toServingError(thrown);
      this.#carrier.abandon(run, error);
      throw run.fail(error);
    } finally {
      call.signal?.removeEventListener('abort', cancel);
      this.#end(run);
    }
  }

  /** Chat and completions, one input. Failures before the first event are thrown here, later ones by the events. */
  async stream(call: Call): Promise<{ target: Target; events: AsyncIterable<StreamEvent> }> {
    const run = new CallRun(call, this.#clock.now());
    run.isStreaming = true;
    shareSignal(call.signal);
    try {
      requireStreamable(call);
      await this.#admit(run);
      return await this.#streams.open(run);
    } catch (thrown) {
      const error = run.fail(toServingError(thrown));
      this.#end(run);
      throw error;
    }
  }

  /** What the call would cost. Spends nothing and loads nothing. */
  async estimate(call: Call): Promise<Estimate> {
    const { endpoint, target } = this.#resolve(call);
    this.#authorize(call.principal, endpoint, 'query');
    return estimateCall(call, target, this.#targets.get(target), this.#answers, this.#pastRate);
  }

  /** The target an endpoint resolves to now, from memory. Throws ENDPOINT_NOT_FOUND, WRONG_TASK. */
  describe(endpoint: string, task?: Task): { target: Target; signature?: Signature } {
    const { target } = this.#resolve({ endpoint, ...(task && { task }) });
    const signature = target.modelVersion?.signature ?? this.#targets.get(target)?.runner.signature;
    return { target, ...(signature && { signature }) };
  }

  /** A local runner that is open already; undefined when the engine is not local or the model not loaded. */
  local(endpoint: string, task: Task): LocalTarget | undefined {
    const { target } = this.#resolve({ endpoint, task });
    return this.#localTarget(target, this.#targets.get(target));
  }

  /** Loads it. Undefined when the engine is not local. */
  async openLocal(endpoint: string, task: Task, principal: Principal): Promise<LocalTarget | undefined> {
    const resolution = this.#resolve({ endpoint, task });
    this.#authorize(principal, resolution.endpoint, 'query');
    return this.#localTarget(resolution.target, await this.#targets.open(resolution.target));
  }

  onUsage(listener: (row: UsageRow) => void): void {
    this.#ledger.onRow(listener);
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
  async #admit(run: CallRun): Promise<void> {
    const { call } = run;
    throwIfAborted(call.signal);
    run.resolution = this.#resolve(call);
    this.#authorize(call.principal, run.resolution.endpoint, 'query');
    await this.#limits.admit(call, run.target);
    run.isAdmitted = true;
    checkInputs(call, run.target.task);
    requirePrice(run.target, call.budget);
    run.terms = await prepareTerms(call);
  }

  #resolve({
    endpoint,
    task,
    servedEntity,
  }: Pick<Partial<Call>, 'task' | 'servedEntity'> & { endpoint: string }): Resolution {
    const options = { ...(task && { task }), ...(servedEntity !== undefined && { servedEntity }) };
    return this.#resolver.resolve(endpoint, { ...options, random: this.#clock.random() });
  }

  #end(run: CallRun): void {
    this.#ledger.callEnded(run);
    if (run.isAdmitted) this.#limits.spend(run.call, run.target, run.spent);
  }

  #localTarget(target: Target, queue: TargetQueue | undefined): LocalTarget | undefined {
    const runner = queue?.runner.local;
    if (!queue || !runner) return undefined;
    const signature = target.modelVersion?.signature ?? queue.runner.signature;
    const record = (rows: LocalRows) => this.#ledger.local(randomUUID(), target, rows);
    return { target, runner, ...(signature && { signature }), record };
  }
}

/** Any number of calls of one statement may listen to its signal; Node would warn of a leak at eleven. */
function shareSignal(signal: AbortSignal | undefined): void {
  if (signal) setMaxListeners(0, signal);
}

function cancelled(signal: AbortSignal | undefined): ServingError {
  return new ServingError('CANCELLED', 'The call was cancelled.', { cause: signal?.reason });
}

function requireStreamable({ task, inputs }: Call): void {
  if ((task === 'llm/v1/chat' || task === 'llm/v1/completions') && inputs.length === 1) return;
  throw new ServingError(
    'INVALID_PARAMETER',
    `Only one chat or completion can be streamed at a time, not ${inputs.length} inputs of ${task}. Send them without streaming.`,
  );
}
