// The signature that stands beside a tabular .onnx file: signature.json, or MLflow's MLmodel. Reads files only; what
// it means for the tensors is tabular-schema's business.
import { readFile } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import type { ColumnType, SignatureColumn, SignatureParam } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { readMlModel, toSignature } from '../mlflow/mlmodel.ts';

/** A signature as its author wrote it; either side may be left to the model's own metadata. */
export interface Sidecar {
  readonly inputs?: readonly SignatureColumn[];
  readonly outputs?: readonly SignatureColumn[];
  readonly params?: readonly SignatureParam[];
  /** Class names by index, for an integer or score output. */
  readonly labels?: readonly string[];
  /** False: output names that do not fit are ignored (MLmodel names outputs after the framework, not the graph). */
  readonly isStrict: boolean;
}

const COLUMN_TYPES: readonly ColumnType[] = ['boolean', 'integer', 'long', 'float', 'double', 'string'];

/** The side-car of a model, or undefined when there is none. Throws INVALID_PARAMETER when it cannot be understood. */
export async function readSidecar(path: string): Promise<Sidecar | undefined> {
  const folder = dirname(path);
  const json = await readText(join(folder, 'signature.json'));
  if (json !== undefined) return parseSignatureJson(json, join(folder, 'signature.json'));
  return (await readFlavour(folder, path)) ?? (await readFlavour(dirname(folder), path));
}

/** The MLmodel of a folder, if this is the file that its `onnx` flavour names or that lies right beside it. */
async function readFlavour(folder: string, path: string): Promise<Sidecar | undefined> {
  const model = await readMlModel(folder);
  if (model === undefined) return undefined;
  const named = model.flavors.onnx?.data;
  if (dirname(path) !== folder && named !== relative(folder, path)) return undefined;
  const { inputs = [], outputs = [], params } = toSignature(model) ?? {};
  const isNamed = outputs.some(({ isUnnamed }) => isUnnamed !== true);
  return {
    ...(inputs.length === 0 ? {} : { inputs }),
    ...(isNamed ? { outputs } : {}),
    ...(params === undefined ? {} : { params }),
    isStrict: false,
  };
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

function columnsMember(name: 'inputs' | 'outputs', list: Json | undefined, path: string): Partial<Sidecar> {
  if (list === undefined || list === null) return {};
  if (!Array.isArray(list)) throw invalid(path, `\`${name}\` is not a list of columns`);
  const columns = list.map((column: Json, index): SignatureColumn => {
    if (!isJsonObject(column)) throw invalid(path, `entry ${index} of \`${name}\` is not an object`);
    const type = COLUMN_TYPES.find((known) => known === column.type);
    if (typeof column.name !== 'string' || type === undefined) {
      throw invalid(
        path,
        `entry ${index} of \`${name}\` is ${JSON.stringify(column)}; it needs a \`name\` and a \`type\` out of ${COLUMN_TYPES.join(', ')}`,
      );
    }
    return { name: column.name, type, required: column.required !== false, ...shapeMember(column, path) };
  });
  return { [name]: columns };
}

function shapeMember({ name, shape }: JsonObject, path: string): Pick<SignatureColumn, 'shape'> {
  if (shape === undefined || shape === null) return {};
  if (!isShape(shape)) {
    const shown = JSON.stringify(shape).slice(0, 80);
    throw invalid(
      path,
      `the \`shape\` of "${String(name)}" is ${shown}; it must be a list of sizes, -1 for any`,
    );
  }
  return { shape };
}

function isShape(value: Json): value is readonly number[] {
  return (
    Array.isArray(value) &&
    value.length <= 32 &&
    value.every((size: Json) => typeof size === 'number' && Number.isInteger(size) && size >= -1)
  );
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
