// Columns of features as the doubles that trees compare: which column of the signature is which feature of the model,
// what NULL is (missing), and codes for categories. Trees themselves are not known here.
import type { Signature, SignatureColumn } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { FeatureColumn } from '../engine.ts';
import { NEVER_NULL } from '../signature/cells.ts';
import { countProblem, mismatch, missingProblem, nullValue, wrongValue } from '../signature/words.ts';
import type { TreeFeature, TreeModel } from './tree-model.ts';
import type { FeatureValues } from './walk.ts';

/**
 * For each feature of the model the index of its column in the signature: by name where all names are there, else by
 * position, as LightGBM has it. Throws INVALID_PARAMETER when they do not fit.
 */
export function matchFeatures(model: TreeModel, columns: readonly SignatureColumn[]): readonly number[] {
  const { features, hasNames } = model;
  const byName = features.map(({ name }) => columns.findIndex((column) => column.name === name));
  if (hasNames && byName.every((index) => index >= 0)) return byName;
  const isNamed = hasNames && model.library === 'xgboost' && columns.every((column) => !column.isUnnamed);
  if (columns.length === features.length && !isNamed) return features.map((_, index) => index);
  const absent = features.filter((_, index) => (byName[index] ?? -1) < 0).map(({ name }) => name);
  throw new ServingError(
    'INVALID_PARAMETER',
    `The signature of the model has ${columns.length} columns, and the trees were learned from ${features.length} features` +
      `${hasNames ? `; without a column: ${absent.slice(0, 20).join(', ')}` : ''}. Log the model again with the signature of its training data.`,
    { details: { isUnsupported: true } },
  );
}

/** Turns columns into values by feature, for one model. Reused from chunk to chunk; not for two chunks at once. */
export class ColumnReader {
  readonly #name: string;
  readonly #model: TreeModel;
  readonly #columns: readonly SignatureColumn[];
  readonly #places: readonly number[];
  readonly #codes: readonly (ReadonlyMap<unknown, number> | undefined)[];

  constructor(name: string, model: TreeModel, signature: Signature) {
    this.#name = name;
    this.#model = model;
    this.#columns = signature.inputs;
    this.#places = matchFeatures(model, signature.inputs);
    this.#codes = model.features.map(({ categories }) =>
      categories === undefined ? undefined : new Map(categories.map((value, code) => [value, code])),
    );
  }

  /** Throws SCHEMA_MISMATCH for what is missing, or of another type. */
  read(columns: readonly FeatureColumn[], rowCount: number): FeatureValues[] {
    const matched = this.#match(columns);
    return this.#model.features.map((feature, index) => {
      const place = this.#places[index] ?? index;
      const column = matched[place];
      const declared = this.#columns[place];
      if (column === undefined || declared === undefined) return new Float64Array(rowCount).fill(Number.NaN);
      const codes = this.#codes[index];
      return codes === undefined && column.values instanceof Float64Array
        ? this.#numbers(column.values, column.isNull, declared, rowCount)
        : this.#checked(column, declared, feature, codes, rowCount);
    });
  }

  /** In the order of the signature; undefined for an optional one that was not given. */
  #match(columns: readonly FeatureColumn[]): readonly (FeatureColumn | undefined)[] {
    const expected = this.#columns;
    const named = columns.filter(({ name }) => name !== null);
    if (named.length === 0 || expected[0]?.isUnnamed === true) {
      if (columns.length === expected.length) return columns;
      throw mismatch(this.#name, expected, countProblem(columns.length));
    }
    if (named.length !== columns.length) {
      throw mismatch(this.#name, expected, 'got some values by name and some by position');
    }
    const folded = new Map(columns.toReversed().map((column) => [column.name?.toLowerCase(), column]));
    const exact = new Map(columns.map((column) => [column.name, column]));
    const matched = expected.map(
      ({ name }): FeatureColumn | undefined => exact.get(name) ?? folded.get(name.toLowerCase()),
    );
    const missing = expected.filter(({ required }, index) => required && matched[index] === undefined);
    if (missing.length === 0) return matched;
    const given = columns.map(({ name }) => name ?? '');
    const names = missing.map(({ name }) => name);
    throw mismatch(this.#name, expected, missingProblem(names, given));
  }

  #numbers(
    values: Float64Array,
    isNull: Uint8Array | null,
    column: SignatureColumn,
    rowCount: number,
  ): FeatureValues {
    const isWhole = column.type === 'long' || column.type === 'integer';
    const isNumber = isWhole || column.type === 'double' || column.type === 'float';
    const mayBeNull = !NEVER_NULL.has(column.type);
    if (isNumber && !isWhole && isNull === null) return values;
    const read = values.slice(0, rowCount);
    for (let row = 0; row < rowCount; row++) {
      const value = read[row] ?? Number.NaN;
      if (isNull?.[row]) {
        if (!mayBeNull) throw nullValue(this.#name, column);
        read[row] = Number.NaN;
      } else if (!isNumber || (isWhole && !Number.isInteger(value))) {
        throw wrongValue(this.#name, this.#columns, column, value);
      }
    }
    return read;
  }

  #checked(
    { values, isNull }: FeatureColumn,
    column: SignatureColumn,
    feature: TreeFeature,
    codes: ReadonlyMap<unknown, number> | undefined,
    rowCount: number,
  ): FeatureValues {
    const read = new Float64Array(rowCount);
    for (let row = 0; row < rowCount; row++) {
      const value = isNull?.[row] ? null : (values[row] ?? null);
      if (value === null) {
        if (NEVER_NULL.has(column.type)) throw nullValue(this.#name, column);
        read[row] = Number.NaN;
      } else if (codes === undefined) read[row] = this.#number(value, column);
      else
        read[row] =
          codes.get(typeof value === 'bigint' ? Number(value) : value) ??
          this.#strange(value, column, feature);
    }
    return read;
  }

  #number(value: string | number | boolean | bigint, column: SignatureColumn): number {
    if (typeof value === 'boolean' && column.type === 'boolean') return Number(value);
    const number = typeof value === 'bigint' ? Number(value) : value;
    const isWhole = column.type === 'long' || column.type === 'integer';
    if (typeof number === 'number' && column.type !== 'boolean' && column.type !== 'string') {
      if (!isWhole || Number.isInteger(number)) return number;
    }
    throw wrongValue(this.#name, this.#columns, column, value);
  }

  /** A category the model has not seen: missing for LightGBM, refused by XGBoost. Codes may come in place of texts. */
  #strange(
    value: string | number | boolean | bigint,
    column: SignatureColumn,
    { categories = [] }: TreeFeature,
  ): number {
    if (typeof categories[0] === 'string' && typeof value === 'number' && column.type !== 'string')
      return value;
    if (this.#model.library === 'lightgbm' && typeof value === typeof categories[0]) return Number.NaN;
    const known = categories.slice(0, 10).map((category) => JSON.stringify(category));
    const reason = `which is none of the ${categories.length} categories the model has learned (${known.join(', ')}${categories.length > 10 ? ', ...' : ''})`;
    throw wrongValue(this.#name, this.#columns, column, value, reason);
  }
}
