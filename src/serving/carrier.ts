// Carries questions to the queue of their target, and their answers to everybody who waits: stores them, shares
// them, sends what failed to the next fallback. The one place where calls, queues and the store meet.
import type { AnswerItem } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { type ServingError, toServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import type { AnswerStore, StoredAnswer } from '#core/stores.ts';
import type { Batch } from './batch.ts';
import type { CallRun } from './call-run.ts';
import { refusalOf } from './door-keeper.ts';
import { inputLength, outputLength } from './inputs.ts';
import type { Ledger } from './ledger.ts';
import { cacheModeOf, keyOf, readsStore, scopeOf, storedItem } from './look-up.ts';
import type { OpenTargets } from './open-targets.ts';
import type { GoodItem, QueueSink } from './outcomes.ts';
import { requirePrice } from './price.ts';
import { byPayer, groupQuestions, type Question } from './question.ts';
import { allowsFallback, isMeterRefusal, type RetryPolicy } from './retry.ts';
import type { TargetQueue } from './target-queue.ts';

export interface CarrierOptions {
  readonly answers: AnswerStore;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly log: Log;
  readonly policy: RetryPolicy;
  /** Queues tell the carrier, and the carrier asks for queues. */
  readonly openTargets: (sink: QueueSink) => OpenTargets;
}

export class Carrier implements QueueSink {
  /** Questions another call may join, by key. */
  readonly inFlight = new Map<string, Question>();
  readonly #options: CarrierOptions;
  readonly #targets: OpenTargets;

  constructor(options: CarrierOptions) {
    this.#options = options;
    this.#targets = options.openTargets(this);
  }

  get targets(): OpenTargets {
    return this.#targets;
  }

  /** Puts questions into the queue of a target. A target that cannot be opened fails the calls as a whole. */
  async carry(target: Target, questions: readonly Question[]): Promise<void> {
    if (questions.length === 0) return;
    try {
      let queue = this.#targets.get(target);
      // Closed while it was opening: the registry has changed. The call was resolved before and is carried out.
      const count = () => questions.filter(isUrgent).length;
      while (!queue || queue.isClosed) queue = await this.#targets.openFor(target, count);
      // Who waits may have changed meanwhile.
      const awaited = questions.filter(({ waiters }) => waiters.length > 0);
      for (const question of awaited) question.promotePayer();
      for (const [payer, own] of byPayer(awaited)) this.#enqueue(queue, payer, own);
    } catch (thrown) {
      const error = toServingError(thrown);
      if (error.code === 'QUEUE_FULL') return this.failed(questions, error);
      const runs = new Set(questions.flatMap(({ waiters }) => waiters.map(({ run }) => run)));
      for (const run of runs) this.abandon(run, error);
    }
  }

  /** Or refuses at once what could not be answered in time; another target may. */
  #enqueue(queue: TargetQueue, payer: CallRun, questions: readonly Question[]): void {
    const { policy, clock } = this.#options;
    const hasFallback = questions.every(({ fallback }) => fallback !== undefined);
    const refusal = refusalOf(queue, payer, hasFallback, policy, clock.now());
    if (refusal) this.failed(questions, refusal);
    else queue.enqueue(payer, questions);
  }

  /** The call fails as a whole or was cancelled: what nobody else waits for is not sent, or aborted. */
  abandon(run: CallRun, error: ServingError): void {
    if (run.isSettled) return;
    run.fail(error);
    const withdrawn = run.lanes.flatMap((lane) => lane.withdraw());
    for (const question of run.questions) {
      if (question.isSettled) continue;
      question.leave(run);
      if (question.waiters.length === 0) {
        this.#forget(question);
        question.batch?.leave();
      } else if (question.payer === run && !question.batch) {
        question.promotePayer();
      }
    }
    // Others share some of them; what still waits for its target to open is noticed there.
    this.#carryEach(withdrawn.filter(({ waiters }) => waiters.length > 0));
  }

  answered(batch: Batch, question: Question, { output, usage }: GoodItem): void {
    const { terms } = batch;
    const isCutByUs = terms.isCapped && 'finishReason' in output && output.finishReason === 'length';
    if (question.isStored && !isCutByUs) {
      const { endpoint, model, task } = question.target;
      const createdAtMs = this.#options.clock.now();
      this.#store(question.key, { output, usage, endpoint, model, task, createdAtMs });
    }
    this.#settle(question, { ok: true, output, usage, cached: false }, batch);
  }

  /** An answer that cannot be kept is an answer all the same; failing here would pay for it twice. */
  #store(key: string, answer: StoredAnswer): void {
    try {
      this.#options.answers.put(key, answer);
    } catch (cause) {
      this.#options.log.error({ err: cause }, 'An answer could not be stored.');
    }
  }

  failed(questions: readonly Question[], error: ServingError, batch?: Batch, isFinal = false): void {
    const awaited = questions.filter(({ isSettled, waiters }) => !isSettled && waiters.length > 0);
    if (isMeterRefusal(error)) this.#failPayers(awaited, error, batch);
    else if (!isFinal && allowsFallback(error)) this.#fallBackOrFail(awaited, error, batch);
    else for (const question of awaited) this.#settle(question, { ok: false, error }, batch);
  }

  ended(batch: Batch, error?: ServingError): void {
    this.#options.ledger.batchEnded(batch, error);
  }

  #fallBackOrFail(questions: readonly Question[], error: ServingError, batch?: Batch): void {
    const moved: Question[] = [];
    for (const question of questions) {
      question.promotePayer();
      if (question.fallback) {
        moved.push(question);
        this.#noteMoved(question, error, batch);
      } else this.#settle(question, { ok: false, error }, batch);
    }
    for (const [payer, own] of byPayer(moved)) this.#fallBack(payer, own, error);
  }

  /** The row of the batch says why its inputs went elsewhere. */
  #noteMoved(question: Question, error: ServingError, batch: Batch | undefined): void {
    const tally = batch?.tallyOf(question);
    if (tally) tally.error ??= error;
  }

  /** A budget is the payer's; who shares the question with a budget of its own, or none, still wants it asked. */
  #failPayers(questions: readonly Question[], error: ServingError, batch?: Batch): void {
    const orphans: Question[] = [];
    for (const question of questions) {
      const { budget } = question.payer.terms;
      const others = question.waiters.filter(({ run }) => run.terms.budget !== budget);
      if (others.length === 0) {
        this.#settle(question, { ok: false, error }, batch);
        continue;
      }
      for (const { run, slots } of question.waiters.filter((waiter) => !others.includes(waiter))) {
        for (const slot of slots) run.settle(slot, { ok: false, error });
        question.leave(run);
      }
      question.batch = undefined;
      question.promotePayer();
      orphans.push(question);
    }
    this.#carryEach(orphans);
  }

  #fallBack(payer: CallRun, questions: readonly Question[], error: ServingError): void {
    const { endpoint } = payer.target;
    for (const [tried, own] of groupQuestions(questions, ({ fallbacksTried }) => fallbacksTried)) {
      const next = payer.fallbacks[tried];
      if (!next) continue;
      this.#options.log.info(
        { endpoint, model: next.model, code: error.code, inputs: own.length },
        'A fallback is asked.',
      );
      void this.#moveTo(next, payer, own, error);
    }
  }

  /** The fallback is another model: its answers have keys of their own, and may be stored already. */
  async #moveTo(target: Target, payer: CallRun, questions: readonly Question[], error: ServingError) {
    const { call, terms } = payer;
    const scope = scopeOf(target, call, terms.guard, payer.isPersonal);
    const isRead = readsStore(cacheModeOf(call, payer.isPersonal));
    const missing: Question[] = [];
    for (const question of questions) {
      this.#forget(question);
      question.fallbacksTried++;
      question.target = target;
      question.batch = undefined;
      question.key = keyOf(scope, question.input);
      const stored = isRead ? this.#options.answers.get(question.key) : undefined;
      if (stored) this.#settle(question, storedItem(stored));
      else missing.push(question);
    }
    try {
      requirePrice(target, terms.budget);
      await this.#targets.open(target);
    } catch (thrown) {
      // The failure that led here says more than that of its stand-in; a further stand-in may still help.
      const { message } = toServingError(thrown);
      this.#options.log.warn(
        { endpoint: target.endpoint, model: target.model, message },
        'A fallback cannot be used.',
      );
      return this.failed(missing, error);
    }
    await this.carry(target, missing);
  }

  #carryEach(questions: readonly Question[]): void {
    const byTarget = groupQuestions(questions, ({ target }) => target);
    for (const [target, own] of byTarget) void this.carry(target, own);
  }

  #forget(question: Question): void {
    if (this.inFlight.get(question.key) === question) this.inFlight.delete(question.key);
  }

  /** Tells everybody who waits. One input of the payer was sent; for all others nothing was. */
  #settle(question: Question, item: AnswerItem, batch?: Batch): void {
    question.isSettled = true;
    this.#forget(question);
    const isSent = batch !== undefined && batch.attempts > 0;
    const tally = isSent ? batch.tallyOf(question) : undefined;
    const shared: AnswerItem = item.ok ? { ...item, cached: true } : item;
    if (tally && item.ok) tally.answered++;
    if (tally && !item.ok) tally.error ??= item.error;
    for (const { run, slots } of question.waiters) {
      const isPayer = run === question.payer;
      for (const [at, slot] of slots.entries()) {
        if (!run.settle(slot, isPayer && at === 0 ? item : shared, question.target)) continue;
        if (!isPayer || !tally) continue;
        tally.inputs++;
        tally.inputCharacters += inputLength(question.input);
        if (item.ok) tally.outputCharacters += outputLength(item.output);
        run.recordedInputs++;
        if (item.ok && at > 0) {
          tally.cached++;
          run.recordedCached++;
        }
      }
    }
  }
}

/** Somebody waits for it on a connection. */
function isUrgent({ waiters }: Question): boolean {
  return waiters.some(({ run }) => !run.isPatient);
}
