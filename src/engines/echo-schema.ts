// A value that satisfies a JSON schema, made from a text: strings echo it, all else follows from its hash.
// For the echo engine. Not a validator, and `pattern` is not honoured.
import { canonicalJson, isJsonObject, type Json, type JsonObject } from '#core/json.ts';

/** 32-bit FNV-1a over UTF-16 units with a final mix, so that close texts are far apart in every bit. */
export function hashText(text: string, seed = 0): number {
  let hash = (0x811c9dc5 ^ seed) >>> 0;
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  return mixBits(hash);
}

export function mixBits(value: number): number {
  let hash = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

// Recursive schemas end here: below this depth only what is required is filled.
const OPTIONAL_DEPTH = 5;
const LAST_DEPTH = 64;

/** The same text and schema give the same value, in every process and version of Node. */
export function fillSchema(schema: JsonObject, text: string): Json {
  return fill(schema, { root: schema, text }, '', 0);
}

interface Source {
  readonly root: JsonObject;
  readonly text: string;
}

function fill(schema: Json | undefined, source: Source, path: string, depth: number): Json {
  if (!isJsonObject(schema) || depth > LAST_DEPTH) return null;
  const hash = hashText(source.text, hashText(path));
  if (schema.const !== undefined) return schema.const;
  if (isList(schema.enum)) return schema.enum[hash % schema.enum.length] ?? null;
  if (typeof schema.$ref === 'string') return fill(lookUp(source.root, schema.$ref), source, path, depth + 1);
  for (const choice of [schema.anyOf, schema.oneOf]) {
    if (isList(choice)) return fill(choice.find(isNotNull) ?? choice[0], source, path, depth + 1);
  }
  if (isList(schema.allOf)) return fill(mergeAll(schema, schema.allOf, source.root), source, path, depth + 1);
  switch (typeOf(schema)) {
    case 'object':
      return fillObject(schema, source, path, depth);
    case 'array':
      return fillArray(schema, source, path, depth);
    case 'integer':
      return fillNumber(schema, hash, true);
    case 'number':
      return fillNumber(schema, hash, false);
    case 'boolean':
      return hash % 2 === 1;
    case 'null':
      return null;
    default:
      return fillString(schema, source.text, hash);
  }
}

function fillObject(schema: JsonObject, source: Source, path: string, depth: number): Json {
  const properties = isJsonObject(schema.properties) ? schema.properties : {};
  const required = isList(schema.required) ? schema.required.filter((name) => typeof name === 'string') : [];
  const filled: Record<string, Json> = {};
  for (const [name, property] of Object.entries(properties)) {
    if (depth >= OPTIONAL_DEPTH && !required.includes(name)) continue;
    filled[name] = fill(property, source, `${path}/${name}`, depth + 1);
  }
  for (const name of required) {
    if (name in filled) continue;
    const rest = isJsonObject(schema.additionalProperties) ? schema.additionalProperties : { type: 'string' };
    filled[name] = fill(rest, source, `${path}/${name}`, depth + 1);
  }
  return filled;
}

function fillArray(schema: JsonObject, source: Source, path: string, depth: number): Json {
  const first = isList(schema.prefixItems) ? schema.prefixItems : [];
  const most = numberOr(schema.maxItems, Number.POSITIVE_INFINITY);
  const wanted = depth >= OPTIONAL_DEPTH ? 0 : Math.max(1, first.length);
  const count = Math.max(numberOr(schema.minItems, 0), Math.min(wanted, most));
  const rest = isJsonObject(schema.items) ? schema.items : { type: 'string' };
  const items: Json[] = [];
  const seen = new Set<string>();
  for (let salt = 0; items.length < count; salt++) {
    const item = fill(first[items.length] ?? rest, source, `${path}/${salt}`, depth + 1);
    const isRepeated = seen.has(canonicalJson(item));
    // Unique items are drawn again with another salt, but not for ever: the schema may not have enough of them.
    if (schema.uniqueItems === true && isRepeated && salt < count * 32) continue;
    seen.add(canonicalJson(item));
    items.push(item);
  }
  return items;
}

function fillNumber(schema: JsonObject, hash: number, isInteger: boolean): number {
  const step = numberOr(schema.multipleOf, isInteger ? 1 : 0.001);
  let low = numberOr(schema.minimum, Number.NEGATIVE_INFINITY);
  let high = numberOr(schema.maximum, Number.POSITIVE_INFINITY);
  if (typeof schema.exclusiveMinimum === 'number') low = Math.max(low, schema.exclusiveMinimum + step);
  if (typeof schema.exclusiveMaximum === 'number') high = Math.min(high, schema.exclusiveMaximum - step);
  const span = isInteger ? 100 : 1;
  if (low === Number.NEGATIVE_INFINITY)
    low = high === Number.POSITIVE_INFINITY ? 0 : Math.min(0, high - span);
  if (high === Number.POSITIVE_INFINITY) high = low + span;
  const lowStep = Math.ceil(low / step - 1e-9);
  const steps = Math.max(0, Math.floor(high / step + 1e-9) - lowStep);
  const value = (lowStep + (hash % (steps + 1))) * step;
  return isInteger ? Math.round(value) : Math.min(high, Math.max(low, Number(value.toPrecision(12))));
}

function fillString(schema: JsonObject, text: string, hash: number): string {
  const hex = hash.toString(16).padStart(8, '0');
  switch (schema.format) {
    case 'date':
      return '2024-01-01';
    case 'time':
      return '00:00:00Z';
    case 'date-time':
      return '2024-01-01T00:00:00Z';
    case 'email':
      return `echo-${hex}@example.com`;
    case 'uri':
      return `https://example.com/${hex}`;
    case 'uuid':
      return `${hex}-0000-4000-8000-${hex}0000`;
    default:
      return fitLength(
        text,
        numberOr(schema.minLength, 0),
        numberOr(schema.maxLength, Number.POSITIVE_INFINITY),
      );
  }
}

/** JSON Schema counts code points, not UTF-16 units. */
function fitLength(text: string, least: number, most: number): string {
  if (text.length >= least * 2 && text.length <= most) return text;
  const points = Array.from(text).slice(0, Number.isFinite(most) ? most : undefined);
  while (points.length < least) points.push('.');
  return points.join('');
}

function typeOf(schema: JsonObject): Json | undefined {
  if (isList(schema.type)) return schema.type.find((type) => type !== 'null') ?? 'null';
  if (schema.type !== undefined) return schema.type;
  if (isJsonObject(schema.properties)) return 'object';
  return schema.items === undefined && schema.prefixItems === undefined ? undefined : 'array';
}

function isNotNull(option: Json): boolean {
  return !isJsonObject(option) || option.type !== 'null';
}

function isList(value: Json | undefined): value is readonly Json[] {
  return Array.isArray(value) && value.length > 0;
}

function numberOr(value: Json | undefined, fallback: number): number {
  return typeof value === 'number' ? value : fallback;
}

/** `#/$defs/name` inside the schema itself; nothing else is fetched. */
function lookUp(root: JsonObject, reference: string): Json | undefined {
  let found: Json | undefined = root;
  for (const part of reference.replace(/^#\/?/, '').split('/')) {
    if (part === '') continue;
    const name = part.replaceAll('~1', '/').replaceAll('~0', '~');
    found = isJsonObject(found) ? found[name] : undefined;
  }
  return found;
}

/** One schema for `allOf`: members of all, properties and required names of all together. */
function mergeAll(schema: JsonObject, parts: readonly Json[], root: JsonObject): JsonObject {
  const { allOf: _, ...own } = schema;
  let merged: JsonObject = own;
  for (const part of parts) {
    const member = isJsonObject(part) && typeof part.$ref === 'string' ? lookUp(root, part.$ref) : part;
    if (!isJsonObject(member)) continue;
    merged = {
      ...merged,
      ...member,
      properties: {
        ...(isJsonObject(merged.properties) ? merged.properties : {}),
        ...(isJsonObject(member.properties) ? member.properties : {}),
      },
      required: [
        ...(isList(merged.required) ? merged.required : []),
        ...(isList(member.required) ? member.required : []),
      ],
    };
  }
  const { properties, ...rest } = merged;
  return isJsonObject(properties) && Object.keys(properties).length > 0 ? merged : rest;
}
