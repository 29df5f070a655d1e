// CALL duckserve_...: the registry, the settings and the answer store from SQL, through the same validation as
// the command line and HTTP.
import type { Json } from '#core/json.ts';
import type { AnswerStore } from '#core/stores.ts';
import type { Registry } from '#registry/registry.ts';
import type { Command } from '#session/commands.ts';

export interface CommandTargets {
  readonly registry: Pick<
    Registry,
    'createEndpoint' | 'deleteEndpoint' | 'registerModel' | 'setAlias' | 'setSetting'
  >;
  readonly answers: AnswerStore;
}

export function createCommands({ registry, answers }: CommandTargets): Command[] {
  return [
    {
      name: 'create_endpoint',
      parameters: [
        'name',
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
      ],
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
      name: 'register_model',
      parameters: ['name', 'path', 'alias', 'description'],
      description: 'Copies a model file or folder into the data directory as the next version of a model.',
      run: async ({ name, path, alias, description }) => {
        const options = { ...optional('alias', alias), ...optional('description', description) };
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

function endpointSpec(args: Readonly<Record<string, Json>>): unknown {
  const price =
    args.input_price != null || args.output_price != null
      ? {
          price: {
            inputPerMillion: Number(args.input_price ?? 0),
            outputPerMillion: Number(args.output_price ?? 0),
          },
        }
      : {};
  const entity =
    args.registered_model != null
      ? { entityName: text(args.registered_model), ...optional('entityVersion', args.model_version) }
      : {
          externalModel: {
            name: args.model,
            provider: args.provider,
            task: args.task,
            ...optional('baseUrl', args.base_url),
            ...optional('apiKey', args.api_key),
            ...(args.max_concurrency == null ? {} : { maxConcurrency: args.max_concurrency }),
            ...(args.timeout_ms == null ? {} : { timeoutMs: args.timeout_ms }),
            ...price,
          },
        };
  return {
    name: args.name,
    ...optional('task', args.task),
    servedEntities: [entity],
    ...optional('description', args.description),
  };
}

const text = (value: Json | undefined): string => (value == null ? '' : String(value));

function optional(name: string, value: Json | undefined): Record<string, string> {
  return value == null ? {} : { [name]: String(value) };
}
