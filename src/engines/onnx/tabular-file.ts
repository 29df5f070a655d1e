// What stands in and beside a tabular .onnx file: its hash, its operators, and a signature from signature.json
// or MLflow's MLmodel. Reads files only; what the signature means for the tensors is tabular-schema's business.
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { ColumnType, SignatureColumn } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { isJsonObject, type Json } from '#core/json.ts';

/** A signature as its author wrote it; either side may be left to the model's own metadata. */
export interface Sidecar {
  readonly inputs?: readonly SignatureColumn[];
  readonly outputs?: readonly SignatureColumn[];
  /** Class names by index, for an integer or score output. */
  readonly labels?: readonly string[];
  /** False: output names that do not fit are ignored (MLmodel names outputs after the framework, not the graph). */
  readonly isStrict: boolean;
}

export interface ModelFile {
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Operator types of the top-level graph; empty when the file could not be walked. */
  readonly operators: ReadonlySet<string>;
}

const COLUMN_TYPES: readonly ColumnType[] = ['boolean', 'integer', 'long', 'float', 'double', 'string'];

/** Throws MODEL_NOT_AVAILABLE when the file cannot be read. */
export async function readModelFile(path: string): Promise<ModelFile> {
  const bytes = await readFile(path).catch((cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The model file "${path}" cannot be read (${reason}). Register the model again with the path of its .onnx file.`,
      { cause },
    );
  });
  return { sha256: sha256Hex(bytes), sizeBytes: bytes.length, operators: operatorsOf(bytes) };
}

/** The side-car of a model, or undefined when there is none. Throws INVALID_PARAMETER when it cannot be understood. */
export async function readSidecar(path: string): Promise<Sidecar | undefined> {
  const folder = dirname(path);
  const json = await readText(join(folder, 'signature.json'));
  if (json !== undefined) return parseSignatureJson(json, join(folder, 'signature.json'));
  const mlmodel = await readText(join(folder, 'MLmodel'));
  return mlmodel === undefined ? undefined : parseMlmodel(mlmodel, join(folder, 'MLmodel'));
}

async function readText(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').catch((cause: unknown) => {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return undefined;
    throw invalid(path, cause instanceof Error ? cause.message : String(cause));
  });
}

function parseSignatureJson(text: string, path: string): Sidecar {
  const value = parseJson(text, path);
  if (!isJsonObject(value)) throw invalid(path, 'it is not a JSON object');
  const { labels } = value;
  if (labels !== undefined && !isStringList(labels)) throw invalid(path, '`labels` is not a list of strings');
  return {
    ...columnsMember('inputs', value.inputs, path),
    ...columnsMember('outputs', value.outputs, path),
    ...(labels === undefined ? {} : { labels }),
    isStrict: true,
  };
}

/** `inputs` and `outputs` are JSON texts inside the YAML, folded over several lines by MLflow's writer. */
function parseMlmodel(text: string, path: string): Sidecar {
  const lines = text.split(/\r?\n/);
  const start = lines.findIndex((line) => /^signature:\s*$/.test(line));
  const texts: Record<string, string> = {};
  let key = '';
  for (const line of start < 0 ? [] : lines.slice(start + 1)) {
    if (/^\S/.test(line)) break;
    const member = /^ {2}(\w+):\s*(.*)$/.exec(line);
    if (member) texts[(key = member[1] ?? '')] = member[2] ?? '';
    else if (key !== '') texts[key] = `${texts[key]} ${line.trim()}`;
  }
  const member = (name: 'inputs' | 'outputs') => {
    const scalar = texts[name];
    if (scalar === undefined || scalar === 'null') return {};
    return columnsMember(name, unquote(scalar, path), path);
  };
  return { ...member('inputs'), ...member('outputs'), isStrict: false };
}

function unquote(scalar: string, path: string): string {
  if (scalar.startsWith("'")) return scalar.slice(1, -1).replaceAll("''", "'");
  // A double-quoted YAML scalar is a JSON string once its line breaks are folded (a trailing \ joins two lines).
  if (scalar.startsWith('"')) return String(parseJson(scalar.replaceAll(/\\ +(?:\\(?= ))?/g, ''), path));
  return scalar;
}

/** Column lists only: tensor signatures repeat the model's own metadata and are left to it. */
function columnsMember(name: 'inputs' | 'outputs', value: Json | undefined, path: string): Partial<Sidecar> {
  if (value === undefined || value === null) return {};
  const list = typeof value === 'string' ? parseJson(value, path) : value;
  if (!Array.isArray(list)) throw invalid(path, `\`${name}\` is not a list of columns`);
  if (list.some((column) => isJsonObject(column) && column.type === 'tensor')) return {};
  const columns = list.map((column: Json, index): SignatureColumn => {
    if (!isJsonObject(column)) throw invalid(path, `entry ${index} of \`${name}\` is not an object`);
    const type = COLUMN_TYPES.find((known) => known === column.type);
    if (typeof column.name !== 'string' || type === undefined) {
      throw invalid(
        path,
        `entry ${index} of \`${name}\` is ${JSON.stringify(column)}; it needs a \`name\` and a \`type\` out of ${COLUMN_TYPES.join(', ')}`,
      );
    }
    return { name: column.name, type, required: column.required !== false };
  });
  return { [name]: columns };
}

function parseJson(text: string, path: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch (cause) {
    throw invalid(path, cause instanceof Error ? cause.message : String(cause));
  }
}

function isStringList(value: Json): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function invalid(path: string, reason: string): ServingError {
  return new ServingError(
    'INVALID_PARAMETER',
    `The signature in "${basename(path)}" beside the model cannot be used: ${reason}.`,
  );
}

/** Walks the protobuf: ModelProto.graph = 7, GraphProto.node = 1, NodeProto.op_type = 4. */
function operatorsOf(bytes: Uint8Array): ReadonlySet<string> {
  const found = new Set<string>();
  try {
    for (const graph of fieldsOf(bytes, 7)) {
      for (const node of fieldsOf(graph, 1)) {
        for (const name of fieldsOf(node, 4)) found.add(Buffer.from(name).toString('latin1'));
      }
    }
  } catch {
    found.clear();
  }
  return found;
}

/** The length-delimited values of one field number in a protobuf message. */
function* fieldsOf(message: Uint8Array, wanted: number): Generator<Uint8Array> {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[at++];
      if (byte === undefined) throw new RangeError('cut off');
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    const wireType = tag % 8;
    if (wireType === 0) varint();
    else if (wireType === 1) at += 8;
    else if (wireType === 5) at += 4;
    else if (wireType === 2) {
      const end = varint() + at;
      if (end > message.length) throw new RangeError('cut off');
      if (Math.floor(tag / 8) === wanted) yield message.subarray(at, end);
      at = end;
    } else throw new RangeError('not protobuf');
  }
}
