// predict: features of a row through a custom model. Features are a struct, a list, or several columns.
// The statement's rewriting picks the private function that returns the type of the model's signature.
import type { PredictOutput } from '#core/call.ts';
import { DUCKDB_COLUMN_TYPES, type Signature } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { type AiFunction, NULL_VALUE, outputOf, type ReturnType, requireText } from './function.ts';

const NO_PARAMETERS = {};

function predictAs(name: string, returns: ReturnType): AiFunction {
  return {
    name,
    returns,
    subject: 1,
    local: 'predict',
    plan([endpointValue, ...features], context) {
      if (endpointValue == null) return NULL_VALUE;
      const endpoint = requireText(endpointValue, 'endpoint', 'predict');
      if (features.length === 0) throw noFeatures(endpoint);
      const first = features[0] ?? null;
      if (features.length === 1 && first === null) return NULL_VALUE;
      return {
        questions: [
          {
            endpoint,
            task: 'predict',
            parameters: NO_PARAMETERS,
            cache: context.cache,
            input: { features: featuresFrom(features) },
          },
        ],
        finish: ([item]) => scalarFor(outputOf<PredictOutput>(item).prediction, returns, endpoint),
      };
    },
  };
}

export function noFeatures(endpoint: string): ServingError {
  return new ServingError(
    'INVALID_PARAMETER',
    `predict('${endpoint}'): give features as a struct, a list, or several columns.`,
  );
}

function featuresFrom(features: readonly Json[]): JsonObject | readonly Json[] {
  const first = features[0] ?? null;
  if (features.length === 1 && (isJsonObject(first) || Array.isArray(first)))
    return first as JsonObject | readonly Json[];
  return features;
}

function scalarFor(prediction: Json, returns: ReturnType, endpoint: string): Json {
  // A model that cannot tell answers NaN, which is NULL in SQL, as it is from a local model.
  if (typeof prediction === 'number' && Number.isNaN(prediction)) return null;
  if (returns === 'JSON' || prediction === null) return prediction;
  if (returns === 'VARCHAR') return typeof prediction === 'string' ? prediction : JSON.stringify(prediction);
  if (returns === 'BOOLEAN' && typeof prediction === 'boolean') return prediction;
  if (typeof prediction === 'number') return returns === 'BOOLEAN' ? prediction !== 0 : prediction;
  throw new ServingError(
    'INVALID_RESPONSE',
    `predict('${endpoint}') answered ${JSON.stringify(prediction)?.slice(0, 120)}, which is not a ${returns}.`,
  );
}

export const predict = predictAs('predict', 'JSON');
export const predictDouble = predictAs('_predict_double', 'DOUBLE');
export const predictBigint = predictAs('_predict_bigint', 'BIGINT');
export const predictVarchar = predictAs('_predict_varchar', 'VARCHAR');
export const predictBoolean = predictAs('_predict_boolean', 'BOOLEAN');

/** DuckDB type of a prediction by the model's signature; undefined when the signature says nothing about outputs. */
export function predictionType(signature: Signature | undefined): string | undefined {
  const outputs = signature?.outputs ?? [];
  if (outputs.length === 0) return undefined;
  const typeOf = ({ type, shape, width = -1 }: (typeof outputs)[number]) =>
    DUCKDB_COLUMN_TYPES[type] + (shape ? '[]'.repeat(shape.length) : width >= 0 ? '[]' : '');
  if (outputs.length === 1) return typeOf(outputs[0] as (typeof outputs)[number]);
  return `STRUCT(${outputs.map((output) => `"${output.name.replaceAll('"', '""')}" ${typeOf(output)}`).join(', ')})`;
}

/** Private function that returns a DuckDB type without a detour through JSON, where there is one. */
export function predictVariant(duckDbType: string): string | undefined {
  if (duckDbType === 'DOUBLE' || duckDbType === 'FLOAT') return predictDouble.name;
  if (duckDbType === 'BIGINT' || duckDbType === 'INTEGER') return predictBigint.name;
  if (duckDbType === 'VARCHAR') return predictVarchar.name;
  return duckDbType === 'BOOLEAN' ? predictBoolean.name : undefined;
}
