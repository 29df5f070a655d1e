// What a served entity says about its replicas: our own words, and before them Databricks' sizes, translated. The
// sizes stay in its settings as they were set; what they come to is made anew each time.
import { availableParallelism } from 'node:os';
import type { ModelVersion, Scaling, ServedEntity } from '#core/endpoint.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';

/** Databricks' provisioned concurrency of each size, at least and at most. */
const SIZES: Readonly<Record<string, readonly [number, number]>> = {
  small: [4, 4],
  medium: [8, 16],
  large: [16, 64],
};
/** Least bound where only the most was given. */
const SMALLEST = 4;
/** Requests at once that one process of an agent takes, as it mostly waits for others; of any other model one. */
const AGENT_CONCURRENCY = 8;

/** Undefined: nothing was said. */
export function scalingOf(
  { scaling, settings = {} }: ServedEntity,
  version: Pick<ModelVersion, 'engine' | 'options'>,
  cores: number = availableParallelism(),
): Scaling | undefined {
  const sized = { ...sizeOf(settings, version, scaling, cores), ...zeroOf(settings) };
  const all: Scaling = { ...sized, ...scaling };
  return Object.keys(all).length === 0 ? undefined : all;
}

/** Endpoints that were stored before had them among their settings. */
export function environmentOf({
  environment,
  settings,
}: Pick<ServedEntity, 'environment' | 'settings'>): Readonly<Record<string, string>> | undefined {
  if (environment !== undefined) return environment;
  const kept = settings?.environment_vars;
  if (!isJsonObject(kept)) return undefined;
  return Object.fromEntries(Object.entries(kept).map(([name, value]) => [name, String(value)]));
}

const zeroOf = ({ scale_to_zero_enabled }: JsonObject): Scaling =>
  scale_to_zero_enabled === true ? { minReplicas: 0 } : {};

/**
 * Only processes of Python: a second copy of a model in this process would share the cores of the first. Sizes were
 * chosen for other machines, so they come to no more processes than this one has cores.
 */
function sizeOf(
  settings: JsonObject,
  { engine, options }: Pick<ModelVersion, 'engine' | 'options'>,
  { targetConcurrency, minReplicas = 0, maxReplicas }: Scaling = {},
  cores: number,
): Scaling {
  const bounds = boundsOf(settings);
  if (engine !== 'python' || bounds === undefined) return {};
  const own = Number(options.maxConcurrency ?? (options.agent ? AGENT_CONCURRENCY : 1)) || 1;
  const perReplica = Math.max(1, Math.min(own, targetConcurrency ?? own));
  const replicas = (concurrency: number) => Math.max(1, Math.min(cores, Math.ceil(concurrency / perReplica)));
  const most = maxReplicas ?? Math.max(minReplicas, replicas(bounds.most));
  const least = bounds.least === 0 ? 0 : replicas(bounds.least);
  return { minReplicas: Math.min(least, most), maxReplicas: most };
}

function boundsOf(settings: JsonObject): { readonly least: number; readonly most: number } | undefined {
  const { workload_size, min_provisioned_concurrency, max_provisioned_concurrency } = settings;
  const size = typeof workload_size === 'string' ? SIZES[workload_size.toLowerCase()] : undefined;
  if (size !== undefined) return { least: size[0], most: size[1] };
  const number = (value: unknown) => (typeof value === 'number' ? value : undefined);
  const least = number(min_provisioned_concurrency);
  const most = number(max_provisioned_concurrency);
  if (least === undefined && most === undefined) return undefined;
  return {
    least: least ?? Math.min(SMALLEST, most ?? SMALLEST),
    most: Math.max(most ?? least ?? SMALLEST, 1),
  };
}
