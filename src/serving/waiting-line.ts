// Questions that wait for a place at a target. Each call has its own lane; lanes with equal terms form a group.
// Groups take turns, and lanes take turns in their group, so a single question never waits behind a million.
import type { Budget } from '#core/call.ts';
import type { ServingError } from '#core/errors.ts';
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

/** A turn for somebody who forms no batch: a stream. */
export interface Grant {
  readonly isPatient: boolean;
  /** Could be answered by another target. */
  readonly hasFallback: boolean;
  /** A place is free, and it is yours. */
  readonly give: () => void;
  readonly refuse: (error: ServingError) => void;
}

interface Group {
  readonly terms: Terms;
  readonly lanes: Fifo<Lane>;
  /** Lanes that were emptied and still stand in line. */
  emptied: number;
}

interface GrantTurn {
  readonly grant: Grant;
  isLive: boolean;
}

export type Turn =
  | { readonly terms: Terms; readonly questions: readonly Question[] }
  | { readonly grant: Grant };

type BatchLimits = Pick<RunnerLimits, 'maxInputs' | 'maxTokens' | 'isPadded'>;

/** Emptied lanes are swept out when there are so many, and more of them than others. */
const SWEEP_AFTER = 64;

export class WaitingLine {
  readonly #turns = new Fifo<Group | GrantTurn>();
  readonly #groups = new Map<string, Group>();
  readonly #grants = new Map<Grant, GrantTurn>();
  /** Groups whose budget has to be waited for; they take no turns meanwhile. */
  readonly #blocked = new Map<Budget, Group[]>();
  #deadGrants = 0;
  #length = 0;
  #urgent = 0;
  #patientGroups = 0;

  /** Questions and streams that wait. */
  get length(): number {
    return this.#length;
  }

  /** Those of them whose callers wait on a connection. */
  get urgent(): number {
    return this.#urgent;
  }

  /** Somebody could take a turn now. */
  get hasTurns(): boolean {
    return this.#turns.length > 0;
  }

  /** Questions before one that joins now: all who are urgent, and the rows of statements that take turns with them. */
  get ahead(): number {
    const urgentTurns = Math.max(1, this.#groups.size - this.#patientGroups + this.#grants.size);
    const patient = this.#length - this.#urgent;
    return this.#urgent + Math.min(patient, Math.ceil((this.#urgent * this.#patientGroups) / urgentTurns));
  }

  add(lane: Lane): void {
    if (lane.length === 0) return;
    this.#count(lane.terms.isPatient, lane.length);
    let group = this.#groups.get(lane.terms.key);
    if (!group) {
      group = { terms: lane.terms, lanes: new Fifo(), emptied: 0 };
      this.#groups.set(lane.terms.key, group);
      if (lane.terms.isPatient) this.#patientGroups++;
      this.#turns.push(group);
    }
    group.lanes.push(lane);
  }

  addGrant(grant: Grant): void {
    this.#count(grant.isPatient, 1);
    const turn = { grant, isLive: true };
    this.#grants.set(grant, turn);
    this.#turns.push(turn);
  }

  /** Whoever wanted the place has gone. */
  leave(grant: Grant): void {
    const turn = this.#grants.get(grant);
    if (!turn) return;
    this.#remove(turn);
    if (++this.#deadGrants > SWEEP_AFTER && this.#deadGrants * 2 > this.#turns.length) {
      this.#turns.retain((each) => !('grant' in each) || each.isLive);
      this.#deadGrants = 0;
    }
  }

  withdraw(lane: Lane): Question[] {
    this.#count(lane.terms.isPatient, -lane.length);
    const withdrawn = lane.clear();
    const group = this.#groups.get(lane.terms.key);
    if (group && ++group.emptied > SWEEP_AFTER && group.emptied * 2 > group.lanes.length) {
      group.lanes.retain((each) => each.length > 0);
      group.emptied = 0;
    }
    return withdrawn;
  }

  /** Questions under this budget take no turns until `unblock`. */
  block(budget: Budget): void {
    if (!this.#blocked.has(budget)) this.#blocked.set(budget, []);
  }

  unblock(budget: Budget): void {
    for (const group of this.#blocked.get(budget) ?? []) this.#turns.push(group);
    this.#blocked.delete(budget);
  }

  /** The next batch or stream, or nothing. A single input over the token limit is still sent, alone. */
  next(limits: BatchLimits): Turn | undefined {
    for (let turn = this.#turns.shift(); turn; turn = this.#turns.shift()) {
      if ('grant' in turn) {
        if (!turn.isLive) {
          this.#deadGrants = Math.max(0, this.#deadGrants - 1);
          continue;
        }
        this.#remove(turn);
        return { grant: turn.grant };
      }
      const blocked = turn.terms.budget && this.#blocked.get(turn.terms.budget);
      if (blocked) {
        blocked.push(turn);
        continue;
      }
      const questions = cut(turn.lanes, limits);
      if (turn.lanes.length > 0) this.#turns.push(turn);
      else this.#forget(turn);
      this.#count(turn.terms.isPatient, -questions.length);
      if (questions.length > 0) return { terms: turn.terms, questions };
    }
    return undefined;
  }

  /** Takes out the questions of all lanes that fit, or of all. */
  drain(fits: (lane: Lane) => boolean = () => true): Question[] {
    const drained: Question[] = [];
    for (const { lanes } of this.#groups.values()) {
      for (const lane of lanes.clear()) {
        if (!fits(lane)) lanes.push(lane);
        else for (const question of this.withdraw(lane)) drained.push(question);
      }
    }
    return drained;
  }

  /** Takes out the streams that fit, or all. */
  drainGrants(fits: (grant: Grant) => boolean = () => true): Grant[] {
    const drained = [...this.#grants.keys()].filter(fits);
    for (const grant of drained) this.leave(grant);
    return drained;
  }

  #remove(turn: GrantTurn): void {
    this.#grants.delete(turn.grant);
    turn.isLive = false;
    this.#count(turn.grant.isPatient, -1);
  }

  #forget(group: Group): void {
    this.#groups.delete(group.terms.key);
    if (group.terms.isPatient) this.#patientGroups--;
  }

  #count(isPatient: boolean, difference: number): void {
    this.#length += difference;
    if (!isPatient) this.#urgent += difference;
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
