-- ai_similarity: cosine of the embeddings of two texts.
CREATE OR REPLACE TEMP MACRO ai_similarity(expr1, expr2, endpoint := NULL, cache := NULL) AS
  __ai_similarity(expr1, expr2, endpoint, cache);
