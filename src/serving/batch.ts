// A batch: the questions of one request to an engine, tried once or several times. It ends when it settles
// something, is cut in halves or gives up; each batch that was sent has its own usage row per paying call.
import type { Reservation, TokenUsage } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { CallRun } from './call-run.ts';
import { NO_SPEND } from './combined-budget.ts';
import type { Question } from './question.ts';
import { NO_TRIES, type Tries } from './retry.ts';
import type { Terms } from './terms.ts';

/** What one paying call has of a batch. */
export interface Tally {
  readonly run: CallRun;
  readonly target: Target;
  /** Inputs of the call that this batch settled, and those among them for which nothing was sent. */
  inputs: number;
  cached: number;
  answered: number;
  inputTokens: number;
  outputTokens: number;
  inputCharacters: number;
  outputCharacters: number;
  error: ServingError | undefined;
}

/** What the halves of one rejected batch know of each other. */
export interface SplitHistory {
  rejectedAlone: number;
  hasAnswer: boolean;
}

export class Batch {
  readonly terms: Terms;
  /** Whose price counts. Endpoints may share a model and differ in what they say it costs. */
  readonly target: Target;
  questions: readonly Question[];
  readonly startedAtMs: number;
  readonly tallies: readonly Tally[];
  /** Present in what came of splitting. */
  readonly history: SplitHistory | undefined;
  /** Tries of these questions so far, also in an earlier batch: retries are bounded by it. */
  tries: Tries;
  /** Times the engine was asked for this batch: the ledger is made of it. */
  attempts = 0;
  /** Tokens billed for this batch in all tries. */
  readonly billed = { inputTokens: 0, outputTokens: 0 };
  readonly #controller = new AbortController();
  #reservation: Reservation | undefined;
  #live: number;

  constructor(
    terms: Terms,
    questions: readonly Question[],
    startedAtMs: number,
    {
      tries = NO_TRIES,
      history,
    }: { readonly tries?: Tries; readonly history?: SplitHistory | undefined } = {},
  ) {
    const [first] = questions;
    if (!first)
      throw new ServingError('INTERNAL', 'A batch without questions. This is a defect of duckserve.');
    this.terms = terms;
    this.target = first.target;
    this.questions = questions;
    this.startedAtMs = startedAtMs;
    this.tries = tries;
    this.history = history;
    this.#live = questions.length;
    this.tallies = tallyByPayer(questions);
    for (const question of questions) question.batch = this;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** One question has nobody waiting any more; with the last one the request is aborted. */
  leave(): void {
    if (--this.#live > 0) return;
    this.abort(new ServingError('CANCELLED', 'Nobody waits for this request any more.'));
  }

  abort(reason: ServingError): void {
    this.#controller.abort(reason);
  }

  /** Held for its next request. */
  hold(reservation: Reservation): void {
    this.#reservation = reservation;
  }

  get isHeld(): boolean {
    return this.#reservation !== undefined;
  }

  /** Whoever takes it settles it. */
  takeReservation(): Reservation | undefined {
    const reservation = this.#reservation;
    this.#reservation = undefined;
    return reservation;
  }

  /** The request will not be sent. */
  releaseReservation(): void {
    this.takeReservation()?.settle(NO_SPEND);
  }

  tallyOf(question: Question): Tally | undefined {
    const [first] = this.tallies;
    if (first?.run === question.payer) return first;
    return this.tallies.find(({ run }) => run === question.payer);
  }

  bill(question: Question, { inputTokens, outputTokens }: TokenUsage): void {
    this.billed.inputTokens += inputTokens;
    this.billed.outputTokens += outputTokens;
    const tally = this.tallyOf(question);
    if (!tally) return;
    tally.inputTokens += inputTokens;
    tally.outputTokens += outputTokens;
  }
}

function tallyByPayer(questions: readonly Question[]): Tally[] {
  const payers = new Map<CallRun, Target>();
  for (const { payer, target } of questions) if (!payers.has(payer)) payers.set(payer, target);
  return Array.from(payers, ([run, target]) => ({
    run,
    target,
    inputs: 0,
    cached: 0,
    answered: 0,
    inputTokens: 0,
    outputTokens: 0,
    inputCharacters: 0,
    outputCharacters: 0,
    error: undefined,
  }));
}
