// An ONNX model loaded on the thread that asks for it. Loading and running block that thread: onnxruntime-node does
// both synchronously, behind its promises too. Which thread that should be is decided in tabular-session.ts.
import { dirname } from 'node:path';
import type { InferenceSession, Tensor } from 'onnxruntime-node';
import type { Binding } from 'onnxruntime-node/dist/binding.js';
import { ServingError } from '#core/errors.ts';
import { adaptBorder, type Border } from './graph-border.ts';
import { fromHalf, toHalf } from './half.ts';
import type { ModelFile } from './model-file.ts';
import type {
  ElementType,
  Feed,
  ModelFacts,
  Results,
  TabularSession,
  TensorData,
  TensorInfo,
} from './session.ts';

type Runtime = typeof import('onnxruntime-node');
type Options = InferenceSession.SessionOptions;
type Info = Omit<TensorInfo, 'keys'>;

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
  'float16',
  'float64',
  'uint32',
  'uint64',
];

/** `threads` are those of one run. Throws MODEL_NOT_AVAILABLE. */
export async function openNativeSession(file: ModelFile, threads: number): Promise<TabularSession> {
  const runtime = await loadRuntime(file.path);
  const options: Options = {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    // What is refused is thrown; the runtime would write it to standard error as well.
    logSeverityLevel: 4,
    extra: {
      session: {
        // DuckDB's own threads want the cores between two chunks, so ours sleep instead of spinning.
        intra_op: { allow_spinning: '0' },
        // A model that was written anew has no path that its other files could be found by.
        model_external_initializers_file_folder_path: dirname(file.path),
      },
    },
  };
  const border = adaptBorder(file.bytes, file.graph);
  const native = await loadNative();
  return native === undefined
    ? openPublic(file, border, runtime, options)
    : openSynchronous(file, border, runtime, native, options);
}

async function loadRuntime(path: string): Promise<Runtime> {
  return import('onnxruntime-node').catch((cause: unknown) => {
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The model "${path}" needs ONNX Runtime, which could not be loaded. Install it with: npm i onnxruntime-node`,
      { cause },
    );
  });
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

function openSynchronous(
  file: ModelFile,
  border: Border,
  runtime: Runtime,
  native: { InferenceSession: Binding.InferenceSessionConstructor },
  options: Options,
): TabularSession {
  const session = new native.InferenceSession();
  try {
    const { bytes } = border;
    if (bytes === undefined) session.loadModel(file.path, options);
    else session.loadModel(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength, options);
  } catch (cause) {
    throw refusedByRuntime(file.path, cause);
  }
  let isOpen = true;
  const runNow = (feeds: readonly Feed[], names: readonly string[]): Results => {
    if (!isOpen)
      throw new ServingError('INTERNAL', `The model "${file.path}" was asked after it was closed.`);
    const fetches = Object.fromEntries(names.map((name) => [border.names.get(name) ?? name, null]));
    return toResults(session.run(toTensors(runtime, border, feeds), fetches, {}), border, names);
  };
  return {
    ...factsOf(
      file,
      border,
      session.inputMetadata.map(toNativeInfo),
      session.outputMetadata.map(toNativeInfo),
    ),
    isBackground: false,
    run: async (feeds, names) => runNow(feeds, names),
    runNow,
    close: async () => {
      if (isOpen) session.dispose();
      isOpen = false;
    },
  };
}

async function openPublic(
  file: ModelFile,
  border: Border,
  runtime: Runtime,
  options: Options,
): Promise<TabularSession> {
  const { bytes } = border;
  const opening =
    bytes === undefined
      ? runtime.InferenceSession.create(file.path, options)
      : runtime.InferenceSession.create(bytes, options);
  const session = await opening.catch((cause: unknown) => {
    throw refusedByRuntime(file.path, cause);
  });
  let released: Promise<void> | undefined;
  return {
    ...factsOf(
      file,
      border,
      session.inputMetadata.map(toPublicInfo),
      session.outputMetadata.map(toPublicInfo),
    ),
    isBackground: false,
    run: async (feeds, names) => {
      const fetches = [...new Set(names.map((name) => border.names.get(name) ?? name))];
      return toResults(await session.run(toTensors(runtime, border, feeds), fetches), border, names);
    },
    close: () => {
      released ??= session.release();
      return released;
    },
  };
}

/** Tensors under the names that the model's author gave them. */
function factsOf(
  { path, bytes, sha256, graph }: ModelFile,
  { names }: Border,
  inputs: readonly Info[],
  outputs: readonly Info[],
): ModelFacts {
  const find = (infos: readonly Info[], name: string): Info => {
    const info = infos.find((candidate) => candidate.name === (names.get(name) ?? name));
    if (info === undefined)
      throw new ServingError('MODEL_NOT_AVAILABLE', `ONNX Runtime finds no tensor "${name}" in "${path}".`);
    return { ...info, name };
  };
  return {
    inputs: graph.inputs.map(({ name }) => find(inputs, name)),
    outputs: graph.outputs.map(({ name }) => {
      const labels = graph.labelled.get(name)?.labels;
      return { ...find(outputs, name), ...(labels === undefined ? {} : { keys: labels }) };
    }),
    operators: graph.operators,
    sha256,
    sizeBytes: bytes.length,
    hasExternalFiles: graph.externalFiles.length > 0,
  };
}

function toNativeInfo({ name, isTensor, type, shape }: Binding.ValueMetadata): Info {
  return { name, isTensor, type: isTensor ? (TYPE_BY_NUMBER[type] ?? null) : null, shape: shape ?? [] };
}

function toPublicInfo(metadata: InferenceSession.ValueMetadata): Info {
  if (!metadata.isTensor) return { name: metadata.name, isTensor: false, type: null, shape: [] };
  const type = TYPE_BY_NUMBER.find((known) => known === metadata.type) ?? null;
  const shape = metadata.shape.map((size) => (typeof size === 'number' ? size : -1));
  return { name: metadata.name, isTensor: true, type, shape };
}

function toTensors(
  runtime: Runtime,
  { names }: Border,
  feeds: readonly Feed[],
): Readonly<Record<string, Tensor>> {
  return Object.fromEntries(
    feeds.map(({ name, type, data, dims }) => {
      const values = type === 'float16' ? toHalf(data as Float32Array) : data;
      return [names.get(name) ?? name, new runtime.Tensor(type, values, dims)];
    }),
  );
}

function toResults(
  values: Readonly<Record<string, unknown>>,
  border: Border,
  names: readonly string[],
): Results {
  return names.map((name) => {
    const value = values[border.names.get(name) ?? name] as Tensor | undefined;
    if (value === undefined) throw new ServingError('INTERNAL', `The model gave no output "${name}".`);
    return { data: dataOf(value), dims: value.dims };
  });
}

/** Where JavaScript has arrays of float16 the runtime gives one; else their bits. */
function dataOf({ type, data }: Tensor): TensorData {
  if (type !== 'float16') return data;
  return data instanceof Uint16Array ? fromHalf(data) : Float32Array.from(data as ArrayLike<number>);
}

function refusedByRuntime(path: string, cause: unknown): ServingError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new ServingError('MODEL_NOT_AVAILABLE', `ONNX Runtime cannot load "${path}": ${reason}`, { cause });
}
