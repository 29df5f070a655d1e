// CALL duckserve_...: the registry, the settings and the answer store from SQL, through the same validation as
// the command line and HTTP.
import { parseSpec } from '#cli/from-wire.ts';
import type { Json } from '#core/json.ts';
import type { AnswerStore } from '#core/stores.ts';
import type { Registry } from '#registry/registry.ts';
import type { Command } from '#session/commands.ts';

export interface CommandTargets {
  readonly registry: Pick<
    Registry,
    | 'createEndpoint'
    | 'deleteEndpoint'
    | 'getEndpoint'
    | 'updateEndpointAndWait'
    | 'setGateway'
    | 'stopEndpoint'
    | 'startEndpoint'
    | 'registerModel'
    | 'setAlias'
    | 'setSetting'
  >;
  readonly answers: AnswerStore;
}

export function createCommands({ registry, answers }: CommandTargets): Command[] {
  return [
    {
      name: 'create_endpoint',
      parameters: ['name', ...MODEL_PARAMETERS],
      description:
        "Creates an endpoint for an external model (provider, model, base_url, api_key such as '{{env/OPENAI_API_KEY}}') or a registered one (registered_model, model_version).",
      run: async (args, principal) => {
        const endpoint = await registry.createEndpoint(endpointSpec(args), principal);
        return {
          columns: [
            { name: 'name', type: 'VARCHAR' },
            { name: 'task', type: 'VARCHAR' },
          ],
          rows: [[endpoint.name, endpoint.task]],
        };
      },
    },
    {
      name: 'drop_endpoint',
      parameters: ['name'],
      description: 'Deletes an endpoint. Its answers stay in the store.',
      run: async ({ name }) => void (await registry.deleteEndpoint(text(name))),
    },
    {
      name: 'update_endpoint',
      parameters: ['name', ...MODEL_PARAMETERS, 'config'],
      description:
        'Serves another model, or what config says: JSON with served_entities and routes. Done when it is in force.',
      run: async (args, principal) => {
        const name = text(args.name);
        const { task } = registry.getEndpoint(name);
        const isModelGiven = args.model != null || args.registered_model != null;
        const spec = {
          ...(args.config == null ? {} : parseSpec(text(args.config), 'The argument config')),
          ...(isModelGiven ? { servedEntities: [entitySpec({ ...args, task: args.task ?? task })] } : {}),
          ...optional('description', args.description),
        };
        const { configVersion } = await registry.updateEndpointAndWait(name, spec, principal);
        return { columns: [{ name: 'config_version', type: 'INTEGER' }], rows: [[configVersion]] };
      },
    },
    {
      name: 'set_gateway',
      parameters: ['name', 'gateway'],
      description:
        'Sets the policies of an endpoint (limits, budgets, guardrails, fallback) to this JSON, or clears them.',
      run: async ({ name, gateway }) =>
        void (await registry.setGateway(
          text(name),
          gateway == null ? {} : parseSpec(text(gateway), 'The argument gateway'),
        )),
    },
    {
      name: 'stop_endpoint',
      parameters: ['name'],
      description: 'Refuses queries of an endpoint until it is started.',
      run: async ({ name }) => void (await registry.stopEndpoint(text(name))),
    },
    {
      name: 'start_endpoint',
      parameters: ['name'],
      description: 'Takes queries of an endpoint again.',
      run: async ({ name }) => void (await registry.startEndpoint(text(name))),
    },
    {
      name: 'register_model',
      parameters: ['name', 'path', 'alias', 'description', 'allow_code'],
      description: 'Copies a model file or folder into the data directory as the next version of a model.',
      run: async ({ name, path, alias, description, allow_code: allowCode }) => {
        const options = {
          ...optional('alias', alias),
          ...optional('description', description),
          ...(allowCode === true ? { allowCode } : {}),
        };
        const version = await registry.registerModel(text(name), text(path), options);
        return {
          columns: ['name', 'version', 'sha256'].map((column) => ({ name: column, type: 'VARCHAR' })),
          rows: [[version.model, version.version, version.sha256]],
        };
      },
    },
    {
      name: 'set_alias',
      parameters: ['model', 'alias', 'version'],
      description: 'Points an alias of a model to one of its versions.',
      run: async ({ model, alias, version }) =>
        void (await registry.setAlias(text(model), text(alias), text(version))),
    },
    {
      name: 'set_setting',
      parameters: ['name', 'value'],
      description:
        'Sets default_chat_endpoint, default_embedding_endpoint or default_classify_endpoint for this data directory.',
      run: async ({ name, value }) => void (await registry.setSetting(text(name), text(value))),
    },
    {
      name: 'clear_answers',
      parameters: ['endpoint', 'model'],
      description:
        'Forgets stored answers: of an endpoint, of a model, or all. What is forgotten is asked and paid again.',
      run: async ({ endpoint, model }) => {
        const cleared = await answers.clear({
          ...optional('endpoint', endpoint),
          ...optional('model', model),
        });
        return { columns: [{ name: 'cleared', type: 'BIGINT' }], rows: [[cleared]] };
      },
    },
  ];
}

/** What a model is described by, for creating and updating alike. */
const MODEL_PARAMETERS = [
  'task',
  'provider',
  'model',
  'base_url',
  'api_key',
  'max_concurrency',
  'timeout_ms',
  'input_price',
  'output_price',
  'registered_model',
  'model_version',
  'description',
];

type Arguments = Readonly<Record<string, Json>>;

function endpointSpec(args: Arguments): unknown {
  return {
    name: args.name,
    ...optional('task', args.task),
    servedEntities: [entitySpec(args)],
    ...optional('description', args.description),
  };
}

function entitySpec(args: Arguments): unknown {
  if (args.registered_model != null) {
    return { entityName: text(args.registered_model), ...optional('entityVersion', args.model_version) };
  }
  const isPriced = args.input_price != null || args.output_price != null;
  const price = {
    inputPerMillion: Number(args.input_price ?? 0),
    outputPerMillion: Number(args.output_price ?? 0),
  };
  return {
    externalModel: {
      name: args.model,
      provider: args.provider,
      task: args.task,
      ...optional('baseUrl', args.base_url),
      ...optional('apiKey', args.api_key),
      ...(args.max_concurrency == null ? {} : { maxConcurrency: args.max_concurrency }),
      ...(args.timeout_ms == null ? {} : { timeoutMs: args.timeout_ms }),
      ...(isPriced ? { price } : {}),
    },
  };
}

const text = (value: Json | undefined): string => (value == null ? '' : String(value));

function optional(name: string, value: Json | undefined): Record<string, string> {
  return value == null ? {} : { [name]: String(value) };
}
