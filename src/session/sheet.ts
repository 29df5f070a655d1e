// The answer sheet of one statement: which questions its rows have raised, which are answered, and what is
// still new in this pass. It lives from the first pass to the last and knows neither DuckDB nor serving.
import type { AnswerItem } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { canonicalJson, type Json } from '#core/json.ts';
import type { AiFunction, Plan, PlanContext, Question, SqlValue } from '#functions/function.ts';

/** What a row gets whose questions are not answered yet; the caller writes NULL. */
export const UNANSWERED: unique symbol = Symbol('unanswered');

export interface SheetQuestion {
  readonly question: Question;
  /** Equal for questions that may travel in one call. */
  readonly scope: string;
  item: AnswerItem | undefined;
}

type Row =
  | { readonly state: 'open'; readonly plan: Plan; readonly questions: readonly SheetQuestion[] }
  | { readonly state: 'settled'; readonly value: SqlValue }
  | { readonly state: 'failed'; readonly error: ServingError };

/** Rows of one function that share all arguments but one, by the text of that one. */
export interface RowGroup {
  readonly called: AiFunction;
  readonly rows: Map<string, Row>;
}

export interface PassLimits {
  /** New questions this pass may raise. */
  readonly maxQuestions: number;
}

export class AnswerSheet {
  readonly #context: PlanContext;
  readonly #groups = new Map<string, RowGroup>();
  readonly #questions = new Map<string, SheetQuestion>();
  readonly #scopes = new WeakMap<object, Map<string, string>>();
  #fresh: SheetQuestion[] = [];
  #maxQuestions = Number.POSITIVE_INFINITY;
  #openRows = 0;
  #answeredRows = 0;

  constructor(context: PlanContext) {
    this.#context = context;
  }

  beginPass(limits: PassLimits): void {
    this.#maxQuestions = limits.maxQuestions;
    this.#fresh = [];
    this.#openRows = 0;
    this.#answeredRows = 0;
  }

  /** True when no row of this pass went without its answer. */
  get isSettled(): boolean {
    return this.#openRows === 0;
  }

  /** True when the pass may raise no further question: running on would only cost time. */
  get isFull(): boolean {
    return this.#fresh.length >= this.#maxQuestions;
  }

  /** Rows of this pass that found an answer from an earlier pass. */
  get answeredRows(): number {
    return this.#answeredRows;
  }

  get questionCount(): number {
    return this.#questions.size;
  }

  /** The new questions of this pass. */
  get fresh(): readonly SheetQuestion[] {
    return this.#fresh;
  }

  /** Something other than a question keeps this pass from being the last (a local model is to be loaded). */
  leaveOpen(): void {
    this.#openRows++;
  }

  /** The group of a function's rows for the shared arguments; `key` identifies them. */
  group(called: AiFunction, key: string): RowGroup {
    const groupKey = `${called.name}\u0001${key}`;
    let group = this.#groups.get(groupKey);
    if (!group) {
      group = { called, rows: new Map() };
      this.#groups.set(groupKey, group);
    }
    return group;
  }

  /**
   * Value of one row of a group; `key` identifies the argument that is its own. Throws the ServingError of a row
   * that failed. Raises the row's questions when they are new and the pass still may.
   */
  look(group: RowGroup, key: string, readArguments: () => readonly Json[]): SqlValue | typeof UNANSWERED {
    let row = group.rows.get(key);
    if (!row) {
      if (this.isFull) {
        this.#openRows++;
        return UNANSWERED;
      }
      row = this.#open(group.called, readArguments());
      group.rows.set(key, row);
    }
    if (row.state === 'open') {
      const items = row.questions.map((question) => question.item);
      if (items.some((item) => item === undefined)) {
        this.#openRows++;
        return UNANSWERED;
      }
      row = finishRow(row.plan, items as AnswerItem[]);
      group.rows.set(key, row);
    }
    this.#answeredRows++;
    if (row.state === 'failed') throw row.error;
    return (row as Extract<Row, { state: 'settled' }>).value;
  }

  #open(called: AiFunction, args: readonly Json[]): Row {
    const plan = called.plan(args, this.#context);
    if (!('questions' in plan)) return { state: 'settled', value: plan.value };
    return { state: 'open', plan, questions: plan.questions.map((question) => this.#note(question)) };
  }

  #note(question: Question): SheetQuestion {
    const scope = this.#scopeOf(question);
    const key = `${scope}\u0001${canonicalJson(question.input)}`;
    const known = this.#questions.get(key);
    if (known) return known;
    const noted: SheetQuestion = { question, scope, item: undefined };
    this.#questions.set(key, noted);
    this.#fresh.push(noted);
    return noted;
  }

  /** Parameters are mostly one shared object for all rows, so their text is made once for each object. */
  #scopeOf(question: Question): string {
    let scopes = this.#scopes.get(question.parameters);
    if (!scopes) {
      scopes = new Map();
      this.#scopes.set(question.parameters, scopes);
    }
    const chosen = question.isCacheChosen === true ? '!' : '';
    const short = `${question.endpoint}\u0001${question.task}\u0001${question.cache}${chosen}`;
    let scope = scopes.get(short);
    if (scope === undefined) {
      scope = `${short}\u0001${canonicalJson(question.parameters)}`;
      scopes.set(short, scope);
    }
    return scope;
  }
}

function finishRow(plan: Plan, items: readonly AnswerItem[]): Row {
  try {
    return { state: 'settled', value: plan.finish(items) };
  } catch (error) {
    if (error instanceof ServingError) return { state: 'failed', error };
    throw error;
  }
}
