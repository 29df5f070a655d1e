// Vectors as providers send them, checked, and one item for each text with its share of the tokens.
// Not here: where in an answer they stand (each engine knows its own).
import type { Input } from '#core/call.ts';
import type { RunItem } from './engine.ts';
import { estimateTokens, lengthOfInput } from './text-input.ts';

/** Makes the error for an answer that has `what`. */
export type Invalid = (what: string) => Error;

/** Base64 of little-endian 32-bit floats, or a list of numbers. */
export function readVector(embedding: unknown, invalid: Invalid): Float32Array {
  if (typeof embedding === 'string') {
    const byteLength = Buffer.byteLength(embedding, 'base64');
    const vector = new Float32Array(byteLength >>> 2);
    const written = Buffer.from(vector.buffer).write(embedding, 'base64');
    if (byteLength === 0 || byteLength % 4 !== 0 || written !== byteLength || !isAllFinite(vector)) {
      throw invalid('an embedding that is not base64 of 32-bit floats');
    }
    return vector;
  }
  if (!Array.isArray(embedding) || embedding.length === 0 || !embedding.every(Number.isFinite)) {
    throw invalid('an embedding that is no list of numbers');
  }
  return Float32Array.from(embedding);
}

/** A list of vectors in input order, one for each input. */
export function readVectors(
  list: unknown,
  inputs: readonly Input[],
  invalid: Invalid,
): readonly Float32Array[] {
  if (!Array.isArray(list)) throw invalid('no list of embeddings');
  if (list.length !== inputs.length) throw invalid(`${list.length} embeddings for ${inputs.length} inputs`);
  return list.map((embedding) => readVector(embedding, invalid));
}

/**
 * The tokens of the request are shared out by length and add up to `total`; without it they are estimated.
 * Vectors of different lengths are no answer of one model.
 */
export function toEmbeddingItems(
  vectors: readonly Float32Array[],
  inputs: readonly Input[],
  total: number | undefined,
  invalid: Invalid,
): readonly RunItem[] {
  const lengths = inputs.map((input) => estimateTokens(lengthOfInput(input)));
  const estimate = lengths.reduce((sum, length) => sum + length, 0);
  let seen = 0;
  let given = 0;
  return vectors.map((embedding, index) => {
    if (embedding.length !== vectors[0]?.length) throw invalid('embeddings of different dimensions');
    seen += lengths[index] ?? 0;
    const upTo = Math.round(((total ?? estimate) * seen) / estimate);
    const inputTokens = upTo - given;
    given = upTo;
    return { ok: true, output: { embedding }, usage: { inputTokens, outputTokens: 0 } };
  });
}

/** One addition a number: NaN and infinity survive it, and 32-bit floats do not overflow it. */
function isAllFinite(vector: Float32Array): boolean {
  let sum = 0;
  for (let index = 0; index < vector.length; index++) sum += vector[index] ?? 0;
  return Number.isFinite(sum);
}
