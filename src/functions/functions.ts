// Every AI function: what is registered in DuckDB, and what `duckserve.functions` tells a person.
import { aiClassify } from './ai-classify.ts';
import { aiEmbed } from './ai-embed.ts';
import { aiGen } from './ai-gen.ts';
import { aiModel } from './ai-model.ts';
import { aiQueryEmbedding, aiQueryJson, aiQueryText, aiQueryTry } from './ai-query.ts';
import { aiSimilarity } from './ai-similarity.ts';
import type { AiFunction, FunctionDoc } from './function.ts';
import { predict, predictBigint, predictBoolean, predictDouble, predictVarchar } from './predict.ts';

export const AI_FUNCTIONS: readonly AiFunction[] = [
  aiQueryText,
  aiQueryJson,
  aiQueryTry,
  aiQueryEmbedding,
  aiEmbed,
  aiSimilarity,
  aiClassify,
  aiGen,
  aiModel,
  predict,
  predictDouble,
  predictBigint,
  predictVarchar,
  predictBoolean,
];

export const FUNCTION_DOCS: readonly FunctionDoc[] = [
  {
    name: 'ai_query',
    signature:
      'ai_query(endpoint, request [, returnType] [, failOnError] [, modelParameters => {...}] [, responseFormat => ...] [, cache => ...])',
    returns:
      'text of the answer; the type of returnType or of a DDL responseFormat; FLOAT[] for embeddings; with failOnError => false STRUCT(response, result, errorMessage)',
    description:
      'Asks an endpoint once for each distinct request. NULL request: NULL, no call. The endpoint may be a column.',
    example:
      "SELECT ai_query('my-llm', 'Summarize: ' || body, modelParameters => {'max_tokens': 60}) FROM mails",
  },
  {
    name: 'ai_gen',
    signature: 'ai_gen(prompt [, endpoint => ...] [, cache => ...])',
    returns: 'VARCHAR',
    description: 'Answer of the default chat endpoint to a prompt.',
    example: "SELECT ai_gen('Write a title for: ' || body) FROM mails LIMIT 5",
  },
  {
    name: 'ai_classify',
    signature: 'ai_classify(content, labels [, endpoint => ...] [, cache => ...])',
    returns: 'VARCHAR, one of the labels',
    description:
      'Picks one of 2 to 500 labels, by a chat model or by the nearest label of an embedding model.',
    example: "SELECT ai_classify(body, ['bug', 'question', 'praise']) FROM tickets",
  },
  {
    name: 'ai_embed',
    signature: 'ai_embed(text), ai_embed(endpoint, text [, cache => ...])',
    returns: 'FLOAT[], casts to FLOAT[n]',
    description: 'Vector of a text, of unit length, for array_cosine_similarity and the like.',
    example: "SELECT ai_embed('embedded-static-256', body)::FLOAT[256] FROM mails",
  },
  {
    name: 'ai_similarity',
    signature: 'ai_similarity(left, right [, endpoint => ...] [, cache => ...])',
    returns: 'FLOAT between -1 and 1',
    description: 'Cosine of the embeddings of two texts. Only for ranking.',
    example: "SELECT * FROM mails ORDER BY ai_similarity(body, 'refund') DESC LIMIT 10",
  },
  {
    name: 'predict',
    signature: 'predict(endpoint, struct | list | column, ...)',
    returns: "type of the model's signature; JSON when it has none",
    description:
      'Prediction of a custom model. A struct gives features by name, a list or several columns by position.',
    example:
      "SELECT predict('penguins', {'bill_length_mm': 39.1, 'bill_depth_mm': 18.7, 'flipper_length_mm': 181, 'body_mass_g': 3750})",
  },
  {
    name: 'ai_model',
    signature: 'ai_model([endpoint])',
    returns: 'STRUCT(endpoint, model, task, sha256, dimensions, fingerprint)',
    description: 'Which model an endpoint answers with; without an argument the default embedding endpoint.',
    example: 'SELECT ai_model().model, ai_model().sha256',
  },
];
