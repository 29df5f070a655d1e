// Opens an ONNX file for the tabular runner: tensor names, types and shapes, and a run that is synchronous
// where the installed runtime allows it. Knows nothing of features, signatures or labels.
import type { Tensor } from 'onnxruntime-node';
import type { Binding } from 'onnxruntime-node/dist/binding.js';
import { ServingError } from '#core/errors.ts';

/** Element types of ONNX tensors that features and predictions can have. */
export type ElementType =
  | 'float32'
  | 'float64'
  | 'int8'
  | 'int16'
  | 'int32'
  | 'int64'
  | 'uint8'
  | 'uint16'
  | 'uint32'
  | 'uint64'
  | 'bool'
  | 'string';

export interface TensorInfo {
  readonly name: string;
  /** Null: not a tensor (a sequence or map), or an element type that rows of features do not have. */
  readonly type: ElementType | null;
  readonly isTensor: boolean;
  /** -1 where the size is only known when the model runs. */
  readonly shape: readonly number[];
}

export type TensorData =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array
  | string[];

export interface Feed {
  readonly name: string;
  readonly type: ElementType;
  readonly data: TensorData;
  readonly dims: readonly number[];
}
/** Data of the asked outputs, in the order they were asked for. */
export type Results = readonly TensorData[];

export interface TabularSession {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  run(feeds: readonly Feed[], outputNames: readonly string[]): Promise<Results>;
  /** Absent when the installed onnxruntime-node has no synchronous session. */
  readonly runNow?: (feeds: readonly Feed[], outputNames: readonly string[]) => Results;
  close(): Promise<void>;
}

// Positions are the numbers of ONNX's TensorProto.DataType.
const TYPE_BY_NUMBER: readonly (ElementType | undefined)[] = [
  undefined,
  'float32',
  'uint8',
  'int8',
  'uint16',
  'int16',
  'int32',
  'int64',
  'string',
  'bool',
  undefined,
  'float64',
  'uint32',
  'uint64',
];

/** Loads a model. `threads` are those of one run. Throws MODEL_NOT_AVAILABLE. */
export async function openTabularSession(path: string, threads: number): Promise<TabularSession> {
  const runtime = await import('onnxruntime-node').catch((cause: unknown) => {
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The model "${path}" needs ONNX Runtime, which could not be loaded. Install it with: npm i onnxruntime-node`,
      { cause },
    );
  });
  const options = {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3 as const,
    // DuckDB's own threads want the cores between two chunks, so ours sleep instead of spinning.
    extra: { session: { intra_op: { allow_spinning: '0' } } },
  };
  const toTensors = (feeds: readonly Feed[]): Record<string, Tensor> =>
    Object.fromEntries(
      feeds.map(({ name, type, data, dims }) => [name, new runtime.Tensor(type, data, dims)]),
    );
  const native = await loadNative();
  if (native === undefined) {
    const session = await runtime.InferenceSession.create(path, options).catch((cause: unknown) => {
      throw unreadable(path, cause);
    });
    let released: Promise<void> | undefined;
    return {
      inputs: session.inputMetadata.map(toTensorInfo),
      outputs: session.outputMetadata.map(toTensorInfo),
      run: async (feeds, names) => toResults(await session.run(toTensors(feeds), [...names]), names),
      close: () => {
        released ??= session.release();
        return released;
      },
    };
  }

  const session = new native.InferenceSession();
  try {
    session.loadModel(path, options);
  } catch (cause) {
    throw unreadable(path, cause);
  }
  let isOpen = true;
  const runNow = (feeds: readonly Feed[], names: readonly string[]): Results => {
    if (!isOpen) throw new ServingError('INTERNAL', `The model "${path}" was asked after it was closed.`);
    const fetches = Object.fromEntries(names.map((name) => [name, null]));
    return toResults(session.run(toTensors(feeds), fetches, {}), names);
  };
  return {
    inputs: session.inputMetadata.map(toNativeInfo),
    outputs: session.outputMetadata.map(toNativeInfo),
    run: async (feeds, names) => runNow(feeds, names),
    runNow,
    close: async () => {
      if (isOpen) session.dispose();
      isOpen = false;
    },
  };
}

/** The synchronous session under onnxruntime-node's public one; undefined where a version keeps it elsewhere. */
async function loadNative(): Promise<{ InferenceSession: Binding.InferenceSessionConstructor } | undefined> {
  try {
    const { binding, initOrt } = await import('onnxruntime-node/dist/binding.js');
    initOrt();
    const { prototype } = binding.InferenceSession;
    const isUsable = typeof prototype.loadModel === 'function' && typeof prototype.run === 'function';
    return isUsable ? binding : undefined;
  } catch {
    return undefined;
  }
}

function toNativeInfo({ name, isTensor, type, shape }: Binding.ValueMetadata): TensorInfo {
  return { name, isTensor, type: isTensor ? (TYPE_BY_NUMBER[type] ?? null) : null, shape: shape ?? [] };
}

type PublicMetadata = import('onnxruntime-node').InferenceSession.ValueMetadata;

function toTensorInfo(metadata: PublicMetadata): TensorInfo {
  if (!metadata.isTensor) return { name: metadata.name, isTensor: false, type: null, shape: [] };
  const type = TYPE_BY_NUMBER.find((known) => known === metadata.type) ?? null;
  const shape = metadata.shape.map((size) => (typeof size === 'number' ? size : -1));
  return { name: metadata.name, isTensor: true, type, shape };
}

function toResults(values: Readonly<Record<string, unknown>>, names: readonly string[]): Results {
  return names.map((name) => {
    const value = values[name] as Tensor | undefined;
    if (value === undefined) throw new ServingError('INTERNAL', `The model gave no output "${name}".`);
    return value.data;
  });
}

function unreadable(path: string, cause: unknown): ServingError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new ServingError('MODEL_NOT_AVAILABLE', `ONNX Runtime cannot load "${path}": ${reason}`, { cause });
}
