// `duckserve endpoints`: creating, listing, showing and deleting endpoints.
import { type Command, Option } from 'commander';
import { LOCAL_OWNER, TASKS, type Task } from '#core/call.ts';
import { type Endpoint, PROVIDERS, type ServedEntity } from '#core/endpoint.ts';
import { type Context, listSheet, textColumns, withCommonOptions } from '../context.ts';
import { toWire } from '../wire.ts';
import {
  addGroup,
  dollarsOption,
  type ListFormat,
  listFormatOption,
  refuseUnknown,
  wholeNumberOption,
} from './group.ts';

interface CreateFlags {
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
  readonly description?: string;
}

export function addEndpointCommands(program: Command, context: Context): void {
  const list = async (format: ListFormat, command: Command) =>
    await context.withApp(command, async ({ registry }) => {
      const endpoints = registry.listEndpoints();
      if (format === 'json') return await context.printJson(toWire(endpoints));
      const columns = textColumns('name', 'task', 'serves', 'provider', 'description');
      await context.printSheet(listSheet(columns, endpoints.map(endpointRow)), 'table');
    });

  const group = addGroup(program, 'endpoints', 'list, create, show and delete endpoints')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => {
      refuseUnknown(command);
      await list(flags.format, command);
    });

  withCommonOptions(group.command('list'))
    .description('list endpoints')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => await list(flags.format, command));

  withCommonOptions(group.command('get <name>'))
    .description('show one endpoint')
    .addOption(listFormatOption())
    .action(async (name: string, flags: { format: ListFormat }, command: Command) => {
      await context.withApp(command, async ({ registry }) => {
        const endpoint = registry.getEndpoint(name);
        if (flags.format === 'json') return await context.printJson(toWire(endpoint));
        const rows = Object.entries(toWire(endpoint) ?? {});
        await context.printSheet(listSheet(textColumns('property', 'value'), rows), 'table');
      });
    });

  withCommonOptions(group.command('delete <name>'))
    .description('delete an endpoint')
    .action(async (name: string, _flags: object, command: Command) => {
      await context.withApp(command, async ({ registry }) => {
        await registry.deleteEndpoint(name);
        context.say(`Deleted endpoint ${name}.`);
      });
    });

  withCommonOptions(group.command('create <name>'))
    .description('create an endpoint for an external model or a registered one')
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
    .option('--description <text>', 'what the endpoint is for')
    .action(async (name: string, flags: CreateFlags, command: Command) => {
      const problem = flagProblem(flags);
      if (problem !== undefined) command.error(`error: ${problem}`, { code: 'duckserve.flags', exitCode: 2 });
      await context.withApp(command, async ({ registry }) => {
        const endpoint = await registry.createEndpoint(endpointSpec(name, flags), LOCAL_OWNER);
        context.say(`Created endpoint ${endpoint.name} (${endpoint.task}, ${serves(endpoint)}).`);
      });
    });
}

/** What is wrong with a combination of flags; values themselves are checked by the registry. */
function flagProblem(flags: CreateFlags): string | undefined {
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
  if (flags.registeredModel !== undefined) {
    const given = [...external, ...limits].find((flag) => flags[flag] !== undefined);
    return given === undefined
      ? undefined
      : `--${kebab(given)} is for external models and --registered-model for registered ones; leave one out.`;
  }
  if (flags.modelVersion !== undefined) return '--model-version needs --registered-model NAME.';
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

/** Flags as the specification that the registry checks; the same shape HTTP and SQL bring. */
function endpointSpec(name: string, flags: CreateFlags): object {
  const described = flags.description === undefined ? {} : { description: flags.description };
  if (flags.registeredModel !== undefined) {
    return {
      name,
      ...(flags.task === undefined ? {} : { task: flags.task }),
      servedEntities: [
        {
          entityName: flags.registeredModel,
          ...(flags.modelVersion === undefined ? {} : { entityVersion: flags.modelVersion }),
        },
      ],
      ...described,
    };
  }
  const apiKey =
    flags.apiKeyEnv !== undefined
      ? `{{env/${flags.apiKeyEnv}}}`
      : flags.apiKeySecret !== undefined
        ? `{{secrets/${flags.apiKeySecret}}}`
        : undefined;
  const externalModel = {
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
  };
  return { name, task: flags.task, servedEntities: [{ externalModel }], ...described };
}

export function endpointRow(endpoint: Endpoint): readonly string[] {
  const providers = endpoint.servedEntities.map((entity) => entity.externalModel?.provider ?? 'local');
  const description = endpoint.description || (endpoint.isEmbedded ? 'built in' : '');
  return [endpoint.name, endpoint.task, serves(endpoint), [...new Set(providers)].join(', '), description];
}

function serves(endpoint: Endpoint): string {
  return endpoint.servedEntities.map(entityText).join(', ');
}

function entityText(entity: ServedEntity): string {
  if (entity.externalModel !== undefined) return entity.externalModel.name;
  return `${entity.entityName ?? entity.name}@${entity.entityVersion ?? 'latest'}`;
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
