// Values of nested types: arrays, objects and maps checked against the type in the signature. They travel as the JSON
// they came in, so nothing is converted here.
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { toBytes, toDatetime, toDouble, toFloat, toInteger, toLong, toText, UNFIT, Unfit } from './cells.ts';
import { showCell } from './words.ts';

const PLAIN: Readonly<Record<string, (value: Json) => unknown>> = {
  boolean: (value) => (typeof value === 'boolean' ? value : UNFIT),
  integer: (value) => toInteger(value),
  long: (value) => (typeof value === 'number' ? toLong(value) : UNFIT),
  float: (value) => (typeof value === 'number' ? toFloat(value) : UNFIT),
  double: (value) => (typeof value === 'number' ? toDouble(value) : UNFIT),
  string: toText,
  binary: toBytes,
  datetime: toDatetime,
};

/** Why a value does not fit, with the place in it (`items[2].price`); undefined when it does. */
export function nestedProblem(value: Json, spec: JsonObject, where = ''): string | undefined {
  const { type } = spec;
  if (type === 'any') return undefined;
  if (value === null) return `${place(where)} is NULL and must be a value`;
  if (type === 'array') return arrayProblem(value, spec, where);
  if (type === 'map' || type === 'object') {
    if (!isJsonObject(value)) return `${place(where)} is ${showCell(value)} and must be an object`;
    return type === 'map' ? mapProblem(value, spec, where) : objectProblem(value, spec, where);
  }
  const check = typeof type === 'string' ? PLAIN[type] : undefined;
  const found = check?.(value);
  if (check === undefined || !(found instanceof Unfit)) return undefined;
  return `${place(where)} is ${showCell(value)}, ${found.reason ?? `which is no ${String(type)}`}`;
}

function arrayProblem(value: Json, { items }: JsonObject, where: string): string | undefined {
  if (!Array.isArray(value)) return `${place(where)} is ${showCell(value)} and must be a list`;
  if (!isJsonObject(items)) return undefined;
  for (const [index, item] of (value as readonly Json[]).entries()) {
    const problem = nestedProblem(item, items, `${where}[${index}]`);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function mapProblem(value: JsonObject, { values }: JsonObject, where: string): string | undefined {
  if (!isJsonObject(values)) return undefined;
  for (const [key, member] of Object.entries(value)) {
    const problem = nestedProblem(member, values, `${where}[${JSON.stringify(key.slice(0, 40))}]`);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** As MLflow does, members that the type does not have are refused: they would be lost without a word. */
function objectProblem(value: JsonObject, { properties }: JsonObject, where: string): string | undefined {
  if (!isJsonObject(properties)) return undefined;
  const unknown = Object.keys(value).find((name) => !Object.hasOwn(properties, name));
  if (unknown !== undefined)
    return `${place(where)} has a member ${JSON.stringify(unknown.slice(0, 40))} that the type does not have`;
  for (const [name, spec] of Object.entries(properties)) {
    if (!isJsonObject(spec)) continue;
    const member = value[name] ?? null;
    const isOptional = spec.required === false;
    if (member === null && (isOptional || spec.type === 'any')) continue;
    if (member === null) return `${place(where)} has no ${JSON.stringify(name)}`;
    const problem = nestedProblem(member, spec, `${where}.${name}`);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function place(where: string): string {
  return where === '' ? 'it' : where.replace(/^\./, '');
}
