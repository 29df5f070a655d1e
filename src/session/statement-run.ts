// One statement while it runs: its answer sheet and what its callbacks may do in the current pass.
// Created by the session for each statement, found by the binding through the connection's id.
import type { Origin, Principal, Reservation, Task } from '#core/call.ts';
import type { ServingError } from '#core/errors.ts';
import type { PlanContext } from '#functions/function.ts';
import type { LocalTarget, Serving } from '#serving/serving.ts';
import { AnswerSheet } from './sheet.ts';

/** Who runs the statement. */
export interface Asking {
  readonly principal: Principal;
  readonly origin: Origin;
}

/** Thrown through DuckDB to end a pass early; never shown to a person. */
class PassAbandoned extends Error {}

export class StatementRun {
  readonly sheet: AnswerSheet;
  readonly context: PlanContext;
  readonly #serving: Serving;
  readonly #remote = new Set<string>();
  readonly #asking: Asking;
  /** Local models that answered in this pass: looked up and authorised once. */
  readonly #known = new Map<string, LocalTarget>();
  readonly #locals = new Map<LocalTarget, number>();
  /** Each of them stays open while it is known, whatever becomes of its endpoint. */
  readonly #letGo: (() => void)[] = [];
  /** Held for the rows of this pass. A pass that runs again counts its rows again, and not twice. */
  #reservations: { readonly reservation: Reservation; readonly rows: number }[] = [];
  readonly #startedAtMs: number;
  #toLoad = new Map<string, { endpoint: string; task: Task }>();
  #failure: ServingError | undefined;
  #fullChunks = 0;
  #refused: ServingError | undefined;
  /** False where an error would cost the user's transaction. */
  mayAbandonPass = true;
  /**
   * 0: a full pass is ended. Else it reads on, because the rows it has found may be enough, and looks at so many
   * chunks more. It must come to its own end: each thread of DuckDB reads what is left before LIMIT has its rows.
   */
  patience = 0;
  /** False for an estimate: nothing is loaded, rows for local models count as questions like all others. */
  mayLoad = true;
  /** Thrown when a question is raised where none may be: a write after a write in a transaction. */
  refusal: ServingError | undefined;

  constructor(serving: Serving, context: PlanContext, startedAtMs: number, asking: Asking) {
    this.#serving = serving;
    this.#asking = asking;
    this.context = context;
    this.sheet = new AnswerSheet(context);
    this.#startedAtMs = startedAtMs;
  }

  beginPass(maxQuestions: number): void {
    this.sheet.beginPass({ maxQuestions });
    this.#failure = undefined;
    this.#fullChunks = 0;
    this.letGoOfModels();
    this.#locals.clear();
    this.releaseLocals();
  }

  /** To be asked once a chunk. `end`: reading on is pointless. `skip`: this chunk is left without answers, unseen. */
  nextChunk(): 'read' | 'skip' | 'end' {
    if (!this.sheet.isFull || !this.mayAbandonPass) return 'read';
    if (this.patience === 0) return 'end';
    return ++this.#fullChunks > this.patience ? 'skip' : 'read';
  }

  abandonPass(): Error {
    this.sheet.leaveOpen();
    return new PassAbandoned('duckserve ended this pass early');
  }

  isAbandoned(error: Error): boolean {
    return error instanceof PassAbandoned;
  }

  /** Ends the statement with this error whatever else is open: asking on would pay for nothing. */
  refuse(error: ServingError): ServingError {
    this.#refused ??= error;
    return error;
  }

  get refused(): ServingError | undefined {
    return this.#refused;
  }

  /** Keeps the original of an error that goes through DuckDB as text; gives it back to be thrown. */
  fail(error: ServingError): ServingError {
    this.#failure ??= error;
    return error;
  }

  get failure(): ServingError | undefined {
    return this.#failure;
  }

  /** The local runner of an endpoint; `to be loaded` is remembered for `load`. */
  local(endpoint: string, task: Task): LocalTarget | 'to be loaded' | 'remote' {
    const key = `${endpoint}\u0001${task}`;
    if (!this.mayLoad || this.#remote.has(key)) return 'remote';
    const known = this.#known.get(key);
    if (known) return known;
    const local = this.#serving.local(endpoint, task, this.#asking.principal, this.#asking.origin);
    if (local) {
      this.#known.set(key, local);
      if (local.hold) this.#letGo.push(local.hold());
      return local;
    }
    this.#toLoad.set(key, { endpoint, task });
    return 'to be loaded';
  }

  /** At the end of a pass and of the statement: nothing asks local models any more. */
  letGoOfModels(): void {
    this.#known.clear();
    for (const letGo of this.#letGo.splice(0)) letGo();
  }

  /** Between passes: opens the local models that the last pass asked for. True when there were any. */
  async load(): Promise<boolean> {
    const wanted = [...this.#toLoad];
    this.#toLoad = new Map();
    for (const [key, { endpoint, task }] of wanted) {
      const { principal, origin } = this.#asking;
      if (!(await this.#serving.openLocal(endpoint, task, principal, origin))) this.#remote.add(key);
    }
    return wanted.length > 0;
  }

  /**
   * Counts rows against the limits of the caller. False: they would have to wait, which a callback cannot, so they
   * become questions. Throws RATE_LIMIT_EXCEEDED, BUDGET_EXCEEDED.
   */
  countLocal(local: LocalTarget, rowCount: number): boolean {
    if (local.tryReserve) {
      const reservation = local.tryReserve(rowCount);
      if (!reservation) return false;
      this.#reservations.push({ reservation, rows: rowCount });
    }
    this.#locals.set(local, (this.#locals.get(local) ?? 0) + rowCount);
    return true;
  }

  /** The rows of this pass were not given to anybody: they count for nothing. */
  releaseLocals(): void {
    this.#settleLocals(() => 0);
  }

  /** After the last pass: one usage row for each local model that answered. */
  async recordLocals(): Promise<void> {
    this.#settleLocals((rows) => rows);
    const startedAtMs = this.#startedAtMs;
    for (const [local, inputs] of this.#locals) {
      await local.record({ inputs, startedAtMs, ...this.#asking });
    }
  }

  #settleLocals(callsOf: (rows: number) => number): void {
    for (const { reservation, rows } of this.#reservations) {
      reservation.settle({ calls: callsOf(rows), tokens: 0, cost: 0 });
    }
    this.#reservations = [];
  }
}
