// An .onnx file as it lies on disk: read, hashed, and looked through before any of it reaches the runtime.
import { readFile } from 'node:fs/promises';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { checkExternalFiles } from './external-files.ts';
import { type Graph, readGraph } from './graph.ts';

export interface ModelFile {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly sha256: string;
  readonly graph: Graph;
}

/** Throws MODEL_NOT_AVAILABLE when it cannot be read or is no whole model, INVALID_PARAMETER when it leads elsewhere. */
export async function readModelFile(path: string): Promise<ModelFile> {
  const { bytes, graph } = await readChecked(path);
  return { path, bytes, sha256: sha256Hex(bytes), graph };
}

/** The same looks, for who opens the file otherwise. */
export async function checkModelFile(path: string): Promise<void> {
  await readChecked(path);
}

async function readChecked(path: string): Promise<Pick<ModelFile, 'bytes' | 'graph'>> {
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw unreadable(path, cause);
  });
  const graph = readGraph(bytes, path);
  await checkExternalFiles(path, graph.externalFiles);
  return { bytes, graph };
}

export function unreadable(path: string, cause: unknown): ServingError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new ServingError(
    'MODEL_NOT_AVAILABLE',
    `The model file "${path}" cannot be read (${reason}). Register the model again with the path of its .onnx file.`,
    { cause },
  );
}
