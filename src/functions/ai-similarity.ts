// ai_similarity: cosine of the embeddings of two texts. Mirrors Databricks' function; only for ranking.
import type { EmbeddingOutput } from '#core/call.ts';
import { embeddingEndpoint, embeddingQuestion } from './ai-embed.ts';
import { type AiFunction, NULL_VALUE, outputOf, textOf } from './function.ts';

export const aiSimilarity: AiFunction = {
  name: '__ai_similarity',
  returns: 'FLOAT',
  subject: 0,
  plan([left, right, endpoint, cache], context) {
    if (left == null || right == null) return NULL_VALUE;
    const name = embeddingEndpoint(endpoint ?? null, context, 'ai_similarity');
    const ask = (text: string) => embeddingQuestion(name, text, cache ?? null, context, 'ai_similarity');
    return {
      questions: [ask(textOf(left)), ask(textOf(right))],
      finish: ([first, second]) =>
        cosine(outputOf<EmbeddingOutput>(first).embedding, outputOf<EmbeddingOutput>(second).embedding),
    };
  },
};

/** Cosine of two vectors of equal length; 0 when one of them is all zeros. */
export function cosine(left: Float32Array, right: Float32Array): number {
  let dot = 0;
  let leftSquare = 0;
  let rightSquare = 0;
  for (let index = 0; index < left.length; index++) {
    const a = left[index] ?? 0;
    const b = right[index] ?? 0;
    dot += a * b;
    leftSquare += a * a;
    rightSquare += b * b;
  }
  const norm = Math.sqrt(leftSquare * rightSquare);
  return norm === 0 ? 0 : Math.max(-1, Math.min(1, dot / norm));
}
