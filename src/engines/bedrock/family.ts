// What differs between the model providers behind Bedrock: forced tools, `top_k`, embeddings.
// Not here: what Bedrock makes the same for all of them (request.ts).
import type { ExternalModel } from '#core/endpoint.ts';

export interface Family {
  /** Can it be made to call a certain tool? Then structured output is a tool, else it is asked for in words. */
  readonly canForceTools: boolean;
  readonly embeddings: 'titan' | 'cohere';
  /** Texts in one request for embeddings. */
  readonly embeddingInputs: number;
  /** Fields of the model; none where it has no such parameter. */
  toTopK(topK: number): Record<string, unknown>;
}

const COHERE_INPUTS = 96;

/** By the model's name, which may stand behind the prefix of a region or inside an ARN; else by the configuration. */
export function familyOf({ name, bedrock }: ExternalModel): Family {
  const provider = /(?:^|[./])(anthropic|cohere|ai21|amazon|meta|mistral)\./.exec(name)?.[1];
  const family = provider ?? bedrock?.modelProvider ?? '';
  const isNova = family === 'amazon' && !name.includes('titan');
  const isCohere = family === 'cohere';
  return {
    canForceTools: family === 'anthropic' || isNova || name.includes('mistral-large'),
    embeddings: isCohere ? 'cohere' : 'titan',
    embeddingInputs: isCohere ? COHERE_INPUTS : 1,
    toTopK: (topK) => {
      if (family === 'anthropic') return { top_k: topK };
      if (isNova) return { inferenceConfig: { topK } };
      return isCohere ? { k: topK } : {};
    },
  };
}
