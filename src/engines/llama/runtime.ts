// Loads node-llama-cpp and one GGUF file: quiet, without building or downloading anything. Which prompts are
// evaluated, and how, is not decided here.
import { availableParallelism } from 'node:os';
import type { Llama, LlamaContext, LlamaModel } from 'node-llama-cpp';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import { takeTurns } from './batching.ts';
import { readGgufHead } from './gguf-file.ts';
import { knowsTools } from './tools.ts';

/** What a model version may set in its options. */
export interface LlamaSettings {
  /** Tokens of prompt and answer together; default: as the model was trained, at most 4096. */
  readonly contextSize: number | undefined;
  /** Sequences that generate at the same time. */
  readonly maxConcurrency: number;
  readonly threads: number;
  readonly gpu: false | 'auto' | 'metal' | 'cuda' | 'vulkan';
}

export interface LoadedLlama {
  readonly llama: Llama;
  readonly model: LlamaModel;
  readonly context: LlamaContext;
  readonly library: typeof import('node-llama-cpp');
  /** Its chat template can be given tools. */
  readonly hasTools: boolean;
}

const DEFAULT_CONTEXT_SIZE = 4096;

/** Prompts are evaluated in blocks of this size, so that a kept block equals the one evaluated anew. */
export const BLOCK_TOKENS = 64;

/** On the processor batches gain nothing (docs/decisions/0021), and each sequence takes memory for a whole context. */
const GPU_SEQUENCES = 4;

const GPU_KINDS = ['auto', 'metal', 'cuda', 'vulkan'] as const;

export function settingsOf(options: JsonObject): LlamaSettings {
  const count = (name: string): number | undefined => {
    const value = options[name];
    if (value === undefined || value === null) return undefined;
    if (typeof value === 'number' && Number.isInteger(value) && value > 0) return value;
    throw new ServingError(
      'INVALID_PARAMETER',
      `The option ${name} of a llama model is ${JSON.stringify(value)}; it must be a whole number above 0.`,
    );
  };
  const { gpu } = options;
  const gpuKind = GPU_KINDS.find((known) => known === gpu);
  if (gpu !== undefined && gpu !== false && gpuKind === undefined) {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The option gpu of a llama model is ${JSON.stringify(gpu)}; use false or one of ${GPU_KINDS.join(', ')}.`,
    );
  }
  return {
    contextSize: count('contextSize'),
    maxConcurrency: count('maxConcurrency') ?? (gpuKind === undefined ? 1 : GPU_SEQUENCES),
    // llama.cpp's threads wait for each other: more of them than cores makes every token slower.
    threads: count('threads') ?? availableParallelism(),
    gpu: gpuKind ?? false,
  };
}

/** Throws MODEL_NOT_AVAILABLE when the file is broken, or when the library, its binary or the file cannot be loaded. */
export async function loadLlama(path: string, settings: LlamaSettings, log: Log): Promise<LoadedLlama> {
  const head = await readGgufHead(path);
  const library = await import('node-llama-cpp').catch((cause: unknown) => {
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      'This model runs on llama.cpp, which is an optional part of duckserve. Install it with: npm i node-llama-cpp',
      { cause },
    );
  });
  const { gpu, threads, maxConcurrency } = settings;
  const llama = await library
    .getLlama({
      build: 'never',
      skipDownload: true,
      progressLogs: false,
      gpu,
      maxThreads: threads,
      logLevel: library.LlamaLogLevel.warn,
      logger: (level, message) => log.debug({ engine: 'llama', level }, message.trimEnd()),
    })
    .catch((cause: unknown) => {
      throw new ServingError(
        'MODEL_NOT_AVAILABLE',
        `node-llama-cpp has no ready binary for ${process.platform}/${process.arch}${gpu === false ? '' : ` with gpu "${gpu}"`}: ` +
          `${messageOf(cause)}. Install it again with: npm i node-llama-cpp`,
        { cause },
      );
    });
  try {
    const model = await llama.loadModel({ modelPath: path });
    const contextSize = settings.contextSize ?? Math.min(model.trainContextSize, DEFAULT_CONTEXT_SIZE);
    const context = await model.createContext({
      sequences: maxConcurrency,
      contextSize,
      threads,
      batchSize: Math.min(BLOCK_TOKENS, contextSize),
      batching: { itemPrioritizationStrategy: takeTurns(BLOCK_TOKENS) },
    });
    return { llama, model, context, library, hasTools: knowsTools(head.chatTemplate) };
  } catch (cause) {
    await llama.dispose();
    throw new ServingError('MODEL_NOT_AVAILABLE', `llama.cpp cannot load "${path}": ${messageOf(cause)}`, {
      cause,
    });
  }
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
