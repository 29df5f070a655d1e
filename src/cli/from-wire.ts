// The JSON of specifications that people write, in the words that `get --format json` prints and in Databricks'
// words for policies, as the registry knows it. Checks nothing: the registry does.
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';

/** Members whose own keys are the user's. */
const UNTOUCHED = new Set(['settings', 'environment']);
const OTHER_WORDS: Readonly<Record<string, string>> = {
  usage_tracking_config: 'usageTracking',
  inference_table_config: 'inferenceTable',
  fallback_config: 'fallback',
};

/** Throws BAD_REQUEST for what is no JSON object; `what` begins the sentence. The text itself is not repeated. */
export function parseSpec(text: string, what: string): JsonObject {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    const place = /position \d+/.exec(String(error))?.[0];
    throw new ServingError(
      'BAD_REQUEST',
      `${what} is not JSON${place === undefined ? '' : ` from ${place} on`}.`,
    );
  }
  if (!isJsonObject(parsed)) throw new ServingError('BAD_REQUEST', `${what} must be a JSON object.`);
  return fromWire(parsed) as JsonObject;
}

function fromWire(value: Json): Json {
  if (Array.isArray(value)) return value.map(fromWire);
  if (!isJsonObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [
      OTHER_WORDS[key] ?? key.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
      UNTOUCHED.has(key) ? member : fromWire(member),
    ]),
  );
}
