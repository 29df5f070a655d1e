// What it takes before an endpoint counts as ready: its own models are loaded, the keys of its providers are there.
// Nobody is asked anything: whether a provider answers is known when it is asked.
import type { ExternalModel, Target } from '#core/endpoint.ts';
import { throwIfAborted } from '#core/errors.ts';
import type { PrepareTargets } from '#registry/registry.ts';

export interface PrepareOptions {
  /** Throws SECRET_NOT_FOUND. */
  readonly resolveSecret: (reference: string) => string;
  /** Loads models; gives what lets go of them. */
  readonly load: (targets: readonly Target[]) => Promise<() => void>;
}

export function createPrepare({ resolveSecret, load }: PrepareOptions): PrepareTargets {
  return async (targets, signal) => {
    for (const { externalModel, environment = {} } of targets) {
      for (const reference of referencesOf(externalModel)) resolveSecret(reference);
      for (const value of Object.values(environment)) resolveSecret(value);
    }
    const release = await load(targets.filter(({ modelVersion }) => modelVersion !== undefined));
    if (signal.aborted) release();
    throwIfAborted(signal);
    return release;
  };
}

function referencesOf(model: ExternalModel | undefined): readonly string[] {
  return [
    model?.apiKey,
    model?.entra?.clientSecret,
    model?.bedrock?.accessKeyId,
    model?.bedrock?.secretAccessKey,
    model?.bedrock?.sessionToken,
    model?.vertex?.privateKey,
  ].filter((reference) => reference !== undefined);
}
