// Writes an ONNX model anew where the runtime cannot read its border: maps of label to number become the tensor they
// are made of, and bfloat16, which JavaScript has no array for, is cast from and to float32. The rest stays as it is.
import { BFLOAT16, GRAPH, type Graph, MODEL } from './graph.ts';
import { bytesField, fieldsOf, stringField, textField, varintField } from './protobuf.ts';

export interface Border {
  /** Absent: the model can be read as it is. */
  readonly bytes?: Uint8Array;
  /** What tensors are called now where that differs, by the name that the model gave them. */
  readonly names: ReadonlyMap<string, string>;
}

const FLOAT = 1;

export function adaptBorder(bytes: Uint8Array, graph: Graph): Border {
  const names = new Map<string, string>();
  for (const { name, elementType } of [...graph.inputs, ...graph.outputs])
    if (elementType === BFLOAT16) names.set(name, `${name}/as_float32`);
  for (const [name, { tensor }] of graph.labelled) names.set(name, names.get(tensor) ?? tensor);
  if (names.size === 0) return { names };
  const parts: Uint8Array[] = [];
  for (const { number, bytes: value, raw } of fieldsOf(bytes))
    parts.push(number === MODEL.graph ? bytesField(MODEL.graph, ...adaptGraph(value, graph, names)) : raw);
  return { bytes: Buffer.concat(parts), names };
}

/** Nodes stay in an order in which each comes after what it needs. */
function adaptGraph(message: Uint8Array, graph: Graph, names: ReadonlyMap<string, string>): Uint8Array[] {
  const unneeded = new Set([...graph.labelled.values()].flatMap(({ nodes }) => [...nodes]));
  // What maps are made of may be an output already, and none may stand twice.
  const given = new Set(
    graph.outputs.filter(({ name }) => !graph.labelled.has(name)).map(({ name }) => name),
  );
  const before: Uint8Array[] = [];
  const nodes: Uint8Array[] = [];
  const after: Uint8Array[] = [];
  const rest: Uint8Array[] = [];
  let index = 0;
  for (const { number, bytes, raw } of fieldsOf(message)) {
    if (number === GRAPH.node) {
      if (!unneeded.has(index)) nodes.push(raw);
      index++;
      continue;
    }
    const name = number === GRAPH.input || number === GRAPH.output ? (textField(bytes, 1) ?? '') : '';
    const renamed = names.get(name);
    const labelled = number === GRAPH.output ? graph.labelled.get(name) : undefined;
    if (renamed === undefined) rest.push(raw);
    else if (labelled !== undefined) {
      if (!given.has(labelled.tensor)) rest.push(floatOutput(renamed));
      given.add(labelled.tensor);
    } else {
      rest.push(bytesField(number, ...asFloat(bytes, renamed)));
      if (number === GRAPH.input) before.push(castNode(renamed, name, BFLOAT16));
      else after.push(castNode(name, renamed, FLOAT));
    }
  }
  return [...before, ...nodes, ...after, ...rest];
}

/** ValueInfoProto with another name and elements of float32; its shape stays. */
function asFloat(info: Uint8Array, name: string): Uint8Array[] {
  const parts = [stringField(1, name)];
  for (const { number, bytes, raw } of fieldsOf(info)) {
    if (number === 1) continue;
    parts.push(number === 2 ? bytesField(2, ...floatType(bytes)) : raw);
  }
  return parts;
}

function floatType(type: Uint8Array): Uint8Array[] {
  return [...fieldsOf(type)].map(({ number, bytes, raw }) => {
    if (number !== 1) return raw;
    const members = [...fieldsOf(bytes)].filter((member) => member.number !== 1).map((member) => member.raw);
    return bytesField(1, varintField(1, FLOAT), ...members);
  });
}

function floatOutput(name: string): Uint8Array {
  const type = bytesField(2, bytesField(1, varintField(1, FLOAT)));
  return bytesField(GRAPH.output, stringField(1, name), type);
}

/** NodeProto: input = 1, output = 2, op_type = 4, attribute = 5; AttributeProto: name = 1, i = 3, type = 20 (2: INT). */
function castNode(from: string, to: string, elementType: number): Uint8Array {
  const attribute = bytesField(5, stringField(1, 'to'), varintField(3, elementType), varintField(20, 2));
  return bytesField(GRAPH.node, stringField(1, from), stringField(2, to), stringField(4, 'Cast'), attribute);
}
