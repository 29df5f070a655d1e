// Rows of features, as requests bring them, turned into what is written into tensors. Rows that fit together form a
// block; a row that fits the signature not at all has an error of its own.
import type { FeatureInput } from '#core/call.ts';
import type { SignatureColumn } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json } from '#core/json.ts';
import { enforceRows, type TypedColumn } from '../signature/enforce.ts';
import type { Source } from './feature-writer.ts';
import { indexOfName, product } from './schema-words.ts';
import type { Schema } from './tabular-schema.ts';

export interface RowBlock {
  /** Which of the given rows these are. */
  readonly rows: readonly number[];
  /** One for each feature; null for an optional one that these rows do not have. */
  readonly sources: readonly (Source | null)[];
}

export interface ReadRows {
  readonly blocks: readonly RowBlock[];
  /** By the number of the row as given. */
  readonly errors: ReadonlyMap<number, ServingError>;
}

/** What follows from the schema alone is worked out once. */
export function createRowReader(model: string, schema: Schema): (rows: readonly FeatureInput[]) => ReadRows {
  const { features } = schema;
  const spell = createSpelling(schema);
  const places = new Map(features.map((feature, index) => [feature, index]));
  return (rows) => {
    const { blocks, errors } = enforceRows(model, { inputs: features }, rows.map(spell));
    return {
      errors,
      blocks: blocks.map(({ rows: indices, columns }) => {
        const sources = new Array<Source | null>(features.length).fill(null);
        for (const column of columns) sources[places.get(column.column) ?? -1] = toSource(column);
        return { rows: indices, sources };
      }),
    };
  };
}

function toSource({ values, isNull, shape }: TypedColumn): Source {
  const cells = values as Exclude<TypedColumn['values'], readonly Uint8Array[]>;
  return shape === undefined || shape.length === 0
    ? { kind: 'columns', columns: [{ values: cells, isNull }], dims: [] }
    : { kind: 'rows', values: cells, dims: shape };
}

/** Other ways to write a row: a list under the name of an input for its columns, and a tensor as a flat list. */
function createSpelling(schema: Schema): (row: FeatureInput) => FeatureInput {
  const { features, slots, inputs } = schema;
  const matrices = inputs.flatMap(({ name }, input) => {
    const columns = features.filter((_, index) => slots[index]?.input === input && !slots[index]?.isWhole);
    return columns.length > 1 && indexOfName(features, name) < 0 ? [{ name, columns: inOrder(columns) }] : [];
  });
  const deep = features.filter(({ shape = [] }) => shape.length > 1 && shape.every((size) => size > 0));
  function inOrder(columns: readonly SignatureColumn[]): readonly SignatureColumn[] {
    const offset = (column: SignatureColumn) => slots[features.indexOf(column)]?.offset ?? 0;
    return [...columns].sort((left, right) => offset(left) - offset(right));
  }
  return (row) => {
    const given = row.features;
    if (!isJsonObject(given)) {
      const isFlat = deep.length === 1 && features.length === 1 && isFlatList(given);
      return isFlat ? { features: [unfold(given, deep[0]?.shape ?? [])] } : row;
    }
    // Most rows are written as the signature has them, and are many.
    const isPlain =
      matrices.every(({ columns: [first] }) => first !== undefined && Object.hasOwn(given, first.name)) &&
      deep.every(({ name }) => Object.hasOwn(given, name) && !isFlatList(given[name]));
    if (isPlain) return row;
    const changes: Record<string, Json> = {};
    const members = Object.keys(given).map((name) => ({ name }));
    const member = (name: string) => members[indexOfName(members, name)]?.name;
    for (const { name, columns } of matrices) {
      const key = member(name);
      const list = key === undefined ? undefined : given[key];
      if (!Array.isArray(list) || list.length !== columns.length) continue;
      for (const [index, column] of columns.entries()) changes[column.name] = list[index] as Json;
    }
    for (const { name, shape = [] } of deep) {
      const key = member(name);
      const list = key === undefined ? undefined : given[key];
      if (key !== undefined && isFlatList(list)) changes[key] = unfold(list, shape);
    }
    return Object.keys(changes).length === 0 ? row : { features: { ...given, ...changes } };
  };
}

function isFlatList(value: Json | undefined): value is readonly Json[] {
  return Array.isArray(value) && value.length > 1 && !Array.isArray(value[0]);
}

/** A list of the right length as nested lists; any other as it is, for the message. */
function unfold(list: readonly Json[], shape: readonly number[]): Json {
  if (list.length !== product(shape)) return list;
  return shape.slice(1).reduceRight<readonly Json[]>((items, size) => {
    return Array.from({ length: items.length / size }, (_, index) =>
      items.slice(index * size, (index + 1) * size),
    );
  }, list);
}
