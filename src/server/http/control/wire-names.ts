// What the registry says is wrong, in the words of the wire: its fields are camelCase, those of clients are not.
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { wireNameOf } from './provider-fields.ts';

const SEGMENTS: Readonly<Record<string, string>> = {
  routes: 'traffic_config.routes',
  usageTracking: 'usage_tracking_config',
  inferenceTable: 'inference_table_config',
  fallback: 'fallback_config',
  environment: 'environment_vars',
  add: 'add_tags',
  remove: 'delete_tags',
};
const IN_CONFIG: ReadonlySet<string> = new Set(['servedEntities', 'routes']);

/** Runs a change; a refusal of its specification names the fields as `spec` had them on the wire. */
export async function inWireWords<T>(
  spec: JsonObject,
  change: () => Promise<T>,
  options: { readonly configPrefix?: string } = {},
): Promise<T> {
  try {
    return await change();
  } catch (thrown) {
    const violations = thrown instanceof ServingError ? thrown.details.violations : undefined;
    if (!(thrown instanceof ServingError) || !Array.isArray(violations)) throw thrown;
    const lines = violations.filter(isJsonObject).map(({ field, description, shown }) => {
      const where = toWirePath(String(field).split('.'), spec, options.configPrefix ?? '') || 'body';
      const got = typeof shown === 'string' ? `; got ${shown}` : '';
      return `'${where}': ${snakeWords(String(description))}${got}`;
    });
    throw new ServingError('INVALID_PARAMETER', `${lines.join('; ')}.`, {
      cause: thrown,
      details: { fields: violations.filter(isJsonObject).map(({ field }) => String(field)) },
    });
  }
}

function toWirePath(path: readonly string[], spec: JsonObject, configPrefix: string): string {
  const parts: string[] = IN_CONFIG.has(path[0] ?? '') && configPrefix !== '' ? [configPrefix] : [];
  for (const [index, segment] of path.entries()) {
    if (path[index - 1] === 'externalModel') {
      const model = at(spec, path.slice(0, index));
      const rest = path.slice(index).join('.');
      const hasHeader = isJsonObject(model) && model.apiKeyHeader !== undefined;
      const name = isJsonObject(model) ? wireNameOf(model.provider, rest, hasHeader) : undefined;
      return [...parts, name ?? rest.split('.').map(toSnake).join('.')]
        .join('.')
        .replaceAll(/\.(\d+)/g, '[$1]');
    }
    // Names of variables are the user's.
    parts.push(path[index - 1] === 'environment' ? segment : (SEGMENTS[segment] ?? toSnake(segment)));
  }
  return parts.join('.').replaceAll(/\.(\d+)(?=\.|$)/g, '[$1]');
}

function at(value: Json, path: readonly string[]): Json | undefined {
  return path.reduce<Json | undefined>((inner, key) => {
    if (Array.isArray(inner)) return (inner as readonly Json[])[Number(key)];
    return isJsonObject(inner) ? inner[key] : undefined;
  }, value);
}

const toSnake = (name: string) => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function snakeWords(text: string): string {
  return text.replaceAll(/\b[a-z]+(?:[A-Z][a-z]+)+\b/g, toSnake);
}
