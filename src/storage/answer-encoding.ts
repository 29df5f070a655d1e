// How one stored answer looks as bytes: a 12-byte head, a JSON text, and for embeddings the raw float32 values.
// Bytes of a version this program does not know decode to undefined, which is a miss.
import type { EmbeddingOutput, Output, Task } from '#core/call.ts';
import type { StoredAnswer } from '#core/stores.ts';

const VERSION = 1;
const KIND_TEXT = 0;
const KIND_EMBEDDING = 1;
// version u8, kind u8, created u48, length of the JSON text u32; little endian.
const CREATED_AT = 2;
const JSON_LENGTH_AT = 8;
const HEAD_BYTES = 12;

export function encodeAnswer(answer: StoredAnswer): Buffer {
  const { output, usage, endpoint, model, task, createdAtMs } = answer;
  const shared = [endpoint, model, task, usage.inputTokens, usage.outputTokens];
  const vector = isEmbedding(output) ? output.embedding : undefined;
  const json = JSON.stringify(vector === undefined ? [...shared, output] : shared);
  const jsonBytes = Buffer.byteLength(json);
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + jsonBytes + (vector?.byteLength ?? 0));
  bytes[0] = VERSION;
  bytes[1] = vector === undefined ? KIND_TEXT : KIND_EMBEDDING;
  bytes.writeUIntLE(Math.floor(createdAtMs), CREATED_AT, 6);
  bytes.writeUInt32LE(jsonBytes, JSON_LENGTH_AT);
  bytes.write(json, HEAD_BYTES, 'utf8');
  if (vector !== undefined) {
    bytes.set(new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength), HEAD_BYTES + jsonBytes);
  }
  return bytes;
}

/** Reads without keeping a reference to `bytes`, which may be memory of the store. */
export function decodeAnswer(bytes: Uint8Array): StoredAnswer | undefined {
  if (bytes.length < HEAD_BYTES || bytes[0] !== VERSION) return undefined;
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const jsonEnd = HEAD_BYTES + buffer.readUInt32LE(JSON_LENGTH_AT);
  if (jsonEnd > bytes.length) return undefined;
  const parsed = JSON.parse(buffer.toString('utf8', HEAD_BYTES, jsonEnd)) as [
    string,
    string,
    Task,
    number,
    number,
    Output,
  ];
  const [endpoint, model, task, inputTokens, outputTokens] = parsed;
  const output = bytes[1] === KIND_EMBEDDING ? readVector(bytes, jsonEnd) : parsed[5];
  return {
    output,
    usage: { inputTokens, outputTokens },
    endpoint,
    model,
    task,
    createdAtMs: createdAtOf(bytes),
  };
}

/** Epoch milliseconds, without decoding the rest. */
export function createdAtOf(bytes: Uint8Array): number {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).readUIntLE(CREATED_AT, 6);
}

function isEmbedding(output: Output): output is EmbeddingOutput {
  return 'embedding' in output && output.embedding instanceof Float32Array;
}

function readVector(bytes: Uint8Array, start: number): EmbeddingOutput {
  // Copied, for the source is neither aligned to four bytes nor ours to keep.
  const embedding = new Float32Array(Math.floor((bytes.length - start) / 4));
  new Uint8Array(embedding.buffer).set(bytes.subarray(start, start + embedding.byteLength));
  return { embedding };
}
