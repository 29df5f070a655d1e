// From an HTTP request to a call: the body as JSON within its limit, the abort signal, the cache mode and the
// fields every task shares. What a task's body looks like is in that task's file.
import type { HttpBindings } from '@hono/node-server';
import type { Context } from 'hono';
import { z } from 'zod';
import {
  type Answer,
  CACHE_MODES,
  type CacheMode,
  type Call,
  createCall,
  type Input,
  type Output,
  type Parameters,
  type Principal,
  type Task,
} from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { parseWith, showValue } from './errors.ts';

/** `incoming` and `outgoing` are Node's own; both are missing when the app is asked without a socket. */
export interface HttpEnv {
  Bindings: Partial<HttpBindings>;
  Variables: { principal: Principal; requestId: string; endpoint?: string };
}
export type HttpContext = Context<HttpEnv>;

const MAX_BODY_BYTES = 16 * 1024 * 1024;

/** Fields any invocation may carry beside those of its task. */
export const sharedFields = {
  client_request_id: z.string().nullish(),
  usage_context: z.record(z.string(), z.string()).nullish(),
  cache: z.enum(CACHE_MODES).nullish(),
  /** Provider fields that are passed on unseen, for those `PROVIDER_FIELDS` does not know. */
  extra_params: z.record(z.string(), z.json()).nullish(),
};
export interface SharedFields {
  readonly client_request_id?: string | null | undefined;
  readonly usage_context?: Record<string, string> | null | undefined;
  readonly cache?: CacheMode | null | undefined;
}

/** Reads at most 16 MiB. Straight from Node's request: the web stream around it has no backpressure on Node 20. */
async function readBody(c: HttpContext): Promise<string> {
  const tooLarge = () =>
    new ServingError(
      'PAYLOAD_TOO_LARGE',
      `The body is over ${MAX_BODY_BYTES} bytes (16 MiB): send fewer inputs at once.`,
    );
  const encoding = c.req.header('content-encoding');
  if (encoding !== undefined && encoding !== 'identity') {
    throw new ServingError(
      'BAD_REQUEST',
      `Content-Encoding '${encoding}' is not read here: send the body uncompressed.`,
    );
  }
  if (Number(c.req.header('content-length') ?? 0) > MAX_BODY_BYTES) throw tooLarge();
  const incoming = c.env?.incoming;
  if (incoming === undefined) {
    const bytes = await c.req.arrayBuffer();
    if (bytes.byteLength > MAX_BODY_BYTES) throw tooLarge();
    return Buffer.from(bytes).toString('utf8');
  }
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    const settle = (outcome: () => void) => {
      incoming.off('data', onData).off('end', onEnd).off('error', onGone).off('close', onGone);
      outcome();
    };
    const onData = (chunk: Buffer) => {
      sizeBytes += chunk.length;
      chunks.push(chunk);
      if (sizeBytes > MAX_BODY_BYTES) settle(() => reject(tooLarge()));
    };
    const onEnd = () => settle(() => resolve(Buffer.concat(chunks).toString('utf8')));
    const onGone = () =>
      settle(() => reject(new ServingError('CANCELLED', 'The client left while it sent the body.')));
    incoming.on('data', onData).on('end', onEnd).on('error', onGone).on('close', onGone);
  });
}

export async function readJsonBody(c: HttpContext): Promise<JsonObject> {
  const text = await readBody(c);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch (thrown) {
    // Only the place is taken from the parser's message: the rest repeats the body, which may hold a key.
    const place = /position \d+/.exec(String(thrown))?.[0];
    const reason = text === '' ? ': it is empty' : place === undefined ? '' : ` from ${place} on`;
    throw new ServingError('BAD_REQUEST', `The body is not JSON${reason}. Send a JSON object.`, {
      cause: thrown,
    });
  }
  if (!isJsonObject(body)) {
    throw new ServingError('BAD_REQUEST', `The body must be a JSON object, got ${showValue(body)}.`);
  }
  return body;
}

/** Fires when the client leaves before the answer is complete. */
export function requestSignal(c: HttpContext): AbortSignal {
  const outgoing = c.env?.outgoing;
  if (outgoing === undefined) return c.req.raw.signal;
  const controller = new AbortController();
  const leave = () => {
    if (!outgoing.writableFinished)
      controller.abort(new ServingError('CANCELLED', 'The client closed the connection.'));
  };
  if (outgoing.destroyed) leave();
  else outgoing.once('close', leave);
  return controller.signal;
}

/**
 * Header, else body, else: answers are kept only where asking again would give the same (embeddings,
 * predictions, temperature 0). A client that samples wants a new answer each time.
 */
function chooseCacheMode(
  c: HttpContext,
  task: Task,
  parameters: Parameters,
  asked: CacheMode | null | undefined,
): CacheMode {
  const header = c.req.header('x-duckserve-cache');
  if (header !== undefined) {
    const mode = CACHE_MODES.find((known) => known === header.toLowerCase());
    if (mode !== undefined) return mode;
    throw new ServingError(
      'INVALID_PARAMETER',
      `Header x-duckserve-cache is ${showValue(header)}; it takes ${CACHE_MODES.join(', ')}.`,
    );
  }
  if (asked !== undefined && asked !== null) return asked;
  const isRepeatable = task === 'llm/v1/embeddings' || task === 'predict' || parameters.temperature === 0;
  return isRepeatable ? 'on' : 'off';
}

export interface Question {
  readonly endpoint: string;
  readonly task: Task;
  readonly inputs: readonly Input[];
  readonly parameters: Parameters;
  readonly servedEntity?: string | undefined;
}

export function toCall(c: HttpContext, question: Question, shared: SharedFields): Call {
  c.set('endpoint', question.endpoint);
  const clientRequestId = shared.client_request_id ?? c.req.header('x-client-request-id');
  return createCall(question.endpoint, question.task, question.inputs, {
    id: c.get('requestId'),
    parameters: question.parameters,
    principal: c.get('principal'),
    origin: 'http',
    cache: chooseCacheMode(c, question.task, question.parameters, shared.cache),
    signal: requestSignal(c),
    ...(question.servedEntity === undefined ? {} : { servedEntity: question.servedEntity }),
    ...(clientRequestId === undefined ? {} : { clientRequestId }),
    ...(shared.usage_context ? { usageContext: shared.usage_context } : {}),
  });
}

/** Outputs of an answer in order. Neither protocol has room for single failures, so the first one is thrown. */
export function outputsOf(answer: Answer): Output[] {
  return answer.items.map((item) => {
    if (!item.ok) throw item.error;
    return item.output;
  });
}

export function answerHeaders(answer: Answer): Record<string, string> {
  const cached = answer.items.reduce((count, item) => count + (item.ok && item.cached ? 1 : 0), 0);
  return { 'served-model-name': answer.servedEntity, 'x-duckserve-cached': String(cached) };
}

// Made once: zod compiles a schema on its first use, which costs more than a whole request.
const modelField = z.object({ model: z.string().min(1) });

/** The endpoint an OpenAI body names in `model`. */
export function readModel(body: JsonObject): string {
  return parseWith(modelField, body).model;
}

/** Token ids are of one tokenizer; the models behind an endpoint may change and have others. */
export function refuseTokenIds(field: string, value: Json | undefined): void {
  const first = Array.isArray(value) ? value[0] : undefined;
  if (typeof first === 'number' || Array.isArray(first)) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `'${field}' holds token ids (${showValue(value)}), and texts are needed: send a string or a list of strings. LangChain does so with check_embedding_ctx_length=False.`,
    );
  }
}
