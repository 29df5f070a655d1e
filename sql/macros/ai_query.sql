-- ai_query: any endpoint. The options travel as one constant text, so that a row costs three columns to read.
-- The variants with an underscore are what a statement is rewritten to when the type of its column is known.
CREATE OR REPLACE TEMP MACRO ai_query(endpoint, request, returnType := NULL, failOnError := true, modelParameters := NULL, responseFormat := NULL, cache := NULL) AS
  __ai_query(endpoint, request, json_object('returnType', returnType, 'modelParameters', modelParameters, 'responseFormat', responseFormat, 'cache', cache, 'failOnError', failOnError)::VARCHAR);
CREATE OR REPLACE TEMP MACRO _ai_query_json(endpoint, request, returnType := NULL, failOnError := true, modelParameters := NULL, responseFormat := NULL, cache := NULL) AS
  __ai_query_json(endpoint, request, json_object('returnType', returnType, 'modelParameters', modelParameters, 'responseFormat', responseFormat, 'cache', cache)::VARCHAR);
CREATE OR REPLACE TEMP MACRO _ai_query_try(endpoint, request, returnType := NULL, failOnError := true, modelParameters := NULL, responseFormat := NULL, cache := NULL) AS
  __ai_query_try(endpoint, request, json_object('returnType', returnType, 'modelParameters', modelParameters, 'responseFormat', responseFormat, 'cache', cache)::VARCHAR);
CREATE OR REPLACE TEMP MACRO _ai_query_embedding(endpoint, request, returnType := NULL, failOnError := true, modelParameters := NULL, responseFormat := NULL, cache := NULL) AS
  __ai_query_embedding(endpoint, request, json_object('modelParameters', modelParameters, 'cache', cache)::VARCHAR);
