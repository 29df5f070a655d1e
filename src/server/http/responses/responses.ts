// POST /responses: OpenAI's Responses API over any chat endpoint. Nothing is kept between requests.
import type { ChatOutput } from '#core/call.ts';
import type { JsonObject } from '#core/json.ts';
import type { HttpDeps } from '../deps.ts';
import { nowSeconds } from '../openai-chat-format.ts';
import { parseBody } from '../parameters.ts';
import { type Asked, answerHeaders, type HttpContext, outputsOf, toCall } from '../request.ts';
import { sendJson } from '../send.ts';
import { answerStream } from '../sse.ts';
import { formatAnswer } from './format.ts';
import { refuseNotOffered, responsesBody, toMessages, toParameters } from './input.ts';
import { createResponseEvents } from './stream.ts';

export async function answerResponses(
  c: HttpContext,
  deps: HttpDeps,
  asked: Asked,
  body: JsonObject,
): Promise<Response> {
  refuseNotOffered(body);
  // What may stand here says what is done anyway; to a provider of chats it would say something else.
  const { store: _store, service_tier: _tier, prompt: _prompt, ...rest } = body;
  const { fields, extra, headers } = parseBody(responsesBody, rest);
  const inputs = [{ messages: toMessages(fields) }];
  const parameters = toParameters(fields, extra);
  const call = toCall(c, asked, { task: 'llm/v1/chat', inputs, parameters }, fields);
  const frame = { callId: call.id, createdAt: nowSeconds(), fields };
  if (fields.stream) return answerStream(c, deps, [call], createResponseEvents(frame), headers);
  const answer = await deps.serving.invoke(call);
  const [output] = outputsOf(answer);
  return sendJson(c, formatAnswer(frame, answer, output as ChatOutput), {
    ...answerHeaders([answer]),
    ...headers,
  });
}
