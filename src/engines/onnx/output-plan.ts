// Which outputs of a model are its predictions, under which names, and how they are read.
import type { ColumnType } from '#core/endpoint.ts';
import { isFloat } from './elements.ts';
import { indexOfName, product, unfit } from './schema-words.ts';
import type { ElementType, TensorInfo } from './session.ts';
import type { Sidecar } from './tabular-file.ts';

export interface OutputPlan {
  /** Name of the tensor. */
  readonly tensor: string;
  readonly type: ElementType;
  /** As users see it. */
  readonly name: string;
  /** Class names: by value of an integer output, by position of the largest score of a float output. */
  readonly labels: readonly string[] | null;
  /** The prediction is a map from these to the numbers of a row. */
  readonly keys: readonly string[] | null;
  /** The size of a row follows that of the features, so one value in a list stays a list. */
  readonly isOpen: boolean;
  /** Of an open output, where the model says at least how many dimensions there are. */
  readonly openDims: readonly number[] | null;
}

interface PickedOutput {
  readonly info: TensorInfo;
  readonly name: string;
  readonly declared: ColumnType | undefined;
}

export function planOutputs(
  infos: readonly TensorInfo[],
  sidecar: Sidecar | undefined,
  hasOpenInputs: boolean,
): OutputPlan[] {
  const labels = sidecar?.labels;
  const picked = pickOutputs(infos, sidecar);
  for (const { info } of picked) {
    if (!info.isTensor) {
      throw unfit(
        `its output "${info.name}" is a sequence or map that no ZipMap makes; convert the model again so that it is a tensor, ` +
          'or name the outputs that are wanted in `outputs` of a signature.json beside the file',
      );
    }
    if (info.type === null)
      throw unfit(`its output "${info.name}" is not a tensor of numbers, booleans or strings`);
  }
  const hasKeys = ({ keys }: TensorInfo) => keys !== undefined;
  const isInteger = (info: TensorInfo) => /^u?int/.test(info.type ?? '') && product(info.shape.slice(1)) <= 1;
  const hasIntegerOutput = picked.some(({ info }) => isInteger(info));
  const outputs = picked.map(({ info, name, declared }): OutputPlan => {
    const isScore = info.type !== null && isFloat(info.type) && !hasKeys(info);
    const isLabelled =
      labels !== undefined &&
      (isInteger(info) ||
        (isScore &&
          !hasIntegerOutput &&
          (declared === 'string' || (declared === undefined && picked.length === 1))));
    const rowDims = info.shape.slice(1);
    const isOpen = hasOpenInputs && !isLabelled && !hasKeys(info) && rowDims.some((size) => size < 0);
    return {
      tensor: info.name,
      type: info.type ?? 'float32',
      name,
      labels: isLabelled ? labels : null,
      keys: info.keys ?? null,
      isOpen,
      openDims: isOpen ? rowDims : null,
    };
  });
  if (labels !== undefined && !outputs.some((output) => output.labels !== null)) {
    throw unfit(
      `its labels (${labels.join(', ')}) fit no output; they need an integer output or one list of scores`,
    );
  }
  return outputs;
}

/** The outputs the signature names; all of them when it names none. */
function pickOutputs(infos: readonly TensorInfo[], sidecar: Sidecar | undefined): PickedOutput[] {
  if (infos.length === 0) throw unfit('it has no outputs');
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
