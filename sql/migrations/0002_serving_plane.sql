-- What is known of a request beside its cost. NULL in rows of older versions, and where it does not apply.
ALTER TABLE duckserve.main.usage ADD COLUMN endpoint_id VARCHAR;
ALTER TABLE duckserve.main.usage ADD COLUMN served_entity_id VARCHAR;
ALTER TABLE duckserve.main.usage ADD COLUMN requester_type VARCHAR;
ALTER TABLE duckserve.main.usage ADD COLUMN api_type VARCHAR;
ALTER TABLE duckserve.main.usage ADD COLUMN path VARCHAR;
ALTER TABLE duckserve.main.usage ADD COLUMN user_agent VARCHAR;
ALTER TABLE duckserve.main.usage ADD COLUMN request_tags MAP(VARCHAR, VARCHAR);
ALTER TABLE duckserve.main.usage ADD COLUMN time_to_first_byte_ms DOUBLE;
ALTER TABLE duckserve.main.usage ADD COLUMN input_characters BIGINT;
ALTER TABLE duckserve.main.usage ADD COLUMN output_characters BIGINT;

-- Pieces of the journal that are in the tables already, so that a crash between import and removal repeats nothing.
CREATE TABLE duckserve.main.imported_segments (
  name VARCHAR PRIMARY KEY,
  imported_at TIMESTAMP NOT NULL
);

-- US dollars per million tokens, edited by the user. `model` may hold * for any characters.
CREATE TABLE duckserve.main.prices (
  provider VARCHAR NOT NULL,
  model VARCHAR NOT NULL,
  input_per_million DOUBLE NOT NULL CHECK (input_per_million >= 0),
  output_per_million DOUBLE NOT NULL CHECK (output_per_million >= 0),
  note VARCHAR,
  PRIMARY KEY (provider, model)
);

-- Tables that hold requests and answers, so that retention finds them.
CREATE TABLE duckserve.main.inference_tables (
  catalog_name VARCHAR NOT NULL,
  schema_name VARCHAR NOT NULL,
  table_name VARCHAR NOT NULL,
  PRIMARY KEY (catalog_name, schema_name, table_name)
);

CREATE SCHEMA duckserve.serving;
CREATE SCHEMA duckserve.ai_gateway;
CREATE SCHEMA duckserve.inference;

-- One row for each served entity of each configuration of an endpoint; slowly changing, as on Databricks.
CREATE TABLE duckserve.serving.served_entities (
  served_entity_id VARCHAR NOT NULL,
  account_id VARCHAR,
  workspace_id VARCHAR,
  created_by VARCHAR,
  endpoint_name VARCHAR NOT NULL,
  endpoint_id VARCHAR NOT NULL,
  served_entity_name VARCHAR NOT NULL,
  entity_type VARCHAR NOT NULL,
  entity_name VARCHAR,
  entity_version VARCHAR,
  endpoint_config_version INTEGER NOT NULL,
  task VARCHAR,
  external_model_config STRUCT(provider VARCHAR),
  foundation_model_config STRUCT(min_provisioned_throughput INTEGER, max_provisioned_throughput INTEGER),
  custom_model_config STRUCT(min_concurrency INTEGER, max_concurrency INTEGER, compute_type VARCHAR),
  feature_spec_config STRUCT(min_concurrency INTEGER, max_concurrency INTEGER, compute_type VARCHAR),
  change_time TIMESTAMP NOT NULL,
  endpoint_delete_time TIMESTAMP
);

-- Databricks' names of the same rows. A row is a request to a model, or a call that never reached one.
CREATE VIEW duckserve.serving.endpoint_usage AS
SELECT
  NULL::VARCHAR AS account_id,
  NULL::VARCHAR AS workspace_id,
  client_request_id,
  call_id AS databricks_request_id,
  requester,
  status_code,
  request_time,
  input_tokens AS input_token_count,
  output_tokens AS output_token_count,
  input_characters AS input_character_count,
  output_characters AS output_character_count,
  usage_context,
  is_streaming AS request_streaming,
  served_entity_id
FROM duckserve.main.usage;

CREATE VIEW duckserve.ai_gateway.usage AS
SELECT
  request_time AS event_time,
  endpoint AS endpoint_name,
  endpoint_id,
  CASE WHEN engine IN ('onnx', 'static', 'llama', 'echo') THEN 'CUSTOM_MODEL' ELSE 'EXTERNAL_MODEL' END AS destination_type,
  served_entity AS destination_name,
  model AS destination_model,
  requester,
  requester_type,
  api_type,
  CASE WHEN origin = 'sql' THEN 'AI_FUNCTIONS' ELSE 'MODEL_SERVING' END AS service_type,
  path AS url,
  user_agent,
  request_tags,
  input_tokens,
  output_tokens,
  input_tokens + output_tokens AS total_tokens,
  duration_ms AS latency_ms,
  time_to_first_byte_ms,
  status_code
FROM duckserve.main.usage;
