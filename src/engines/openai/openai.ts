// The openai engine: any server of the OpenAI API, Azure's spelling of it included. One attempt, honestly reported.
// Not here: bodies (request.ts, answer.ts, stream.ts) and the connection (http/connection.ts).
import type { Input, StreamEvent, Task } from '#core/call.ts';
import type { ExternalModel, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Batch, BatchAnswer, Engine, EngineContext, Runner, RunnerLimits } from '../engine.ts';
import type { Connection, Post } from '../http/connection.ts';
import { failureOfEvent } from '../http/failures.ts';
import { openConnection, remoteLimits, requireExternalModel } from '../http/remote.ts';
import { estimateTokens, lengthOfInput, requireTask } from '../text-input.ts';
import { readChat, readCompletion, readEmbeddings } from './answer.ts';
import { type RequestBody, toRequest, toStreamRequest } from './request.ts';
import { readStream } from './stream.ts';

const BASE_URL = 'https://api.openai.com/v1';
const AZURE_API_VERSION = '2024-10-21';

const PATHS: Readonly<Partial<Record<Task, string>>> = {
  'llm/v1/chat': '/chat/completions',
  'llm/v1/completions': '/completions',
  'llm/v1/embeddings': '/embeddings',
};

export const openaiEngine: Engine = {
  kind: 'openai',
  open: async (target, context) => new OpenaiRunner(target, context),
};

class OpenaiRunner implements Runner {
  readonly limits: RunnerLimits;
  readonly #target: Target;
  readonly #context: EngineContext;
  readonly #model: ExternalModel;
  readonly #connection: Connection;
  readonly #path: string;

  constructor(target: Target, context: EngineContext) {
    this.#target = target;
    this.#context = context;
    this.#model = requireExternalModel(target, 'openai');
    this.#path = pathOf(this.#model, target.task);
    this.#connection = openConnection(this.#model, this.#model.baseUrl ?? BASE_URL);
    this.limits = remoteLimits(this.#model, target.task);
  }

  countTokens(input: Input): number {
    return estimateTokens(lengthOfInput(input));
  }

  async invoke(batch: Batch): Promise<BatchAnswer> {
    const post = this.#post(batch, this.#request(batch));
    const answer = await this.#connection.postJson(post);
    // Some servers report a failure under status 200.
    const failure = failureOfEvent(this.#connection.asked(post.secret), answer);
    if (failure) throw failure;
    const invalid = (what: string) => this.#connection.invalid(what);
    const [input] = batch.inputs;
    if (batch.task === 'llm/v1/embeddings' || input === undefined) {
      return { items: readEmbeddings(answer, batch.inputs, invalid) };
    }
    const read = batch.task === 'llm/v1/chat' ? readChat : readCompletion;
    return { items: [read(answer, input, invalid)] };
  }

  async *stream(batch: Batch): AsyncGenerator<StreamEvent> {
    const request = toStreamRequest(this.#request(batch));
    const [input] = batch.inputs;
    if (input !== undefined) yield* readStream(this.#connection, this.#post(batch, request), input);
  }

  close(): Promise<void> {
    return this.#connection.close();
  }

  #request(batch: Batch): RequestBody {
    requireTask(this.#target, batch.task);
    return toRequest(this.#model.name, batch.task, batch.inputs, batch.parameters);
  }

  #post(batch: Batch, body: RequestBody): Post {
    const { apiKey, apiType, organization } = this.#model;
    const secret = apiKey === undefined ? undefined : this.#context.resolveSecret(apiKey).trim();
    const headers: Record<string, string> = {};
    if (secret !== undefined && secret !== '') {
      if (apiType === 'azure') headers['api-key'] = secret;
      else headers.authorization = `Bearer ${secret}`;
    }
    if (organization !== undefined) headers['openai-organization'] = organization;
    return { path: this.#path, headers, body, signal: batch.signal, secret };
  }
}

function pathOf(model: ExternalModel, task: Task): string {
  const path = PATHS[task];
  if (path === undefined) {
    throw new ServingError(
      'WRONG_TASK',
      `Provider openai does not serve ${task}. Choose one of ${Object.keys(PATHS).join(', ')}.`,
    );
  }
  if (model.apiType !== 'azure') return path;
  if (model.baseUrl === undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `External model "${model.name}" is of API type azure and has no base URL. Give that of the resource, "https://NAME.openai.azure.com".`,
    );
  }
  const version = encodeURIComponent(model.apiVersion ?? AZURE_API_VERSION);
  return `/openai/deployments/${encodeURIComponent(model.name)}${path}?api-version=${version}`;
}
