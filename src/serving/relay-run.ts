// One call on the short way: reserved, waiting for a place or on its way, ended once. Whatever ends it settles its
// budget, its place and its usage row in one turn. Not here: which calls these are (relay.ts).
import type { Budget, Reservation, TokenUsage } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { ByteRelay, RelayExchange, RelayListener } from '#engines/engine.ts';
import { NO_SPEND } from './combined-budget.ts';
import { deadlineOf, timeoutOf } from './deadline.ts';
import type { Ledger, RowCall } from './ledger.ts';
import { actualSpend, costOf } from './price.ts';
import { type RelayBody, toPieces } from './relay-body.ts';
import type { Release, TargetQueue } from './target-queue.ts';
import { DEFAULT_MAX_TOKENS } from './terms.ts';
import { Trail } from './trail.ts';

export interface RelayCall extends RowCall {
  readonly servedEntity?: string;
  readonly body: RelayBody;
}

/** What the door hears: `onAnswer`; or `onEvents`, then `onEnd` or `onCut`; or `onRetreat` before all else. */
export interface RelayReader {
  /** The whole answer. `body` is valid only while the call lasts. */
  onAnswer(body: Buffer): void;
  /** Whole events, valid only while the call lasts. */
  onEvents(events: Buffer): void;
  onEnd(): void;
  /** A limit or a crowd stands before it, or the provider has refused it for good: nothing more will be sent. */
  onRefused(error: ServingError): void;
  /** The stream broke after events were given. */
  onCut(error: ServingError): void;
  /** Nothing was given: the call is to be carried out the long way, with its tries and fallbacks. */
  onRetreat(): void;
}

interface RunOptions {
  readonly call: RelayCall;
  readonly target: Target;
  readonly endpoint: Endpoint;
  readonly queue: TargetQueue;
  readonly relay: ByteRelay;
  readonly reader: RelayReader;
  readonly ledger: Ledger;
  readonly clock: Clock;
}

export class RelayRun implements RelayListener {
  readonly #options: RunOptions;
  readonly deadlineMs: number | undefined;
  /** When the call came; `#startedAtMs` is when its request was sent. */
  readonly #calledAtMs: number;
  #startedAtMs: number;
  #reservation: Reservation | undefined;
  #release: Release | undefined;
  #leaveLine: (() => void) | undefined;
  #cap: number | undefined;
  #exchange: RelayExchange | undefined;
  #firstEventAtMs: number | undefined;
  #isOver = false;

  constructor(options: RunOptions) {
    this.#options = options;
    this.#calledAtMs = options.clock.now();
    this.#startedAtMs = this.#calledAtMs;
    this.deadlineMs = deadlineOf(options.call, options.endpoint, this.#startedAtMs);
  }

  get target(): Target {
    return this.#options.target;
  }

  /** Whether the spend is held back. False: it would have to be waited for. Throws what the meter throws. */
  reserve(meter: Budget): boolean {
    const { call, target } = this.#options;
    const { bytes, maxTokens } = call.body;
    const { limits } = meter;
    const isBounded = limits.maxCost !== undefined || limits.maxTokens !== undefined;
    if (isBounded && maxTokens === undefined) this.#cap = DEFAULT_MAX_TOKENS;
    // No tokenizer makes more tokens than bytes.
    const most = { inputTokens: bytes.length, outputTokens: maxTokens ?? DEFAULT_MAX_TOKENS };
    this.#reservation = meter.tryReserve?.(actualSpend(target, 1, most));
    return this.#reservation !== undefined;
  }

  /** It has its place: the request is sent. Throws what the engine throws before that. */
  begin(release: Release): void {
    this.#release = release;
    const { call, relay, clock } = this.#options;
    const { body } = call;
    this.#startedAtMs = clock.now();
    this.#exchange = relay.send(
      {
        pieces: toPieces(body, relay, this.#cap),
        isStream: body.isStream,
        hidesUsage: !body.includesUsage,
        inputLength: body.inputLength,
        deadlineMs: this.deadlineMs,
      },
      this,
    );
  }

  /** For a place, in line with everybody else. */
  wait(hasFallback: boolean): void {
    const { queue, call } = this.#options;
    const give = (release: Release) => this.#takeTurn(release);
    const refuse = () => this.#retreat();
    this.#leaveLine = queue.await(call.body.isStream, hasFallback, give, refuse);
  }

  /** Nothing was sent: what was held is given back, and somebody else carries it out. */
  withdraw(): void {
    this.#isOver = true;
    this.#leaveLine?.();
    this.#reservation?.settle(NO_SPEND);
    this.#release?.('unknown');
  }

  /** Refused without being sent: the caller is told, and a row says so. */
  refuse(error: ServingError): void {
    this.withdraw();
    this.#record(NO_TOKENS, error, 1, 0);
    this.#options.reader.onRefused(error);
  }

  pause(): void {
    this.#exchange?.pause();
  }

  resume(): void {
    this.#exchange?.resume();
  }

  /** The caller went away: the provider is told at once, and what it has generated is paid for. */
  cancel(): void {
    if (this.#isOver) return;
    const error = new ServingError('CANCELLED', 'The client closed the connection.');
    if (this.#exchange) this.#end(this.#exchange.abort(), error, 1);
    else {
      this.withdraw();
      this.#record(NO_TOKENS, error, 1, 0);
    }
  }

  onAnswer(body: Buffer, usage: TokenUsage): void {
    if (this.#isOver) return;
    this.#end(usage, undefined, 1);
    this.#options.reader.onAnswer(body);
  }

  onEvents(events: Buffer): void {
    if (this.#isOver) return;
    this.#firstEventAtMs ??= this.#options.clock.now();
    this.#options.reader.onEvents(events);
  }

  onEnd(usage: TokenUsage): void {
    if (this.#isOver) return;
    this.#end(usage, undefined, 1);
    this.#options.reader.onEnd();
  }

  onFailure(failure: ServingError, usage: TokenUsage): void {
    if (this.#isOver) return;
    const error = this.#isLate() ? this.#timeout() : failure;
    const isFinal = !error.row.isRetryable || error !== failure;
    if (this.#firstEventAtMs === undefined && isFinal) {
      // Another try would be refused the same way, or come too late.
      this.#end(usage, error, 1);
      this.#options.reader.onRefused(error);
    } else if (this.#firstEventAtMs === undefined) {
      // The input stands in the row of whoever answers it in the end.
      this.#end(usage, error, 0);
      this.#options.reader.onRetreat();
    } else {
      this.#end(usage, error, 1);
      this.#options.reader.onCut(error);
    }
  }

  #isLate(): boolean {
    return this.deadlineMs !== undefined && this.#options.clock.now() >= this.deadlineMs;
  }

  #timeout(): ServingError {
    const trail = new Trail();
    trail.asked(this.target);
    const { call } = this.#options;
    return timeoutOf({ call, startedAtMs: this.#calledAtMs, deadlineMs: this.deadlineMs ?? 0, trail });
  }

  #takeTurn(release: Release): void {
    if (this.#isOver) {
      release('unknown');
      return;
    }
    this.#leaveLine = undefined;
    try {
      this.begin(release);
    } catch {
      this.#retreat();
    }
  }

  #retreat(): void {
    if (this.#isOver) return;
    this.withdraw();
    this.#options.reader.onRetreat();
  }

  /** Budget, place and usage row, in one turn and once. */
  #end(usage: TokenUsage, error: ServingError | undefined, inputCount: number): void {
    this.#isOver = true;
    this.#reservation?.settle(actualSpend(this.target, 1, usage));
    this.#release?.(error?.code === 'CANCELLED' ? 'unknown' : error);
    this.#record(usage, error, inputCount, 1);
  }

  #record(usage: TokenUsage, error: ServingError | undefined, inputCount: number, attempts: number): void {
    const { call, target, endpoint, ledger } = this.#options;
    const firstMs = this.#firstEventAtMs;
    ledger.add(call, {
      target,
      endpointId: endpoint.id,
      startedAtMs: this.#startedAtMs,
      inputCount,
      cachedCount: 0,
      attempts,
      usage,
      cost: attempts === 0 ? 0 : costOf(target, usage),
      error,
      isStreaming: call.body.isStream,
      timeToFirstByteMs: firstMs === undefined ? undefined : firstMs - this.#startedAtMs,
    });
  }
}

const NO_TOKENS: TokenUsage = { inputTokens: 0, outputTokens: 0 };
