-- ai_classify: one of the given labels.
CREATE OR REPLACE TEMP MACRO ai_classify(content, labels, endpoint := NULL, cache := NULL) AS
  __ai_classify(content, labels, endpoint, cache);
