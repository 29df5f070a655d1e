// Usage rows. The rule: each batch that was sent has one row for each call that pays for a part of it, and each
// call has one more row for inputs that stand in no batch's row (stored, shared, refused, cancelled), or if it
// has no row at all. So SUM(input_count) is the inputs of all calls, and SUM(attempts) the requests of a provider.
import { randomUUID } from 'node:crypto';
import type { Call, Origin, Principal, TokenUsage } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import type { UsageRow, UsageStore } from '#core/stores.ts';
import type { Batch } from './batch.ts';
import type { CallRun } from './call-run.ts';
import { costOf } from './price.ts';
import { NO_USAGE } from './question.ts';

export interface LocalRows {
  readonly inputs: number;
  readonly startedAtMs: number;
  readonly principal: Principal;
  readonly origin: Origin;
  readonly error?: ServingError;
}

interface RowFacts {
  readonly target: Target | undefined;
  readonly startedAtMs: number;
  readonly inputCount: number;
  readonly cachedCount: number;
  readonly attempts: number;
  readonly usage: TokenUsage;
  readonly cost: number | null;
  readonly error: ServingError | undefined;
  readonly isStreaming?: boolean;
}

export class Ledger {
  readonly #usage: UsageStore;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #listeners: ((row: UsageRow) => void)[] = [];

  constructor(usage: UsageStore, clock: Clock, log: Log) {
    this.#usage = usage;
    this.#clock = clock;
    this.#log = log;
  }

  onRow(listener: (row: UsageRow) => void): void {
    this.#listeners.push(listener);
  }

  /** A batch is over. The first payer's row bears the attempts, so that their sum is what was sent. */
  batchEnded(batch: Batch, error: ServingError | undefined): void {
    if (batch.attempts === 0) return;
    for (const [at, tally] of batch.tallies.entries()) {
      const { run, target, inputs, cached, answered, inputTokens, outputTokens } = tally;
      const usage = { inputTokens, outputTokens };
      const cost = costOf(target, usage);
      run.bill(usage, cost);
      this.#addForRun(run, {
        target,
        startedAtMs: batch.startedAtMs,
        inputCount: inputs,
        cachedCount: cached,
        attempts: at === 0 ? batch.attempts : 0,
        usage,
        cost,
        error: answered > 0 ? undefined : (tally.error ?? error),
      });
    }
  }

  /** A stream is over: one request to a target, or what is left of it. */
  streamEnded(
    run: CallRun,
    target: Target,
    facts: { startedAtMs: number; attempts: number; usage: TokenUsage; error?: ServingError | undefined },
  ): void {
    const cost = costOf(target, facts.usage);
    run.bill(facts.usage, cost);
    // The input stands in the row of the request that settled it: the last one.
    const inputCount = run.isSettled ? run.call.inputs.length - run.recordedInputs : 0;
    run.recordedInputs += inputCount;
    this.#addForRun(run, {
      ...facts,
      target,
      inputCount,
      cachedCount: 0,
      cost,
      error: facts.error,
      isStreaming: run.isStreaming,
    });
  }

  /** Last of a call's rows: whatever is not recorded yet. */
  callEnded(run: CallRun): void {
    const inputCount = run.call.inputs.length - run.recordedInputs;
    if (inputCount === 0 && run.rowCount > 0) return;
    let cached = 0;
    let error = run.error;
    for (const item of run.items) {
      if (item?.ok && item.cached) cached++;
      else if (item?.ok === false) error ??= item.error;
    }
    const cachedCount = cached - run.recordedCached;
    this.#addForRun(run, {
      target: run.knownTarget,
      startedAtMs: run.startedAtMs,
      inputCount,
      cachedCount,
      attempts: 0,
      usage: NO_USAGE,
      cost: 0,
      // Failures of inputs that were sent stand in the rows of their batches.
      error: cachedCount < inputCount || run.error ? error : undefined,
      isStreaming: run.isStreaming,
    });
  }

  /** Answered inside a DuckDB callback: one row for all that `rows` counts. */
  local(callId: string, target: Target, { inputs, startedAtMs, principal, origin, error }: LocalRows): void {
    const call = { id: callId, principal, origin, endpoint: target.endpoint, task: target.task };
    this.#add(call, {
      target,
      startedAtMs,
      inputCount: inputs,
      cachedCount: 0,
      attempts: 1,
      usage: NO_USAGE,
      cost: costOf(target, NO_USAGE),
      error,
    });
  }

  #addForRun(run: CallRun, facts: RowFacts): void {
    run.rowCount++;
    this.#add(run.call, facts);
  }

  #add(
    call: Pick<
      Call,
      'id' | 'principal' | 'origin' | 'endpoint' | 'task' | 'clientRequestId' | 'usageContext'
    >,
    facts: RowFacts,
  ): void {
    const { target, error } = facts;
    const row: UsageRow = {
      requestId: randomUUID(),
      callId: call.id,
      clientRequestId: call.clientRequestId ?? null,
      requestTimeMs: facts.startedAtMs,
      requester: call.principal.name,
      origin: call.origin,
      endpoint: call.endpoint,
      servedEntity: target?.servedEntity ?? null,
      model: target?.model ?? null,
      engine: target?.engine ?? null,
      task: call.task,
      statusCode: error?.row.httpStatus ?? 200,
      errorCode: error?.code ?? null,
      errorMessage: error?.message ?? null,
      inputCount: facts.inputCount,
      cachedCount: facts.cachedCount,
      attempts: facts.attempts,
      ...facts.usage,
      cost: facts.cost,
      durationMs: Math.max(0, this.#clock.now() - facts.startedAtMs),
      isStreaming: facts.isStreaming ?? false,
      usageContext: call.usageContext ?? null,
    };
    this.#usage.add(row);
    for (const listener of this.#listeners) {
      try {
        listener(row);
      } catch (cause) {
        this.#log.error({ err: cause }, 'A listener of usage rows failed.');
      }
    }
  }
}
