// Rows of features as tables for a worker: by the signature where the model has one, else by what the values are.
// Whether a row fits a signature is decided by the signature's own rules; here rows are only put together.
import type { FeatureInput } from '#core/call.ts';
import type { Signature } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { enforceRows, type TypedColumn } from '../signature/enforce.ts';
import { encodeColumns, type WireColumn } from './columns.ts';

/** Rows that go to the model together, and as what: a data frame, one tensor, or several by name. */
export interface FeatureTable {
  /** Positions among the inputs. */
  readonly rows: readonly number[];
  readonly form: 'table' | 'tensor' | 'tensors';
  readonly columns: readonly JsonObject[];
  readonly buffers: readonly ArrayBufferView[];
}

export interface FeatureTables {
  readonly tables: readonly FeatureTable[];
  readonly errors: ReadonlyMap<number, ServingError>;
}

export function toTables(
  model: string,
  signature: Signature | undefined,
  inputs: readonly FeatureInput[],
): FeatureTables {
  if (signature === undefined || signature.inputs.length === 0) return inferTables(model, inputs);
  const { blocks, errors } = enforceRows(model, signature, inputs);
  const isTensor = signature.inputs.some(({ shape }) => shape !== undefined);
  const isOne = isTensor && signature.inputs.length === 1 && signature.inputs[0]?.isUnnamed === true;
  const tables = blocks.map(({ rows, columns }): FeatureTable => {
    const encoded = encodeColumns(columns);
    // Of a tensor the signature names NumPy's own type, such as uint8.
    const heads = encoded.columns.map((head, index) => withDtype(head, columns[index]));
    const form = isOne ? 'tensor' : isTensor ? 'tensors' : 'table';
    return { rows, form, columns: heads, buffers: encoded.buffers };
  });
  return { tables, errors };
}

function withDtype(head: JsonObject, column: TypedColumn | undefined): JsonObject {
  const dtype = column?.shape === undefined ? undefined : column.column.spec?.dtype;
  return typeof dtype === 'string' ? { ...head, dtype } : head;
}

/**
 * Without a signature rows are a data frame of what they are: columns by name, or numbered from 0. Rows by name and
 * rows by position, or of different lengths, do not go together.
 */
function inferTables(model: string, inputs: readonly FeatureInput[]): FeatureTables {
  const errors = new Map<number, ServingError>();
  const groups = new Map<string, number[]>();
  for (const [row, { features }] of inputs.entries()) {
    const width = isJsonObject(features) ? 'names' : String(features.length);
    const rows = groups.get(width);
    if (rows) rows.push(row);
    else groups.set(width, [row]);
  }
  const tables: FeatureTable[] = [];
  for (const [width, rows] of groups) {
    const names = width === 'names' ? namesOf(rows, inputs) : null;
    const count = names?.length ?? Number(width);
    if (count === 0) {
      const error = new ServingError('SCHEMA_MISMATCH', `Model "${model}" was given a row without features.`);
      for (const row of rows) errors.set(row, error);
      continue;
    }
    const columns = Array.from({ length: count }, (_, index): WireColumn => {
      const name = names?.[index];
      const cells = rows.map((row): Json => {
        const features = inputs[row]?.features as JsonObject & readonly Json[];
        return (name === undefined ? features[index] : features[name]) ?? null;
      });
      return inferColumn(name ?? null, cells);
    });
    tables.push({ rows, form: 'table', ...encodeColumns(columns) });
  }
  return { tables, errors };
}

function namesOf(rows: readonly number[], inputs: readonly FeatureInput[]): string[] {
  const names = new Set<string>();
  for (const row of rows) for (const name of Object.keys(inputs[row]?.features ?? {})) names.add(name);
  return [...names];
}

/** As pandas reads JSON: whole numbers stay whole unless one is missing. */
function inferColumn(name: string | null, cells: readonly Json[]): WireColumn {
  let isNull: Uint8Array | null = null;
  const kinds = new Set<string>();
  for (const [row, cell] of cells.entries()) {
    if (cell === null) {
      isNull ??= new Uint8Array(cells.length);
      isNull[row] = 1;
    } else kinds.add(typeof cell === 'number' && Number.isSafeInteger(cell) ? 'whole' : typeof cell);
  }
  const isNumeric = [...kinds].every((kind) => kind === 'whole' || kind === 'number');
  if (kinds.size > 0 && isNumeric) {
    if (!kinds.has('number') && isNull === null) {
      return {
        name,
        type: 'i64',
        values: BigInt64Array.from(cells, (cell) => BigInt(cell as number)),
        isNull,
      };
    }
    return {
      name,
      type: 'f64',
      values: Float64Array.from(cells, (cell) => Number(cell ?? Number.NaN)),
      isNull,
    };
  }
  if (kinds.size === 1 && kinds.has('boolean')) {
    return { name, type: 'bool', values: Uint8Array.from(cells, (cell) => Number(cell ?? 0)), isNull };
  }
  if (kinds.size === 1 && kinds.has('string')) {
    return { name, type: 'utf8', values: cells.map((cell) => (cell ?? '') as string), isNull };
  }
  return { name, type: 'json', values: cells.map((cell) => JSON.stringify(cell)), isNull };
}
