// Amazon's binary event stream, written from its description: prelude, headers of texts, body, two checksums.
import { crc32 } from 'node:zlib';

export function encodeMessage(headers: Readonly<Record<string, string>>, body: string): Buffer {
  const head = Buffer.concat(
    Object.entries(headers).flatMap(([name, value]) => {
      const size = Buffer.alloc(3);
      size.writeUInt8(7, 0); // a text
      size.writeUInt16BE(Buffer.byteLength(value), 1);
      return [Buffer.from([Buffer.byteLength(name)]), Buffer.from(name), size, Buffer.from(value)];
    }),
  );
  const content = Buffer.from(body);
  const message = Buffer.alloc(12 + head.length + content.length + 4);
  message.writeUInt32BE(message.length, 0);
  message.writeUInt32BE(head.length, 4);
  message.writeUInt32BE(crc32(message.subarray(0, 8)), 8);
  head.copy(message, 12);
  content.copy(message, 12 + head.length);
  message.writeUInt32BE(crc32(message.subarray(0, message.length - 4)), message.length - 4);
  return message;
}

export function encodeEvent(type: string, body: object): Buffer {
  const headers = { ':event-type': type, ':content-type': 'application/json', ':message-type': 'event' };
  return encodeMessage(headers, JSON.stringify(body));
}

export function encodeException(type: string, message: string): Buffer {
  const headers = {
    ':exception-type': type,
    ':content-type': 'application/json',
    ':message-type': 'exception',
  };
  return encodeMessage(headers, JSON.stringify({ message }));
}
