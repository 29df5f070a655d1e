// Amazon's binary event stream: bytes to messages, across the borders of chunks, checksums checked.
// Not here: what the events mean (stream.ts).
import type { Decode } from '../http/connection.ts';

export interface StreamMessage {
  /** `event`, `exception` or `error`. */
  readonly messageType: string;
  /** Name of the event or of the exception; code of an error. */
  readonly name: string;
  /** Text of an error that has no body. */
  readonly said: string;
  readonly body: string;
}

/** Length of the frame, length of its headers, checksum of both; then headers, body, checksum of all. */
const PRELUDE_BYTES = 12;
const SMALLEST_BYTES = 16;
/** The service's own limit of a message is 16 MiB of body and 128 KiB of headers. */
const LARGEST_BYTES = 17 * 1024 * 1024;

/** `invalid` makes the error for a body that is no event stream. Half a message at the end of a body is left out. */
export async function openMessageDecoder(
  invalid: (what: string, cause?: unknown) => Error,
): Promise<() => Decode<StreamMessage>> {
  const { EventStreamCodec } = await import('@smithy/eventstream-codec');
  const codec = new EventStreamCodec(
    (bytes) => (typeof bytes === 'string' ? bytes : Buffer.from(bytes).toString()),
    (text) => Buffer.from(text),
  );
  const read = (frame: Buffer): StreamMessage => {
    try {
      const { headers, body } = codec.decode(frame);
      const text = (name: string) => String(headers[name]?.value ?? '');
      const name = text(':event-type') || text(':exception-type') || text(':error-code');
      return {
        messageType: text(':message-type'),
        name,
        said: text(':error-message'),
        body: Buffer.from(body).toString(),
      };
    } catch (cause) {
      throw invalid('a damaged message in its event stream', cause);
    }
  };
  return () => {
    const chunks: Buffer[] = [];
    let size = 0;
    return (bytes) => {
      if (bytes === undefined) return [];
      chunks.push(bytes);
      size += bytes.length;
      const messages: StreamMessage[] = [];
      for (;;) {
        const head = joined(chunks, PRELUDE_BYTES);
        if (head.length < PRELUDE_BYTES) return messages;
        const length = head.readUInt32BE(0);
        if (length < SMALLEST_BYTES || length > LARGEST_BYTES) {
          throw invalid(`a message of ${length} bytes in its event stream`);
        }
        if (size < length) return messages;
        const all = joined(chunks, length);
        messages.push(read(all.subarray(0, length)));
        chunks[0] = all.subarray(length);
        size -= length;
      }
    };
  };
}

/** The first chunk, made `length` long from those behind it where they reach; copies only across a border. */
function joined(chunks: Buffer[], length: number): Buffer {
  const [first] = chunks;
  if (first === undefined || first.length >= length || chunks.length === 1) return first ?? Buffer.alloc(0);
  const all = Buffer.concat(chunks);
  chunks.splice(0, chunks.length, all);
  return all;
}
