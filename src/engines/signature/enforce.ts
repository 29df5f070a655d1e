// Rows of features as columns of the types a signature asks for. A row that does not fit has an error of its own and
// the others go on. Rows that cannot lie in one table (an optional column absent, tensors of another size) lie in
// blocks of their own.
import type { FeatureInput } from '#core/call.ts';
import type { Signature, SignatureColumn } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import { NEVER_NULL, Unfit } from './cells.ts';
import { type CellPlan, type CellValue, planCell } from './plan.ts';
import { type Cells, toCells } from './rows.ts';
import { flatten, shapeOf } from './tensors.ts';
import { mismatch, nullValue, wrongValue } from './words.ts';

/** `datetime`: microseconds since 1970 as i64. `json`: texts that hold JSON. */
export type TypedKind = CellPlan['kind'];

export interface TypedColumn {
  /** Null where the signature has no names. */
  readonly name: string | null;
  readonly column: SignatureColumn;
  readonly type: TypedKind;
  /** Numbers and booleans (0 and 1) as they lie in memory; a tensor's row after row, innermost dimension last. */
  readonly values:
    | Float64Array
    | Float32Array
    | BigInt64Array
    | Int32Array
    | Uint8Array
    | readonly string[]
    | readonly Uint8Array[];
  /** 1 where NULL; null when no value is NULL. Floats have NaN there as well. */
  readonly isNull: Uint8Array | null;
  /** A tensor: the sizes of one row's value, all known; `[]` for one value a row. */
  readonly shape?: readonly number[];
}

export interface Block {
  /** Of the rows that were given: which they are, in order. At least one. */
  readonly rows: readonly number[];
  /** Without the optional columns that these rows do not have. */
  readonly columns: readonly TypedColumn[];
}

export interface EnforcedRows {
  readonly blocks: readonly Block[];
  /** By the number of the row as given, from 0; SCHEMA_MISMATCH. */
  readonly errors: ReadonlyMap<number, ServingError>;
}

/** Never throws for a row: what is wrong with it is in `errors`. */
export function enforceRows(
  model: string,
  signature: Pick<Signature, 'inputs'>,
  rows: readonly FeatureInput[],
): EnforcedRows {
  const { inputs } = signature;
  const plans = inputs.map(planCell);
  const errors = new Map<number, ServingError>();
  const cells = rows.map((row, index): Cells => {
    const found = toCells(model, inputs, row);
    if (!(found instanceof ServingError)) return found;
    errors.set(index, found);
    return [];
  });
  const groups = groupRows(model, inputs, cells, errors);
  const blocks = [...groups].flatMap((group) => toBlock(model, plans, cells, group, errors) ?? []);
  return { blocks, errors };
}

/** Which columns a group has, and of which sizes its tensors are. */
interface Group {
  readonly rows: number[];
  readonly isPresent: readonly boolean[];
  readonly shapes: readonly (readonly number[] | undefined)[];
}

function groupRows(
  model: string,
  inputs: readonly SignatureColumn[],
  cells: readonly Cells[],
  errors: Map<number, ServingError>,
): Iterable<Group> {
  const varying = inputs.flatMap((column, index) =>
    !column.required || column.shape !== undefined ? [index] : [],
  );
  const groups = new Map<string, Group>();
  for (const [row, values] of cells.entries()) {
    if (errors.has(row)) continue;
    const isPresent: boolean[] = [];
    const shapes: (readonly number[])[] = [];
    let key = '';
    for (const index of varying) {
      const column = inputs[index] as SignatureColumn;
      const value = values[index];
      const isAbsent = value === undefined || (value === null && canBeLeftOut(column));
      if (isAbsent) isPresent[index] = false;
      else if (column.shape !== undefined) {
        const shape = shapeOf(value, column);
        if (typeof shape === 'string') {
          errors.set(row, mismatch(model, inputs, `"${column.name}" ${shape}`));
          break;
        }
        shapes[index] = shape;
      }
      key += isAbsent ? '-;' : `${shapes[index]?.join('x') ?? '+'};`;
    }
    if (errors.has(row)) continue;
    const group = groups.get(key);
    if (group !== undefined) group.rows.push(row);
    else groups.set(key, { rows: [row], isPresent, shapes });
  }
  return groups.values();
}

/** NULL in an optional column that cannot hold NULL says the same as no column. */
function canBeLeftOut({ required, type, shape }: SignatureColumn): boolean {
  return !required && (NEVER_NULL.has(type) || shape !== undefined || type === 'json');
}

function toBlock(
  model: string,
  plans: readonly CellPlan[],
  cells: readonly Cells[],
  group: Group,
  errors: Map<number, ServingError>,
): Block | undefined {
  const inputs = plans.map(({ column }) => column);
  const present = plans.flatMap((plan, index) =>
    group.isPresent[index] === false ? [] : [{ plan, index, shape: group.shapes[index] }],
  );
  // Columns are filled one after another; a row that fails in one of them is left out of all, in a second round.
  for (let rows: readonly number[] = group.rows; rows.length > 0; ) {
    const failed = errors.size;
    const columns = present.map(({ plan, index, shape }) => {
      const onError = (row: number, error: ServingError) => {
        if (!errors.has(row)) errors.set(row, error);
      };
      return fillColumn(model, inputs, plan, shape, rows, (row) => cells[row]?.[index], onError);
    });
    if (errors.size === failed) return { rows, columns };
    rows = rows.filter((row) => !errors.has(row));
  }
  return undefined;
}

function fillColumn(
  model: string,
  inputs: readonly SignatureColumn[],
  plan: CellPlan,
  shape: readonly number[] | undefined,
  rows: readonly number[],
  valueAt: (row: number) => Json | undefined,
  onError: (row: number, error: ServingError) => void,
): TypedColumn {
  const { column, convert } = plan;
  const width = (shape ?? []).reduce((size, each) => size * each, 1);
  const values = plan.allocate(rows.length * width);
  let isNull: Uint8Array | null = null;
  for (const [at, row] of rows.entries()) {
    const value = valueAt(row) ?? null;
    if (value === null) {
      if (!plan.takesNull) onError(row, nullValue(model, column));
      isNull ??= new Uint8Array(rows.length);
      isNull[at] = 1;
      values[at] = plan.nullValue;
      continue;
    }
    const items = shape === undefined ? [value] : flatten(value, shape);
    for (let index = 0; index < width; index++) {
      const item = items[index] ?? null;
      const converted: CellValue | Unfit = item === null ? plan.nullItem : convert(item);
      if (converted instanceof Unfit) {
        onError(row, wrongValue(model, inputs, column, item, converted.reason));
        break;
      }
      values[at * width + index] = converted;
    }
  }
  return {
    name: column.isUnnamed === true ? null : column.name,
    column,
    type: plan.kind,
    values: values as TypedColumn['values'],
    isNull,
    ...(shape === undefined ? {} : { shape }),
  };
}
