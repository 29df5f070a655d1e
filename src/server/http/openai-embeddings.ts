// Embeddings on the wire: texts in, vectors out as numbers or as base64 of little-endian float32.
import { z } from 'zod';
import type { EmbeddingOutput } from '#core/call.ts';
import type { JsonObject } from '#core/json.ts';
import type { HttpDeps } from './deps.ts';
import { parseBody, withoutUndefined } from './parameters.ts';
import {
  type Asked,
  answerHeaders,
  type HttpContext,
  outputsOf,
  refuseTokenIds,
  sharedFields,
  toCall,
} from './request.ts';
import { sendJson } from './send.ts';

export const embeddingsBody = z.object({
  model: z.string().optional(),
  input: z.union([z.string(), z.array(z.string()).min(1)]),
  encoding_format: z.enum(['float', 'base64']).nullish(),
  dimensions: z.int().min(1).nullish(),
  ...sharedFields,
});

export async function answerEmbeddings(
  c: HttpContext,
  deps: HttpDeps,
  asked: Asked,
  body: JsonObject,
): Promise<Response> {
  refuseTokenIds('input', body.input);
  const { fields, extra, headers } = parseBody(embeddingsBody, body);
  const texts = typeof fields.input === 'string' ? [fields.input] : fields.input;
  const inputs = texts.map((text) => ({ text }));
  const parameters = withoutUndefined({ dimensions: fields.dimensions ?? undefined, extra });
  const call = toCall(c, asked, { task: 'llm/v1/embeddings', inputs, parameters }, fields);
  const answer = await deps.serving.invoke(call);
  const format = fields.encoding_format === 'base64' ? toBase64 : toNumbers;
  const list = {
    object: 'list',
    model: answer.model,
    data: (outputsOf(answer) as EmbeddingOutput[]).map((output, index) => ({
      object: 'embedding',
      index,
      embedding: format(output.embedding),
    })),
    usage: { prompt_tokens: answer.usage.inputTokens, total_tokens: answer.usage.inputTokens },
  };
  return sendJson(c, list, { ...answerHeaders([answer]), ...headers });
}

function toNumbers(vector: Float32Array): number[] {
  return Array.from(vector);
}

/** Float32Array lies in the machine's byte order, which is little-endian wherever Node runs on DuckDB. */
function toBase64(vector: Float32Array): string {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString('base64');
}
