-- ai_embed: by an endpoint, or by the default embedding endpoint.
CREATE OR REPLACE TEMP MACRO ai_embed
  (input) AS __ai_embed(NULL::VARCHAR, input, NULL::VARCHAR),
  (endpoint, input, cache := NULL) AS __ai_embed(endpoint, input, cache);
