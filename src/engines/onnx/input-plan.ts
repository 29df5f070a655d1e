// Where features go: each is one place of an input tensor, or a whole input. Columns of a side-car are fitted to the
// inputs of the model; without one the inputs are the features.
import type { SignatureColumn } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { COLUMN_TYPE, indexOfName, product, unfit } from './schema-words.ts';
import type { ElementType, TensorInfo } from './session.ts';

/** One input tensor: rows by the values of a row. */
export interface InputPlan {
  readonly name: string;
  readonly type: ElementType;
  /** Dimensions after the first, as the model wants them; empty for a tensor [N]; -1 where any size will do. */
  readonly rowDims: readonly number[];
  /** Values a row; null where it differs from call to call. */
  readonly width: number | null;
}
/** Where a feature goes: column `offset` of input tensor `input`, or all of it. */
export interface Slot {
  readonly input: number;
  readonly offset: number;
  readonly isWhole: boolean;
}

/** A matrix with more columns than this is one feature, a list, instead of as many as it has columns. */
const MOST_NUMBERED = 256;

export function planInputs(
  infos: readonly TensorInfo[],
  columns: readonly SignatureColumn[] | undefined,
): InputPlan[] {
  if (infos.length === 0) throw unfit('it has no inputs');
  return infos.map((info): InputPlan => {
    const { name, type, shape } = info;
    if (type === null) {
      throw unfit(`its input "${name}" is not a tensor of numbers, booleans or strings`);
    }
    if (shape.length === 0)
      throw unfit(`its input "${name}" has no dimension for rows; export it as [N] or [N, k]`);
    const rowDims = shape.slice(1);
    if (rowDims.includes(0)) throw unfit(`its input "${name}" has no values (a dimension is 0)`);
    const unknown = rowDims.filter((size) => size < 0).length;
    if (unknown === 0) return { name, type, rowDims, width: product(rowDims) };
    const declared = columns === undefined ? undefined : declaredDims(name, rowDims, infos.length, columns);
    const known = declared ?? rowDims;
    return { name, type, rowDims: known, width: known.some((size) => size < 0) ? null : product(known) };
  });
}

/** The graph leaves the number of features open ([N, None]): the columns of the side-car may say it. */
function declaredDims(
  name: string,
  rowDims: readonly number[],
  inputCount: number,
  columns: readonly SignatureColumn[],
): readonly number[] | undefined {
  const [only] = columns;
  const own = columns.find((column) => column.name === name) ?? (inputCount === 1 ? only : undefined);
  if (own?.shape !== undefined || own?.type === 'json') {
    const shape = own.shape ?? [];
    if (shape.length !== rowDims.length) return undefined;
    return rowDims.map((size, index) => (size < 0 ? (shape[index] ?? -1) : size));
  }
  if (inputCount > 1 || rowDims.filter((size) => size < 0).length > 1) {
    if (columns.some((column) => column.name === name && rowDims.length === 1)) return [1];
    return undefined;
  }
  const open = columns.length / product(rowDims.filter((size) => size >= 0));
  if (!Number.isInteger(open)) throw unfit(`${columns.length} columns do not fill its input "${name}"`);
  return rowDims.map((size) => (size < 0 ? open : size));
}

export interface Placed {
  readonly features: readonly SignatureColumn[];
  readonly slots: readonly Slot[];
}

export function placeFeatures(
  inputs: readonly InputPlan[],
  columns: readonly SignatureColumn[] | undefined,
): Placed {
  if (columns === undefined) return featuresOfInputs(inputs);
  const refused = columns.find(({ type }) => type === 'binary' || type === 'datetime');
  if (refused !== undefined)
    throw unfit(
      `its signature has the column "${refused.name}" of type ${refused.type}, which no tensor holds`,
    );
  if (columns.some(({ shape }) => shape !== undefined)) return placeTensors(inputs, columns);
  const isNamed =
    columns.length === inputs.length && columns.every(({ name }) => indexOfName(inputs, name) >= 0);
  if (isNamed && inputs.some(({ width }) => width !== 1)) return placeTensors(inputs, columns);
  return placeCells(inputs, columns);
}

function featuresOfInputs(inputs: readonly InputPlan[]): Placed {
  const features: SignatureColumn[] = [];
  const slots: Slot[] = [];
  for (const [input, plan] of inputs.entries()) {
    const { name, type, rowDims, width } = plan;
    if (width === null || rowDims.length > 1 || width > MOST_NUMBERED) {
      features.push(wholeFeature(plan, name, true));
      slots.push({ input, offset: 0, isWhole: true });
      continue;
    }
    for (let offset = 0; offset < width; offset++) {
      features.push({
        name: width === 1 ? name : `${name}_${offset}`,
        type: COLUMN_TYPE[type],
        required: true,
      });
      slots.push({ input, offset, isWhole: false });
    }
  }
  return { features, slots };
}

function wholeFeature(plan: InputPlan, name: string, required: boolean): SignatureColumn {
  const { type, rowDims, width } = plan;
  return {
    name,
    type: COLUMN_TYPE[type],
    required,
    shape: rowDims,
    ...(rowDims.length === 1 && width !== null ? { width } : {}),
    spec: { dtype: type, shape: [-1, ...rowDims] },
  };
}

/** One column an input: by name, and those without a name in order. */
function placeTensors(inputs: readonly InputPlan[], columns: readonly SignatureColumn[]): Placed {
  if (columns.length !== inputs.length) throw wrongCount(inputs, columns, inputs.length);
  const free = new Set(inputs.keys());
  const named = columns.map((column) => (column.isUnnamed === true ? -1 : indexOfName(inputs, column.name)));
  for (const input of named) free.delete(input);
  const features: SignatureColumn[] = [];
  const slots: Slot[] = [];
  for (const [index, column] of columns.entries()) {
    let input = named[index] ?? -1;
    if (input < 0) {
      [input = -1] = free;
      free.delete(input);
    }
    const plan = inputs[input];
    if (plan === undefined || named.indexOf(input) !== (named[index] === input ? index : -1))
      throw unfit(`its signature names the input "${column.name}" twice`);
    const isWhole = plan.rowDims.length > 0 && (plan.width !== 1 || (column.shape?.length ?? 0) > 0);
    features.push(isWhole ? fitTensor(plan, column) : plainFeature(plan, column));
    slots.push({ input, offset: 0, isWhole });
  }
  return { features, slots };
}

function plainFeature(plan: InputPlan, column: SignatureColumn): SignatureColumn {
  if (product(column.shape ?? []) !== 1) throw wrongShape(plan, column);
  return column;
}

/** The shape in the signature may be another way to write that of the input ([784] for [1, 28, 28]). */
function fitTensor(plan: InputPlan, column: SignatureColumn): SignatureColumn {
  const { shape } = column;
  if (shape === undefined) {
    const { name, required } = column;
    return {
      ...wholeFeature(plan, name, required),
      type: column.type === 'json' ? COLUMN_TYPE[plan.type] : column.type,
    };
  }
  const isSameRank = shape.length === plan.rowDims.length;
  const isEqual =
    isSameRank &&
    shape.every((size, index) => size < 0 || plan.rowDims[index] === size || (plan.rowDims[index] ?? 0) < 0);
  const isOpen = shape.some((size) => size < 0);
  if (!isEqual && (isOpen || plan.width !== product(shape))) throw wrongShape(plan, column);
  return isEqual && isOpen ? { ...column, shape: plan.rowDims } : column;
}

function wrongShape({ name, rowDims }: InputPlan, column: SignatureColumn): ServingError {
  const shown = (sizes: readonly number[]) =>
    `[${['N', ...sizes.map((size) => (size < 0 ? 'any' : size))].join(', ')}]`;
  return unfit(
    `its input "${name}" has the shape ${shown(rowDims)}, and "${column.name}" in its signature ${shown(column.shape ?? [])}`,
  );
}

/** Columns named like a tensor of one value a row go there; the others fill the remaining places in order. */
function placeCells(inputs: readonly InputPlan[], columns: readonly SignatureColumn[]): Placed {
  const widths = inputs.map(({ name, width }) => {
    if (width !== null) return width;
    throw unfit(`its input "${name}" takes any number of values, and its signature does not say how many`);
  });
  const count = widths.reduce((sum, width) => sum + width, 0);
  if (columns.length !== count) throw wrongCount(inputs, columns, count);
  const open = widths.flatMap((width, input) =>
    Array.from({ length: width }, (_, offset): Slot => ({ input, offset, isWhole: false })),
  );
  const taken = new Map<number, Slot>();
  for (const [index, { name }] of columns.entries()) {
    const input = indexOfName(inputs, name);
    if (inputs[input]?.width !== 1) continue;
    const at = open.findIndex((candidate) => candidate.input === input);
    const [slot] = at < 0 ? [] : open.splice(at, 1);
    if (slot !== undefined) taken.set(index, slot);
  }
  const slots = columns.map((_, index): Slot => {
    const slot = taken.get(index) ?? open.shift();
    if (slot === undefined) throw new ServingError('INTERNAL', 'A feature has no place.');
    return slot;
  });
  return { features: columns, slots };
}

function wrongCount(
  inputs: readonly InputPlan[],
  columns: readonly SignatureColumn[],
  count: number,
): ServingError {
  const places = inputs.map(({ name, width }) => `${name}: ${width ?? 'any'}`).join(', ');
  return unfit(
    `it takes ${count} features (${places}), but its signature names ${columns.length} (${columns.map(({ name }) => name).join(', ')})`,
  );
}
