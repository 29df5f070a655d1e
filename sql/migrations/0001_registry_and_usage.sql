-- Documents of the registry (endpoints, models, settings, encrypted secrets), one row each.
CREATE TABLE duckserve.main.registry (
  kind VARCHAR NOT NULL,
  key VARCHAR NOT NULL,
  document JSON NOT NULL,
  updated_at TIMESTAMP NOT NULL,
  PRIMARY KEY (kind, key)
);

-- The ledger: one row for each request to a target, and for each call that never reached one. Times are UTC.
CREATE TABLE duckserve.main.usage (
  request_id VARCHAR NOT NULL,
  call_id VARCHAR NOT NULL,
  client_request_id VARCHAR,
  request_time TIMESTAMP NOT NULL,
  requester VARCHAR NOT NULL,
  origin VARCHAR NOT NULL,
  endpoint VARCHAR NOT NULL,
  served_entity VARCHAR,
  model VARCHAR,
  engine VARCHAR,
  task VARCHAR NOT NULL,
  status_code INTEGER NOT NULL,
  error_code VARCHAR,
  error_message VARCHAR,
  input_count INTEGER NOT NULL,
  cached_count INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  input_tokens BIGINT NOT NULL,
  output_tokens BIGINT NOT NULL,
  cost DOUBLE,
  duration_ms DOUBLE NOT NULL,
  is_streaming BOOLEAN NOT NULL,
  usage_context MAP(VARCHAR, VARCHAR)
);
