// Rows of features in the four formats of MLflow's scoring protocol, as one input a row.
// Whether they fit the model's signature is checked below, by serving.
import type { FeatureInput } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { showValue } from './errors.ts';

export const FEATURE_FORMATS = ['dataframe_split', 'dataframe_records', 'instances', 'inputs'] as const;
export type FeatureFormat = (typeof FEATURE_FORMATS)[number];

export function parseFeatures(format: FeatureFormat, value: Json): FeatureInput[] {
  switch (format) {
    case 'dataframe_split':
      return parseSplit(value);
    case 'dataframe_records':
      return toList(format, value).map((record, index) => {
        if (isJsonObject(record)) return { features: record };
        throw misshapen(`${format}[${index}]`, 'an object of column name to value', record);
      });
    case 'instances':
      return toList(format, value).map(toRow);
    case 'inputs':
      return isJsonObject(value) ? parseColumns(value) : toList(format, value).map(toRow);
  }
}

function parseSplit(value: Json): FeatureInput[] {
  if (!isJsonObject(value)) throw misshapen('dataframe_split', "an object with 'columns' and 'data'", value);
  const rows = toList('dataframe_split.data', value.data ?? null);
  const columns = value.columns === undefined ? undefined : toList('dataframe_split.columns', value.columns);
  return rows.map((row, index) => {
    const cells = toList(`dataframe_split.data[${index}]`, row);
    if (columns === undefined) return { features: cells };
    if (cells.length !== columns.length) {
      const expected = `${columns.length} values, one for each of 'columns'`;
      throw misshapen(`dataframe_split.data[${index}]`, expected, row);
    }
    return { features: Object.fromEntries(cells.map((cell, column) => [String(columns[column]), cell])) };
  });
}

/** A row of a row-wise tensor: named, several by position, or a single value. */
function toRow(row: Json): FeatureInput {
  if (isJsonObject(row)) return { features: row };
  return { features: Array.isArray(row) ? row : [row] };
}

function parseColumns(columns: JsonObject): FeatureInput[] {
  const entries = Object.entries(columns).map(
    ([name, values]) => [name, toList(`inputs.${name}`, values)] as const,
  );
  const [first] = entries;
  if (first === undefined) throw misshapen('inputs', 'at least one column', columns);
  const rowCount = first[1].length;
  for (const [name, values] of entries) {
    if (values.length !== rowCount) {
      throw misshapen(`inputs.${name}`, `${rowCount} values, as many as '${first[0]}' has`, values);
    }
  }
  return Array.from({ length: rowCount }, (_, index) => ({
    features: Object.fromEntries(entries.map(([name, values]) => [name, values[index] ?? null])),
  }));
}

function toList(where: string, value: Json): readonly Json[] {
  if (Array.isArray(value)) return value;
  throw misshapen(where, 'a list', value);
}

function misshapen(where: string, expected: string, value: Json): ServingError {
  return new ServingError('INVALID_PARAMETER', `'${where}' must be ${expected}; got ${showValue(value)}.`, {
    details: { field: where },
  });
}
