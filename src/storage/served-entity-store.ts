// duckserve.serving.served_entities: what each endpoint served under each configuration, as Databricks keeps it.
// Written when an endpoint changes; rows are never changed but for the time their endpoint was deleted.
import type { DuckDBConnection } from '@duckdb/node-api';
import type { Endpoint, ServedEntity } from '#core/endpoint.ts';

const INSERT = `INSERT INTO duckserve.serving.served_entities
  (served_entity_id, created_by, endpoint_name, endpoint_id, served_entity_name, entity_type, entity_name,
   entity_version, endpoint_config_version, task, external_model_config, change_time)
  SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
    CASE WHEN $11 IS NULL THEN NULL ELSE {provider: $11} END, make_timestamp($12::BIGINT * 1000)
  WHERE NOT EXISTS (FROM duckserve.serving.served_entities
    WHERE endpoint_id = $4 AND served_entity_name = $5 AND endpoint_config_version = $9)`;
const DELETED = `UPDATE duckserve.serving.served_entities SET endpoint_delete_time = make_timestamp($2::BIGINT * 1000)
  WHERE endpoint_name = $1 AND endpoint_delete_time IS NULL`;

export class ServedEntityStore {
  readonly #connection: DuckDBConnection;
  #tail: Promise<void> = Promise.resolve();

  /** `connection`: one of its own, closed with this. */
  constructor(connection: DuckDBConnection) {
    this.#connection = connection;
  }

  /** Does nothing for a configuration that is there already. */
  changed(endpoint: Endpoint): Promise<void> {
    return this.#inTurn(async () => {
      for (const entity of endpoint.servedEntities)
        await this.#connection.run(INSERT, toValues(endpoint, entity));
    });
  }

  deleted(endpointName: string, atMs: number): Promise<void> {
    return this.#inTurn(async () => {
      await this.#connection.run(DELETED, [endpointName, BigInt(Math.round(atMs))]);
    });
  }

  async close(): Promise<void> {
    await this.#tail.catch(() => undefined);
    this.#connection.closeSync();
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#tail.then(work);
    this.#tail = done.catch(() => undefined);
    return done;
  }
}

function toValues(endpoint: Endpoint, entity: ServedEntity) {
  const { externalModel } = entity;
  return [
    entity.id ?? entity.name,
    endpoint.creator,
    endpoint.name,
    endpoint.id,
    entity.name,
    externalModel ? 'EXTERNAL_MODEL' : 'CUSTOM_MODEL',
    externalModel?.name ?? entity.entityName ?? null,
    entity.entityVersion ?? null,
    endpoint.configVersion,
    endpoint.task === 'predict' ? null : endpoint.task,
    externalModel?.provider ?? null,
    BigInt(Math.round(endpoint.updatedAtMs)),
  ];
}
