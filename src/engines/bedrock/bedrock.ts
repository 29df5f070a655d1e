// The amazon-bedrock engine: Converse for chat and completions, InvokeModel for embeddings, signed with the keys
// of the endpoint. One attempt, honestly reported. Not here: bodies (request.ts, answer.ts, stream.ts), signatures
// (signature.ts) and the connection (http/connection.ts).
import type { Input, StreamEvent } from '#core/call.ts';
import type { ExternalModel, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { toChatInput, toTaskItem } from '../chat-parts.ts';
import type { Batch, BatchAnswer, Engine, EngineContext, Runner, RunnerLimits } from '../engine.ts';
import type { Connection, Decode, Post } from '../http/connection.ts';
import { openConnection, remoteLimits, requireExternalModel } from '../http/remote.ts';
import { estimateTokens, lengthOfInput, requireTask } from '../text-input.ts';
import { addressOf } from './address.ts';
import { readConverse, readEmbeddings } from './answer.ts';
import { openMessageDecoder, type StreamMessage } from './event-stream.ts';
import { type Family, familyOf } from './family.ts';
import { toConverseRequest, toEmbeddingRequest } from './request.ts';
import { type Credentials, openSigner, type Sign } from './signature.ts';
import { readStream } from './stream.ts';

const CONTENT_TYPE = 'application/json';

export const bedrockEngine: Engine = {
  kind: 'amazon-bedrock',
  open: async (target, context) => {
    const model = requireExternalModel(target, 'amazon-bedrock');
    if (model.bedrock === undefined) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `External model "${model.name}" has no settings of Amazon Bedrock. Give region and model provider.`,
      );
    }
    const { region } = model.bedrock;
    const connection = openConnection(model, model.baseUrl ?? addressOf(region));
    const invalid = (what: string, cause?: unknown) => connection.invalid(what, cause);
    const [sign, startDecoding] = await Promise.all([
      openSigner({ region, service: 'bedrock' }),
      openMessageDecoder(invalid),
    ]);
    return new BedrockRunner(target, context, { model, connection, sign, startDecoding });
  },
};

interface Parts {
  readonly model: ExternalModel;
  readonly connection: Connection;
  readonly sign: Sign;
  readonly startDecoding: () => Decode<StreamMessage>;
}

class BedrockRunner implements Runner {
  readonly limits: RunnerLimits;
  readonly #target: Target;
  readonly #context: EngineContext;
  readonly #parts: Parts;
  readonly #family: Family;
  readonly #baseUrl: URL;

  constructor(target: Target, context: EngineContext, parts: Parts) {
    this.#target = target;
    this.#context = context;
    this.#parts = parts;
    this.#family = familyOf(parts.model);
    this.#baseUrl = new URL(parts.model.baseUrl ?? addressOf(parts.model.bedrock?.region ?? ''));
    const limits = remoteLimits(parts.model, target.task);
    this.limits = { ...limits, maxInputs: Math.min(limits.maxInputs, this.#family.embeddingInputs) };
  }

  countTokens(input: Input): number {
    return estimateTokens(lengthOfInput(input));
  }

  async invoke(batch: Batch): Promise<BatchAnswer> {
    requireTask(this.#target, batch.task);
    const { task, inputs, parameters } = batch;
    const { model, connection } = this.#parts;
    const invalid = (what: string) => connection.invalid(what);
    if (task === 'llm/v1/embeddings') {
      const body = toEmbeddingRequest(this.#family, model.name, inputs, parameters);
      const response = await connection.post(await this.#post(batch, 'invoke', body));
      return { items: readEmbeddings(this.#family, response, inputs, invalid) };
    }
    const input = toChatInput(task, inputs[0]);
    const { body, answerTool } = toConverseRequest(this.#family, input, parameters);
    const answer = await connection.postJson(await this.#post(batch, 'converse', body));
    return { items: [toTaskItem(task, readConverse(answer, input, answerTool, invalid))] };
  }

  async *stream(batch: Batch): AsyncGenerator<StreamEvent> {
    requireTask(this.#target, batch.task);
    const { connection, startDecoding } = this.#parts;
    const input = toChatInput(batch.task, batch.inputs[0]);
    const { body, answerTool } = toConverseRequest(this.#family, input, batch.parameters);
    const post = await this.#post(batch, 'converse-stream', body);
    yield* readStream(connection, post, startDecoding(), input, answerTool);
  }

  close(): Promise<void> {
    return this.#parts.connection.close();
  }

  /** The bytes that are signed are the bytes that are sent. */
  async #post(batch: Batch, action: string, content: object): Promise<Post> {
    const { model, sign } = this.#parts;
    const path = `/model/${encodeURIComponent(model.name)}/${action}`;
    const body = JSON.stringify(content);
    const { signal } = batch;
    if (model.apiKey !== undefined) {
      const secret = this.#context.resolveSecret(model.apiKey).trim();
      return { path, headers: { authorization: `Bearer ${secret}` }, body, signal, secret };
    }
    const credentials = this.#credentials();
    const { host: _, ...headers } = await sign(
      {
        method: 'POST',
        host: this.#baseUrl.host,
        path: this.#baseUrl.pathname.replace(/\/+$/, '') + path,
        headers: { 'content-type': CONTENT_TYPE },
        body,
      },
      credentials,
    );
    return { path, headers, body, signal, secret: Object.values(credentials) };
  }

  /** Those of the endpoint; without any, those that other programs of Amazon take from the environment. */
  #credentials(): Credentials {
    const { accessKeyId, secretAccessKey, sessionToken } = this.#parts.model.bedrock ?? {};
    const resolve = (reference: string) => this.#context.resolveSecret(reference).trim();
    const isGiven = accessKeyId !== undefined;
    const token = sessionToken ?? (isGiven ? undefined : '{{env/AWS_SESSION_TOKEN}}');
    return {
      accessKeyId: resolve(accessKeyId ?? '{{env/AWS_ACCESS_KEY_ID}}'),
      secretAccessKey: resolve(secretAccessKey ?? '{{env/AWS_SECRET_ACCESS_KEY}}'),
      ...toSessionToken(token, sessionToken !== undefined, resolve),
    };
  }
}

/** Only temporary credentials have one; whether those of the environment are, nobody says beforehand. */
function toSessionToken(
  reference: string | undefined,
  isRequired: boolean,
  resolve: (reference: string) => string,
): { readonly sessionToken?: string } {
  if (reference === undefined) return {};
  try {
    const sessionToken = resolve(reference);
    return sessionToken === '' ? {} : { sessionToken };
  } catch (thrown) {
    if (isRequired) throw thrown;
    return {};
  }
}
