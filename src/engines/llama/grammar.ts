// A response format as a grammar that llama.cpp generates under: the answer cannot leave the schema. Keywords a
// grammar cannot keep are refused, because an answer would look checked without being so.
import type { GbnfJsonSchema, Llama, LlamaGrammar } from 'node-llama-cpp';
import type { ResponseFormat } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { canonicalJson, isJsonObject, type Json, type JsonObject } from '#core/json.ts';

type SchemaArgument = Parameters<Llama['createGrammarForJsonSchema']>[0];

const MAX_KEPT = 32;

/** Grammars of one model. Building one takes milliseconds, and a query asks with the same one for each row. */
export class Grammars {
  readonly #llama: Llama;
  readonly #kept = new Map<string, LlamaGrammar>();

  constructor(llama: Llama) {
    this.#llama = llama;
  }

  /** Undefined for free text. Throws UNSUPPORTED_RETURN_TYPE. */
  async of(format: ResponseFormat | undefined): Promise<LlamaGrammar | undefined> {
    if (format === undefined || format.type === 'text') return undefined;
    const schema: JsonObject =
      format.type === 'json_schema' ? format.schema : { type: 'object', additionalProperties: true };
    const key = canonicalJson(schema);
    const kept = this.#kept.get(key);
    if (kept) return kept;
    const grammar = await this.#create(toGrammarSchema(schema));
    const [oldest] = this.#kept.keys();
    if (this.#kept.size >= MAX_KEPT && oldest !== undefined) this.#kept.delete(oldest);
    this.#kept.set(key, grammar);
    return grammar;
  }

  async #create(schema: GbnfJsonSchema): Promise<LlamaGrammar> {
    try {
      return await this.#llama.createGrammarForJsonSchema(schema as SchemaArgument);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw unsupported(`llama.cpp cannot make a grammar of it (${reason})`);
    }
  }
}

/** Keywords that say nothing about which texts are right. */
const ANNOTATIONS = [
  'title',
  'description',
  'default',
  'examples',
  '$schema',
  '$id',
  '$comment',
  'deprecated',
];
/** Kept as they are. `required` has no effect: a grammar always writes all properties. */
const KEPT = ['minLength', 'maxLength', 'minItems', 'maxItems', 'minProperties', 'maxProperties', 'required'];
const FORMATS = ['date-time', 'time', 'date'];

/** A JSON Schema in the words node-llama-cpp knows. Throws UNSUPPORTED_RETURN_TYPE naming the keyword. */
export function toGrammarSchema(schema: Json, path = '$'): GbnfJsonSchema {
  if (!isJsonObject(schema)) throw unsupported(`${path} is ${JSON.stringify(schema)} and not an object`);
  const { type, enum: values, anyOf, oneOf } = schema;
  if (schema.const !== undefined) return { const: scalarOf(schema.const, path) };
  if (Array.isArray(values)) return { enum: values.map((value: Json) => scalarOf(value, path)) };
  const choices = oneOf ?? anyOf;
  if (Array.isArray(choices)) {
    const mapped = choices.map((choice: Json, index) => toGrammarSchema(choice, `${path}.oneOf[${index}]`));
    return { oneOf: mapped, ...defsOf(schema, path) };
  }
  // Only basic types can be a list for the library: a list with an object or array in it becomes alternatives.
  if (Array.isArray(type) && type.some((name) => name === 'object' || name === 'array')) {
    return { oneOf: type.map((name: Json) => toGrammarSchema({ ...schema, type: name }, path)) };
  }
  if (type === undefined && typeof schema.$ref !== 'string' && !('properties' in schema)) {
    throw unsupported(`${path} has no \`type\``);
  }
  const result: Record<string, unknown> = { ...defsOf(schema, path) };
  if (type === undefined && 'properties' in schema) result.type = 'object';
  for (const [keyword, value] of Object.entries(schema)) {
    if (ANNOTATIONS.includes(keyword) || keyword === '$defs') continue;
    if (keyword === 'type' || keyword === '$ref' || KEPT.includes(keyword)) result[keyword] = value;
    else if (keyword === 'properties' && isJsonObject(value)) {
      result[keyword] = mapMembers(value, `${path}.properties`);
    } else if (keyword === 'items') result[keyword] = toGrammarSchema(value, `${path}.items`);
    else if (keyword === 'prefixItems' && Array.isArray(value)) {
      result[keyword] = value.map((item: Json, index) =>
        toGrammarSchema(item, `${path}.prefixItems[${index}]`),
      );
    } else if (keyword === 'additionalProperties') {
      result[keyword] =
        typeof value === 'boolean' ? value : toGrammarSchema(value, `${path}.additionalProperties`);
    } else if (keyword === 'format' && typeof value === 'string' && FORMATS.includes(value))
      result[keyword] = value;
    else throw unsupported(`${path} uses \`${keyword}\`, which a grammar cannot keep; leave it out`);
  }
  return result as GbnfJsonSchema;
}

function mapMembers(members: JsonObject, path: string): Record<string, GbnfJsonSchema> {
  return Object.fromEntries(
    Object.entries(members).map(([name, member]) => [name, toGrammarSchema(member, `${path}.${name}`)]),
  );
}

function defsOf({ $defs }: JsonObject, path: string): { $defs?: Record<string, GbnfJsonSchema> } {
  return isJsonObject($defs) ? { $defs: mapMembers($defs, `${path}.$defs`) } : {};
}

function scalarOf(value: Json, path: string): string | number | boolean | null {
  if (value === null || typeof value !== 'object') return value;
  throw unsupported(`${path} allows ${JSON.stringify(value)}, and only plain values can be listed`);
}

function unsupported(reason: string): ServingError {
  return new ServingError('UNSUPPORTED_RETURN_TYPE', `The schema of the answer cannot be used: ${reason}.`);
}
