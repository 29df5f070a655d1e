// The binary tensor extension of the Open Inference Protocol: tensors as little-endian bytes behind the JSON, in the
// order in which the JSON names them. What tritonclient sends and asks for unless it is told otherwise.
import { isUtf8 } from 'node:buffer';
import { ServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import { showValue } from '../errors.ts';

type Reader = (view: DataView, at: number) => number | bigint | boolean;

const READERS: ReadonlyMap<string, readonly [sizeBytes: number, read: Reader]> = new Map([
  ['BOOL', [1, (view, at) => view.getUint8(at) !== 0]],
  ['INT8', [1, (view, at) => view.getInt8(at)]],
  ['INT16', [2, (view, at) => view.getInt16(at, true)]],
  ['INT32', [4, (view, at) => view.getInt32(at, true)]],
  ['INT64', [8, (view, at) => view.getBigInt64(at, true)]],
  ['UINT8', [1, (view, at) => view.getUint8(at)]],
  ['UINT16', [2, (view, at) => view.getUint16(at, true)]],
  ['UINT32', [4, (view, at) => view.getUint32(at, true)]],
  ['UINT64', [8, (view, at) => view.getBigUint64(at, true)]],
  ['FP16', [2, (view, at) => halfToNumber(view.getUint16(at, true))]],
  ['FP32', [4, (view, at) => view.getFloat32(at, true)]],
  ['FP64', [8, (view, at) => view.getFloat64(at, true)]],
]);

/** The values of a tensor. Unknown datatypes give none; they are refused where the JSON is checked. */
export function decodeTensor(name: string, datatype: string, bytes: Buffer): (string | number | boolean)[] {
  if (datatype === 'BYTES') return decodeTexts(name, bytes);
  const reader = READERS.get(datatype);
  if (reader === undefined) return [];
  const [sizeBytes, read] = reader;
  if (bytes.length % sizeBytes !== 0) {
    throw wrong(name, `${bytes.length} bytes are no whole number of ${datatype} values`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / sizeBytes }, (_, index) => {
    const value = read(view, index * sizeBytes);
    // Beyond 2^53 it is no whole number that JSON could carry, and is refused as such.
    return typeof value === 'bigint' ? Number(value) : value;
  });
}

/** Each text after its length in four bytes. */
function decodeTexts(name: string, bytes: Buffer): string[] {
  const texts: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = at + 4 <= bytes.length ? bytes.readUInt32LE(at) : Number.POSITIVE_INFINITY;
    if (at + 4 + length > bytes.length) throw wrong(name, `text ${texts.length} runs past the end`);
    const text = bytes.subarray(at + 4, at + 4 + length);
    if (!isUtf8(text)) throw wrong(name, `text ${texts.length} is not UTF-8`);
    texts.push(text.toString('utf8'));
    at += 4 + length;
  }
  return texts;
}

/** Datatypes that columns of signatures have, and those guessed. Throws INVALID_RESPONSE for what has no bytes. */
export function encodeTensor({ name, datatype, data }: JsonObject): Buffer {
  const values = data as readonly Json[];
  if (datatype === 'BYTES') {
    return Buffer.concat(
      values.flatMap((value) => {
        const text = Buffer.from(typeof value === 'string' ? value : '');
        const length = Buffer.alloc(4);
        length.writeUInt32LE(text.length);
        return [length, text];
      }),
    );
  }
  const sizeBytes = READERS.get(String(datatype))?.[0] ?? 8;
  const bytes = Buffer.alloc(values.length * sizeBytes);
  for (const [index, value] of values.entries()) {
    const at = index * sizeBytes;
    if (datatype === 'BOOL' && typeof value === 'boolean') bytes.writeUInt8(value ? 1 : 0, at);
    else if (datatype === 'FP32') bytes.writeFloatLE(typeof value === 'number' ? value : Number.NaN, at);
    else if (datatype === 'FP64') bytes.writeDoubleLE(typeof value === 'number' ? value : Number.NaN, at);
    else if (datatype === 'INT32' && isWithin(value, 2 ** 31)) bytes.writeInt32LE(value, at);
    else if (datatype === 'INT64' && Number.isSafeInteger(value))
      bytes.writeBigInt64LE(BigInt(value as number), at);
    else {
      throw new ServingError(
        'INVALID_RESPONSE',
        `Value ${index} of output ${showValue(name)} is ${showValue(value)}, which has no ${String(datatype)} bytes: ask for JSON.`,
      );
    }
  }
  return bytes;
}

function isWithin(value: Json | undefined, limit: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= -limit && value < limit;
}

/** Sign, five bits of exponent, ten of fraction. */
function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

function wrong(name: string, problem: string): ServingError {
  return new ServingError('INVALID_PARAMETER', `The bytes of input ${showValue(name)}: ${problem}.`, {
    details: { field: 'inputs' },
  });
}
