// The cohere engine: chat, completions through chat, and embeddings. One attempt, honestly reported.
// Not here: bodies (request.ts, answer.ts, stream.ts) and the connection (http/connection.ts).
import type { Input, StreamEvent } from '#core/call.ts';
import type { ExternalModel, Target } from '#core/endpoint.ts';
import { isJsonObject } from '#core/json.ts';
import { toChatInput, toTaskItem } from '../chat-parts.ts';
import type { Batch, BatchAnswer, Engine, EngineContext, Runner, RunnerLimits } from '../engine.ts';
import type { Connection, Post } from '../http/connection.ts';
import { failureOfEvent, failureOfName } from '../http/failures.ts';
import { openConnection, remoteLimits, requireExternalModel } from '../http/remote.ts';
import { estimateTokens, lengthOfInput, requireTask } from '../text-input.ts';
import { failureOfReason, readChat, readEmbeddings } from './answer.ts';
import { toChatRequest, toEmbedRequest } from './request.ts';
import { readStream } from './stream.ts';

const BASE_URL = 'https://api.cohere.com';
/** Texts in one request for embeddings, says the API. */
const EMBEDDING_INPUTS = 96;

export const cohereEngine: Engine = {
  kind: 'cohere',
  open: async (target, context) => new CohereRunner(target, context),
};

class CohereRunner implements Runner {
  readonly limits: RunnerLimits;
  readonly #target: Target;
  readonly #context: EngineContext;
  readonly #model: ExternalModel;
  readonly #connection: Connection;

  constructor(target: Target, context: EngineContext) {
    this.#target = target;
    this.#context = context;
    this.#model = requireExternalModel(target, 'cohere');
    // Given with or without the version; that of the API is ours to choose.
    const baseUrl = (this.#model.baseUrl ?? BASE_URL).replace(/(\/v[12])?\/*$/, '');
    this.#connection = openConnection(this.#model, baseUrl);
    const limits = remoteLimits(this.#model, target.task);
    this.limits = { ...limits, maxInputs: Math.min(limits.maxInputs, EMBEDDING_INPUTS) };
  }

  countTokens(input: Input): number {
    return estimateTokens(lengthOfInput(input));
  }

  async invoke(batch: Batch): Promise<BatchAnswer> {
    requireTask(this.#target, batch.task);
    const { task, inputs, parameters } = batch;
    const invalid = (what: string) => this.#connection.invalid(what);
    if (task === 'llm/v1/embeddings') {
      const post = this.#post(batch, '/v2/embed', toEmbedRequest(this.#model.name, inputs, parameters));
      return { items: readEmbeddings(await this.#ask(post), inputs, invalid) };
    }
    const input = toChatInput(task, inputs[0]);
    const post = this.#post(batch, '/v2/chat', toChatRequest(this.#model.name, input, parameters));
    return { items: [toTaskItem(task, readChat(await this.#ask(post), input, invalid))] };
  }

  async *stream(batch: Batch): AsyncGenerator<StreamEvent> {
    requireTask(this.#target, batch.task);
    const input = toChatInput(batch.task, batch.inputs[0]);
    const body = { ...toChatRequest(this.#model.name, input, batch.parameters), stream: true };
    yield* readStream(this.#connection, this.#post(batch, '/v2/chat', body), input);
  }

  close(): Promise<void> {
    return this.#connection.close();
  }

  async #ask(post: Post): Promise<unknown> {
    const answer = await this.#connection.postJson(post);
    const asked = this.#connection.asked(post.secret);
    const failure = failureOfEvent(asked, answer);
    if (failure) throw failure;
    const reason = isJsonObject(answer) ? failureOfReason(answer.finish_reason) : undefined;
    if (reason !== undefined) throw failureOfName(asked, reason, 'The model failed.');
    return answer;
  }

  #post(batch: Batch, path: string, body: object): Post {
    const { apiKey } = this.#model;
    const secret = apiKey === undefined ? undefined : this.#context.resolveSecret(apiKey).trim();
    const headers: Record<string, string> = {};
    if (secret !== undefined && secret !== '') headers.authorization = `Bearer ${secret}`;
    return { path, headers, body, signal: batch.signal, secret };
  }
}
