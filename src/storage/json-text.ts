// JSON as DuckDB reads it. Not here: what is written (usage-encoding.ts, registry-store.ts).

/** Half of a surrogate pair, as JSON.stringify writes it; behind an even number of backslashes it is one. */
const HALF_SURROGATE = /(?<!\\)((?:\\\\)*)\\ud[89a-f][0-9a-f]{2}/g;

/**
 * Texts of callers may hold half a surrogate, of an emoji that was cut. DuckDB takes the whole line for no JSON
 * then, and a row that is not read is a call that nobody paid for: U+FFFD stands in its place.
 */
export function toJsonText(value: unknown): string {
  const text = JSON.stringify(value);
  return text.includes('\\ud') ? text.replace(HALF_SURROGATE, '$1\ufffd') : text;
}
