// A batch: the questions of one request to an engine, tried once or several times. It ends when it settles
// something, is cut in halves or gives up; each batch that was sent has its own usage row per paying call.
import type { TokenUsage } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { CallRun } from './call-run.ts';
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
  error: ServingError | undefined;
}

/** What the halves of one rejected batch know of each other. */
export interface SplitHistory {
  rejectedAlone: number;
  hasAnswer: boolean;
}

export class Batch {
  readonly terms: Terms;
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
    this.terms = terms;
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
    error: undefined,
  }));
}
