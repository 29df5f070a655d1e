// From an HTTP request to a call: who asks whom in which dialect, the abort signal, the cache mode and the fields
// every task shares. Not here: bytes and JSON (body.ts), and what a task's body looks like (the task's file).
import type { HttpBindings } from '@hono/node-server';
import type { Context } from 'hono';
import { z } from 'zod';
import {
  type Answer,
  CACHE_MODES,
  type CacheMode,
  type Call,
  type ClientFacts,
  createCall,
  type Input,
  type Output,
  type Parameters,
  type Principal,
  type Task,
} from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { BODY_BYTES, parseJsonObject, readBytes, readMediaType, toText } from './body.ts';
import { parseWith, showValue } from './errors.ts';

/**
 * `incoming` and `outgoing` are Node's own; both are missing when the app is asked without a socket. `caller` is set
 * by the control socket alone: who asks there has proved it by opening the file.
 */
export interface HttpEnv {
  Bindings: Partial<HttpBindings> & { readonly caller?: Principal };
  Variables: { principal: Principal; requestId: string; endpoint?: string };
}
export type HttpContext = Context<HttpEnv>;

const REQUEST_TAGS = 'databricks-ai-gateway-request-tags';
const LONGEST_USER_AGENT = 256;

/** What a route knows before it has read the body: which endpoint is asked, through which interface. */
export interface Asked {
  readonly endpoint: string;
  /** Name of the interface in the usage tables, e.g. `openai/v1/chat/completions`. */
  readonly apiType: string;
  readonly servedEntity?: string | undefined;
}

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

/** The body as a JSON object of at most `maxBytes`. */
export async function readJsonBody(c: HttpContext, maxBytes: number = BODY_BYTES): Promise<JsonObject> {
  readMediaType(c);
  return parseJsonObject(toText(await readBytes(c, maxBytes)));
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
  readonly task: Task;
  readonly inputs: readonly Input[];
  readonly parameters: Parameters;
}

export function toCall(c: HttpContext, asked: Asked, question: Question, shared: SharedFields): Call {
  c.set('endpoint', asked.endpoint);
  const clientRequestId = shared.client_request_id ?? c.req.header('x-client-request-id');
  return createCall(asked.endpoint, question.task, question.inputs, {
    id: c.get('requestId'),
    parameters: question.parameters,
    principal: c.get('principal'),
    origin: 'http',
    cache: chooseCacheMode(c, question.task, question.parameters, shared.cache),
    ...((shared.cache ?? c.req.header('x-duckserve-cache')) && { isCacheChosen: true }),
    signal: requestSignal(c),
    client: toClientFacts(c, asked.apiType),
    ...(asked.servedEntity === undefined ? {} : { servedEntity: asked.servedEntity }),
    ...(clientRequestId === undefined ? {} : { clientRequestId }),
    ...(shared.usage_context ? { usageContext: shared.usage_context } : {}),
  });
}

function toClientFacts(c: HttpContext, apiType: string): ClientFacts {
  const userAgent = c.req.header('user-agent')?.slice(0, LONGEST_USER_AGENT);
  const tags = c.req.header(REQUEST_TAGS);
  return {
    apiType,
    path: c.req.path,
    ...(userAgent === undefined ? {} : { userAgent }),
    ...(tags === undefined ? {} : { requestTags: parseRequestTags(tags) }),
  };
}

/** A JSON object of plain values, or `key=value` pairs with commas between. */
function parseRequestTags(header: string): Readonly<Record<string, string>> {
  const text = header.trim();
  const refuse = () =>
    new ServingError(
      'INVALID_PARAMETER',
      `Header ${REQUEST_TAGS} is ${showValue(header)}; it takes a JSON object of texts, such as {"team": "a"}, or pairs, such as team=a, env=b.`,
    );
  if (!text.startsWith('{')) {
    const pairs = text.split(',').filter((pair) => pair.trim() !== '');
    return Object.fromEntries(
      pairs.map((pair) => {
        const at = pair.indexOf('=');
        if (at < 1) throw refuse();
        return [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
      }),
    );
  }
  let tags: unknown;
  try {
    tags = JSON.parse(text);
  } catch {
    throw refuse();
  }
  if (!isJsonObject(tags)) throw refuse();
  return Object.fromEntries(
    Object.entries(tags).map(([key, value]) => {
      if (typeof value === 'object') throw refuse();
      return [key, String(value)];
    }),
  );
}

/** Outputs of an answer in order. Neither protocol has room for single failures, so the first one is thrown. */
export function outputsOf(answer: Answer): Output[] {
  return answer.items.map((item) => {
    if (!item.ok) throw item.error;
    return item.output;
  });
}

export function answerHeaders(answers: readonly Answer[]): Record<string, string> {
  let cached = 0;
  for (const { items } of answers) for (const item of items) if (item.ok && item.cached) cached++;
  return { 'served-model-name': answers[0]?.servedEntity ?? '', 'x-duckserve-cached': String(cached) };
}

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
