// The anthropic engine: chat through the Messages API. One attempt, honestly reported.
// Not here: bodies (request.ts, answer.ts, stream.ts) and the connection (http/connection.ts).
import type { Input, StreamEvent } from '#core/call.ts';
import type { ExternalModel, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Batch, BatchAnswer, Engine, EngineContext, Runner, RunnerLimits } from '../engine.ts';
import type { Connection, Post } from '../http/connection.ts';
import { failureOfEvent } from '../http/failures.ts';
import { openConnection, remoteLimits, requireExternalModel } from '../http/remote.ts';
import { estimateTokens, lengthOfInput, requireChat, requireTask } from '../text-input.ts';
import { readMessage } from './answer.ts';
import { toRequest } from './request.ts';
import { readStream } from './stream.ts';

const BASE_URL = 'https://api.anthropic.com';
const API_VERSION = '2023-06-01';

export const anthropicEngine: Engine = {
  kind: 'anthropic',
  open: async (target, context) => new AnthropicRunner(target, context),
};

class AnthropicRunner implements Runner {
  readonly limits: RunnerLimits;
  readonly #target: Target;
  readonly #context: EngineContext;
  readonly #model: ExternalModel;
  readonly #connection: Connection;

  constructor(target: Target, context: EngineContext) {
    if (target.task !== 'llm/v1/chat') {
      throw new ServingError(
        'WRONG_TASK',
        `Provider anthropic does not serve ${target.task}, only llm/v1/chat.`,
      );
    }
    this.#target = target;
    this.#context = context;
    this.#model = requireExternalModel(target, 'anthropic');
    // Given with or without the version, as people copy it from either kind of documentation.
    const baseUrl = (this.#model.baseUrl ?? BASE_URL).replace(/(\/v1)?\/*$/, '');
    this.#connection = openConnection(this.#model, baseUrl);
    this.limits = remoteLimits(this.#model, target.task);
  }

  countTokens(input: Input): number {
    return estimateTokens(lengthOfInput(input));
  }

  async invoke(batch: Batch): Promise<BatchAnswer> {
    requireTask(this.#target, batch.task);
    const input = requireChat(batch.inputs[0]);
    const { body, answerTool } = toRequest(this.#model.name, input, batch.parameters);
    const post = this.#post(batch, body);
    const answer = await this.#connection.postJson(post);
    const failure = failureOfEvent(this.#connection.asked(post.secret), answer);
    if (failure) throw failure;
    const invalid = (what: string) => this.#connection.invalid(what);
    return { items: [readMessage(answer, input, answerTool, invalid)] };
  }

  async *stream(batch: Batch): AsyncGenerator<StreamEvent> {
    requireTask(this.#target, batch.task);
    const input = requireChat(batch.inputs[0]);
    const { body, answerTool } = toRequest(this.#model.name, input, batch.parameters);
    yield* readStream(this.#connection, this.#post(batch, { ...body, stream: true }), input, answerTool);
  }

  close(): Promise<void> {
    return this.#connection.close();
  }

  #post(batch: Batch, body: Record<string, unknown>): Post {
    const { apiKey } = this.#model;
    const secret = apiKey === undefined ? undefined : this.#context.resolveSecret(apiKey).trim();
    const headers: Record<string, string> = { 'anthropic-version': this.#model.apiVersion ?? API_VERSION };
    if (secret !== undefined && secret !== '') headers['x-api-key'] = secret;
    return { path: '/v1/messages', headers, body, signal: batch.signal, secret };
  }
}
