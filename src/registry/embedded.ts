// Models and endpoints that exist in every data directory without configuration. They are not stored, cannot be
// changed, and are not opened before somebody asks them; the weights come with the package or are fetched once.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Task } from '#core/call.ts';
import {
  MINILM_ENDPOINT,
  MINILM_ID,
  MINILM_SHA256,
  STATIC_256_ENDPOINT,
  STATIC_256_ID,
  TINYLLAMA_ENDPOINT,
  TINYLLAMA_ID,
  TINYLLAMA_SHA256,
} from '#core/embedded-models.ts';
import type { Endpoint, ModelVersion, RegisteredModel } from '#core/endpoint.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { packageRoot } from '#storage/package-root.ts';

export const EMBEDDED_PREFIX = 'embedded/';

export interface Embedded {
  readonly models: readonly RegisteredModel[];
  readonly versions: readonly ModelVersion[];
  readonly endpoints: readonly Endpoint[];
}

// They have no moment of creation in a data directory; the day of the first release stands for it.
const CREATED_AT_MS = Date.UTC(2026, 10, 1);

export function createEmbedded(staticTable = readStaticManifest()): Embedded {
  const versions: readonly ModelVersion[] = [
    version(MINILM_ID, '1', {
      engine: 'onnx',
      task: 'llm/v1/embeddings',
      sha256: MINILM_SHA256,
      sizeBytes: 22_972_370,
      dimensions: 384,
      description: 'Sentence embeddings, 384 dimensions (int8 ONNX). Fetched once, 17 MB.',
    }),
    version(STATIC_256_ID, '1', {
      engine: 'static',
      task: 'llm/v1/embeddings',
      ...staticTable,
      dimensions: 256,
      description: 'Fast embeddings from a word table, 256 dimensions. Comes with the package.',
    }),
    version(TINYLLAMA_ID, '1', {
      engine: 'llama',
      task: 'llm/v1/chat',
      sha256: TINYLLAMA_SHA256,
      sizeBytes: 322_591_712,
      description: 'A small language model for trying things out. Fetched on request, 319 MB.',
    }),
    echo('1', 'llm/v1/chat'),
    echo('2', 'llm/v1/completions'),
    echo('3', 'llm/v1/embeddings'),
  ];
  return {
    versions,
    models: [
      model(MINILM_ID, 'Sentence embeddings that run on this machine.'),
      model(STATIC_256_ID, 'Fast embeddings that run on this machine.'),
      model(TINYLLAMA_ID, 'A small language model that runs on this machine.'),
      model('echo', 'Answers with what it was asked; for tests and dry runs.', {
        chat: '1',
        completions: '2',
        embeddings: '3',
      }),
    ],
    endpoints: [
      endpoint(MINILM_ENDPOINT, MINILM_ID, '1', 'llm/v1/embeddings'),
      endpoint(STATIC_256_ENDPOINT, STATIC_256_ID, '1', 'llm/v1/embeddings'),
      endpoint(TINYLLAMA_ENDPOINT, TINYLLAMA_ID, '1', 'llm/v1/chat'),
      endpoint('echo-chat', 'echo', '1', 'llm/v1/chat'),
      endpoint('echo-completions', 'echo', '2', 'llm/v1/completions'),
      endpoint('echo-embeddings', 'echo', '3', 'llm/v1/embeddings'),
    ],
  };
}

/** Identity of the word table that comes with the package; empty where a package was built without it. */
function readStaticManifest(): { readonly sha256: string; readonly sizeBytes: number } {
  const file = join(packageRoot(), 'assets', 'static-256', 'manifest.json');
  if (!existsSync(file)) return { sha256: '', sizeBytes: 0 };
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as {
    readonly sha256?: string;
    readonly bytes?: number;
  };
  return { sha256: manifest.sha256 ?? '', sizeBytes: manifest.bytes ?? 0 };
}

type Facts = Pick<ModelVersion, 'engine' | 'task' | 'sha256' | 'sizeBytes' | 'description'> & {
  readonly dimensions?: number;
};

function version(name: string, number: string, facts: Facts): ModelVersion {
  return {
    model: name,
    version: number,
    source: `embedded:${name}`,
    licence: 'Apache-2.0',
    options: {},
    createdAtMs: CREATED_AT_MS,
    ...facts,
  };
}

function echo(number: string, task: Task): ModelVersion {
  const facts = {
    engine: 'echo',
    task,
    sha256: '',
    sizeBytes: 0,
    description: 'Repeats the input.',
  } as const;
  return version('echo', number, task === 'llm/v1/embeddings' ? { ...facts, dimensions: 64 } : facts);
}

function model(name: string, description: string, aliases: RegisteredModel['aliases'] = {}): RegisteredModel {
  return { name, description, aliases, createdAtMs: CREATED_AT_MS };
}

function endpoint(name: string, entityName: string, entityVersion: string, task: Task): Endpoint {
  return {
    id: sha256Hex(`embedded endpoint ${name}`).slice(0, 32),
    name,
    task,
    servedEntities: [{ name, entityName, entityVersion }],
    routes: [{ servedEntityName: name, trafficPercentage: 100 }],
    configVersion: 1,
    description: '',
    tags: [],
    creator: 'duckserve',
    createdAtMs: CREATED_AT_MS,
    updatedAtMs: CREATED_AT_MS,
    isEmbedded: true,
  };
}
