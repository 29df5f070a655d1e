// The static engine: a text is the mean of the vectors of its word pieces. Local, synchronous and cheap, so it also
// answers inside the DuckDB callback. Order of words and context do not count; for that there is the ONNX engine.
import { readFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import type { Input } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import type {
  Batch,
  BatchAnswer,
  Engine,
  EngineContext,
  LocalRunner,
  Runner,
  RunnerLimits,
} from '../engine.ts';
import { requireTask, requireText } from '../text-input.ts';
import { loadWeights } from '../weights/weights.ts';
import { meanDirection, parseTable, type VectorTable } from './table.ts';
import { WordPiece } from './wordpiece.ts';

const EMBEDDED = 'embedded:';
const TABLE_FILE = 'table.bin';
const VOCABULARY_FILE = 'vocab.txt';

export const staticEngine: Engine = {
  kind: 'static',
  async open(target, context) {
    const directory = await directoryOf(target, context);
    const table = parseTable(await read(join(directory, TABLE_FILE)), join(directory, TABLE_FILE));
    const vocabulary = new TextDecoder()
      .decode(await read(join(directory, VOCABULARY_FILE)))
      .trimEnd()
      .split('\n');
    if (vocabulary.length !== table.rows) {
      throw new ServingError(
        'MODEL_NOT_AVAILABLE',
        `${directory} has ${table.rows} vectors but ${vocabulary.length} tokens; its two files do not belong together.`,
      );
    }
    return new StaticRunner(target, table, new WordPiece(vocabulary));
  },
};

class StaticRunner implements Runner {
  readonly limits: RunnerLimits = {
    maxInputs: 2048,
    maxTokens: 1_000_000,
    maxConcurrency: 1,
    isAdaptive: false,
    isPadded: false,
  };
  readonly local: LocalRunner = { embed: (texts) => texts.map((text) => this.#embed(text).embedding) };
  readonly #target: Target;
  readonly #table: VectorTable;
  readonly #tokenizer: WordPiece;
  readonly #isSkipped: Uint8Array;
  /** For a text without any known word piece: the vector of [UNK], so that every text has a direction. */
  readonly #unknown: Float32Array;

  constructor(target: Target, table: VectorTable, tokenizer: WordPiece) {
    this.#target = target;
    this.#table = table;
    this.#tokenizer = tokenizer;
    this.#isSkipped = new Uint8Array(table.rows);
    const unknown = meanDirection(table, Int32Array.of(tokenizer.unknownId), this.#isSkipped);
    this.#unknown = unknown ?? new Float32Array(table.dimensions);
    for (const id of tokenizer.specialIds) this.#isSkipped[id] = 1;
  }

  /** Exact, as the tokenizer is here and quick. */
  countTokens(input: Input): number {
    return Math.max(1, this.#tokenizer.encode(requireText(input)).length);
  }

  async invoke({ task, inputs, parameters, signal }: Batch): Promise<BatchAnswer> {
    throwIfAborted(signal);
    requireTask(this.#target, task);
    const { dimensions } = this.#table;
    if (parameters.dimensions !== undefined && parameters.dimensions !== dimensions) {
      throw new ServingError(
        'INVALID_PARAMETER',
        `dimensions is ${parameters.dimensions}, but vectors of "${this.#target.model}" have ${dimensions} and cannot be shortened. Leave it out.`,
      );
    }
    const items = inputs.map((input) => {
      const { embedding, tokens } = this.#embed(requireText(input));
      return { ok: true as const, output: { embedding }, usage: { inputTokens: tokens, outputTokens: 0 } };
    });
    return { items };
  }

  async close(): Promise<void> {}

  #embed(text: string): { readonly embedding: Float32Array; readonly tokens: number } {
    const ids = this.#tokenizer.encode(text);
    const embedding = meanDirection(this.#table, ids, this.#isSkipped) ?? this.#unknown.slice();
    return { embedding, tokens: Math.max(1, ids.length) };
  }
}

async function directoryOf(target: Target, context: EngineContext): Promise<string> {
  const source = target.modelVersion?.source ?? '';
  if (source.startsWith(EMBEDDED)) return loadWeights(source.slice(EMBEDDED.length), context);
  if (isAbsolute(source)) return source;
  throw new ServingError(
    'MODEL_NOT_AVAILABLE',
    `The model "${target.model}" has the source "${source}"; it must be "embedded:embedded/static-256" or an absolute path to a folder with ${TABLE_FILE} and ${VOCABULARY_FILE}.`,
  );
}

async function read(path: string): Promise<Uint8Array> {
  return readFile(path).catch((error: unknown) => {
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `${path} cannot be read. Restore it from the duckserve package.`,
      {
        cause: error,
      },
    );
  });
}
