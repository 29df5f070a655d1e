// How endpoints and models are spelled in the JSON of the command line: snake_case, free-form members untouched.
import { isJsonObject, type Json } from '#core/json.ts';

/** Members whose own keys are the user's or a library's and stay as they are. */
const UNTOUCHED = new Set(['options', 'aliases', 'settings', 'environment']);

export function toWire(value: unknown): Json {
  if (Array.isArray(value)) return value.map((item) => toWire(item));
  if (isJsonObject(value)) {
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, member]) => member !== undefined)
        .map(([key, member]) => [snakeCase(key), UNTOUCHED.has(key) ? member : toWire(member)]),
    );
  }
  return value as Json;
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
