// Which value of a row belongs to which column of a signature: by name, by position, or as the one tensor that the
// model takes. Values are not looked into here.
import type { FeatureInput } from '#core/call.ts';
import type { SignatureColumn } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { countProblem, mismatch, missingProblem } from './words.ts';

/** One for each column, in order; undefined where an optional column is absent. */
export type Cells = readonly (Json | undefined)[];

/**
 * Columns by name are found exactly, else without regard to case, as SQL finds them. Names that the signature does
 * not have are passed over, as MLflow does: tables bring more columns than a model needs. By position the number of
 * values must be right, as there a value too many would move the others.
 */
export function toCells(
  model: string,
  columns: readonly SignatureColumn[],
  { features }: FeatureInput,
): Cells | ServingError {
  if (isJsonObject(features)) return fromNamed(model, columns, features);
  const values = features;
  const [only] = columns;
  if (columns.length === 1 && only !== undefined && isListLike(only)) return [wholeRow(only, values)];
  if (values.length === columns.length) return values;
  const [first] = values;
  // A list in a list: the row of a table that came as a tensor.
  if (values.length === 1 && Array.isArray(first) && first.length === columns.length) return first as Cells;
  return mismatch(model, columns, countProblem(values.length));
}

function fromNamed(
  model: string,
  columns: readonly SignatureColumn[],
  features: JsonObject,
): Cells | ServingError {
  const [only] = columns;
  if (only?.isUnnamed === true) return fromUnnamed(model, columns, features);
  const cells: (Json | undefined)[] = new Array(columns.length);
  let folded: Map<string, string> | undefined;
  let missing: string[] | undefined;
  for (const [index, { name, required }] of columns.entries()) {
    let key: string | undefined = Object.hasOwn(features, name) ? name : undefined;
    if (key === undefined) {
      folded ??= new Map(
        Object.keys(features)
          .reverse()
          .map((each) => [each.toLowerCase(), each]),
      );
      key = folded.get(name.toLowerCase());
    }
    const value = key === undefined ? undefined : features[key];
    cells[index] = value;
    if (value === undefined && required) (missing ??= []).push(name);
  }
  if (missing === undefined) return cells;
  return mismatch(model, columns, missingProblem(missing, Object.keys(features)));
}

/** The signature has no names: the members of a row count by their order, as the columns of a data frame do. */
function fromUnnamed(
  model: string,
  columns: readonly SignatureColumn[],
  features: JsonObject,
): Cells | ServingError {
  const [only] = columns;
  const values = Object.values(features);
  if (columns.length === 1 && only !== undefined && isListLike(only)) {
    const isWhole = values.length === 1 && Array.isArray(values[0]);
    return [isWhole ? wholeRow(only, values) : values];
  }
  if (values.length === columns.length) return values;
  return mismatch(model, columns, countProblem(values.length));
}

function isListLike({ shape, type, spec }: SignatureColumn): boolean {
  return shape !== undefined ? shape.length > 0 : type === 'json' && spec?.type === 'array';
}

/** The values of a row are its tensor ([1, 2, 3]), unless they are a list with the tensor in it ([[1, 2, 3]]). */
function wholeRow({ shape, spec }: SignatureColumn, values: readonly Json[]): Json {
  const [first] = values;
  if (values.length !== 1 || first === undefined) return values;
  if (shape !== undefined) return depthOf(values) > shape.length ? first : values;
  const isListOfLists = isJsonObject(spec?.items) && spec.items.type === 'array';
  return Array.isArray(first) && !(isListOfLists && Array.isArray(first[0]) === false) ? first : values;
}

/** 1 for a list of plain values. Deeper than any tensor is cut off. */
function depthOf(value: Json): number {
  let depth = 0;
  for (let inner: Json | undefined = value; Array.isArray(inner) && depth < 40; inner = inner[0] as Json)
    depth++;
  return depth;
}
