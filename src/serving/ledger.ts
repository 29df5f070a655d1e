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
import { inputLength, outputLength } from './inputs.ts';
import { costOf } from './price.ts';
import { NO_USAGE } from './question.ts';

export interface LocalRows {
  readonly inputs: number;
  readonly startedAtMs: number;
  readonly principal: Principal;
  readonly origin: Origin;
  readonly error?: ServingError;
}

/** Who asked for what, as far as a row says it. Every `Call` is one. */
export type RowCall = Pick<
  Call,
  'id' | 'principal' | 'origin' | 'endpoint' | 'task' | 'clientRequestId' | 'usageContext' | 'client'
>;

/** What a row says of one request, or of inputs that were not sent. */
export interface RowFacts {
  /** Undefined when the call failed before it was resolved. */
  readonly target: Target | undefined;
  /** Where the target does not know it. */
  readonly endpointId?: string | undefined;
  readonly startedAtMs: number;
  readonly inputCount: number;
  readonly cachedCount: number;
  readonly attempts: number;
  readonly usage: TokenUsage;
  /** US dollars; null when the price is not known. */
  readonly cost: number | null;
  readonly error: ServingError | undefined;
  readonly isStreaming?: boolean;
  readonly timeToFirstByteMs?: number | undefined;
  readonly inputCharacters?: number | undefined;
  readonly outputCharacters?: number | undefined;
}

export interface StreamFacts {
  readonly startedAtMs: number;
  readonly attempts: number;
  readonly usage: TokenUsage;
  readonly error?: ServingError | undefined;
  readonly firstEventAtMs?: number;
  readonly outputCharacters?: number;
}

/** Every member of a row, present or not. */
type RowMembers = { [Name in keyof Required<UsageRow>]: UsageRow[Name] | undefined };

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

  /** In durable mode: resolves when all rows so far are on disk. Undefined where nobody has to wait for it. */
  settled(): Promise<void> | undefined {
    return this.#usage.isDurable === true ? this.#usage.flush() : undefined;
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
        error: answered > 0 ? undefined : (tally.error ?? run.error ?? error),
        inputCharacters: tally.inputCharacters,
        outputCharacters: tally.outputCharacters,
      });
    }
  }

  /** A stream is over: the requests to a target, or what is left of them. */
  streamEnded(run: CallRun, target: Target, facts: StreamFacts): void {
    const { startedAtMs, attempts, usage, error, firstEventAtMs, outputCharacters = 0 } = facts;
    const cost = costOf(target, usage);
    run.bill(usage, cost);
    // The input stands in the row of the request that settled it: the last one.
    const inputCount = run.isSettled ? run.call.inputs.length - run.recordedInputs : 0;
    run.recordedInputs += inputCount;
    this.#addForRun(run, {
      ...{ target, startedAtMs, attempts, usage, cost, error, inputCount, outputCharacters },
      cachedCount: 0,
      isStreaming: run.isStreaming,
      timeToFirstByteMs: firstEventAtMs === undefined ? undefined : firstEventAtMs - startedAtMs,
      inputCharacters: inputCount === 0 ? 0 : charactersOf(run).inputCharacters,
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
      // Of several inputs it is not known which ones stand in other rows.
      ...(run.recordedInputs === 0 && charactersOf(run)),
    });
  }

  /** Answered inside a DuckDB callback: one row for all that `rows` counts. */
  local(callId: string, target: Target, { inputs, startedAtMs, principal, origin, error }: LocalRows): void {
    const call = { id: callId, principal, origin, endpoint: target.endpoint, task: target.task };
    this.add(call, {
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
    this.add(run.call, { ...facts, endpointId: run.knownResolution?.endpoint.id });
  }

  /** Rows of another process of this server. `read` makes them rows again, for those who listen. */
  addElsewhere(lines: string, read: (lines: string) => Iterable<UsageRow>): void {
    this.#usage.addEncoded?.(lines);
    if (this.#listeners.length > 0) for (const row of read(lines)) this.#tell(row);
  }

  /** One row, for whoever carries out a request without a `CallRun`. */
  add(call: RowCall, facts: RowFacts): void {
    const { target, error } = facts;
    const { principal, client } = call;
    const { timeToFirstByteMs: firstMs } = facts;
    // All members at once and in one order: thousands of rows a second share one shape then, and none is made for
    // each. What is undefined counts as absent.
    const row = {
      requestId: randomUUID(),
      callId: call.id,
      clientRequestId: call.clientRequestId ?? null,
      requestTimeMs: facts.startedAtMs,
      requester: principal.name,
      requesterType: principal.kind,
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
      inputTokens: facts.usage.inputTokens,
      outputTokens: facts.usage.outputTokens,
      cost: facts.cost,
      durationMs: Math.max(0, this.#clock.now() - facts.startedAtMs),
      isStreaming: facts.isStreaming ?? false,
      usageContext: call.usageContext ?? null,
      endpointId: target?.endpointId ?? facts.endpointId,
      servedEntityId: target?.servedEntityId,
      apiType: client?.apiType,
      path: client?.path,
      userAgent: client?.userAgent,
      requestTags: client?.requestTags,
      timeToFirstByteMs: firstMs === undefined ? undefined : Math.max(0, firstMs),
      inputCharacters: facts.inputCharacters,
      outputCharacters: facts.outputCharacters,
    } satisfies RowMembers as UsageRow;
    this.#usage.add(row);
    this.#tell(row);
  }

  #tell(row: UsageRow): void {
    for (const listener of this.#listeners) {
      try {
        listener(row);
      } catch (cause) {
        this.#log.error({ err: cause }, 'A listener of usage rows failed.');
      }
    }
  }
}

function charactersOf({ call, items }: CallRun): { inputCharacters: number; outputCharacters: number } {
  let inputCharacters = 0;
  let outputCharacters = 0;
  for (const input of call.inputs) inputCharacters += inputLength(input);
  for (const item of items) if (item?.ok) outputCharacters += outputLength(item.output);
  return { inputCharacters, outputCharacters };
}
