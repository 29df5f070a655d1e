// Frames between duckserve and a worker process of Python: a JSON header and raw buffers behind it. The form of a
// frame and its kinds are here; what is in the columns of a table is columns.ts, who sends what is worker.ts.
// The other side is python/duckserve_worker/frames.py.
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type JsonObject } from '#core/json.ts';

/**
 * A frame, little endian:
 *   0   4 bytes  "DSW" and the version of this protocol (1)
 *   4   u32      bytes of the header
 *   8   u64      bytes of all buffers
 *   16           the header: UTF-8 JSON, `{"kind", "id", "sizes": [bytes of each buffer], ...}`
 *                padded with zeros to a multiple of 8, and so is each of the buffers after it
 *
 * `id` says which request a frame belongs to. Requests of this side, and how each ends:
 *   load        {folder, loader_module, data, code, agent, threads}  ->  ready {python, versions, loaded_with, streams, seconds}
 *   predict     {rows, form, columns, params} + columns              ->  result {parts, failed} + columns of each part
 *   chat        {messages, parameters, custom_inputs, conversation, principal}  ->  result {answer}
 *   chat_stream the same                                             ->  event {event} any number of times, result {}
 * What `answer` and `event` may be is the business of agents.py, which has
 *   streams(model) -> bool, chat(model, request) -> answer, chat_stream(model, request) -> iterator of events
 * where `model.pyfunc` is what MLflow has loaded and `request` a `Request` of serve.py: `header`, `is_cancelled`,
 * `ask(question)` and `ask_stream(question)`, which raise `Asked` with `code`, `message` and `status`.
 * Each of them may end with `error {type, message, code?}` in place of its last frame.
 *   cancel      {id of the request}: nobody waits any more. A request that has not begun is not begun; one that has
 *               sees `is_cancelled`. It still ends with a frame of its own, `error` with the code CANCELLED or its result.
 *   close       finish what has begun, and end.
 * A request of the other side, only while one of ours (`request`) is being answered:
 *   ask         {ask: its own number, request: id of ours, question: any}  ->  answer {ask, value} | answer {ask, error: {code, message, status}}
 *               with `stream: true` in the question: ask_event {ask, event} any number of times before the answer.
 */
export const PROTOCOL_VERSION = 1;
const MAGIC = 0x57_53_44; // "DSW"
const PREFIX_BYTES = 16;
const LARGEST_HEADER = 256 * 1024 * 1024;
const LARGEST_BODY = 2 ** 32;

export type FrameKind =
  | 'load'
  | 'predict'
  | 'chat'
  | 'chat_stream'
  | 'cancel'
  | 'close'
  | 'ready'
  | 'result'
  | 'event'
  | 'error'
  | 'ask'
  | 'ask_event'
  | 'answer';

export interface Frame {
  readonly kind: string;
  readonly id: number;
  readonly header: JsonObject;
  /** Each begins at a multiple of 8 within its memory. Valid for as long as anybody likes. */
  readonly buffers: readonly Uint8Array[];
}

const padded = (bytes: number) => (bytes + 7) & ~7;
const ZEROS = new Uint8Array(8);

/** The pieces of a frame, to be written one after another; buffers are not copied. */
export function encodeFrame(
  kind: FrameKind,
  id: number,
  header: JsonObject,
  buffers: readonly ArrayBufferView[] = [],
): Uint8Array[] {
  const sizes = buffers.map(({ byteLength }) => byteLength);
  const text = Buffer.from(JSON.stringify({ ...header, kind, id, sizes }), 'utf8');
  const prefix = new Uint8Array(PREFIX_BYTES);
  const view = new DataView(prefix.buffer);
  view.setUint32(0, MAGIC | (PROTOCOL_VERSION << 24), true);
  view.setUint32(4, text.length, true);
  view.setBigUint64(8, BigInt(sizes.reduce((sum, size) => sum + Math.ceil(size / 8) * 8, 0)), true);
  const pieces: Uint8Array[] = [prefix, text];
  const pad = (bytes: number) => {
    if (bytes % 8 !== 0) pieces.push(ZEROS.subarray(0, 8 - (bytes % 8)));
  };
  pad(text.length);
  for (const buffer of buffers) {
    pieces.push(new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength));
    pad(buffer.byteLength);
  }
  return pieces;
}

/** Puts frames together out of what a socket gives. Throws INVALID_RESPONSE for what is no frame; it is of no use after that. */
export class FrameReader {
  readonly #onFrame: (frame: Frame) => void;
  /** What is being filled: the prefix, then header and body, in memory of exactly their size. */
  #target: Uint8Array = new Uint8Array(PREFIX_BYTES);
  #filled = 0;
  #headerBytes: number | null = null;

  constructor(onFrame: (frame: Frame) => void) {
    this.#onFrame = onFrame;
  }

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      const count = Math.min(chunk.length - at, this.#target.length - this.#filled);
      this.#target.set(chunk.subarray(at, at + count), this.#filled);
      this.#filled += count;
      at += count;
      if (this.#filled === this.#target.length) this.#completed();
    }
  }

  #completed(): void {
    const bytes = this.#target;
    this.#filled = 0;
    if (this.#headerBytes === null) {
      const view = new DataView(bytes.buffer);
      const mark = view.getUint32(0, true);
      if ((mark & 0xff_ff_ff) !== MAGIC) throw broken('its first bytes are no frame');
      if (mark >>> 24 !== PROTOCOL_VERSION) {
        throw broken(`it speaks version ${mark >>> 24} of the protocol, and this is ${PROTOCOL_VERSION}`);
      }
      const headerBytes = view.getUint32(4, true);
      const bodyBytes = Number(view.getBigUint64(8, true));
      if (headerBytes === 0 || headerBytes > LARGEST_HEADER || bodyBytes > LARGEST_BODY) {
        throw broken(`it announces a frame of ${headerBytes} + ${bodyBytes} bytes`);
      }
      this.#headerBytes = headerBytes;
      this.#target = new Uint8Array(padded(headerBytes) + bodyBytes);
      return;
    }
    const headerBytes = this.#headerBytes;
    this.#headerBytes = null;
    this.#target = new Uint8Array(PREFIX_BYTES);
    this.#onFrame(parseFrame(bytes, headerBytes));
  }
}

function parseFrame(bytes: Uint8Array, headerBytes: number): Frame {
  let header: unknown;
  try {
    header = JSON.parse(Buffer.from(bytes.buffer, 0, headerBytes).toString('utf8'));
  } catch {
    throw broken('the header of a frame is no JSON');
  }
  if (!isJsonObject(header) || typeof header.kind !== 'string' || typeof header.id !== 'number') {
    throw broken('the header of a frame has no kind and id');
  }
  const sizes = Array.isArray(header.sizes) ? header.sizes : [];
  const buffers: Uint8Array[] = [];
  let at = padded(headerBytes);
  for (const size of sizes) {
    if (typeof size !== 'number' || !(size >= 0) || at + size > bytes.length) {
      throw broken('the buffers of a frame are longer than the frame');
    }
    buffers.push(new Uint8Array(bytes.buffer, at, size));
    at += Math.ceil(size / 8) * 8;
  }
  return { kind: header.kind, id: header.id, header, buffers };
}

function broken(what: string): ServingError {
  return new ServingError('INVALID_RESPONSE', `The process of the model cannot be understood: ${what}.`);
}
