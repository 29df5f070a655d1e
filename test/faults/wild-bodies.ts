// Bodies made from JSON schemas: whole ones, and the same with one text replaced after the other. Made for attacks,
// so that what is optional is there too and every alternative is taken once.
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';

const DEEPEST = 9;
/** What a field of this name must hold for the request to get past the first look. */
const KNOWN: Readonly<Record<string, Json>> = {
  model: 'llm',
  role: 'user',
  stream: false,
  max_tokens: 500,
  max_completion_tokens: 500,
  max_output_tokens: 500,
  provider: 'openai',
  statement: 'SELECT 42 AS answer',
};

/** One or more instances of a schema; several where there are alternatives at the top. */
export function instancesOf(schema: JsonObject): readonly Json[] {
  const alternatives = schema.anyOf ?? schema.oneOf;
  if (!Array.isArray(alternatives)) return [instanceOf(schema, schema, 0)];
  return alternatives.filter(isJsonObject).map((each) => instanceOf(each, schema, 0));
}

function instanceOf(schema: JsonObject, root: JsonObject, depth: number, name = ''): Json {
  if (depth > DEEPEST) return null;
  const known = KNOWN[name];
  if (known !== undefined) return known;
  if (typeof schema.$ref === 'string') {
    const definitions = isJsonObject(root.$defs) ? root.$defs : {};
    const found = definitions[schema.$ref.replace('#/$defs/', '')];
    return isJsonObject(found) ? instanceOf(found, root, depth + 1, name) : null;
  }
  if (schema.const !== undefined) return schema.const;
  if (Array.isArray(schema.enum)) return schema.enum[0] ?? null;
  const alternatives = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(alternatives)) {
    const [first] = alternatives.filter(isJsonObject);
    return first ? instanceOf(first, root, depth, name) : null;
  }
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  switch (type) {
    case 'object': {
      const properties = isJsonObject(schema.properties) ? schema.properties : {};
      const entries = Object.entries(properties).flatMap(([key, value]) =>
        isJsonObject(value) ? [[key, instanceOf(value, root, depth + 1, key)] as const] : [],
      );
      if (entries.length > 0) return Object.fromEntries(entries.filter(([, value]) => value !== null));
      return isJsonObject(schema.additionalProperties) ? { a: 'b' } : {};
    }
    case 'array':
      return isJsonObject(schema.items) ? [instanceOf(schema.items, root, depth + 1)] : [];
    case 'string':
      return 'text';
    case 'integer':
    case 'number':
      return typeof schema.minimum === 'number' && schema.minimum > 0 ? schema.minimum : 1;
    case 'boolean':
      return false;
    default:
      return null;
  }
}

export type Path = readonly (string | number)[];

/** Where the texts of a value are. */
export function textsIn(value: Json, path: Path = []): readonly Path[] {
  if (typeof value === 'string') return [path];
  if (Array.isArray(value)) return value.flatMap((item, index) => textsIn(item, [...path, index]));
  if (!isJsonObject(value)) return [];
  return Object.entries(value).flatMap(([key, item]) => textsIn(item, [...path, key]));
}

export function replaceAt(value: Json, [key, ...rest]: Path, by: Json): Json {
  if (key === undefined) return by;
  if (Array.isArray(value)) {
    return value.map((item, index) => (index === key ? replaceAt(item, rest, by) : item));
  }
  if (!isJsonObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [name, name === key ? replaceAt(item, rest, by) : item]),
  );
}
