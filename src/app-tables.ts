// The system tables that are served from memory: endpoints, models, answers, functions, commands, settings.
import type { Endpoint, ModelVersion, RegisteredModel } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';
import type { AnswerStore } from '#core/stores.ts';
import { FUNCTION_DOCS } from '#functions/functions.ts';
import type { Serving } from '#serving/serving.ts';
import type { Command } from '#session/commands.ts';
import type { SystemTable } from '#session/system-tables.ts';

export interface TableSources {
  readonly listEndpoints: () => readonly Endpoint[];
  readonly listModels: () => readonly {
    readonly model: RegisteredModel;
    readonly versions: readonly ModelVersion[];
  }[];
  readonly answers: AnswerStore;
  readonly replicasOf: Serving['replicasOf'];
  readonly commands: readonly Command[];
}

export function createSystemTables(sources: TableSources): SystemTable[] {
  return [
    endpointsTable(sources),
    modelsTable(sources),
    replicasTable(sources),
    answersTable(sources),
    functionsTable(),
    commandsTable(sources),
  ];
}

const plain = (value: unknown): Json => JSON.parse(JSON.stringify(value ?? null)) as Json;

function endpointsTable({ listEndpoints }: TableSources): SystemTable {
  return {
    name: 'endpoints',
    columns: [
      { name: 'name', type: 'VARCHAR' },
      { name: 'task', type: 'VARCHAR' },
      { name: 'model', type: 'VARCHAR' },
      { name: 'provider', type: 'VARCHAR' },
      { name: 'is_embedded', type: 'BOOLEAN' },
      { name: 'description', type: 'VARCHAR' },
      { name: 'served_entities', type: 'JSON' },
      { name: 'routes', type: 'JSON' },
      { name: 'tags', type: 'JSON' },
      { name: 'config_version', type: 'INTEGER' },
      { name: 'creator', type: 'VARCHAR' },
      { name: 'creation_time', type: 'TIMESTAMP' },
      { name: 'last_updated_time', type: 'TIMESTAMP' },
    ],
    *rows() {
      for (const endpoint of listEndpoints()) {
        const [first] = endpoint.servedEntities;
        yield [
          endpoint.name,
          endpoint.task,
          first?.externalModel?.name ?? first?.entityName ?? null,
          first?.externalModel?.provider ?? null,
          endpoint.isEmbedded,
          endpoint.description,
          plain(endpoint.servedEntities),
          plain(endpoint.routes),
          plain(endpoint.tags),
          endpoint.configVersion,
          endpoint.creator,
          endpoint.createdAtMs,
          endpoint.updatedAtMs,
        ];
      }
    },
  };
}

function modelsTable({ listModels }: TableSources): SystemTable {
  return {
    name: 'models',
    columns: [
      { name: 'name', type: 'VARCHAR' },
      { name: 'version', type: 'VARCHAR' },
      { name: 'aliases', type: 'JSON' },
      { name: 'engine', type: 'VARCHAR' },
      { name: 'task', type: 'VARCHAR' },
      { name: 'dimensions', type: 'INTEGER' },
      { name: 'sha256', type: 'VARCHAR' },
      { name: 'size_bytes', type: 'BIGINT' },
      { name: 'licence', type: 'VARCHAR' },
      { name: 'signature', type: 'JSON' },
      { name: 'description', type: 'VARCHAR' },
      { name: 'creation_time', type: 'TIMESTAMP' },
    ],
    *rows() {
      for (const { model, versions } of listModels()) {
        for (const version of versions) {
          const aliases = Object.entries(model.aliases).flatMap(([alias, target]) =>
            target === version.version ? [alias] : [],
          );
          yield [
            model.name,
            version.version,
            aliases,
            version.engine,
            version.task,
            version.dimensions ?? null,
            version.sha256 || null,
            version.sizeBytes,
            version.licence ?? null,
            plain(version.signature),
            version.description ?? model.description,
            version.createdAtMs,
          ];
        }
      }
    },
  };
}

/** One row for each served entity with a registered model, whether it is loaded or not. */
function replicasTable({ listEndpoints, replicasOf }: TableSources): SystemTable {
  return {
    name: 'replicas',
    columns: [
      { name: 'endpoint', type: 'VARCHAR' },
      { name: 'served_entity', type: 'VARCHAR' },
      { name: 'model', type: 'VARCHAR' },
      { name: 'version', type: 'VARCHAR' },
      { name: 'ready', type: 'INTEGER' },
      { name: 'starting', type: 'INTEGER' },
      { name: 'draining', type: 'INTEGER' },
      { name: 'min_replicas', type: 'INTEGER' },
      { name: 'max_replicas', type: 'INTEGER' },
      { name: 'in_flight', type: 'BIGINT' },
      { name: 'waiting', type: 'BIGINT' },
      { name: 'starts', type: 'BIGINT' },
      { name: 'cold_starts', type: 'BIGINT' },
      { name: 'cold_start_seconds', type: 'DOUBLE' },
      { name: 'lost', type: 'BIGINT' },
      { name: 'failure', type: 'VARCHAR' },
    ],
    *rows() {
      for (const { name, servedEntities } of listEndpoints()) {
        for (const entity of servedEntities) {
          const state = entity.externalModel === undefined ? replicasOf(name, entity.name) : undefined;
          if (state === undefined) continue;
          yield [
            name,
            entity.name,
            entity.entityName ?? null,
            entity.entityVersion ?? null,
            state.ready,
            state.starting,
            state.draining,
            state.minReplicas,
            state.maxReplicas,
            state.inFlight,
            state.waiting,
            state.opened,
            state.coldStarts,
            state.coldStartMs / 1_000,
            state.lost,
            state.failure ?? null,
          ];
        }
      }
    },
  };
}

function answersTable({ answers }: TableSources): SystemTable {
  return {
    name: 'answers',
    columns: [
      { name: 'key', type: 'VARCHAR' },
      { name: 'endpoint', type: 'VARCHAR' },
      { name: 'model', type: 'VARCHAR' },
      { name: 'task', type: 'VARCHAR' },
      { name: 'output', type: 'JSON' },
      { name: 'input_tokens', type: 'BIGINT' },
      { name: 'output_tokens', type: 'BIGINT' },
      { name: 'creation_time', type: 'TIMESTAMP' },
    ],
    *rows() {
      for (const [key, answer] of answers.entries()) {
        const output =
          'embedding' in answer.output ? { embedding: Array.from(answer.output.embedding) } : answer.output;
        const { inputTokens, outputTokens } = answer.usage;
        yield [
          key,
          answer.endpoint,
          answer.model,
          answer.task,
          plain(output),
          inputTokens,
          outputTokens,
          answer.createdAtMs,
        ];
      }
    },
  };
}

function functionsTable(): SystemTable {
  return {
    name: 'functions',
    columns: ['name', 'signature', 'returns', 'description', 'example'].map((name) => ({
      name,
      type: 'VARCHAR' as const,
    })),
    rows: () =>
      FUNCTION_DOCS.map((doc) => [doc.name, doc.signature, doc.returns, doc.description, doc.example]),
  };
}

function commandsTable({ commands }: TableSources): SystemTable {
  return {
    name: 'commands',
    columns: ['name', 'parameters', 'description'].map((name) => ({ name, type: 'VARCHAR' as const })),
    rows: () =>
      commands.map((command) => [
        `duckserve_${command.name}`,
        command.parameters.join(', '),
        command.description,
      ]),
  };
}
