// The google-cloud-vertex-ai engine: Gemini and Claude for chat, Google's embedding models. One attempt, honestly
// reported. Not here: bodies (request.ts, answer.ts; Claude's are those of anthropic/), tokens (account.ts) and the
// connection (http/connection.ts).
import type { ChatInput, Input, StreamEvent } from '#core/call.ts';
import type { ExternalModel, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { readMessage } from '../anthropic/answer.ts';
import { toRequest } from '../anthropic/request.ts';
import { readStream as readAnthropicStream } from '../anthropic/stream.ts';
import type { Batch, BatchAnswer, Engine, EngineContext, RunItem, Runner, RunnerLimits } from '../engine.ts';
import type { Connection, Post } from '../http/connection.ts';
import { failureOfEvent } from '../http/failures.ts';
import { openConnection, remoteLimits, requireExternalModel } from '../http/remote.ts';
import type { TokenSource } from '../http/token.ts';
import { estimateTokens, lengthOfInput, requireChat, requireTask } from '../text-input.ts';
import { openAccountTokens } from './account.ts';
import { addressOf, type VertexAddress } from './address.ts';
import { readGenerated, readPredictions, readStream } from './answer.ts';
import { toGenerateRequest, toPredictRequest } from './request.ts';

const ANTHROPIC_VERSION = 'vertex-2023-10-16';
/** Texts in one request, says the API; its newer models take them one by one. */
const EMBEDDING_INPUTS = 250;
const EMBEDDING_TOKENS = 20_000;

export const vertexEngine: Engine = {
  kind: 'google-cloud-vertex-ai',
  open: async (target, context) => new VertexRunner(target, context),
};

class VertexRunner implements Runner {
  readonly limits: RunnerLimits;
  readonly #target: Target;
  readonly #model: ExternalModel;
  readonly #address: VertexAddress;
  readonly #connection: Connection;
  readonly #tokens: TokenSource;

  constructor(target: Target, context: EngineContext) {
    this.#target = target;
    this.#model = requireExternalModel(target, 'google-cloud-vertex-ai');
    this.#address = addressOf(this.#model);
    const { publisher, model } = this.#address;
    const isEmbedding = target.task === 'llm/v1/embeddings';
    if (target.task !== 'llm/v1/chat' && !(isEmbedding && publisher === 'google')) {
      throw new ServingError(
        'WRONG_TASK',
        `Provider google-cloud-vertex-ai does not serve ${target.task} with model "${model}". Choose llm/v1/chat, or llm/v1/embeddings with a model of Google.`,
      );
    }
    this.#tokens = openAccountTokens(this.#model, context);
    this.#connection = openConnection(this.#model, this.#address.baseUrl);
    const limits = remoteLimits(this.#model, target.task);
    this.limits = isEmbedding
      ? {
          ...limits,
          maxInputs: model.startsWith('gemini') ? 1 : EMBEDDING_INPUTS,
          maxTokens: EMBEDDING_TOKENS,
        }
      : limits;
  }

  countTokens(input: Input): number {
    return estimateTokens(lengthOfInput(input));
  }

  async invoke(batch: Batch): Promise<BatchAnswer> {
    requireTask(this.#target, batch.task);
    return this.#tokens.with(batch.signal, async (token) => ({ items: await this.#items(batch, token) }));
  }

  async *stream(batch: Batch): AsyncGenerator<StreamEvent> {
    requireTask(this.#target, batch.task);
    const input = requireChat(batch.inputs[0]);
    yield* this.#tokens.stream(batch.signal, (token) => this.#stream(batch, input, token));
  }

  close(): Promise<void> {
    return this.#connection.close();
  }

  async #items(batch: Batch, token: string): Promise<readonly RunItem[]> {
    const { task, inputs, parameters } = batch;
    const invalid = (what: string) => this.#connection.invalid(what);
    if (task === 'llm/v1/embeddings') {
      const post = this.#post(batch, token, ':predict', toPredictRequest(inputs, parameters));
      return readPredictions(await this.#ask(post), inputs, invalid);
    }
    const input = requireChat(inputs[0]);
    if (this.#address.publisher === 'anthropic') {
      const { body, answerTool } = this.#toAnthropic(input, batch);
      const answer = await this.#ask(this.#post(batch, token, ':rawPredict', body));
      return [readMessage(answer, input, answerTool, invalid)];
    }
    const body = toGenerateRequest(this.#address.model, input, parameters);
    const answer = await this.#ask(this.#post(batch, token, ':generateContent', body));
    return [readGenerated(answer, input, invalid)];
  }

  #stream(batch: Batch, input: ChatInput, token: string): AsyncIterable<StreamEvent> {
    if (this.#address.publisher === 'anthropic') {
      const { body, answerTool } = this.#toAnthropic(input, batch);
      const post = this.#post(batch, token, ':streamRawPredict', { ...body, stream: true });
      return readAnthropicStream(this.#connection, post, input, answerTool);
    }
    const body = toGenerateRequest(this.#address.model, input, batch.parameters);
    const post = this.#post(batch, token, ':streamGenerateContent?alt=sse', body);
    return readStream(this.#connection, post, input);
  }

  /** The model stands in the path, the version in the body. */
  #toAnthropic(input: ChatInput, { parameters }: Batch) {
    const { body, answerTool } = toRequest(this.#address.model, input, parameters);
    const { model: _, ...rest } = body;
    return { body: { ...rest, anthropic_version: ANTHROPIC_VERSION }, answerTool };
  }

  async #ask(post: Post): Promise<unknown> {
    const answer = await this.#connection.postJson(post);
    const failure = failureOfEvent(this.#connection.asked(post.secret), answer);
    if (failure) throw failure;
    return answer;
  }

  #post(batch: Batch, token: string, verb: string, body: object): Post {
    return {
      path: this.#address.path + verb,
      headers: { authorization: `Bearer ${token}` },
      body,
      signal: batch.signal,
      secret: token,
    };
  }
}
