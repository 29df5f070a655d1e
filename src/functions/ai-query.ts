// ai_query: any endpoint from SQL. Mirrors Databricks' function of that name; temperature is 0 unless set.
import type {
  AnswerItem,
  CacheMode,
  ChatOutput,
  CompletionOutput,
  EmbeddingOutput,
  Input,
  Parameters,
  PredictOutput,
  Task,
} from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json } from '#core/json.ts';
import {
  type AiFunction,
  cacheModeOf,
  NULL_VALUE,
  outputOf,
  requireText,
  type SqlValue,
  textOf,
} from './function.ts';
import { formatFor, isWrapped, parametersFrom, parseResponseFormat } from './model-parameters.ts';
import { conform, parseSqlType, type SqlType } from './sql-type.ts';

interface QueryOptions {
  readonly type: SqlType | undefined;
  readonly isWrappedAnswer: boolean;
  /** For chat and completions: temperature 0 unless it was set. One object for all rows. */
  readonly textParameters: Parameters;
  /** For embeddings: a vector has no response format. */
  readonly vectorParameters: Parameters;
  readonly cache: CacheMode | null;
}

/** Options arrive as one JSON text, the same for every row: parsed once. */
const parsedOptions = new Map<string, QueryOptions>();

function optionsFrom(text: Json): QueryOptions {
  const key = typeof text === 'string' ? text : '{}';
  const known = parsedOptions.get(key);
  if (known) return known;
  const raw = JSON.parse(key) as Record<string, Json>;
  if (raw.failOnError != null && raw.failOnError !== true) {
    // False gets here only where the statement's rewriting saw no literal, so the type of the column is text.
    throw new ServingError(
      'INVALID_PARAMETER',
      `ai_query: failOnError must be written as true or false in the statement itself, it is ${JSON.stringify(raw.failOnError)}.`,
    );
  }
  const returnType = raw.returnType ? parseSqlType(textOf(raw.returnType)) : undefined;
  const response = raw.responseFormat ? parseResponseFormat(textOf(raw.responseFormat)) : undefined;
  const type = returnType ?? response?.type;
  const isText = type?.kind === 'scalar' && type.name === 'VARCHAR';
  const format = response?.format ?? (type && !isText ? formatFor(type) : undefined);
  const vectorParameters = parametersFrom(raw.modelParameters ?? null);
  const responseFormat = format && format.type !== 'text' ? { responseFormat: format } : {};
  const schemaType = response ? response.type : type;
  const options: QueryOptions = {
    type,
    isWrappedAnswer: schemaType !== undefined && isWrapped(schemaType),
    textParameters: { temperature: 0, ...vectorParameters, ...responseFormat },
    vectorParameters,
    cache: raw.cache == null ? null : cacheModeOf(raw.cache, 'on', 'ai_query'),
  };
  if (parsedOptions.size > 1_000) parsedOptions.clear();
  parsedOptions.set(key, options);
  return options;
}

/** How the answer is handed to DuckDB; the statement's rewriting picks one and wraps a CAST around `json` and `try`. */
type Variant = 'text' | 'json' | 'try' | 'embedding';

function planFor(variant: Variant): AiFunction['plan'] {
  return ([endpointValue, request, optionsText], context) => {
    if (endpointValue == null || request == null) return NULL_VALUE;
    const endpoint = requireText(endpointValue, 'endpoint', 'ai_query');
    const options = optionsFrom(optionsText ?? null);
    const { task } = context.describe(endpoint);
    const question = {
      endpoint,
      task,
      parameters: taskParameters(task, options),
      cache: options.cache ?? context.cache,
      ...(options.cache === null ? {} : { isCacheChosen: true }),
      input: inputFor(task, request),
    };
    const value = (item: AnswerItem | undefined) => sqlValueOf(item, task, options);
    if (variant !== 'try')
      return { questions: [question], finish: ([item]) => forVariant(value(item), variant) };
    return { questions: [question], finish: ([item]) => attempt(() => jsonValue(value(item))) };
  };
}

const NO_PARAMETERS: Parameters = {};

function taskParameters(task: Task, options: QueryOptions): Parameters {
  if (task === 'llm/v1/chat' || task === 'llm/v1/completions') return options.textParameters;
  if (task === 'llm/v1/embeddings') return options.vectorParameters;
  if (Object.keys(options.vectorParameters).length > 0) {
    throw new ServingError(
      'INVALID_PARAMETER',
      'modelParameters are for chat, completion and embedding endpoints; this one serves a custom model.',
    );
  }
  return NO_PARAMETERS;
}

/** A request as the input of a task. Exported for tests of the mapping. */
export function inputFor(task: Task, request: Json): Input {
  switch (task) {
    case 'llm/v1/chat':
      return { messages: [{ role: 'user', content: textOf(request) }] };
    case 'llm/v1/completions':
      return { prompt: textOf(request) };
    case 'llm/v1/embeddings':
      return { text: textOf(request) };
    case 'predict':
      if (Array.isArray(request) || isJsonObject(request)) return { features: request };
      return { features: featuresFromText(request) };
  }
}

function featuresFromText(request: Json): readonly Json[] | { readonly [name: string]: Json } {
  if (typeof request === 'string' && /^\s*[[{]/.test(request)) {
    try {
      const parsed = JSON.parse(request) as Json;
      if (Array.isArray(parsed) || isJsonObject(parsed)) return parsed;
    } catch {
      // Not JSON: a text feature that happens to begin with a bracket.
    }
  }
  return [request];
}

function sqlValueOf(item: AnswerItem | undefined, task: Task, options: QueryOptions): SqlValue {
  if (task === 'llm/v1/embeddings') return outputOf<EmbeddingOutput>(item).embedding;
  if (task === 'predict') {
    const { prediction } = outputOf<PredictOutput>(item);
    return options.type ? conform(prediction, options.type, 'prediction') : prediction;
  }
  const text =
    task === 'llm/v1/chat' ? outputOf<ChatOutput>(item).content : outputOf<CompletionOutput>(item).text;
  if (text === null || !options.type) return text;
  if (options.type.kind === 'scalar' && options.type.name === 'VARCHAR') return text;
  return conform(unwrap(parseJson(text), options.isWrappedAnswer), options.type);
}

/** A model that could not be held to the schema may answer a bare number or word: that is taken as it is. */
function parseJson(text: string): Json {
  const unfenced = text.trim().replace(/^```(?:json)?\s*([\s\S]*?)\s*```$/, '$1');
  try {
    return JSON.parse(unfenced) as Json;
  } catch {
    return unfenced;
  }
}

function unwrap(value: Json, isWrappedAnswer: boolean): Json {
  return isWrappedAnswer && isJsonObject(value) && value.result !== undefined ? value.result : value;
}

function forVariant(value: SqlValue, variant: Variant): SqlValue {
  if (variant === 'embedding') {
    if (value instanceof Float32Array) return value;
    throw new ServingError('WRONG_TASK', 'The endpoint did not answer with an embedding.');
  }
  const json = jsonValue(value);
  return variant === 'json' || json === null ? json : textOf(json);
}

function jsonValue(value: SqlValue): Json {
  return value instanceof Float32Array ? Array.from(value) : value;
}

/** failOnError => false: the error of the endpoint becomes a value. `result` repeats `response`: both names are in use. */
function attempt(value: () => Json): SqlValue {
  try {
    const response = value();
    return { response, result: response, errorMessage: null };
  } catch (error) {
    if (!(error instanceof ServingError) || error.code === 'CANCELLED' || error.code === 'BUDGET_EXCEEDED')
      throw error;
    return { response: null, result: null, errorMessage: `${error.code}: ${error.message}` };
  }
}

export const aiQueryText: AiFunction = {
  name: '__ai_query',
  returns: 'VARCHAR',
  subject: 1,
  plan: planFor('text'),
};
export const aiQueryJson: AiFunction = {
  name: '__ai_query_json',
  returns: 'JSON',
  subject: 1,
  plan: planFor('json'),
};
export const aiQueryTry: AiFunction = {
  name: '__ai_query_try',
  returns: 'JSON',
  subject: 1,
  plan: planFor('try'),
};
export const aiQueryEmbedding: AiFunction = {
  name: '__ai_query_embedding',
  returns: 'FLOAT[]',
  subject: 1,
  plan: planFor('embedding'),
};
