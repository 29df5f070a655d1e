// ai_embed: a text as a vector of unit length, by an embedding endpoint or the default one.
import type { EmbeddingOutput } from '#core/call.ts';
import type { Json } from '#core/json.ts';
import {
  type AiFunction,
  cacheModeOf,
  NULL_VALUE,
  outputOf,
  type PlanContext,
  type Question,
  requireText,
  textOf,
} from './function.ts';

export const aiEmbed: AiFunction = {
  name: '__ai_embed',
  returns: 'FLOAT[]',
  subject: 1,
  local: 'embed',
  plan([endpoint, text, cache], context) {
    if (text == null) return NULL_VALUE;
    const question = embeddingQuestion(
      embeddingEndpoint(endpoint ?? null, context, 'ai_embed'),
      textOf(text),
      cache ?? null,
      context,
      'ai_embed',
    );
    return { questions: [question], finish: ([item]) => outputOf<EmbeddingOutput>(item).embedding };
  },
};

export function embeddingEndpoint(endpoint: Json, context: PlanContext, functionName: string): string {
  return endpoint === null
    ? context.defaultEndpoint('embedding')
    : requireText(endpoint, 'endpoint', functionName);
}

const NO_PARAMETERS = {};

/** One text to embed, for every function that compares texts. */
export function embeddingQuestion(
  endpoint: string,
  text: string,
  cache: Json,
  context: PlanContext,
  functionName: string,
): Question {
  return {
    endpoint,
    task: 'llm/v1/embeddings',
    parameters: NO_PARAMETERS,
    cache: cacheModeOf(cache, context.cache, functionName),
    input: { text },
  };
}
