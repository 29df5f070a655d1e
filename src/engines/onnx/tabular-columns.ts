// Columns of features as DuckDB hands them over, matched to the features of a model: by name or by position. What
// comes in rows is matched in tabular-rows.ts; values are checked where they are written, in feature-writer.ts.
import type { SignatureColumn } from '#core/endpoint.ts';
import type { FeatureColumn } from '../engine.ts';
import { countProblem, mismatch, missingProblem, typeName } from '../signature/words.ts';
import type { Cells, Source } from './feature-writer.ts';
import { indexOfName, product } from './schema-words.ts';
import type { Schema } from './tabular-schema.ts';

/** One source for each feature in the order of the signature; null for an optional one that was not given. */
export function matchColumns(
  model: string,
  { features, slots }: Schema,
  columns: readonly FeatureColumn[],
): (Source | null)[] {
  const named = columns.filter(({ name }) => name !== null).length;
  // A signature without names counts columns by their order.
  if (named === 0 || (named === columns.length && features.every(({ isUnnamed }) => isUnnamed === true)))
    return byPosition(model, features, slots, columns);
  if (named !== columns.length)
    throw mismatch(model, features, 'got some values by name and some by position');
  const matched = features.map((feature, index): Source | null => {
    const column = columns[indexOfName(columns, feature.name)];
    if (column === undefined) return null;
    if (slots[index]?.isWhole === true && valuesIn(feature) !== 1)
      throw mismatch(
        model,
        features,
        `"${feature.name}" is one value a row; ${typeName(feature)} is asked for`,
      );
    return spread([column]);
  });
  const missing = features.filter(({ required }, index) => required && matched[index] === null);
  if (missing.length > 0) {
    const given = columns.map(({ name }) => name ?? '');
    throw mismatch(
      model,
      features,
      missingProblem(
        missing.map(({ name }) => name),
        given,
      ),
    );
  }
  return matched;
}

/** A feature of several values takes as many columns, so that a list in SQL is the row of a tensor. */
function byPosition(
  model: string,
  features: readonly SignatureColumn[],
  slots: Schema['slots'],
  columns: readonly FeatureColumn[],
): Source[] {
  const widths = features.map((feature, index) => (slots[index]?.isWhole === true ? valuesIn(feature) : 1));
  if (features.length === 1 && widths[0] === null && features[0]?.shape?.length === 1)
    return [spread(columns)];
  const total = widths.reduce<number>((sum, width) => sum + (width ?? Number.NaN), 0);
  if (total !== columns.length) throw mismatch(model, features, countProblem(columns.length));
  let at = 0;
  return widths.map((width) => {
    const from = at;
    at += width ?? 0;
    return spread(columns.slice(from, at));
  });
}

/** Null: any number. */
function valuesIn({ shape = [] }: SignatureColumn): number | null {
  return shape.some((size) => size < 0) ? null : product(shape);
}

function spread(columns: readonly Cells[]): Source {
  return { kind: 'columns', columns, dims: [columns.length] };
}
