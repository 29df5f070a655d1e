// The routes of the OpenAI API. Its clients append to their base URL: `{host}/v1`, `{host}/serving-endpoints` as on
// Databricks, or a base of an AI gateway. Bodies and answers are in the files named after them.
import type { Hono } from 'hono';
import type { JsonObject } from '#core/json.ts';
import type { HttpDeps } from './deps.ts';
import { formatModel, formatModelList } from './models.ts';
import { answerChat } from './openai-chat.ts';
import { answerCompletions } from './openai-completions.ts';
import { answerEmbeddings } from './openai-embeddings.ts';
import { type Asked, type HttpContext, type HttpEnv, readJsonBody, readModel } from './request.ts';
import { answerResponses } from './responses/responses.ts';
import { viewEndpoint, visibleEndpoints } from './visible.ts';

/** Where the whole API is offered. */
export const OPENAI_BASES = ['/v1', '/serving-endpoints', '/ai-gateway/openai/v1', '/gateway/openai/v1'];
/** Where the part of it is offered that MLflow calls its own. */
export const MLFLOW_BASES = ['/ai-gateway/mlflow/v1', '/gateway/mlflow/v1'];

type Answer = (c: HttpContext, deps: HttpDeps, asked: Asked, body: JsonObject) => Promise<Response>;

export function addOpenaiRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  const offer = (base: string, api: string, path: string, answer: Answer) =>
    app.post(`${base}${path}`, async (c) => {
      const body = await readJsonBody(c);
      return answer(c, deps, { endpoint: readModel(body), apiType: `${api}${path}` }, body);
    });
  for (const base of OPENAI_BASES) {
    offer(base, 'openai/v1', '/chat/completions', answerChat);
    offer(base, 'openai/v1', '/completions', answerCompletions);
    offer(base, 'openai/v1', '/embeddings', answerEmbeddings);
    offer(base, 'openai/v1', '/responses', answerResponses);
    app.get(`${base}/models`, (c) => c.json(formatModelList(visibleEndpoints(c, deps))));
    app.get(`${base}/models/:name`, (c) => c.json(formatModel(viewEndpoint(c, deps, c.req.param('name')))));
  }
  for (const base of MLFLOW_BASES) {
    offer(base, 'mlflow/v1', '/chat/completions', answerChat);
    offer(base, 'mlflow/v1', '/embeddings', answerEmbeddings);
  }
}
