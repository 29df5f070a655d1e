// Small ONNX models for the tests of the tabular runner, written with onnx-proto into a folder of the test.
import { writeFile } from 'node:fs/promises';
import onnxProto from 'onnx-proto';

const { onnx } = onnxProto;
const { DataType } = onnx.TensorProto;
const { AttributeType } = onnx.AttributeProto;
type ValueInfo = onnxProto.onnx.IValueInfoProto;
type NodeInfo = onnxProto.onnx.INodeProto;
type TensorInit = onnxProto.onnx.ITensorProto;

const TYPES = {
  float: DataType.FLOAT,
  double: DataType.DOUBLE,
  float16: DataType.FLOAT16,
  bfloat16: DataType.BFLOAT16,
  int8: DataType.INT8,
  int16: DataType.INT16,
  int32: DataType.INT32,
  int64: DataType.INT64,
  uint8: DataType.UINT8,
  uint16: DataType.UINT16,
  uint32: DataType.UINT32,
  uint64: DataType.UINT64,
  bool: DataType.BOOL,
  string: DataType.STRING,
};

/** A tensor of a graph; a text is a dimension known when it runs. */
export function tensor(
  name: string,
  type: keyof typeof TYPES,
  shape: readonly (string | number)[],
): ValueInfo {
  const dim = shape.map((size) => (typeof size === 'string' ? { dimParam: size } : { dimValue: size }));
  return { name, type: { tensorType: { elemType: TYPES[type], shape: { dim } } } };
}

export function node(
  opType: string,
  input: string[],
  output: string[],
  attributes: Readonly<Record<string, number | string | readonly number[] | readonly string[]>> = {},
  domain = '',
): NodeInfo {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const attribute = Object.entries(attributes).map(([name, value]) => {
    if (typeof value === 'number') return { name, type: AttributeType.INT, i: value };
    if (typeof value === 'string') return { name, type: AttributeType.STRING, s: bytes(value) };
    if (value.every((item) => typeof item === 'string')) {
      return { name, type: AttributeType.STRINGS, strings: value.map((item) => bytes(item)) };
    }
    const numbers = value.map(Number);
    return name.endsWith('_int64s') || name === 'axes'
      ? { name, type: AttributeType.INTS, ints: numbers }
      : { name, type: AttributeType.FLOATS, floats: numbers };
  });
  return { opType, input, output, attribute, domain };
}

export function floats(name: string, dims: number[], values: number[]): TensorInit {
  return { name, dims, dataType: DataType.FLOAT, floatData: values };
}

export async function writeModel(
  path: string,
  graph: {
    readonly inputs: ValueInfo[];
    readonly outputs: ValueInfo[];
    readonly nodes: NodeInfo[];
    readonly weights?: TensorInit[];
  },
): Promise<string> {
  const model = onnx.ModelProto.create({
    irVersion: 8,
    opsetImport: [
      { domain: '', version: 17 },
      { domain: 'ai.onnx.ml', version: 1 },
    ],
    graph: {
      name: 'test',
      input: graph.inputs,
      output: graph.outputs,
      node: graph.nodes,
      initializer: graph.weights ?? [],
    },
  });
  await writeFile(path, onnx.ModelProto.encode(model).finish());
  return path;
}

/** Scores = features x identity: what goes in comes out, so a test can see the order of features. */
export function writeScores(
  path: string,
  rows: string | number = 'N',
  width: string | number = 3,
): Promise<string> {
  return writeModel(path, {
    inputs: [tensor('features', 'float', [rows, width])],
    outputs: [tensor('scores', 'float', [rows, 3])],
    nodes: [node('MatMul', ['features', 'identity'], ['scores'])],
    weights: [floats('identity', [3, 3], [1, 0, 0, 0, 1, 0, 0, 0, 1])],
  });
}

/** Many inputs of all kinds; each comes out again. */
export function writeMixed(path: string): Promise<string> {
  return writeModel(path, {
    inputs: [
      tensor('amount', 'float', ['N', 1]),
      tensor('count', 'int64', ['N']),
      tensor('city', 'string', ['N', 1]),
      tensor('is_new', 'bool', ['N']),
      tensor('weight', 'double', ['N', 1]),
    ],
    outputs: [
      tensor('amount_out', 'float', ['N', 1]),
      tensor('count_out', 'int64', ['N']),
      tensor('city_out', 'string', ['N', 1]),
      tensor('is_new_out', 'bool', ['N']),
      tensor('weight_out', 'double', ['N', 1]),
    ],
    nodes: ['amount', 'count', 'city', 'is_new', 'weight'].map((name) =>
      node('Identity', [name], [`${name}_out`]),
    ),
  });
}

/** What goes in comes out: one tensor of any type and shape, through Identity. */
export function writeIdentity(
  path: string,
  type: keyof typeof TYPES,
  shape: readonly (string | number)[],
): Promise<string> {
  return writeModel(path, {
    inputs: [tensor('x', type, shape)],
    outputs: [tensor('y', type, shape)],
    nodes: [node('Identity', ['x'], ['y'])],
  });
}

/** A sequence of maps from label to float, as ZipMap gives it. */
export function maps(name: string, keyType: 'int64' | 'string' = 'int64'): ValueInfo {
  const valueType = { tensorType: { elemType: DataType.FLOAT, shape: { dim: [] } } };
  const mapType = { keyType: TYPES[keyType], valueType };
  return { name, type: { sequenceType: { elemType: { mapType } } } };
}

/** Weights that lie in another file, as `location` says. */
export function external(name: string, dims: number[], location: string): TensorInit {
  return {
    name,
    dims,
    dataType: DataType.FLOAT,
    dataLocation: onnx.TensorProto.DataLocation.EXTERNAL,
    externalData: [{ key: 'location', value: location }],
  };
}

/** As scikit-learn exports a classifier: an int64 label and probabilities, as a tensor or as a list of maps. */
export function writeClassifier(path: string, options: { readonly isZipMap: boolean }): Promise<string> {
  const classifier = node(
    'LinearClassifier',
    ['float_input'],
    ['label', options.isZipMap ? 'raw' : 'probabilities'],
    {
      coefficients: [1, -1, -1, 1],
      intercepts: [0, 0],
      classlabels_ints: '',
      post_transform: 'SOFTMAX',
    },
    'ai.onnx.ml',
  );
  classifier.attribute = (classifier.attribute ?? []).filter(({ name }) => name !== 'classlabels_ints');
  classifier.attribute.push({ name: 'classlabels_ints', type: AttributeType.INTS, ints: [0, 1] });
  return writeModel(path, {
    inputs: [tensor('float_input', 'float', ['N', 2])],
    outputs: [
      tensor('label', 'int64', ['N']),
      options.isZipMap ? maps('output_probability') : tensor('probabilities', 'float', ['N', 2]),
    ],
    nodes: options.isZipMap
      ? [
          classifier,
          node('ZipMap', ['raw'], ['output_probability'], { classlabels_int64s: [0, 1] }, 'ai.onnx.ml'),
        ]
      : [classifier],
  });
}
