// Questions that wait for a place at a target. Each call has its own lane; lanes with equal terms form a group.
// Groups take turns, and lanes take turns in their group, so a single question never waits behind a million.
import type { Budget } from '#core/call.ts';
import type { RunnerLimits } from '#engines/engine.ts';
import type { CallRun } from './call-run.ts';
import { Fifo } from './fifo.ts';
import type { Question } from './question.ts';
import type { Terms } from './terms.ts';

export class Lane {
  readonly run: CallRun;
  readonly terms: Terms;
  readonly withdraw: () => Question[];
  #questions: readonly Question[];
  #next = 0;

  constructor(
    run: CallRun,
    terms: Terms,
    questions: readonly Question[],
    withdraw: (lane: Lane) => Question[],
  ) {
    this.run = run;
    this.terms = terms;
    this.#questions = questions;
    this.withdraw = () => withdraw(this);
  }

  get length(): number {
    return this.#questions.length - this.#next;
  }

  peek(): Question | undefined {
    return this.#questions[this.#next];
  }

  take(): void {
    this.#next++;
  }

  clear(): Question[] {
    const rest = this.#questions.slice(this.#next);
    this.#questions = [];
    this.#next = 0;
    return rest;
  }
}

/** A turn for somebody who forms no batch: a stream. Called when a place is free; does nothing when it has gone. */
export type Grant = () => void;

interface Group {
  readonly terms: Terms;
  readonly lanes: Fifo<Lane>;
}

export type Turn =
  | { readonly terms: Terms; readonly questions: readonly Question[] }
  | { readonly grant: Grant };

type BatchLimits = Pick<RunnerLimits, 'maxInputs' | 'maxTokens' | 'isPadded'>;

export class WaitingLine {
  readonly #turns = new Fifo<Group | Grant>();
  readonly #groups = new Map<string, Group>();
  #length = 0;

  /** Questions and streams that wait. */
  get length(): number {
    return this.#length;
  }

  add(lane: Lane): void {
    if (lane.length === 0) return;
    this.#length += lane.length;
    let group = this.#groups.get(lane.terms.key);
    if (!group) {
      group = { terms: lane.terms, lanes: new Fifo() };
      this.#groups.set(lane.terms.key, group);
      this.#turns.push(group);
    }
    group.lanes.push(lane);
  }

  addGrant(grant: Grant): void {
    this.#length++;
    this.#turns.push(grant);
  }

  withdraw(lane: Lane): Question[] {
    this.#length -= lane.length;
    return lane.clear();
  }

  /** The next batch or stream, or nothing. A single input over the token limit is still sent, alone. */
  next(limits: BatchLimits): Turn | undefined {
    for (let turn = this.#turns.shift(); turn; turn = this.#turns.shift()) {
      if (typeof turn === 'function') {
        this.#length--;
        return { grant: turn };
      }
      const questions = cut(turn.lanes, limits);
      if (turn.lanes.length > 0) this.#turns.push(turn);
      else this.#groups.delete(turn.terms.key);
      this.#length -= questions.length;
      if (questions.length > 0) return { terms: turn.terms, questions };
    }
    return undefined;
  }

  /** Takes out everything, or everything that a budget would pay. Streams stay: they notice for themselves. */
  drain(budget?: Budget): Question[] {
    const drained: Question[] = [];
    for (const { terms, lanes } of this.#groups.values()) {
      if (budget && terms.budget !== budget) continue;
      for (const lane of lanes.clear()) {
        for (const question of this.withdraw(lane)) drained.push(question);
      }
    }
    return drained;
  }
}

function cut(lanes: Fifo<Lane>, { maxInputs, maxTokens, isPadded }: BatchLimits): Question[] {
  const questions: Question[] = [];
  let served: Lane | undefined;
  let longest = 0;
  let sum = 0;
  while (questions.length < maxInputs) {
    const lane = lanes.peek();
    if (!lane) break;
    const question = lane.peek();
    if (!question) {
      lanes.shift();
      continue;
    }
    longest = Math.max(longest, question.tokens);
    sum += question.tokens;
    const size = isPadded ? longest * (questions.length + 1) : sum;
    if (questions.length > 0 && size > maxTokens) break;
    lane.take();
    questions.push(question);
    served = lane;
  }
  // Whoever was served goes to the end of the line; what is empty goes away.
  if (served && lanes.peek() === served) {
    lanes.shift();
    if (served.length > 0) lanes.push(served);
  }
  return questions;
}
