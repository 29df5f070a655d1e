// Scaling as it was set and replicas as they are, in the words of the wire. Both are ours: the vendor's states of a
// deployment stay what clients know, and a model that is scaled to zero is ready.
import type { Scaling } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import type { ReplicaState } from '#serving/replicas-state.ts';
import { present } from './body.ts';

export function formatScaling(scaling: Scaling): JsonObject {
  return present({
    min_replicas: scaling.minReplicas,
    max_replicas: scaling.maxReplicas,
    target_concurrency: scaling.targetConcurrency,
    idle_seconds: scaling.idleSeconds,
    max_queue: scaling.maxQueue,
  });
}

/** The state of a served entity. One that is failing now is being recovered. */
export function deploymentWith(deployment: JsonObject, replicas: ReplicaState | undefined): JsonObject {
  if (replicas === undefined) return deployment;
  const isRecovering = replicas.failure !== undefined && deployment.deployment === 'DEPLOYMENT_READY';
  return {
    ...deployment,
    ...(isRecovering
      ? { deployment: 'DEPLOYMENT_RECOVERING', deployment_state_message: replicas.failure ?? '' }
      : {}),
    replicas: {
      ready: replicas.ready,
      starting: replicas.starting,
      draining: replicas.draining,
      min: replicas.minReplicas,
      max: replicas.maxReplicas,
      in_flight: replicas.inFlight,
      waiting: replicas.waiting,
    },
  };
}
