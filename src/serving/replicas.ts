// The copies of one model as a single runner: requests go to the least busy one, whatever DuckDB callbacks ask to any.
// When copies are opened and closed is decided in replicas-pool.ts.
import type { Input, StreamEvent } from '#core/call.ts';
import type { Signature, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Batch, BatchAnswer, LocalRunner, Runner, RunnerLimits } from '#engines/engine.ts';
import type { ReplicaPlan } from './replicas-plan.ts';
import { type ReplicaCrowd, ReplicaPool, type ReplicaPoolOptions } from './replicas-pool.ts';

export interface ReplicaSetOptions extends ReplicaPoolOptions {
  readonly target: Target;
}

export class ReplicaSet implements Runner {
  readonly signature?: Signature;
  readonly stream?: NonNullable<Runner['stream']>;
  readonly #pool: ReplicaPool;
  readonly #target: Target;
  readonly #engineLimits: RunnerLimits;
  readonly #local: LocalRunner | undefined;

  /** With its first replica; the others that are always to be there follow. Throws what the engine throws. */
  static async open(options: ReplicaSetOptions): Promise<ReplicaSet> {
    const startedAtMs = options.clock.now();
    const runner = await options.open();
    return new ReplicaSet(options, runner, startedAtMs);
  }

  private constructor(options: ReplicaSetOptions, first: Runner, startedAtMs: number) {
    this.#target = options.target;
    this.#engineLimits = first.limits;
    this.#local = first.local && this.#localOf(first.local);
    if (first.signature) this.signature = first.signature;
    if (first.stream) this.stream = (batch) => this.#stream(batch);
    this.#pool = new ReplicaPool(options, first, startedAtMs);
  }

  /** From now on it is told who waits. */
  attach(crowd: ReplicaCrowd): void {
    this.#pool.attach(crowd);
  }

  get limits(): RunnerLimits {
    const { mostPlaces } = this.#pool;
    return { ...this.#engineLimits, maxConcurrency: mostPlaces, isAdaptive: false };
  }

  get places(): number {
    return this.#pool.places;
  }

  get plan(): ReplicaPlan {
    return this.#pool.plan;
  }

  get counts(): ReplicaPool['counts'] {
    return this.#pool.counts;
  }

  get startLeftMs(): number {
    return this.#pool.startLeftMs;
  }

  get failure(): ServingError | undefined {
    return this.#pool.failure;
  }

  /** What answers inside a DuckDB callback; undefined where the engine does not, or no replica is open. */
  get localNow(): LocalRunner | undefined {
    return this.#pool.leastBusy() && this.#local;
  }

  /** With no replica open it is an estimate. */
  countTokens(input: Input): number {
    const replica = this.#pool.leastBusy();
    return replica ? replica.runner.countTokens(input) : Math.ceil(JSON.stringify(input).length / 4);
  }

  async invoke(batch: Batch): Promise<BatchAnswer> {
    const replica = this.#pool.leastBusy() ?? (await this.#pool.whenReady(batch.signal));
    this.#pool.begin(replica);
    try {
      const answer = await replica.runner.invoke(batch);
      this.#pool.answered(replica);
      return answer;
    } finally {
      this.#pool.end(replica);
    }
  }

  /** Resolves when a replica is open. Throws why there is none. */
  async awake(): Promise<void> {
    if (!this.#pool.leastBusy()) await this.#pool.whenReady();
  }

  hold(): () => void {
    return this.#pool.hold();
  }

  rescale(plan: ReplicaPlan): void {
    this.#pool.rescale(plan);
  }

  /** As many requests have begun as could. `isFull`: no place is left. */
  noteDemand(isFull: boolean): void {
    this.#pool.noteDemand(isFull);
  }

  close(): Promise<void> {
    return this.#pool.close();
  }

  async *#stream(batch: Batch): AsyncGenerator<StreamEvent> {
    const replica = this.#pool.leastBusy() ?? (await this.#pool.whenReady(batch.signal));
    this.#pool.begin(replica);
    try {
      if (!replica.runner.stream)
        throw new ServingError('INTERNAL', 'A replica cannot stream as others can.');
      yield* replica.runner.stream(batch);
      this.#pool.answered(replica);
    } finally {
      this.#pool.end(replica);
    }
  }

  #localOf({ predictColumns, embed }: LocalRunner): LocalRunner {
    const use = (): LocalRunner => {
      const replica = this.#pool.leastBusy();
      if (!replica?.runner.local) throw this.failure ?? lostWhileAsked(this.#target);
      this.#pool.touch(replica);
      return replica.runner.local;
    };
    return {
      ...(predictColumns && {
        predictColumns: (columns, rows) => use().predictColumns?.(columns, rows) ?? [],
      }),
      ...(embed && { embed: (texts) => use().embed?.(texts) ?? [] }),
    };
  }
}

function lostWhileAsked({ servedEntity, endpoint }: Target): ServingError {
  return new ServingError(
    'UPSTREAM_ERROR',
    `The model of '${servedEntity}' of endpoint '${endpoint}' was lost while a statement asked it. Run the statement again.`,
  );
}
