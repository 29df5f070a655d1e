// The plan of a tabular model: which feature goes into which place of which input, which outputs are predictions and
// how they are read. No values here. Inputs are planned in input-plan.ts, outputs in output-plan.ts.
import type { Signature, SignatureColumn, SignatureParam } from '#core/endpoint.ts';
import { type InputPlan, placeFeatures, planInputs, type Slot } from './input-plan.ts';
import { type OutputPlan, planOutputs } from './output-plan.ts';
import { COLUMN_TYPE, product, unfit } from './schema-words.ts';
import type { TensorInfo } from './session.ts';
import type { Sidecar } from './tabular-file.ts';

export interface Schema {
  readonly features: readonly SignatureColumn[];
  /** One for each feature, in the same order. */
  readonly slots: readonly Slot[];
  readonly inputs: readonly InputPlan[];
  readonly outputs: readonly OutputPlan[];
  readonly params?: readonly SignatureParam[];
  /** Rows of one run where the model was exported with a fixed batch; null for any number. */
  readonly fixedRows: number | null;
}

/** Half a gigabyte as doubles. A hostile file may ask for any number, and the first run allocates them. */
const MOST_VALUES = 64 * 1024 * 1024;

/** Throws INVALID_PARAMETER when the model is not tabular or the side-car does not fit it. */
export function planSchema(
  inputInfos: readonly TensorInfo[],
  outputInfos: readonly TensorInfo[],
  sidecar: Sidecar | undefined,
): Schema {
  const inputs = planInputs(inputInfos, sidecar?.inputs);
  const firstSizes = new Set(inputInfos.map(({ shape }) => shape[0] ?? -1).filter((size) => size >= 0));
  if (firstSizes.size > 1)
    throw unfit(`its inputs have different numbers of rows (${[...firstSizes].join(', ')})`);
  const [fixedRows = null] = firstSizes;
  if (fixedRows === 0) throw unfit('its inputs have no rows (their first dimension is 0)');
  const values = (fixedRows ?? 1) * inputs.reduce((sum, { width }) => sum + (width ?? 1), 0);
  if (values > MOST_VALUES)
    throw unfit(`it takes ${values} values in one run, and ${MOST_VALUES} are the most that is served`);
  const { features, slots } = placeFeatures(inputs, sidecar?.inputs);
  const isOpen = inputs.some(({ rowDims }) => rowDims.some((size) => size < 0));
  return {
    features,
    slots,
    inputs,
    outputs: planOutputs(outputInfos, sidecar, isOpen),
    ...(sidecar?.params === undefined ? {} : { params: sidecar.params }),
    fixedRows,
  };
}

/** `rowDims` are the dimensions of a row of each output, as seen when the model ran once. */
export function toSignature(schema: Schema, rowDims: readonly (readonly number[])[]): Signature {
  const outputs = schema.outputs.map((plan, index): SignatureColumn => {
    const { name, type, labels, keys } = plan;
    const common = { name, required: true };
    if (keys !== null)
      return { ...common, type: 'json', spec: { type: 'map', values: { type: COLUMN_TYPE[type] } } };
    if (labels !== null) return { ...common, type: 'string' };
    const dims = plan.isOpen ? (plan.openDims ?? [-1]) : (rowDims[index] ?? []);
    if (!plan.isOpen && product(dims) <= 1) return { ...common, type: COLUMN_TYPE[type] };
    const [width = -1] = dims;
    return dims.length === 1 && width >= 0
      ? { ...common, type: COLUMN_TYPE[type], width }
      : { ...common, type: COLUMN_TYPE[type], shape: dims };
  });
  return {
    inputs: schema.features,
    outputs,
    ...(schema.params === undefined ? {} : { params: schema.params }),
  };
}
