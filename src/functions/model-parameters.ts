// `modelParameters` of ai_query and `responseFormat`: from SQL's spelling to the parameters of a call.
// Sources: Databricks ai_query (names, reserved names), OpenAI chat completions (response_format).
import type { Parameters, ResponseFormat } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { parseSqlType, type SqlType, toJsonSchema } from './sql-type.ts';

const RESERVED = new Set(['messages', 'prompt', 'input', 'model', 'stream', 'n', 'response_format', 'tools']);
const NUMBERS: Readonly<
  Record<
    string,
    {
      key: 'maxTokens' | 'temperature' | 'topP' | 'topK' | 'seed' | 'dimensions';
      low: number;
      high: number;
      isWhole: boolean;
    }
  >
> = {
  max_tokens: { key: 'maxTokens', low: 1, high: 10_000_000, isWhole: true },
  temperature: { key: 'temperature', low: 0, high: 2, isWhole: false },
  top_p: { key: 'topP', low: 0, high: 1, isWhole: false },
  top_k: { key: 'topK', low: 0, high: 1_000_000, isWhole: true },
  seed: { key: 'seed', low: Number.MIN_SAFE_INTEGER, high: Number.MAX_SAFE_INTEGER, isWhole: true },
  dimensions: { key: 'dimensions', low: 1, high: 100_000, isWhole: true },
};

/** Parameters from a struct of SQL; names that are not known go to the provider as they are. */
export function parametersFrom(value: Json): Parameters {
  if (value === null) return {};
  if (!isJsonObject(value)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `modelParameters must be a struct such as {'max_tokens': 100, 'temperature': 0.2}, it is ${JSON.stringify(value)}.`,
    );
  }
  const parameters: { -readonly [K in keyof Parameters]: Parameters[K] } = {};
  const extra: Record<string, Json> = {};
  for (const [name, setting] of Object.entries(value)) {
    const number = Object.hasOwn(NUMBERS, name) ? NUMBERS[name] : undefined;
    if (setting === null) continue;
    if (number)
      parameters[number.key] = numberSetting(name, setting, number.low, number.high, number.isWhole);
    else if (name === 'stop') parameters.stop = stopSetting(setting);
    else if (RESERVED.has(name)) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `modelParameters: "${name}" cannot be set here; the request carries it.`,
      );
    } else extra[name] = setting;
  }
  if (Object.keys(extra).length > 0) parameters.extra = extra;
  return parameters;
}

function numberSetting(name: string, value: Json, low: number, high: number, isWhole: boolean): number {
  const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : value;
  const fits =
    typeof number === 'number' && number >= low && number <= high && (!isWhole || Number.isInteger(number));
  if (fits) return number;
  throw new ServingError(
    'INVALID_PARAMETER',
    `modelParameters: ${name} is ${JSON.stringify(value)}; it must be a ${isWhole ? 'whole ' : ''}number between ${low} and ${high}.`,
  );
}

function stopSetting(value: Json): readonly string[] {
  const stops = Array.isArray(value) ? value : [value];
  if (stops.every((stop): stop is string => typeof stop === 'string')) return stops;
  throw new ServingError(
    'INVALID_PARAMETER',
    `modelParameters: stop must be a text or a list of texts, it is ${JSON.stringify(value)}.`,
  );
}

/** What `responseFormat` asks for: a format for the model and, for a DDL type, the SQL type of the column. */
export interface ParsedFormat {
  readonly format: ResponseFormat;
  readonly type: SqlType | undefined;
}

export function parseResponseFormat(text: string): ParsedFormat {
  const trimmed = text.trim();
  if (trimmed === 'text') return { format: { type: 'text' }, type: undefined };
  if (trimmed === 'json_object') return { format: { type: 'json_object' }, type: undefined };
  if (trimmed.startsWith('{')) return { format: jsonFormat(trimmed), type: undefined };
  const type = parseSqlType(trimmed);
  return { format: formatFor(type), type };
}

/** The format that makes a model answer in a type; what is not an object is wrapped as `{"result": ...}`. */
export function formatFor(type: SqlType): ResponseFormat {
  return {
    type: 'json_schema',
    name: 'answer',
    strict: true,
    schema: isWrapped(type) ? wrapped(type) : toJsonSchema(type),
  };
}

export function isWrapped(type: SqlType): boolean {
  return type.kind !== 'struct' && type.kind !== 'map';
}

function wrapped(type: SqlType): JsonObject {
  return {
    type: 'object',
    properties: { result: toJsonSchema(type) },
    required: ['result'],
    additionalProperties: false,
  };
}

function jsonFormat(text: string): ResponseFormat {
  let value: Json;
  try {
    value = JSON.parse(text) as Json;
  } catch (cause) {
    throw new ServingError(
      'UNSUPPORTED_RETURN_TYPE',
      `responseFormat is not valid JSON: ${text.slice(0, 200)}`,
      { cause },
    );
  }
  const type = isJsonObject(value) ? value.type : undefined;
  if (type === 'text' || type === 'json_object') return { type };
  const inner = isJsonObject(value) && isJsonObject(value.json_schema) ? value.json_schema : undefined;
  const schema = inner?.schema;
  if (type === 'json_schema' && inner && isJsonObject(schema)) {
    return {
      type: 'json_schema',
      name: typeof inner.name === 'string' ? inner.name : 'answer',
      schema,
      ...(typeof inner.strict === 'boolean' ? { strict: inner.strict } : {}),
    };
  }
  throw new ServingError(
    'UNSUPPORTED_RETURN_TYPE',
    `responseFormat must be 'text', 'json_object', a type such as 'STRUCT<name: STRING>', or {"type":"json_schema","json_schema":{"name":…,"schema":{…}}}; it is ${text.slice(0, 200)}`,
  );
}
