// Finds the token counts in an answer of the OpenAI API without reading the rest of it.
// Not here: estimates, and answers that do not count.
import type { TokenUsage } from '#core/call.ts';

const USAGE = Buffer.from('"usage"');
const LONGEST_USAGE = 4_096;

/** Where the object of `"usage": {` begins; -1 where there is none. */
export function usageObjectAt(bytes: Buffer): number {
  // Inside a string the quotes would be escaped, so a key is what is found, or a string that says just this.
  for (let at = bytes.indexOf(USAGE); at >= 0; at = bytes.indexOf(USAGE, at + 1)) {
    const open = objectAfter(bytes, at + USAGE.length);
    if (open >= 0) return open;
  }
  return -1;
}

/** The same from the end: usage stands behind the choices, which may be long. */
export function lastUsageObjectAt(bytes: Buffer): number {
  for (let at = bytes.lastIndexOf(USAGE); at >= 0; at = at === 0 ? -1 : bytes.lastIndexOf(USAGE, at - 1)) {
    const open = objectAfter(bytes, at + USAGE.length);
    if (open >= 0) return open;
  }
  return -1;
}

/** The counts of the object that begins at `open`; undefined where they are not there or not whole numbers. */
export function readUsageAt(bytes: Buffer, open: number): TokenUsage | undefined {
  const end = closeOf(bytes, open);
  if (end < 0) return undefined;
  let usage: unknown;
  try {
    usage = JSON.parse(bytes.toString('utf8', open, end));
  } catch {
    return undefined;
  }
  const { prompt_tokens: input, completion_tokens: output } = usage as Record<string, unknown>;
  return isCount(input) && isCount(output) ? { inputTokens: input, outputTokens: output } : undefined;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** Index of the `{` when nothing but a colon and blanks stand before it. */
function objectAfter(bytes: Buffer, from: number): number {
  let hasColon = false;
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte === 123) return hasColon ? at : -1;
    if (byte === 58 && !hasColon) hasColon = true;
    else if (byte !== 32 && byte !== 9 && byte !== 10 && byte !== 13) return -1;
  }
  return -1;
}

/** Usage holds numbers and objects of numbers; a string with a brace in it would be something else. */
function closeOf(bytes: Buffer, open: number): number {
  const limit = Math.min(bytes.length, open + LONGEST_USAGE);
  let depth = 0;
  for (let at = open; at < limit; at++) {
    const byte = bytes[at];
    if (byte === 123) depth++;
    else if (byte === 125 && --depth === 0) return at + 1;
  }
  return -1;
}
