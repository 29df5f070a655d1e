// Protocol buffers on the wire: the fields of a message as they follow each other, and fields written anew. Knows no
// schema. Whatever is not a whole message throws RangeError, so that damaged bytes go no further.

export interface Field {
  readonly number: number;
  /** Of a varint; 0 for others. Exact up to 2^53. */
  readonly value: number;
  /** Of a length-delimited field; empty for others. A view, not a copy. */
  readonly bytes: Uint8Array;
  /** The field as it stands in the message, its tag included. */
  readonly raw: Uint8Array;
}

const NOTHING = new Uint8Array(0);
const VARINT = 0;
const DELIMITED = 2;

export function* fieldsOf(message: Uint8Array): Generator<Field> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let index = 0, factor = 1; index < 10; index++, factor *= 128) {
      const byte = message[at++];
      if (byte === undefined) throw new RangeError('it is cut off');
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    throw new RangeError('a number in it has no end');
  };
  while (at < message.length) {
    const start = at;
    const tag = varint();
    const number = Math.floor(tag / 8);
    if (number === 0 || number > 536_870_911)
      throw new RangeError(`it has a field with the number ${number}`);
    let value = 0;
    let bytes: Uint8Array = NOTHING;
    switch (tag % 8) {
      case VARINT:
        value = varint();
        break;
      case 1:
        at += 8;
        break;
      case DELIMITED: {
        const length = varint();
        if (length > message.length - at) throw new RangeError('it is cut off');
        bytes = message.subarray(at, at + length);
        at += length;
        break;
      }
      case 5:
        at += 4;
        break;
      default:
        throw new RangeError(`it has a field of the unknown kind ${tag % 8}`);
    }
    if (at > message.length) throw new RangeError('it is cut off');
    yield { number, value, bytes, raw: message.subarray(start, at) };
  }
}

/** The last value of a text field, as protobuf has it; undefined where it is absent. */
export function textField(message: Uint8Array, wanted: number): string | undefined {
  let text: string | undefined;
  for (const { number, bytes } of fieldsOf(message)) if (number === wanted) text = toText(bytes);
  return text;
}

export function toText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}

export function varintField(number: number, value: number): Uint8Array {
  return Uint8Array.from([...varintBytes(number * 8 + VARINT), ...varintBytes(value)]);
}

export function bytesField(number: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const head = Uint8Array.from([...varintBytes(number * 8 + DELIMITED), ...varintBytes(length)]);
  return Buffer.concat([head, ...parts]);
}

export function stringField(number: number, text: string): Uint8Array {
  return bytesField(number, Buffer.from(text, 'utf8'));
}

function varintBytes(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  bytes.push(rest);
  return bytes;
}
