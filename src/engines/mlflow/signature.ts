// The signature of an MLmodel: lists of columns or tensors and of parameters, each a JSON text inside the YAML.
// Here it is read and turned into the signature all engines know; rows are checked against it elsewhere.
import type { ColumnType, Signature, SignatureColumn, SignatureParam } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { parseSpec } from './nested-types.ts';
import { invalid, show } from './refusal.ts';

export interface MlColumn {
  readonly kind: 'column';
  /** Null: the signature counts its columns only. */
  readonly name: string | null;
  readonly type: ColumnType;
  readonly required: boolean;
  /** Of a nested type. */
  readonly spec?: JsonObject;
}

export interface MlTensor {
  readonly kind: 'tensor';
  readonly name: string | null;
  /** As NumPy calls it: `float32`, `int64`, `bool`, `str`, `object`, ... */
  readonly dtype: string;
  /** Rows first; -1 is any size. */
  readonly shape: readonly number[];
  readonly required: boolean;
}

/** Of one kind only: columns, or tensors. Empty: the signature says nothing about this side. */
export type MlSchema = readonly MlColumn[] | readonly MlTensor[];

export interface MlSignature {
  readonly inputs: MlSchema;
  readonly outputs: MlSchema;
  readonly params: readonly SignatureParam[];
}

const PLAIN_TYPES: readonly string[] = [
  'boolean',
  'integer',
  'long',
  'float',
  'double',
  'string',
  'binary',
  'datetime',
] satisfies ColumnType[];
export const NESTED_TYPES: readonly string[] = ['array', 'object', 'map', 'any', 'sparkml_vector'];

const MOST_COLUMNS = 100_000;

/** Undefined where there is none. Throws INVALID_PARAMETER. */
export function parseSignature(value: Json | undefined, path: string): MlSignature | undefined {
  if (value === undefined || value === null) return undefined;
  if (!isJsonObject(value)) throw invalid(path, `\`signature\` is ${show(value)}, not a mapping`);
  return {
    inputs: parseSchema('inputs', value.inputs, path),
    outputs: parseSchema('outputs', value.outputs, path),
    params: parseList('params', value.params, path).map((item, index) => parseParam(item, index, path)),
  };
}

function parseList(member: string, value: Json | undefined, path: string): readonly Json[] {
  if (value === undefined || value === null || value === '') return [];
  let list: Json = value;
  if (typeof value === 'string') {
    try {
      list = JSON.parse(value) as Json;
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw invalid(path, `\`signature.${member}\` is no JSON: ${reason}`, cause);
    }
  }
  if (list === null) return [];
  if (!Array.isArray(list)) throw invalid(path, `\`signature.${member}\` is ${show(list)}, not a list`);
  if (list.length > MOST_COLUMNS)
    throw invalid(
      path,
      `\`signature.${member}\` has ${list.length} entries; ${MOST_COLUMNS} are read at most`,
    );
  return list as readonly Json[];
}

function parseSchema(member: 'inputs' | 'outputs', value: Json | undefined, path: string): MlSchema {
  const entries = parseList(member, value, path).map((entry, index) =>
    parseEntry(entry, `signature.${member}[${index}]`, path),
  );
  const names = entries.flatMap(({ name }) => (name === null ? [] : [name]));
  const seen = new Set<string>();
  const twice = names.find((name) => seen.size === seen.add(name).size);
  if (twice !== undefined) throw invalid(path, `\`signature.${member}\` names ${show(twice)} twice`);
  if (names.length > 0 && names.length < entries.length)
    throw invalid(path, `\`signature.${member}\` names some of its entries and others not`);
  const columns = entries.filter((entry) => entry.kind === 'column');
  const tensors = entries.filter((entry) => entry.kind === 'tensor');
  if (columns.length > 0 && tensors.length > 0)
    throw invalid(path, `\`signature.${member}\` mixes columns and tensors`);
  return columns.length > 0 ? columns : tensors;
}

function parseEntry(entry: Json, where: string, path: string): MlColumn | MlTensor {
  if (!isJsonObject(entry)) throw invalid(path, `\`${where}\` is ${show(entry)}, not an object`);
  const { type, name: given, required, optional } = entry;
  if (given !== undefined && given !== null && typeof given !== 'string' && typeof given !== 'number')
    throw invalid(path, `the name in \`${where}\` is ${show(given)}, not a text`);
  const name = given === undefined || given === null ? null : String(given);
  const common = { name, required: required !== false && optional !== true };
  if (type === 'tensor') return { kind: 'tensor', ...common, ...parseTensorSpec(entry, where, path) };
  if (typeof type === 'string' && PLAIN_TYPES.includes(type))
    return { kind: 'column', ...common, type: type as ColumnType };
  if (typeof type === 'string' && NESTED_TYPES.includes(type))
    return {
      kind: 'column',
      ...common,
      type: 'json',
      spec: parseSpec({ ...entry, required: true }, where, path),
    };
  throw invalidType(type, where, path);
}

function invalidType(type: Json | undefined, where: string, path: string): ServingError {
  return invalid(
    path,
    `the type in \`${where}\` is ${show(type)}; it must be one of ${[...PLAIN_TYPES, ...NESTED_TYPES, 'tensor'].join(', ')}`,
  );
}

function parseTensorSpec(entry: JsonObject, where: string, path: string): Pick<MlTensor, 'dtype' | 'shape'> {
  const spec = entry['tensor-spec'];
  if (!isJsonObject(spec)) throw invalid(path, `\`${where}\` has no \`tensor-spec\``);
  const { dtype, shape } = spec;
  if (typeof dtype !== 'string')
    throw invalid(path, `the dtype in \`${where}\` is ${show(dtype)}, not a text`);
  if (tensorType(dtype) === undefined)
    throw invalid(path, `the dtype in \`${where}\` is ${show(dtype)}, which no engine takes here`);
  const isShape =
    Array.isArray(shape) &&
    shape.length <= 32 &&
    shape.every((size: Json) => typeof size === 'number' && Number.isInteger(size) && size >= -1);
  if (!isShape)
    throw invalid(
      path,
      `the shape in \`${where}\` is ${show(shape)}; it must be a list of sizes, -1 for any`,
    );
  return { dtype, shape: shape as readonly number[] };
}

function parseParam(item: Json, index: number, path: string): SignatureParam {
  const where = `signature.params[${index}]`;
  if (!isJsonObject(item)) throw invalid(path, `\`${where}\` is ${show(item)}, not an object`);
  const { name, type, shape, default: fallback } = item;
  if (typeof name !== 'string' || name === '')
    throw invalid(path, `the name in \`${where}\` is ${show(name)}, not a text`);
  const isNested = typeof type === 'string' && NESTED_TYPES.includes(type);
  if (!isNested && (typeof type !== 'string' || !PLAIN_TYPES.includes(type) || type === 'binary'))
    throw invalidType(type, where, path);
  return {
    name,
    type: isNested ? 'json' : (type as SignatureParam['type']),
    default: fallback ?? null,
    ...(Array.isArray(shape) && shape.length > 0 ? { isList: true } : {}),
  };
}

/** NumPy's dtype as a column type; undefined for those without one (complex, timedelta). */
export function tensorType(dtype: string): ColumnType | undefined {
  const name = dtype.replace(/^[<>=|]/, '');
  if (/^(float64|f8|double)$/.test(name)) return 'double';
  if (/^(b?float16|float32|f[24])$/.test(name)) return 'float';
  if (/^(int8|int16|int32|uint8|uint16|i[124]|u[12])$/.test(name)) return 'integer';
  if (/^(int64|uint32|uint64|i8|u[48])$/.test(name)) return 'long';
  if (/^(bool|\?|b1)$/.test(name)) return 'boolean';
  if (/^(bytes|S\d*)$/.test(name)) return 'binary';
  if (/^(str|object|U\d*|O)$/.test(name)) return 'string';
  return /^(datetime64(\[\w+\])?|M8(\[\w+\])?)$/.test(name) ? 'datetime' : undefined;
}

/**
 * The signature as engines know it; undefined where the file has none. A tensor loses its first dimension, which
 * counts the rows. Names are made up where the file has none, and marked.
 */
export function toSignature({ signature }: { readonly signature?: MlSignature }): Signature | undefined {
  if (signature === undefined) return undefined;
  const { inputs, outputs, params } = signature;
  return {
    inputs: toColumns(inputs, 'input'),
    outputs: toColumns(outputs, 'prediction'),
    ...(params.length === 0 ? {} : { params }),
  };
}

function toColumns(schema: MlSchema, word: string): SignatureColumn[] {
  return schema.map((entry, index): SignatureColumn => {
    const named = entry.name ?? (schema.length === 1 ? word : `${word}_${index}`);
    const common = {
      name: named,
      required: entry.required,
      ...(entry.name === null ? { isUnnamed: true } : {}),
    };
    if (entry.kind === 'column') {
      const { type, spec } = entry;
      return { ...common, type, ...(spec === undefined ? {} : { spec }) };
    }
    const { dtype, shape: whole } = entry;
    const shape = whole.slice(1);
    const [width = -1] = shape;
    return {
      ...common,
      type: tensorType(dtype) ?? 'json',
      shape,
      ...(shape.length === 1 && width >= 0 ? { width } : {}),
      spec: { dtype, shape: whole },
    };
  });
}
