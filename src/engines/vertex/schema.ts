// JSON schemas as Gemini takes them: a part of OpenAPI's, without references. What cannot be said there is left
// out, for serving checks the answer against the whole schema.
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';

/** Members that go over as they are. `format` is none: only a few of its values are taken. */
const KEPT: readonly string[] = [
  'title',
  'description',
  'minItems',
  'maxItems',
  'minProperties',
  'maxProperties',
  'minimum',
  'maximum',
  'minLength',
  'maxLength',
  'pattern',
  'required',
  'nullable',
  'propertyOrdering',
];
const FORMATS: readonly unknown[] = ['date-time', 'enum', 'int32', 'int64', 'float', 'double'];
/** A schema that refers to itself has no end; deeper than this nothing is said. */
const MAX_DEPTH = 12;

export function toGeminiSchema(schema: JsonObject): JsonObject {
  return convert(schema, schema, 0);
}

function convert(given: Json | undefined, root: JsonObject, depth: number): JsonObject {
  if (depth > MAX_DEPTH || !isJsonObject(given)) return {};
  const schema = followReference(given, root);
  const result: Record<string, Json> = {};
  for (const name of KEPT) if (schema[name] !== undefined) result[name] = schema[name];
  if (FORMATS.includes(schema.format) && schema.format !== undefined) result.format = schema.format;
  const types: readonly Json[] = Array.isArray(schema.type) ? schema.type : [];
  const named = types.filter((type) => type !== 'null');
  if (types.includes('null')) result.nullable = true;
  if (typeof schema.type === 'string') result.type = schema.type;
  else if (named.length === 1 && named[0] !== undefined) result.type = named[0];
  else if (named.length > 1) result.anyOf = named.map((type) => ({ type }));
  addChoices(schema, result);
  const sub = (value: Json | undefined) => convert(value, root, depth + 1);
  if (isJsonObject(schema.properties)) {
    result.type ??= 'object';
    result.properties = Object.fromEntries(
      Object.entries(schema.properties).map(([name, value]) => [name, sub(value)]),
    );
  }
  if (isJsonObject(schema.items)) result.items = sub(schema.items);
  const either: unknown = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(either)) {
    const members: readonly Json[] = either;
    const isNull = (member: Json) => isJsonObject(member) && member.type === 'null';
    if (members.some(isNull)) result.nullable = true;
    const rest = members.filter((member) => !isNull(member)).map(sub);
    if (rest.length === 1) Object.assign(result, rest[0]);
    else if (rest.length > 1) result.anyOf = rest;
  }
  return result;
}

/** Choices are texts there; of other values only the type can be said. */
function addChoices({ enum: listed, const: only }: JsonObject, result: Record<string, Json>): void {
  const values: readonly Json[] = Array.isArray(listed) ? listed : only === undefined ? [] : [only];
  if (values.length === 0) return;
  const texts = values.filter((value) => value !== null);
  if (texts.length < values.length) result.nullable = true;
  if (texts.length > 0 && texts.every((value) => typeof value === 'string')) {
    result.type = 'string';
    result.enum = texts;
  } else if (texts.every((value) => typeof value === 'number')) {
    result.type ??= texts.every(Number.isInteger) ? 'integer' : 'number';
  } else if (texts.every((value) => typeof value === 'boolean')) {
    result.type = 'boolean';
  }
}

/** Of `#/$defs/Name` and the like; members beside the reference stay. */
function followReference(schema: JsonObject, root: JsonObject): JsonObject {
  const { $ref: reference, ...rest } = schema;
  if (typeof reference !== 'string' || !reference.startsWith('#/')) return schema;
  let at: Json | undefined = root;
  for (const step of reference.slice(2).split('/')) {
    const name = decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~');
    at = isJsonObject(at) ? at[name] : undefined;
  }
  return isJsonObject(at) ? { ...at, ...rest } : rest;
}
