// The nested types of MLflow's signatures: arrays, objects, maps and what they hold, as the JSON of the signature.
// Checked once when the signature is read, so that whoever checks values against them can trust their shape.
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { invalid, show } from './refusal.ts';

const PLAIN = ['boolean', 'integer', 'long', 'float', 'double', 'string', 'binary', 'datetime', 'any'];
const DEEPEST = 32;

/** The type without the name of its column: `{type, items | properties | values}`. Throws INVALID_PARAMETER. */
export function parseSpec(entry: Json | undefined, where: string, path: string, depth = 0): JsonObject {
  if (depth > DEEPEST) throw invalid(path, `the type in \`${where}\` is nested more than ${DEEPEST} deep`);
  if (!isJsonObject(entry)) throw invalid(path, `\`${where}\` is ${show(entry)}, not a type`);
  const { type } = entry;
  const required = entry.required === false ? { required: false } : {};
  const inner = (member: string) => parseSpec(entry[member], shorten(`${where}.${member}`), path, depth + 1);
  if (type === 'array') return { type, items: inner('items'), ...required };
  if (type === 'map') return { type, values: inner('values'), ...required };
  if (type === 'sparkml_vector') return { type: 'array', items: { type: 'double' }, ...required };
  if (type === 'object') {
    const { properties } = entry;
    if (!isJsonObject(properties))
      throw invalid(path, `\`${where}.properties\` is ${show(properties)}, not an object`);
    const members = Object.entries(properties).map(([name, member]): [string, JsonObject] => [
      name,
      parseSpec(member, shorten(`${where}.${name}`), path, depth + 1),
    ]);
    return { type, properties: Object.fromEntries(members), ...required };
  }
  if (typeof type === 'string' && PLAIN.includes(type)) return { type, ...required };
  throw invalid(path, `the type in \`${where}\` is ${show(type)}, which MLflow does not have`);
}

/** A path of members for a message; a hostile name must not make it long. */
function shorten(where: string): string {
  return where.length <= 120 ? where : `${where.slice(0, 117)}...`;
}
