// How many copies of a registered model run: what its served entity says, completed by what suits its engine. Where
// several entities share one model, the widest of their wishes holds. Numbers only; replicas.ts opens and closes.
import { availableParallelism } from 'node:os';
import type { EngineKind, Scaling, Target } from '#core/endpoint.ts';

export interface ReplicaPlan {
  /** Kept once the model was opened; 0: none. */
  readonly minReplicas: number;
  /** At least 1. */
  readonly maxReplicas: number;
  /** Requests at once per replica; undefined: as many as its engine takes. */
  readonly targetConcurrency: number | undefined;
  readonly idleMs: number;
  /** Inputs of callers on connections that may wait; undefined: as for every target. */
  readonly maxQueue: number | undefined;
}

/** As Databricks waits before it scales to zero. */
const DEFAULT_IDLE_SECONDS = 1_800;
/** A process of Python is some hundred megabytes, and a machine has other work. */
const MOST_PROCESSES = 4;

/** Engines of this process share the cores whatever the number of copies; processes of Python cannot. */
function defaultMax(engine: EngineKind, cores: number): number {
  return engine === 'python' ? Math.max(1, Math.min(MOST_PROCESSES, cores)) : 1;
}

export function planOf(
  { engine, scaling = {} }: Pick<Target, 'engine'> & { readonly scaling?: Scaling },
  cores: number = availableParallelism(),
): ReplicaPlan {
  const { minReplicas, maxReplicas, targetConcurrency, idleSeconds = DEFAULT_IDLE_SECONDS } = scaling;
  const most = maxReplicas ?? Math.max(minReplicas ?? 1, defaultMax(engine, cores));
  return {
    minReplicas: Math.min(minReplicas ?? 1, most),
    maxReplicas: most,
    targetConcurrency,
    idleMs: idleSeconds * 1_000,
    maxQueue: scaling.maxQueue,
  };
}

/** What suits everybody who shares the model. */
export function widestPlan(first: ReplicaPlan, ...others: readonly ReplicaPlan[]): ReplicaPlan {
  return others.reduce(
    (left, right) => ({
      minReplicas: Math.max(left.minReplicas, right.minReplicas),
      maxReplicas: Math.max(left.maxReplicas, right.maxReplicas),
      targetConcurrency: greater(left.targetConcurrency, right.targetConcurrency),
      idleMs: Math.max(left.idleMs, right.idleMs),
      maxQueue: greater(left.maxQueue, right.maxQueue),
    }),
    first,
  );
}

/** Undefined is no bound of its own. */
function greater(left: number | undefined, right: number | undefined): number | undefined {
  return left === undefined || right === undefined ? undefined : Math.max(left, right);
}
