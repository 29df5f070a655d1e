// What a text embedding model is on disk: where its two files are, how its vectors are made, and whether texts can
// share a run without changing each other's vectors. Runs nothing.
import { createReadStream, statSync } from 'node:fs';
import { basename, dirname, isAbsolute, join } from 'node:path';
import type { ModelVersion } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { EngineContext } from '../engine.ts';
import { loadWeights } from '../weights/weights.ts';

/** Everything a worker needs; plain data, for it crosses threads. */
export interface TextModel {
  readonly modelPath: string;
  readonly tokenizerPath: string;
  readonly pooling: 'mean' | 'cls';
  readonly normalize: boolean;
  /** Word pieces a text is cut at, [CLS] and [SEP] included. */
  readonly maxTokens: number;
  /** Put before each text, e.g. `query: `. */
  readonly prefix: string;
  /** Texts in one run of the model. */
  readonly rowsPerRun: number;
}

const MODEL_NAMES = ['model.onnx', 'onnx/model.onnx', 'model_quantized.onnx', 'onnx/model_quantized.onnx'];
const EMBEDDED = 'embedded:';
/** Measured best where texts of about equal length share a run; more rows only cost memory. */
const ROWS_PER_SHARED_RUN = 16;
/** Operator that scales int8 activations by the largest value among all texts of a run. */
const SCALES_BY_RUN = 'DynamicQuantizeLinear';

export async function resolveTextModel(version: ModelVersion, context: EngineContext): Promise<TextModel> {
  const { options } = version;
  const read = optionReader(version);
  const files = await resolveFiles(version, context);
  const rowsPerRun =
    options.rowsPerRun === undefined
      ? (await mentions(files.modelPath, SCALES_BY_RUN))
        ? 1
        : ROWS_PER_SHARED_RUN
      : read.count('rowsPerRun', 1, 256);
  return {
    ...files,
    pooling: read.oneOf('pooling', ['mean', 'cls']),
    normalize: read.flag('normalize', true),
    maxTokens: options.maxTokens === undefined ? 256 : read.count('maxTokens', 4, 32_768),
    prefix: read.text('prefix'),
    rowsPerRun,
  };
}

async function resolveFiles({ model, source }: ModelVersion, context: EngineContext) {
  if (source.startsWith(EMBEDDED)) {
    const directory = await loadWeights(source.slice(EMBEDDED.length), context);
    return {
      modelPath: join(directory, 'model_quantized.onnx'),
      tokenizerPath: join(directory, 'tokenizer.json'),
    };
  }
  if (!isAbsolute(source)) {
    throw unavailable(model, `its source "${source}" is neither an absolute path nor "embedded:" and an id`);
  }
  const info = statSync(source, { throwIfNoEntry: false });
  if (info === undefined) throw unavailable(model, `there is nothing at ${source}`);
  const modelPath = info.isDirectory() ? firstFile(MODEL_NAMES.map((name) => join(source, name))) : source;
  if (modelPath === undefined) throw unavailable(model, `${source} holds none of ${MODEL_NAMES.join(', ')}`);
  // Exports of the hub put the model into a folder `onnx` below the tokenizer.
  const beside = dirname(modelPath);
  const places = basename(beside) === 'onnx' ? [beside, dirname(beside)] : [beside];
  const tokenizerPath = firstFile(places.map((place) => join(place, 'tokenizer.json')));
  if (tokenizerPath === undefined) throw unavailable(model, `there is no tokenizer.json beside ${modelPath}`);
  return { modelPath, tokenizerPath };
}

const firstFile = (paths: readonly string[]): string | undefined =>
  paths.find((path) => statSync(path, { throwIfNoEntry: false })?.isFile());

const unavailable = (model: string, reason: string): ServingError =>
  new ServingError(
    'MODEL_NOT_AVAILABLE',
    `The model "${model}" cannot be opened: ${reason}. Give a folder with model.onnx and tokenizer.json, or an .onnx file with tokenizer.json beside it.`,
  );

/** Does the file contain this text? Operator names are plain text in ONNX files. */
async function mentions(path: string, text: string): Promise<boolean> {
  let tail = Buffer.alloc(0);
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
    const window = Buffer.concat([tail, chunk as Buffer]);
    if (window.includes(text)) return true;
    tail = window.subarray(-text.length);
  }
  return false;
}

function optionReader({ model, options }: ModelVersion) {
  const refuse = (name: string, value: Json | undefined, wanted: string): never => {
    throw new ServingError(
      'INVALID_PARAMETER',
      `The option ${name} of the model "${model}" is ${JSON.stringify(value)}; it must be ${wanted}.`,
    );
  };
  return {
    count(name: string, least: number, most: number): number {
      const value = options[name];
      if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most)
        return value;
      return refuse(name, value, `a whole number from ${least} to ${most}`);
    },
    flag(name: string, fallback: boolean): boolean {
      const value = options[name] ?? fallback;
      return typeof value === 'boolean' ? value : refuse(name, value, 'true or false');
    },
    text(name: string): string {
      const value = options[name] ?? '';
      return typeof value === 'string' ? value : refuse(name, value, 'a text');
    },
    oneOf<Name extends string>(name: string, allowed: readonly [Name, ...Name[]]): Name {
      const value = options[name] ?? allowed[0];
      return allowed.find((item) => item === value) ?? refuse(name, value, allowed.join(' or '));
    },
  };
}
