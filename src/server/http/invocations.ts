// POST /serving-endpoints/{name}/invocations: one door for all tasks, where the endpoint's task decides what the
// body must hold. Chat, completions and embeddings take their OpenAI body; custom models take features.
import { z } from 'zod';
import type { PredictOutput, Task } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { HttpDeps } from './deps.ts';
import { parseWith } from './errors.ts';
import { FEATURE_FORMATS, type FeatureFormat, parseFeatures } from './features.ts';
import { answerChat } from './openai-chat.ts';
import { answerCompletions } from './openai-completions.ts';
import { answerEmbeddings } from './openai-embeddings.ts';
import { ignoredHeaders } from './parameters.ts';
import { answerHeaders, type HttpContext, outputsOf, readJsonBody, sharedFields, toCall } from './request.ts';
import { sendJson } from './send.ts';

const INPUT_KEYS: Readonly<Record<Task, readonly string[]>> = {
  'llm/v1/chat': ['messages'],
  'llm/v1/completions': ['prompt'],
  'llm/v1/embeddings': ['input'],
  predict: FEATURE_FORMATS,
};

const predictFields = z.object({ params: z.record(z.string(), z.json()).nullish(), ...sharedFields });

export async function answerInvocation(
  c: HttpContext,
  deps: HttpDeps,
  name: string,
  servedEntity?: string,
): Promise<Response> {
  const endpoint = deps.registry.getEndpoint(name);
  const body = await readJsonBody(c);
  const keys = INPUT_KEYS[endpoint.task].filter((key) => body[key] !== undefined);
  const [key] = keys;
  if (key === undefined || keys.length > 1) throw wrongKeys(name, endpoint.task, body);
  switch (endpoint.task) {
    case 'llm/v1/chat':
      return answerChat(c, deps, name, body, servedEntity);
    case 'llm/v1/completions':
      return answerCompletions(c, deps, name, body, servedEntity);
    case 'llm/v1/embeddings':
      return answerEmbeddings(c, deps, name, body, servedEntity);
    case 'predict':
      return answerPredict(c, deps, name, body, key as FeatureFormat, servedEntity);
  }
}

function wrongKeys(name: string, task: Task, body: JsonObject): ServingError {
  const got = Object.keys(body).slice(0, 12).join(', ') || 'nothing';
  const accepted = INPUT_KEYS[task].join(', ');
  const wanted = task === 'predict' ? `exactly one of ${accepted}` : `'${accepted}'`;
  return new ServingError(
    'BAD_REQUEST',
    `Endpoint '${name}' serves ${task} and takes ${wanted}; the body has ${got}.`,
  );
}

async function answerPredict(
  c: HttpContext,
  deps: HttpDeps,
  endpoint: string,
  body: JsonObject,
  format: FeatureFormat,
  servedEntity: string | undefined,
): Promise<Response> {
  const fields = parseWith(predictFields, body);
  const inputs = parseFeatures(format, body[format] ?? null);
  if (inputs.length === 0) return c.json({ predictions: [] });
  const extra = { ...fields.params, ...fields.extra_params };
  const parameters = Object.keys(extra).length === 0 ? {} : { extra };
  const call = toCall(c, { endpoint, task: 'predict', inputs, parameters, servedEntity }, fields);
  const answer = await deps.serving.invoke(call);
  const predictions = (outputsOf(answer) as PredictOutput[]).map((output) => output.prediction);
  const ignored = Object.keys(body).filter(
    (name) => name !== format && !Object.hasOwn(predictFields.shape, name),
  );
  return sendJson(c, { predictions }, { ...answerHeaders(answer), ...ignoredHeaders(ignored) });
}
