// Rows of features, as HTTP requests bring them, turned into columns. Types and completeness are checked later,
// where columns are written into tensors.
import type { FeatureInput } from '#core/call.ts';
import type { Json } from '#core/json.ts';
import { isJsonObject } from '#core/json.ts';
import type { FeatureColumn } from '../engine.ts';
import { mismatch } from './tabular-columns.ts';
import { indexOfName, type Schema } from './tabular-schema.ts';

type Scalar = string | number | boolean | null;

/** Throws SCHEMA_MISMATCH when rows differ in their names or lengths, or hold more than plain values. */
export function toColumns(model: string, schema: Schema, rows: readonly FeatureInput[]): FeatureColumn[] {
  const flat = rows.map(({ features }) =>
    isRow(features) ? fromNamed(schema, features) : fromList(features),
  );
  const [first] = flat;
  if (first === undefined) return [];
  return first.map(([name], index): FeatureColumn => {
    const isNull = new Uint8Array(rows.length);
    const values = flat.map((row, at): Scalar => {
      const [found, value] = row.length === first.length ? (row[index] ?? []) : [];
      if (found !== name || value === undefined) {
        throw mismatch(model, schema.features, 'the rows do not all have the same features');
      }
      if (value !== null && typeof value === 'object') {
        const shown = JSON.stringify(value).slice(0, 80);
        throw mismatch(
          model,
          schema.features,
          `${name === null ? `value ${index + 1}` : `"${name}"`} is ${shown}`,
        );
      }
      if (value === null) isNull[at] = 1;
      return value;
    });
    return { name, values, isNull };
  });
}

type Cell = readonly [name: string | null, value: Json];

function isRow(
  features: FeatureInput['features'],
): features is Exclude<FeatureInput['features'], readonly Json[]> {
  return isJsonObject(features);
}

/** By position; a list in a list ([[1, 2, 3]]) is the row of a tensor. */
function fromList(features: readonly Json[]): Cell[] {
  const [only] = features;
  const values = features.length === 1 && Array.isArray(only) ? (only as readonly Json[]) : features;
  return values.map((value): Cell => [null, value]);
}

/** By name, in the order of the signature; a list under the name of a tensor stands for its columns. */
function fromNamed(schema: Schema, features: { readonly [key: string]: Json }): Cell[] {
  const members = Object.keys(features).map((name) => ({ name }));
  const cells: Cell[] = [];
  for (const { name } of schema.features) {
    const key = members[indexOfName(members, name)]?.name;
    const value = key === undefined ? undefined : features[key];
    if (value !== undefined) cells.push([name, value]);
  }
  for (const [input, plan] of schema.inputs.entries()) {
    const key = members[indexOfName(members, plan.name)]?.name;
    const list = key === undefined ? undefined : features[key];
    if (!Array.isArray(list)) continue;
    for (const [index, { name }] of schema.features.entries()) {
      const place = schema.places[index];
      const value: Json | undefined = place?.input === input ? list[place.offset] : undefined;
      if (value !== undefined && list.length === plan.width) {
        const at = cells.findIndex(([known]) => known === name);
        cells.splice(at < 0 ? cells.length : at, at < 0 ? 0 : 1, [name, value]);
      }
    }
  }
  // Nothing fits: the names as they came, so that the message can show them.
  return cells.length > 0 ? cells : Object.entries(features).map(([name, value]): Cell => [name, value]);
}
