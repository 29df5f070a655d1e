// Words of the tabular runner for an open ONNX model: its tensors, and what goes in and comes out of a run. Nothing
// of features, signatures or labels of side-cars.
import type { ServingError } from '#core/errors.ts';

/** Element types of ONNX tensors that features and predictions can have. Data of `float16` are numbers here. */
export type ElementType =
  | 'float16'
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
  /** The model gives a map for each row, from these labels to the numbers of the tensor. */
  readonly keys?: readonly string[];
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
export interface Result {
  readonly data: TensorData;
  readonly dims: readonly number[];
}
/** Of the asked outputs, in the order they were asked for. */
export type Results = readonly Result[];

export interface ModelFacts {
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** Types of operators, those of subgraphs included. */
  readonly operators: ReadonlySet<string>;
  /** Of the .onnx file. */
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Weights lie in files beside it, so that the hash alone does not say which model it is. */
  readonly hasExternalFiles: boolean;
}

export interface TabularSession extends ModelFacts {
  /** The model runs on a thread of its own: `run` does not hold up this one. */
  readonly isBackground: boolean;
  run(feeds: readonly Feed[], outputNames: readonly string[]): Promise<Results>;
  /** Waits for the answer. Absent when the installed onnxruntime-node has no synchronous session. */
  readonly runNow?: (feeds: readonly Feed[], outputNames: readonly string[]) => Results;
  /** Resolves when its thread has ended by itself; it answers no more then. */
  readonly lost?: Promise<ServingError>;
  close(): Promise<void>;
}
