-- ai_model: which model an endpoint answers with.
CREATE OR REPLACE TEMP MACRO ai_model(endpoint := NULL) AS
  CAST(__ai_model(endpoint) AS STRUCT(endpoint VARCHAR, model VARCHAR, task VARCHAR, sha256 VARCHAR, dimensions INTEGER, fingerprint VARCHAR));
