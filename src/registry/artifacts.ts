// The files of registered models: found, copied into a directory named after their content, and removed.
// A copy appears whole or not at all. What a model is for is not decided here.
import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { cp, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';

export interface StoredArtifact {
  /** Main file, relative to the directory of artifacts. */
  readonly source: string;
  /** Of the main file. */
  readonly sha256: string;
  /** Of all files together. */
  readonly sizeBytes: number;
}

/** Files that belong to a model when they lie beside its file. */
const SIDECARS = [
  'signature.json',
  'MLmodel',
  'labels.json',
  'labels.txt',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'vocab.txt',
  'config.json',
];
/** Which file of a folder is the model, best first; otherwise the first by name that ends so. */
const MAIN_FILES = ['model.onnx', 'onnx/model.onnx', 'model_quantized.onnx', 'onnx/model_quantized.onnx'];

/** Copies a model file with what lies beside it, or a folder, to `<artifactsDir>/<sha256>/`. */
export async function storeArtifact(path: string, artifactsDir: string): Promise<StoredArtifact> {
  const from = resolve(path);
  const staging = join(artifactsDir, `.incoming-${randomUUID()}`);
  try {
    await mkdir(staging, { recursive: true, mode: 0o700 });
    const main = await copyModel(from, staging);
    const files = await digestFiles(staging);
    const mainFile = files.find((file) => file.name === main);
    if (mainFile === undefined) throw new Error(`${main} is not a file`);
    const name =
      files.length === 1
        ? mainFile.sha256
        : sha256Hex(files.map((file) => `${file.sha256} ${file.name}`).join('\n'));
    await publish(staging, join(artifactsDir, name));
    return {
      source: `${name}/${main}`,
      sha256: mainFile.sha256,
      sizeBytes: files.reduce((sum, file) => sum + file.sizeBytes, 0),
    };
  } catch (error) {
    if (error instanceof ServingError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new ServingError(
      'STORAGE_ERROR',
      `The model ${from} could not be copied to ${artifactsDir}: ${reason}`,
      { cause: error },
    );
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

/** Removes the directory of an artifact that no version uses any more. */
export async function removeArtifact(source: string, artifactsDir: string): Promise<void> {
  await rm(join(artifactsDir, artifactName(source)), { recursive: true, force: true });
}

/** The directory of an artifact below the directory of artifacts. */
export function artifactName(source: string): string {
  return source.split('/')[0] ?? source;
}

/** Gives the main file, relative to `to`, with `/` between its parts. */
async function copyModel(from: string, to: string): Promise<string> {
  if (!existsSync(from)) throw new ServingError('INVALID_PARAMETER', `There is no file or folder ${from}.`);
  if ((await stat(from)).isDirectory()) {
    // Folders of model hubs hold links into a cache: what they point to is copied.
    const filter = (source: string) => source === from || !basename(source).startsWith('.');
    await cp(from, to, { recursive: true, dereference: true, filter });
    return mainFileOf(to, from);
  }
  const file = basename(from);
  await cp(from, join(to, file), { dereference: true });
  for (const name of [...SIDECARS, `${file}.data`, `${file}_data`]) {
    const sidecar = join(dirname(from), name);
    if (name !== file && existsSync(sidecar)) await cp(sidecar, join(to, name), { dereference: true });
  }
  return file;
}

async function mainFileOf(folder: string, shownPath: string): Promise<string> {
  const names = (await filesBelow(folder)).sort();
  const main =
    MAIN_FILES.find((name) => names.includes(name)) ??
    names.find((name) => name.toLowerCase().endsWith('.onnx')) ??
    names.find((name) => name.toLowerCase().endsWith('.gguf'));
  if (main !== undefined) return main;
  throw new ServingError(
    'INVALID_PARAMETER',
    `The folder ${shownPath} holds neither an .onnx nor a .gguf file.`,
  );
}

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join('/'));
}

async function digestFiles(folder: string) {
  const files: { name: string; sha256: string; sizeBytes: number }[] = [];
  for (const name of (await filesBelow(folder)).sort()) {
    const hash = createHash('sha256');
    let sizeBytes = 0;
    for await (const chunk of createReadStream(join(folder, name), { highWaterMark: 1024 * 1024 })) {
      hash.update(chunk as Buffer);
      sizeBytes += (chunk as Buffer).length;
    }
    files.push({ name, sha256: hash.digest('hex'), sizeBytes });
  }
  return files;
}

async function publish(staging: string, target: string): Promise<void> {
  // The name is the content: what is there already is the same.
  if (existsSync(target)) return;
  try {
    await rename(staging, target);
  } catch (error) {
    if (!existsSync(target)) throw error;
  }
}
