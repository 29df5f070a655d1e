// A question: one distinct input on its way to a target, and everybody who waits for its answer. Several inputs
// of one call and, with the cache on, several calls may wait for the same question; one call pays for it.
import type { Input, TokenUsage } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import type { Batch } from './batch.ts';
import type { CallRun } from './call-run.ts';

export interface Waiter {
  readonly run: CallRun;
  /** Positions in the call's inputs. */
  readonly slots: number[];
}

export class Question {
  key: string;
  readonly input: Input;
  readonly waiters: Waiter[];
  /** Whose budget and usage rows bear the next request. */
  payer: CallRun;
  target: Target;
  /** How many fallbacks have been tried. */
  fallbacksTried = 0;
  /** Counted by the queue where it matters for cutting batches. */
  tokens = 0;
  isStored: boolean;
  isSettled = false;
  /** The request it is in, or was last in; its payer stays while there is one. */
  batch: Batch | undefined;

  constructor(key: string, input: Input, payer: CallRun, slot: number, target: Target, isStored: boolean) {
    this.key = key;
    this.input = input;
    this.payer = payer;
    this.waiters = [{ run: payer, slots: [slot] }];
    this.target = target;
    this.isStored = isStored;
  }

  join(run: CallRun, slot: number, isStored: boolean): void {
    const waiter = this.waiters.find((known) => known.run === run);
    if (waiter) waiter.slots.push(slot);
    else {
      this.waiters.push({ run, slots: [slot] });
      run.questions.push(this);
    }
    this.isStored ||= isStored;
  }

  /** Where it may be asked next. */
  get fallback(): Target | undefined {
    return this.payer.fallbacks[this.fallbacksTried];
  }

  /** Epoch milliseconds after which nobody waits any more. */
  get deadlineMs(): number {
    let lastMs = Number.NEGATIVE_INFINITY;
    for (const { run } of this.waiters) lastMs = Math.max(lastMs, run.deadlineMs ?? Number.POSITIVE_INFINITY);
    return lastMs;
  }

  leave(run: CallRun): void {
    const at = this.waiters.findIndex((known) => known.run === run);
    if (at >= 0) this.waiters.splice(at, 1);
  }

  /** When the payer has gone, the one who waits longest pays. */
  promotePayer(): void {
    const [first] = this.waiters;
    if (first && !this.waiters.some(({ run }) => run === this.payer)) this.payer = first.run;
  }
}

export function groupQuestions<K>(
  questions: Iterable<Question>,
  keyOf: (question: Question) => K,
): Map<K, Question[]> {
  const groups = new Map<K, Question[]>();
  for (const question of questions) {
    const key = keyOf(question);
    const group = groups.get(key);
    if (group) group.push(question);
    else groups.set(key, [question]);
  }
  return groups;
}

export function byPayer(questions: Iterable<Question>): Map<CallRun, Question[]> {
  return groupQuestions(questions, ({ payer }) => payer);
}

export const NO_USAGE: TokenUsage = { inputTokens: 0, outputTokens: 0 };
