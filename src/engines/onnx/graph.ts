// What the bytes of an ONNX model say of its border: inputs, outputs, operators, labels of ZipMap, files of weights
// beside it. Reads only; graph-border.ts writes the model anew where the runtime cannot read its border.
import { ServingError } from '#core/errors.ts';
import { type Field, fieldsOf, textField, toText } from './protobuf.ts';

export interface ValueInfo {
  readonly name: string;
  /** Number of ONNX's TensorProto.DataType; null: a sequence, map or optional. */
  readonly elementType: number | null;
}

interface GraphNode {
  readonly operator: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  /** Place in the graph. */
  readonly index: number;
}

/** Maps that a graph gives for each row, label to number, and the tensor of numbers they are made of. */
export interface LabelledOutput {
  readonly tensor: string;
  readonly labels: readonly string[];
  /** Nodes that serve the maps only. */
  readonly nodes: ReadonlySet<number>;
}

export interface Graph {
  /** Without those that have a value of their own (initializers). */
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  readonly operators: ReadonlySet<string>;
  /** By name of the graph's output. */
  readonly labelled: ReadonlyMap<string, LabelledOutput>;
  /** Where weights outside the file are, as the model names them. */
  readonly externalFiles: readonly string[];
}

export const BFLOAT16 = 16;
const DEEPEST = 64;

// Numbers of fields in onnx.proto3.
export const MODEL = { graph: 7, functions: 25 } as const;
export const GRAPH = { node: 1, initializer: 5, input: 11, output: 12, sparse: 15 } as const;
const NODE = { input: 1, output: 2, operator: 4, attribute: 5 } as const;
const ATTRIBUTE = { tensor: 5, graph: 6, ints: 8, strings: 9, tensors: 10, graphs: 11 } as const;
const SPARSE_ATTRIBUTE = { one: 22, many: 23 } as const;

/** Throws MODEL_NOT_AVAILABLE where the bytes are no whole ONNX model. */
export function readGraph(bytes: Uint8Array, path: string): Graph {
  try {
    return readModel(bytes);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const reason = isPointer(bytes)
      ? 'it is the pointer of Git LFS, not the file itself; fetch it with: git lfs pull'
      : bytes.length === 0
        ? 'it is empty'
        : cause.message;
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `"${path}" is not a whole ONNX model: ${reason}. Export or copy it again.`,
      { cause },
    );
  }
}

function isPointer(bytes: Uint8Array): boolean {
  return toText(bytes.subarray(0, 40)).startsWith('version https://git-lfs');
}

function readModel(bytes: Uint8Array): Graph {
  const external = new Set<string>();
  const operators = new Set<string>();
  const inner: Inner = { operators, external };
  let graph: Uint8Array | undefined;
  for (const { number, bytes: value } of fieldsOf(bytes)) {
    if (number === MODEL.graph) graph = value;
    if (number === MODEL.functions)
      for (const field of fieldsOf(value)) if (field.number === 7) readNode(field.bytes, 0, inner, 1);
  }
  if (graph === undefined) throw new RangeError('it has no graph');
  const inputs: ValueInfo[] = [];
  const outputs: ValueInfo[] = [];
  const nodes: GraphNode[] = [];
  const zipMaps = new Map<number, readonly string[]>();
  const initialized = new Set<string>();
  for (const { number, bytes: value } of fieldsOf(graph)) {
    if (number === GRAPH.node) {
      const node = readNode(value, nodes.length, inner, 0);
      nodes.push(node);
      if (node.operator === 'ZipMap') zipMaps.set(node.index, readLabels(value));
    } else if (number === GRAPH.initializer) initialized.add(readTensor(value, external));
    else if (number === GRAPH.sparse) initialized.add(readSparse(value, external));
    else if (number === GRAPH.input) inputs.push(readValueInfo(value));
    else if (number === GRAPH.output) outputs.push(readValueInfo(value));
  }
  return {
    inputs: inputs.filter(({ name }) => !initialized.has(name)),
    outputs,
    operators,
    labelled: labelledOutputs(outputs, nodes, zipMaps),
    externalFiles: [...external],
  };
}

/** What is found in subgraphs and functions too. */
interface Inner {
  readonly operators: Set<string>;
  readonly external: Set<string>;
}

function readNode(message: Uint8Array, index: number, inner: Inner, depth: number): GraphNode {
  const inputs: string[] = [];
  const outputs: string[] = [];
  let operator = '';
  for (const { number, bytes } of fieldsOf(message)) {
    if (number === NODE.input) inputs.push(toText(bytes));
    else if (number === NODE.output) outputs.push(toText(bytes));
    else if (number === NODE.operator) operator = toText(bytes);
    else if (number === NODE.attribute) readAttribute(bytes, inner, depth);
  }
  inner.operators.add(operator);
  return { operator, inputs, outputs, index };
}

function readAttribute(message: Uint8Array, inner: Inner, depth: number): void {
  for (const { number, bytes } of fieldsOf(message)) {
    if (number === ATTRIBUTE.tensor || number === ATTRIBUTE.tensors) readTensor(bytes, inner.external);
    else if (number === ATTRIBUTE.graph || number === ATTRIBUTE.graphs) readSubgraph(bytes, inner, depth + 1);
    else if (number === SPARSE_ATTRIBUTE.one || number === SPARSE_ATTRIBUTE.many)
      readSparse(bytes, inner.external);
  }
}

function readSubgraph(message: Uint8Array, inner: Inner, depth: number): void {
  if (depth > DEEPEST) throw new RangeError(`graphs in it are nested more than ${DEEPEST} deep`);
  for (const { number, bytes } of fieldsOf(message)) {
    if (number === GRAPH.node) readNode(bytes, 0, inner, depth);
    else if (number === GRAPH.initializer) readTensor(bytes, inner.external);
    else if (number === GRAPH.sparse) readSparse(bytes, inner.external);
  }
}

/** Gives the name. TensorProto: name = 8, external_data = 13 (key = 1, value = 2). */
function readTensor(message: Uint8Array, external: Set<string>): string {
  let name = '';
  for (const { number, bytes } of fieldsOf(message)) {
    if (number === 8) name = toText(bytes);
    if (number === 13 && textField(bytes, 1) === 'location') external.add(textField(bytes, 2) ?? '');
  }
  return name;
}

/** SparseTensorProto: values = 1, indices = 2; the values carry the name. */
function readSparse(message: Uint8Array, external: Set<string>): string {
  let name = '';
  for (const { number, bytes } of fieldsOf(message)) {
    if (number === 1) name = readTensor(bytes, external);
    if (number === 2) readTensor(bytes, external);
  }
  return name;
}

/** ValueInfoProto: name = 1, type = 2; TypeProto: tensor_type = 1, whose elem_type = 1. */
function readValueInfo(message: Uint8Array): ValueInfo {
  let name = '';
  let elementType: number | null = null;
  for (const { number, bytes } of fieldsOf(message)) {
    if (number === 1) name = toText(bytes);
    if (number !== 2) continue;
    for (const kind of fieldsOf(bytes)) {
      if (kind.number !== 1) continue;
      elementType = 0;
      for (const member of fieldsOf(kind.bytes)) if (member.number === 1) elementType = member.value;
    }
  }
  return { name, elementType };
}

function readLabels(message: Uint8Array): readonly string[] {
  for (const { number, bytes } of fieldsOf(message)) {
    if (number !== NODE.attribute) continue;
    const name = textField(bytes, 1);
    if (name === 'classlabels_strings')
      return [...fieldsOf(bytes)].filter((field) => field.number === ATTRIBUTE.strings).map(textOf);
    if (name === 'classlabels_int64s') return [...fieldsOf(bytes)].flatMap(integersOf).map(String);
  }
  return [];
}

const textOf = ({ bytes }: Field): string => toText(bytes);

/** Repeated int64, one a field or packed; negative ones are 64 bits in two's complement. */
function integersOf({ number, bytes, raw }: Field): bigint[] {
  if (number !== ATTRIBUTE.ints) return [];
  const packed = bytes.length > 0 ? bytes : raw.subarray(1);
  const found: bigint[] = [];
  let number64 = 0n;
  let shift = 0n;
  for (const byte of packed) {
    number64 |= BigInt(byte & 0x7f) << shift;
    shift += 7n;
    if (byte >= 0x80) continue;
    found.push(BigInt.asIntN(64, number64));
    number64 = 0n;
    shift = 0n;
  }
  return found;
}

/** Outputs that a ZipMap makes, directly or through Identity. */
function labelledOutputs(
  outputs: readonly ValueInfo[],
  nodes: readonly GraphNode[],
  zipMaps: ReadonlyMap<number, readonly string[]>,
): ReadonlyMap<string, LabelledOutput> {
  const found = new Map<string, LabelledOutput>();
  if (zipMaps.size === 0) return found;
  const makers = new Map(nodes.flatMap((node) => node.outputs.map((name) => [name, node] as const)));
  for (const { name, elementType } of outputs) {
    if (elementType !== null) continue;
    const chain = new Set<number>();
    let maker = makers.get(name);
    while (maker !== undefined && !chain.has(maker.index)) {
      chain.add(maker.index);
      if (maker.operator !== 'Identity') break;
      maker = makers.get(maker.inputs[0] ?? '');
    }
    const labels = maker && zipMaps.get(maker.index);
    const tensor = maker?.inputs[0];
    if (labels === undefined || labels.length === 0 || tensor === undefined) continue;
    const maps = new Set([...chain].flatMap((index) => nodes[index]?.outputs ?? []));
    const isShared = nodes.some(
      ({ index, inputs }) => !chain.has(index) && inputs.some((input) => maps.has(input)),
    );
    found.set(name, { tensor, labels, nodes: isShared ? new Set() : chain });
  }
  return found;
}
