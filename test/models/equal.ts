// Compares predictions with those of the library: texts and truth values exactly, numbers within a millionth.

const TOLERANCE = 1e-6;
const SHOWN = 3;

/** The first differences, each with where it is; empty when all are equal. */
export function differences(actual: unknown, expected: unknown): readonly string[] {
  const found: string[] = [];
  compare(actual, expected, '', found);
  return found;
}

function compare(actual: unknown, expected: unknown, at: string, found: string[]): void {
  if (found.length >= SHOWN) return;
  if (Array.isArray(expected) && Array.isArray(actual) && actual.length === expected.length) {
    for (const [index, item] of expected.entries()) compare(actual[index], item, `${at}[${index}]`, found);
  } else if (isObject(expected) && isObject(actual) && sizeOf(actual) === sizeOf(expected)) {
    for (const [name, item] of Object.entries(expected)) compare(actual[name], item, `${at}.${name}`, found);
  } else if (!isSame(actual, expected)) {
    found.push(`${at || 'all'}: ${show(actual)}, the library has ${show(expected)}`);
  }
}

function isSame(actual: unknown, expected: unknown): boolean {
  if (typeof expected !== 'number' || typeof actual !== 'number') return actual === expected;
  // NaN passes no comparison.
  return Math.abs(actual - expected) <= TOLERANCE * Math.max(1, Math.abs(expected));
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const sizeOf = (value: object): number => Object.keys(value).length;
const show = (value: unknown): string => (JSON.stringify(value) ?? 'nothing').slice(0, 160);
