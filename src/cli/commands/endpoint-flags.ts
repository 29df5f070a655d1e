// How an endpoint's model is described by flags, for creating and updating alike: the options, which of them go
// together, and what they come to. Values themselves are checked by the registry.
import { type Command, Option } from 'commander';
import { TASKS, type Task } from '#core/call.ts';
import { type Endpoint, PROVIDERS, type ServedEntity } from '#core/endpoint.ts';
import { dollarsOption, wholeNumberOption } from './group.ts';

export interface ModelFlags {
  readonly task?: Task;
  readonly provider?: string;
  readonly baseUrl?: string;
  readonly model?: string;
  readonly apiKeyEnv?: string;
  readonly apiKeySecret?: string;
  readonly maxConcurrency?: number;
  readonly timeoutMs?: number;
  readonly inputPrice?: number;
  readonly outputPrice?: number;
  readonly registeredModel?: string;
  readonly modelVersion?: string;
  readonly minReplicas?: number;
  readonly maxReplicas?: number;
  readonly targetConcurrency?: number;
  readonly idleSeconds?: number;
  readonly maxQueue?: number;
  /** As they were typed: NAME=VALUE. */
  readonly env?: readonly string[];
}

/** Flags of registered models that are members of `scaling` by the same names. */
const SCALING_FLAGS = [
  'minReplicas',
  'maxReplicas',
  'targetConcurrency',
  'idleSeconds',
  'maxQueue',
] as const satisfies readonly (keyof ModelFlags)[];

export const MODEL_FLAGS = [
  'task',
  'provider',
  'baseUrl',
  'model',
  'apiKeyEnv',
  'apiKeySecret',
  'maxConcurrency',
  'timeoutMs',
  'inputPrice',
  'outputPrice',
  'registeredModel',
  'modelVersion',
  ...SCALING_FLAGS,
  'env',
] as const satisfies readonly (keyof ModelFlags)[];

export function addModelOptions(command: Command): Command {
  return command
    .addOption(new Option('--task <task>', 'what the model does').choices(TASKS))
    .addOption(new Option('--provider <provider>', 'API of the external model').choices(PROVIDERS))
    .option('--base-url <url>', 'address of the provider, such as http://localhost:11434/v1')
    .option('--model <model>', 'name of the model at the provider')
    .option('--api-key-env <variable>', 'environment variable that holds the API key')
    .option('--api-key-secret <scope/key>', 'secret that holds the API key (duckserve secrets set)')
    .option('--max-concurrency <n>', 'most requests at once', wholeNumberOption(1))
    .option('--timeout-ms <n>', 'milliseconds until a request is given up', wholeNumberOption(1))
    .option('--input-price <dollars>', 'US dollars per million input tokens', dollarsOption)
    .option('--output-price <dollars>', 'US dollars per million output tokens', dollarsOption)
    .option('--registered-model <name>', 'serve a registered model instead of an external one')
    .option('--model-version <version>', 'its version or alias (default: the latest)')
    .option('--min-replicas <n>', 'copies kept while nobody asks; 0: scale to zero', wholeNumberOption(0))
    .option('--max-replicas <n>', 'most copies at once', wholeNumberOption(1))
    .option('--target-concurrency <n>', 'requests that one copy works on at once', wholeNumberOption(1))
    .option('--idle-seconds <n>', 'how long a copy is idle before it is closed', wholeNumberOption(1))
    .option('--max-queue <n>', 'inputs that may wait for a copy', wholeNumberOption(1))
    .option(
      '--env <K=V>',
      'variable of its process, such as KEY={{secrets/scope/key}}; repeatable',
      addVariable,
    );
}

const addVariable = (text: string, before: readonly string[] = []): string[] => [...before, text];

const toVariable = (text: string) => [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)];

/** What is wrong with a combination of flags; values themselves are checked by the registry. */
export function modelFlagProblem(flags: ModelFlags): string | undefined {
  const external = [
    'provider',
    'baseUrl',
    'model',
    'apiKeyEnv',
    'apiKeySecret',
    'inputPrice',
    'outputPrice',
  ] as const;
  const limits = ['maxConcurrency', 'timeoutMs'] as const;
  if (flags.env?.some((text) => text.indexOf('=') < 1)) {
    // The text is not shown: it may be a secret.
    return '--env takes NAME=VALUE, such as MODE=fast, and one of them has no name or no =.';
  }
  if (flags.registeredModel !== undefined) {
    const given = [...external, ...limits].find((flag) => flags[flag] !== undefined);
    return given === undefined
      ? undefined
      : `--${kebab(given)} is for external models and --registered-model for registered ones; leave one out.`;
  }
  if (flags.modelVersion !== undefined) return '--model-version needs --registered-model NAME.';
  const own = ([...SCALING_FLAGS, 'env'] as const).find((flag) => flags[flag] !== undefined);
  if (own !== undefined)
    return `--${kebab(own)} needs --registered-model NAME; others scale external models.`;
  for (const flag of ['task', 'provider', 'model'] as const) {
    if (flags[flag] === undefined) {
      return `--${flag} is missing; an external model needs --task, --provider and --model (or use --registered-model NAME).`;
    }
  }
  if (flags.task === 'predict') {
    return '--task predict is for models of your own: register one and use --registered-model NAME.';
  }
  if (flags.apiKeyEnv !== undefined && flags.apiKeySecret !== undefined) {
    return '--api-key-env and --api-key-secret exclude each other.';
  }
  if (flags.apiKeyEnv !== undefined && !/^[A-Za-z_]\w*$/.test(flags.apiKeyEnv)) {
    // The value is not shown: it may be the key itself.
    return '--api-key-env takes the name of an environment variable, such as OPENAI_API_KEY, not the key itself.';
  }
  if (flags.apiKeySecret !== undefined && !/^[^/{}]+\/[^/{}]+$/.test(flags.apiKeySecret)) {
    return '--api-key-secret takes SCOPE/KEY of a secret made with duckserve secrets set, not the key itself.';
  }
  const isPriced = flags.inputPrice !== undefined || flags.outputPrice !== undefined;
  if (isPriced && flags.inputPrice === undefined) return '--output-price needs --input-price beside it.';
  if (isPriced && flags.outputPrice === undefined && flags.task !== 'llm/v1/embeddings') {
    return '--input-price needs --output-price beside it.';
  }
  return undefined;
}

/** Flags as a served entity in the shape that the registry checks; HTTP and SQL bring the same. */
export function entitySpec(flags: ModelFlags): object {
  if (flags.registeredModel !== undefined) {
    return {
      entityName: flags.registeredModel,
      ...(flags.modelVersion === undefined ? {} : { entityVersion: flags.modelVersion }),
      ...scalingSpec(flags),
      ...(flags.env === undefined ? {} : { environment: Object.fromEntries(flags.env.map(toVariable)) }),
    };
  }
  const apiKey =
    flags.apiKeyEnv !== undefined
      ? `{{env/${flags.apiKeyEnv}}}`
      : flags.apiKeySecret !== undefined
        ? `{{secrets/${flags.apiKeySecret}}}`
        : undefined;
  return {
    externalModel: {
      name: flags.model,
      provider: flags.provider,
      task: flags.task,
      ...(flags.baseUrl === undefined ? {} : { baseUrl: flags.baseUrl }),
      ...(apiKey === undefined ? {} : { apiKey }),
      ...(flags.maxConcurrency === undefined ? {} : { maxConcurrency: flags.maxConcurrency }),
      ...(flags.timeoutMs === undefined ? {} : { timeoutMs: flags.timeoutMs }),
      ...(flags.inputPrice === undefined
        ? {}
        : { price: { inputPerMillion: flags.inputPrice, outputPerMillion: flags.outputPrice ?? 0 } }),
    },
  };
}

function scalingSpec(flags: ModelFlags): object {
  const given = SCALING_FLAGS.flatMap((flag) => (flags[flag] === undefined ? [] : [[flag, flags[flag]]]));
  return given.length === 0 ? {} : { scaling: Object.fromEntries(given) };
}

export function serves(endpoint: Endpoint): string {
  return endpoint.servedEntities.map(entityText).join(', ');
}

function entityText(entity: ServedEntity): string {
  if (entity.externalModel !== undefined) return entity.externalModel.name;
  return `${entity.entityName ?? entity.name}@${entity.entityVersion ?? 'latest'}`;
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
