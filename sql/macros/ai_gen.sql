-- ai_gen: the answer of the default chat endpoint.
CREATE OR REPLACE TEMP MACRO ai_gen(prompt, endpoint := NULL, cache := NULL) AS
  __ai_gen(prompt, endpoint, cache);
