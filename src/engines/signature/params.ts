// Parameters of inference: what a request gives, checked against the signature and completed with its defaults.
import { DUCKDB_COLUMN_TYPES, type Signature, type SignatureParam } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import { toBoolean, toDatetime, toDouble, toFloat, toInteger, toLong, toText, Unfit } from './cells.ts';
import { showCell } from './words.ts';

/**
 * All parameters of the signature by name; empty where it has none. Throws INVALID_PARAMETER for one that the model
 * does not have (MLflow passes over those with a warning, which nobody of a server sees) or that has another type.
 */
export function enforceParams(
  model: string,
  signature: Pick<Signature, 'params'> | undefined,
  given: JsonObject = {},
): JsonObject {
  const params = signature?.params ?? [];
  const unknown = Object.keys(given).filter((name) => !params.some((param) => param.name === name));
  if (unknown.length > 0) throw unknownParams(model, params, unknown);
  return Object.fromEntries(
    params.map((param) => {
      const value = Object.hasOwn(given, param.name) ? given[param.name] : undefined;
      return [param.name, value === undefined ? param.default : checked(model, param, value)];
    }),
  );
}

function checked(model: string, param: SignatureParam, value: Json): Json {
  if (value === null) {
    if (param.default === null) return null;
    throw wrong(model, param, value);
  }
  if (param.isList !== true) return fits(param, value) ? value : refuse(model, param, value);
  if (!Array.isArray(value)) return refuse(model, param, value);
  const bad = (value as readonly Json[]).find((item) => !fits(param, item));
  return bad === undefined ? value : refuse(model, param, bad);
}

function fits({ type }: SignatureParam, value: Json): boolean {
  return !(CONVERT[type](value) instanceof Unfit);
}

const CONVERT: Readonly<Record<SignatureParam['type'], (value: Json) => unknown>> = {
  boolean: (value) => (typeof value === 'boolean' ? toBoolean(value) : new Unfit()),
  integer: (value) => toInteger(value),
  long: (value) => (typeof value === 'number' ? toLong(value) : new Unfit()),
  float: (value) => (typeof value === 'number' ? toFloat(value) : new Unfit()),
  double: (value) => (typeof value === 'number' ? toDouble(value) : new Unfit()),
  string: toText,
  datetime: toDatetime,
  json: (value) => value,
};

function refuse(model: string, param: SignatureParam, value: Json): never {
  throw wrong(model, param, value);
}

function wrong(model: string, param: SignatureParam, value: Json): ServingError {
  return new ServingError(
    'INVALID_PARAMETER',
    `The parameter '${param.name}' of model "${model}" is ${showCell(value)}; it must be ${describeType(param)} (default ${showCell(param.default)}).`,
  );
}

function unknownParams(
  model: string,
  params: readonly SignatureParam[],
  unknown: readonly string[],
): ServingError {
  const names = unknown
    .slice(0, 10)
    .map((name) => `'${name.slice(0, 80)}'`)
    .join(', ');
  const takes =
    params.length === 0
      ? 'It takes none: its signature names no params'
      : `It takes: ${params.map((param) => `${param.name} (${describeType(param)}, default ${showCell(param.default)})`).join(', ')}`;
  return new ServingError('INVALID_PARAMETER', `Model "${model}" has no parameter ${names}. ${takes}.`);
}

function describeType({ type, isList }: SignatureParam): string {
  return `${DUCKDB_COLUMN_TYPES[type]}${isList ? '[]' : ''}`;
}
