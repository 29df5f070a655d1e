// What the remote engines share: reading the target, the connection it needs, the limits of a runner.
import type { Task } from '#core/call.ts';
import type { ExternalModel, Provider, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { RunnerLimits } from '../engine.ts';
import { Connection } from './connection.ts';

const DEFAULT_TIMEOUT_MS = 120_000;
const DEFAULT_CONCURRENCY = 64;
/** The API takes 2,048 texts; 256 fill it well enough and cost less when a request must be tried again. */
const EMBEDDING_INPUTS = 256;
const EMBEDDING_TOKENS = 200_000;
const ONE_INPUT_TOKENS = 2_000_000;

/** The external model of a target of this provider. */
export function requireExternalModel(target: Target, provider: Provider): ExternalModel {
  const { externalModel } = target;
  if (externalModel?.provider === provider) return externalModel;
  throw new ServingError(
    'INVALID_PARAMETER',
    `Served entity "${target.servedEntity}" of endpoint "${target.endpoint}" names no external model of provider ${provider}. Give one, with its name and API key.`,
  );
}

export function openConnection(model: ExternalModel, baseUrl: string): Connection {
  return new Connection({
    provider: model.provider,
    model: model.name,
    baseUrl,
    maxConcurrency: model.maxConcurrency ?? DEFAULT_CONCURRENCY,
    timeoutMs: model.timeoutMs ?? DEFAULT_TIMEOUT_MS,
  });
}

export function remoteLimits(model: ExternalModel, task: Task): RunnerLimits {
  const isEmbedding = task === 'llm/v1/embeddings';
  return {
    maxInputs: isEmbedding ? EMBEDDING_INPUTS : 1,
    maxTokens: isEmbedding ? EMBEDDING_TOKENS : ONE_INPUT_TOKENS,
    maxConcurrency: model.maxConcurrency ?? DEFAULT_CONCURRENCY,
    isAdaptive: true,
    isPadded: false,
  };
}
