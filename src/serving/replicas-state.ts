// What is told of the replicas of a served entity: in answers of the control plane, in metrics and in SQL.
// Numbers as they are now, and counts since this process began.
import type { Target } from '#core/endpoint.ts';
import type { ReplicaPlan } from './replicas-plan.ts';
import type { ReplicaTally } from './replicas-pool.ts';
import type { TargetQueue } from './target-queue.ts';

export interface ReplicaState {
  readonly ready: number;
  readonly starting: number;
  /** Ending their last requests. */
  readonly draining: number;
  readonly minReplicas: number;
  readonly maxReplicas: number;
  /** Requests to the model; one may carry inputs of many callers. */
  readonly inFlight: number;
  /** Inputs. */
  readonly waiting: number;
  readonly opened: number;
  readonly coldStarts: number;
  readonly coldStartMs: number;
  readonly lost: number;
  /** Why nobody is answered now. */
  readonly failure?: string;
}

const NO_COUNTS: ReplicaTally = { opened: 0, coldStarts: 0, coldStartMs: 0, lost: 0 };
/** Deleted endpoints are not told of here: the one known longest goes. */
const MOST_TALLIES = 10_000;

export const labelOf = ({ endpoint, servedEntity }: Pick<Target, 'endpoint' | 'servedEntity'>): string =>
  `${endpoint}/${servedEntity}`;

/** Of a target whose queue may not be open; `opening`: inputs that wait for its first replica, if it is being opened. */
export function stateOfReplicas(
  plan: ReplicaPlan,
  tally: ReplicaTally = NO_COUNTS,
  queue?: TargetQueue,
  opening?: number,
): ReplicaState {
  const { ready, starting, draining } = queue?.replicas?.counts ?? { ready: 0, starting: 0, draining: 0 };
  const { inFlight, waiting } = queue?.depth ?? { inFlight: 0, waiting: opening ?? 0 };
  const failure = queue?.replicas?.failure?.message;
  return {
    ready,
    starting: starting + (opening === undefined ? 0 : 1),
    draining,
    minReplicas: plan.minReplicas,
    maxReplicas: plan.maxReplicas,
    inFlight,
    waiting,
    ...tally,
    ...(failure === undefined ? {} : { failure }),
  };
}

/** By served entity, so that counts go on when its model is closed and opened again. */
export class ReplicaTallies {
  readonly #byLabel = new Map<string, ReplicaTally>();

  of(label: string): ReplicaTally {
    let tally = this.#byLabel.get(label);
    if (!tally) {
      const [oldest] = this.#byLabel.keys();
      if (this.#byLabel.size >= MOST_TALLIES && oldest !== undefined) this.#byLabel.delete(oldest);
      this.#byLabel.set(label, (tally = { ...NO_COUNTS }));
    }
    return tally;
  }

  labels(): Iterable<string> {
    return this.#byLabel.keys();
  }
}
