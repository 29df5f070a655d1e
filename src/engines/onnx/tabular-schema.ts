// Fits a signature to the tensors of a tabular model: which feature goes into which place of which input, which
// outputs are predictions and how they are read. No values here, only the plan.
import type { ColumnType, Signature, SignatureColumn } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Sidecar } from './tabular-file.ts';
import type { ElementType, TensorInfo } from './tabular-session.ts';

/** One input tensor: rows by `width` features. */
export interface InputPlan {
  readonly name: string;
  readonly type: ElementType;
  readonly width: number;
  /** Dimensions after the first, as the model wants them; empty for a tensor [N]. */
  readonly rowDims: readonly number[];
}
/** Where a feature goes: column `offset` of input tensor `input`. */
export interface Place {
  readonly input: number;
  readonly offset: number;
}
export interface OutputPlan {
  /** Name of the tensor. */
  readonly tensor: string;
  readonly type: ElementType;
  /** As users see it. */
  readonly name: string;
  /** Class names: by value of an integer output, by position of the largest score of a float output. */
  readonly labels: readonly string[] | null;
}
export interface Schema {
  readonly features: readonly SignatureColumn[];
  /** One for each feature, in the same order. */
  readonly places: readonly Place[];
  readonly inputs: readonly InputPlan[];
  readonly outputs: readonly OutputPlan[];
  /** Rows of one run where the model was exported with a fixed batch; null for any number. */
  readonly fixedRows: number | null;
}

const COLUMN_TYPE: Readonly<Record<ElementType, ColumnType>> = {
  float32: 'float',
  float64: 'double',
  int8: 'integer',
  int16: 'integer',
  int32: 'integer',
  uint8: 'integer',
  uint16: 'integer',
  uint32: 'long',
  int64: 'long',
  uint64: 'long',
  bool: 'boolean',
  string: 'string',
};

/** Throws INVALID_PARAMETER when the model is not tabular or the side-car does not fit it. */
export function planSchema(
  inputInfos: readonly TensorInfo[],
  outputInfos: readonly TensorInfo[],
  sidecar: Sidecar | undefined,
): Schema {
  const inputs = planInputs(inputInfos, sidecar?.inputs?.length);
  const { features, places } = placeFeatures(inputs, sidecar?.inputs);
  const firstSizes = new Set(inputInfos.map(({ shape }) => shape[0] ?? -1).filter((size) => size >= 0));
  if (firstSizes.size > 1)
    throw unfit(`its inputs have different numbers of rows (${[...firstSizes].join(', ')})`);
  const [fixedRows = null] = firstSizes;
  return { features, places, inputs, outputs: planOutputs(outputInfos, sidecar), fixedRows };
}

function planInputs(infos: readonly TensorInfo[], columnCount: number | undefined): InputPlan[] {
  if (infos.length === 0) throw unfit('it has no inputs');
  return infos.map((info): InputPlan => {
    const { name, type, shape } = info;
    if (type === null) {
      throw unfit(`its input "${name}" is not a tensor of numbers, booleans or strings`);
    }
    if (shape.length === 0)
      throw unfit(`its input "${name}" has no dimension for rows; export it as [N] or [N, k]`);
    const rowDims = shape.slice(1);
    const unknown = rowDims.filter((size) => size < 0).length;
    if (unknown === 0) return { name, type, rowDims, width: product(rowDims) };
    // The graph leaves the number of features open ([N, None]): the side-car's columns say it.
    if (unknown > 1 || infos.length > 1 || columnCount === undefined) {
      throw unfit(
        `its input "${name}" has the shape [${shape.map((size) => (size < 0 ? 'N' : size)).join(', ')}], which does not say how ` +
          'many features it takes; put a signature.json with `inputs` ([{"name": "...", "type": "double"}, ...]) beside the file',
      );
    }
    const open = columnCount / product(rowDims.filter((size) => size >= 0));
    if (!Number.isInteger(open)) throw unfit(`${columnCount} columns do not fill its input "${name}"`);
    return { name, type, width: columnCount, rowDims: rowDims.map((size) => (size < 0 ? open : size)) };
  });
}

/** Columns named like a tensor of one feature go there; the others fill the remaining places in order. */
function placeFeatures(
  inputs: readonly InputPlan[],
  columns: readonly SignatureColumn[] | undefined,
): { features: SignatureColumn[]; places: Place[] } {
  const open = inputs.flatMap(({ width }, input) =>
    Array.from({ length: width }, (_, offset): Place => ({ input, offset })),
  );
  if (columns === undefined) {
    const features = open.map(({ input, offset }): SignatureColumn => {
      const plan = inputs[input];
      if (plan === undefined) throw new ServingError('INTERNAL', 'A feature has no input.');
      const name = plan.width === 1 ? plan.name : `${plan.name}_${offset}`;
      return { name, type: COLUMN_TYPE[plan.type], required: true };
    });
    return { features, places: open };
  }
  if (columns.length !== open.length) {
    throw unfit(
      `it takes ${open.length} features (${inputs.map(({ name, width }) => `${name}: ${width}`).join(', ')}), but its signature ` +
        `names ${columns.length} (${columns.map(({ name }) => name).join(', ')})`,
    );
  }
  const taken = new Map<number, Place>();
  for (const [index, { name }] of columns.entries()) {
    const input = indexOfName(inputs, name);
    if (inputs[input]?.width !== 1) continue;
    const [place] = open.splice(
      open.findIndex((candidate) => candidate.input === input),
      1,
    );
    if (place !== undefined) taken.set(index, place);
  }
  const places = columns.map((_, index): Place => {
    const place = taken.get(index) ?? open.shift();
    if (place === undefined) throw unfit('its signature names an input twice');
    return place;
  });
  return { features: [...columns], places };
}

function planOutputs(infos: readonly TensorInfo[], sidecar: Sidecar | undefined): OutputPlan[] {
  const labels = sidecar?.labels;
  const picked = pickOutputs(infos, sidecar);
  for (const { info } of picked) {
    if (!info.isTensor) {
      throw unfit(
        `its output "${info.name}" is a sequence or map, as scikit-learn classifiers are exported by default; convert the model ` +
          'again with zipmap=False (skl2onnx: options={id(model): {"zipmap": False}}) so that probabilities are a tensor',
      );
    }
    if (info.type === null)
      throw unfit(`its output "${info.name}" is not a tensor of numbers, booleans or strings`);
  }
  const isInteger = (info: TensorInfo) => /^u?int/.test(info.type ?? '') && product(info.shape.slice(1)) <= 1;
  const hasIntegerOutput = picked.some(({ info }) => isInteger(info));
  const outputs = picked.map(({ info, name, declared }): OutputPlan => {
    const isScore = info.type === 'float32' || info.type === 'float64';
    const isLabelled =
      labels !== undefined &&
      (isInteger(info) ||
        (isScore &&
          !hasIntegerOutput &&
          (declared === 'string' || (declared === undefined && picked.length === 1))));
    return { tensor: info.name, type: info.type ?? 'float32', name, labels: isLabelled ? labels : null };
  });
  if (labels !== undefined && !outputs.some((output) => output.labels !== null)) {
    throw unfit(
      `its labels (${labels.join(', ')}) fit no output; they need an integer output or one list of scores`,
    );
  }
  return outputs;
}

interface PickedOutput {
  readonly info: TensorInfo;
  readonly name: string;
  readonly declared: ColumnType | undefined;
}

/** The outputs the signature names; all of them when it names none. */
function pickOutputs(infos: readonly TensorInfo[], sidecar: Sidecar | undefined): PickedOutput[] {
  const all = infos.map((info): PickedOutput => ({ info, name: info.name, declared: undefined }));
  const columns = sidecar?.outputs;
  if (columns === undefined || columns.length === 0) return all;
  const byName = columns.map(({ name }) => infos[indexOfName(infos, name)]);
  const isPositional = byName.every((info) => info === undefined) && columns.length === infos.length;
  const picked = (isPositional ? infos : byName).map((info, index): PickedOutput | undefined => {
    const column = columns[index];
    return info && column && { info, name: column.name, declared: column.type };
  });
  if (picked.every((output) => output !== undefined)) return picked;
  if (sidecar?.isStrict === false) return all;
  throw unfit(
    `its outputs are ${infos.map(({ name }) => name).join(', ')}, but its signature names ${columns.map(({ name }) => name).join(', ')}`,
  );
}

/** `widths` are the values a row of each output, as seen when the model ran once. */
export function toSignature(schema: Schema, widths: readonly number[]): Signature {
  const outputs = schema.outputs.map(({ name, type, labels }, index): SignatureColumn => {
    const width = widths[index] ?? 1;
    const isList = width > 1 && labels === null;
    return {
      name,
      type: labels ? 'string' : COLUMN_TYPE[type],
      required: true,
      ...(isList ? { width } : {}),
    };
  });
  return { inputs: schema.features, outputs };
}

/** Index of a name as SQL compares names: exactly, else without regard to case; -1 when absent. */
export function indexOfName(items: readonly { readonly name: string | null }[], name: string): number {
  const exact = items.findIndex((item) => item.name === name);
  if (exact >= 0) return exact;
  const folded = name.toLowerCase();
  return items.findIndex((item) => item.name?.toLowerCase() === folded);
}

export function product(sizes: readonly number[]): number {
  return sizes.reduce((total, size) => total * size, 1);
}

function unfit(reason: string): ServingError {
  return new ServingError('INVALID_PARAMETER', `The ONNX model cannot be used for predict: ${reason}.`);
}
