// The engines of the OpenAI API: openai (Azure included), custom, databricks-model-serving. One attempt, honestly
// reported. Not here: what differs between them (dialect.ts), bodies (request.ts, answer.ts, stream.ts) and the
// connection (http/connection.ts).
import type { Input, StreamEvent } from '#core/call.ts';
import type { ExternalModel, Provider, Target } from '#core/endpoint.ts';
import type { Batch, BatchAnswer, Engine, EngineContext, Runner, RunnerLimits } from '../engine.ts';
import { fieldsFor } from '../extra.ts';
import type { Connection, Post } from '../http/connection.ts';
import { failureOfEvent } from '../http/failures.ts';
import { openConnection, remoteLimits, requireExternalModel } from '../http/remote.ts';
import type { TokenSource } from '../http/token.ts';
import { estimateTokens, lengthOfInput, requireTask } from '../text-input.ts';
import { readChat, readCompletion, readEmbeddings } from './answer.ts';
import {
  customDialect,
  type Dialect,
  type DialectOf,
  databricksDialect,
  keyOf,
  openaiDialect,
  toKeyHeaders,
} from './dialect.ts';
import { openEntraTokens } from './entra.ts';
import { type OpenaiRelay, openRelay } from './relay.ts';
import { type RequestBody, toRequest, toStreamRequest } from './request.ts';
import { readStream } from './stream.ts';

export const openaiEngine = createEngine('openai', openaiDialect);
/** Any other server of the OpenAI API, with its own way to send the key. */
export const customEngine = createEngine('custom', customDialect);
export const databricksEngine = createEngine('databricks-model-serving', databricksDialect);

function createEngine(provider: Provider, dialectOf: DialectOf): Engine {
  return {
    kind: provider,
    open: async (target, context) => new OpenaiRunner(target, context, provider, dialectOf),
  };
}

class OpenaiRunner implements Runner {
  readonly limits: RunnerLimits;
  readonly relay?: OpenaiRelay;
  readonly #target: Target;
  readonly #context: EngineContext;
  readonly #model: ExternalModel;
  readonly #dialect: Dialect;
  readonly #connection: Connection;
  /** Only with `azuread`. */
  readonly #tokens: TokenSource | undefined;

  constructor(target: Target, context: EngineContext, provider: Provider, dialectOf: DialectOf) {
    this.#target = target;
    this.#context = context;
    this.#model = requireExternalModel(target, provider);
    this.#dialect = dialectOf(this.#model, target.task);
    this.#tokens = this.#model.apiType === 'azuread' ? openEntraTokens(this.#model, context) : undefined;
    this.#connection = openConnection(this.#model, this.#dialect.baseUrl);
    this.limits = remoteLimits(this.#model, target.task);
    const relay = openRelay(this.#model, this.#dialect, target.task, context);
    if (relay) this.relay = relay;
  }

  countTokens(input: Input): number {
    return estimateTokens(lengthOfInput(input));
  }

  async invoke(batch: Batch): Promise<BatchAnswer> {
    const request = this.#request(batch);
    if (!this.#tokens) return this.#invoke(batch, this.#post(batch, request));
    return this.#tokens.with(batch.signal, (token) => this.#invoke(batch, this.#post(batch, request, token)));
  }

  async *stream(batch: Batch): AsyncGenerator<StreamEvent> {
    const request = this.#request(batch);
    const body = this.#dialect.hasStreamOptions
      ? toStreamRequest(request)
      : toStreamRequest({ ...request, stream_options: null });
    const [input] = batch.inputs;
    if (input === undefined) return;
    const read = (token?: string) => readStream(this.#connection, this.#post(batch, body, token), input);
    yield* this.#tokens ? this.#tokens.stream(batch.signal, read) : read();
  }

  close(): Promise<void> {
    return this.#connection.close();
  }

  async #invoke(batch: Batch, post: Post): Promise<BatchAnswer> {
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

  #request(batch: Batch): RequestBody {
    requireTask(this.#target, batch.task);
    const { known, toBody } = this.#dialect;
    const { extra } = batch.parameters;
    const parameters =
      known === undefined || extra === undefined
        ? batch.parameters
        : { ...batch.parameters, extra: fieldsFor(extra, known) };
    return toBody(toRequest(this.#model.name, batch.task, batch.inputs, parameters));
  }

  #post(batch: Batch, body: RequestBody, token?: string): Post {
    const secret = token ?? keyOf(this.#model, this.#context);
    const headers = toKeyHeaders(this.#dialect, this.#model, secret);
    return { path: this.#dialect.path, headers, body, signal: batch.signal, secret };
  }
}
