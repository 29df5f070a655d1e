// POST /serving-endpoints/{name}/invocations: one door for all tasks, where the endpoint's task decides what the
// body must hold. Chat, completions and embeddings take their OpenAI body; custom models take a table (predict.ts).
import type { Hono } from 'hono';
import type { Task } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { HttpDeps } from './deps.ts';
import { showKeys } from './errors.ts';
import { answerChat } from './openai-chat.ts';
import { answerCompletions } from './openai-completions.ts';
import { answerEmbeddings } from './openai-embeddings.ts';
import { answerPredict } from './predict.ts';
import { type Asked, type HttpContext, type HttpEnv, readJsonBody } from './request.ts';
import { answerResponses } from './responses/responses.ts';

type LanguageTask = Exclude<Task, 'predict'>;

const LANGUAGE_TASKS: Readonly<
  Record<LanguageTask, { readonly key: string; readonly apiType: string; readonly answer: typeof answerChat }>
> = {
  'llm/v1/chat': { key: 'messages', apiType: 'mlflow/v1/chat/completions', answer: answerChat },
  'llm/v1/completions': { key: 'prompt', apiType: 'mlflow/v1/completions', answer: answerCompletions },
  'llm/v1/embeddings': { key: 'input', apiType: 'mlflow/v1/embeddings', answer: answerEmbeddings },
};

export function addInvocationRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  app.post('/serving-endpoints/:name/invocations', (c) => answerInvocation(c, deps, c.req.param('name')));
  app.post('/serving-endpoints/:name/served-models/:entity/invocations', (c) =>
    answerInvocation(c, deps, c.req.param('name'), c.req.param('entity')),
  );
}

export async function answerInvocation(
  c: HttpContext,
  deps: HttpDeps,
  name: string,
  servedEntity?: string,
): Promise<Response> {
  const endpoint = deps.registry.getEndpoint(name);
  const asked: Asked = { endpoint: name, servedEntity, apiType: 'mlflow/invocations' };
  if (endpoint.task === 'predict') return answerPredict(c, deps, asked);
  const { key, apiType, answer } = LANGUAGE_TASKS[endpoint.task];
  const body = await readJsonBody(c);
  // A chat by the items of a response, as agents on Databricks are asked.
  if (endpoint.task === 'llm/v1/chat' && body.messages === undefined && body.input !== undefined)
    return answerResponses(c, deps, { ...asked, apiType: 'mlflow/v1/responses' }, body);
  if (body[key] === undefined) throw wrongKey(name, endpoint.task, key, body);
  return answer(c, deps, { ...asked, apiType }, body);
}

function wrongKey(name: string, task: Task, key: string, body: JsonObject): ServingError {
  return new ServingError(
    'BAD_REQUEST',
    `Endpoint '${name}' serves ${task} and takes '${key}'; the body has ${showKeys(body)}.`,
  );
}
