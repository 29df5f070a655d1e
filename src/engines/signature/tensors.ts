// The value of one row of a tensor: nested lists, measured against the shape in the signature and laid out flat.
import type { SignatureColumn } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';

/** Sizes of the nested lists, or what is wrong with them: `has the size 3x4, and 2x4 is asked for`. */
export function shapeOf(value: Json, { shape = [] }: SignatureColumn): readonly number[] | string {
  const found: number[] = [];
  for (
    let inner: Json | undefined = value;
    Array.isArray(inner) && found.length < 40;
    inner = inner[0] as Json
  )
    found.push(inner.length);
  // One number in a list is a number: rows of a column that came as a list of lists.
  const [only] = found;
  if (shape.length === 0 && found.length === 1 && only === 1) return [];
  const fits =
    found.length === shape.length && shape.every((size, index) => size < 0 || size === found[index]);
  if (!fits) return `has the size ${sizes(found)}, and ${sizes(shape)} is asked for`;
  return isEven(value, found, 0)
    ? found
    : 'has lists of different lengths; all rows of a tensor are equally long';
}

function isEven(value: Json, shape: readonly number[], depth: number): boolean {
  if (depth === shape.length) return !Array.isArray(value);
  if (!Array.isArray(value) || value.length !== shape[depth]) return false;
  if (depth + 1 === shape.length) return value.every((item: Json) => !Array.isArray(item));
  return value.every((item: Json) => isEven(item, shape, depth + 1));
}

/** Innermost dimension last. The value has the shape. */
export function flatten(value: Json, shape: readonly number[]): readonly Json[] {
  if (!Array.isArray(value)) return [value];
  return shape.length <= 1 ? (value as readonly Json[]) : (value.flat(shape.length - 1) as readonly Json[]);
}

function sizes(shape: readonly number[]): string {
  return shape.length === 0 ? 'of one value' : shape.map((size) => (size < 0 ? 'any' : size)).join('x');
}
