// In whose name a model asks other endpoints while it answers a call, and what ties the two together in the usage
// rows. Not here: how the question is asked (the application) and what the model asks (its engine).
import type { Call } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import type { Caller } from '#engines/engine.ts';

/** Undefined for models that do not look at who asks. */
export function callerOf({ isPersonal }: Target, call: Call): Caller | undefined {
  if (!isPersonal) return undefined;
  const { principal, origin, depth = 0, id: callId, endpoint } = call;
  const { clientRequestId, usageContext, budget } = call;
  return {
    ...{ principal, origin, depth, callId, endpoint },
    ...(clientRequestId !== undefined && { clientRequestId }),
    ...(usageContext && { usageContext }),
    ...(budget && { budget }),
  };
}
