// Sends one batch to the runner of a target, and where the endpoint wants it and the first request takes long, a
// second one beside it. Places, attempts and the reservation of the extra request are settled here.
import type { Reservation } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { RunItem, Runner } from '#engines/engine.ts';
import type { Batch } from './batch.ts';
import { callerOf } from './caller.ts';
import { BothFailed, type Contender, type Hedging, raceHedged } from './hedging.ts';
import { requireCount } from './outcomes.ts';
import type { Pace } from './pace.ts';
import { actualSpend, maxSpendOf } from './price.ts';
import { NO_USAGE } from './question.ts';

export interface SenderOptions {
  readonly runner: Runner;
  readonly pace: Pace;
  readonly hedging: Hedging;
  readonly clock: Clock;
  /** Whether a place is free that nobody waits for. */
  readonly hasSpare: () => boolean;
}

export interface Sent {
  readonly items: readonly RunItem[];
  /** A second request was cancelled on the way; its input was read, and is billed. */
  readonly hasLost: boolean;
}

interface Extra extends Contender<readonly RunItem[]> {
  readonly ticket: number;
  readonly reservation: Reservation | undefined;
}

export class Sender {
  readonly #options: SenderOptions;

  constructor(options: SenderOptions) {
    this.#options = options;
  }

  /** `ticket`: that of the place the first request has taken. Throws the error of the first when both fail. */
  async send(batch: Batch, ticket: number): Promise<Sent> {
    const { hedging: rules } = batch.terms;
    const delayMs = rules && this.#options.hedging.delayMs(rules, false);
    if (delayMs !== undefined) return await this.#sendTwice(batch, ticket, delayMs);
    return { items: await this.#ask(batch, batch.signal), hasLost: false };
  }

  async #ask(batch: Batch, signal: AbortSignal): Promise<readonly RunItem[]> {
    const { questions, tallies, terms } = batch;
    batch.attempts++;
    for (const { run, target } of tallies) run.trail.asked(target);
    const inputs = questions.map(({ input }) => input);
    const { task, parameters } = terms;
    const payer = questions[0]?.payer;
    const caller = payer && callerOf(batch.target, payer.call);
    const asked = { task, inputs, parameters, signal, ...(caller && { caller }) };
    const { items } = await this.#options.runner.invoke(asked);
    return requireCount(items, questions.length);
  }

  async #sendTwice(batch: Batch, ticket: number, delayMs: number): Promise<Sent> {
    const { pace, clock } = this.#options;
    const controller = new AbortController();
    const signal = AbortSignal.any([batch.signal, controller.signal]);
    const first = { answer: this.#ask(batch, signal), cancel: () => controller.abort() };
    let extra: Extra | undefined;
    const startSecond = () => (extra = this.#startExtra(batch));
    try {
      const { value, loser } = await raceHedged(first, startSecond, delayMs, clock);
      if (loser?.error && !batch.signal.aborted) {
        pace.failed(loser.error, loser.which === 'first' ? ticket : (extra?.ticket ?? ticket));
      }
      const hasLost = loser !== undefined && loser.error === undefined;
      this.#endExtra(batch, extra, hasLost);
      return { items: value, hasLost };
    } catch (thrown) {
      if (!(thrown instanceof BothFailed)) throw thrown;
      if (extra && !batch.signal.aborted) pace.failed(thrown.second, extra.ticket);
      this.#endExtra(batch, extra, false);
      throw thrown.first;
    }
  }

  /** Only with a place to spare, out of what was earned, and with a reservation of its own. */
  #startExtra(batch: Batch): Extra | undefined {
    const { pace, hasSpare, hedging } = this.#options;
    if (batch.signal.aborted || !hasSpare() || !hedging.take()) return undefined;
    const { terms } = batch;
    let reservation: Reservation | undefined;
    try {
      reservation = terms.budget?.tryReserve?.(maxSpendOf(batch));
    } catch {
      // Not within the limits any more: the first request goes on alone.
    }
    if (terms.budget && !reservation) return undefined;
    const controller = new AbortController();
    const signal = AbortSignal.any([batch.signal, controller.signal]);
    const ticket = pace.start();
    return { answer: this.#ask(batch, signal), cancel: () => controller.abort(), ticket, reservation };
  }

  #endExtra(batch: Batch, extra: Extra | undefined, isInputRead: boolean): void {
    if (!extra) return;
    this.#options.pace.ended();
    let inputTokens = 0;
    for (const question of batch.questions) {
      if (isInputRead) inputTokens += this.#options.runner.countTokens(question.input);
    }
    const usage = { ...NO_USAGE, inputTokens };
    extra.reservation?.settle(actualSpend(batch.target, batch.questions.length, usage));
  }

  /** After the batch was settled: what the cancelled request has cost, as far as it is known. */
  billLost(batch: Batch): void {
    for (const question of batch.questions) {
      const inputTokens = this.#options.runner.countTokens(question.input);
      batch.bill(question, { ...NO_USAGE, inputTokens });
    }
  }
}
