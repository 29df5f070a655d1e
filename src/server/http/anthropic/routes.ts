// Anthropic's Messages API over any chat endpoint: POST /messages and its token count, under every base that its
// clients are pointed at.
import type { Hono } from 'hono';
import type { ChatOutput } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { HttpDeps } from '../deps.ts';
import { parseBody } from '../parameters.ts';
import {
  answerHeaders,
  type HttpContext,
  type HttpEnv,
  outputsOf,
  readJsonBody,
  readModel,
  toCall,
} from '../request.ts';
import { sendJson } from '../send.ts';
import { answerStream } from '../sse.ts';
import { createMessageEvents, formatMessage } from './format.ts';
import { messagesBody, refuseServerTools, toMessages, toParameters } from './input.ts';

export const ANTHROPIC_BASES = [
  '/v1',
  '/serving-endpoints/anthropic/v1',
  '/ai-gateway/anthropic/v1',
  '/gateway/anthropic/v1',
];

export function addAnthropicRoutes(app: Hono<HttpEnv>, deps: HttpDeps): void {
  for (const base of ANTHROPIC_BASES) {
    app.post(`${base}/messages`, (c) => answerMessages(c, deps));
    app.post(`${base}/messages/count_tokens`, (c) => countTokens(c, deps));
  }
}

async function readMessages(c: HttpContext, apiType: string) {
  const body = await readJsonBody(c);
  const endpoint = readModel(body);
  refuseServerTools(body);
  const { fields, extra, headers } = parseBody(messagesBody, body);
  const userId = fields.metadata?.user_id;
  const shared = userId ? { ...fields, usage_context: { user_id: userId, ...fields.usage_context } } : fields;
  const inputs = [{ messages: toMessages(fields) }];
  const question = { task: 'llm/v1/chat' as const, inputs, parameters: toParameters(fields, extra) };
  return { fields, headers, call: toCall(c, { endpoint, apiType }, question, shared) };
}

async function answerMessages(c: HttpContext, deps: HttpDeps): Promise<Response> {
  const { fields, headers, call } = await readMessages(c, 'anthropic/v1/messages');
  if (fields.stream) return answerStream(c, deps, [call], createMessageEvents(call.id), headers);
  const answer = await deps.serving.invoke(call);
  const [output] = outputsOf(answer);
  return sendJson(c, formatMessage(call.id, answer, output as ChatOutput), {
    ...answerHeaders([answer]),
    ...headers,
  });
}

/** An estimate: exact only where the model runs here. */
async function countTokens(c: HttpContext, deps: HttpDeps): Promise<Response> {
  const { headers, call } = await readMessages(c, 'anthropic/v1/messages/count_tokens');
  if (!deps.serving.estimate) throw new ServingError('NOT_OFFERED', 'This server does not count tokens.');
  const { inputTokens } = await deps.serving.estimate({ ...call, cache: 'off' });
  return sendJson(c, { input_tokens: inputTokens }, headers);
}
