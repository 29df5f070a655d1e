// The files of registered models: found, copied into a directory named after their content, and removed.
// A copy appears whole or not at all. What a model is for is not decided here.
import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { cp, mkdir, readdir, realpath, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';

export interface StoredArtifact {
  /** Main file, relative to the directory of artifacts. */
  readonly source: string;
  /** Of the main file; of all files together where the others say what the model answers as much as that one. */
  readonly sha256: string;
  /** Of all files together. */
  readonly sizeBytes: number;
}

export interface StoreOptions {
  /** Which file of a folder an engine opens; absent: the first that looks like a model. */
  readonly mainFile?: string;
  /** The model is what all its files say, as programs are. Always so for directories with an MLmodel. */
  readonly countsAllFiles?: boolean;
  /** The files are nobody else's: they are moved, not copied. */
  readonly isOurs?: boolean;
}

const MLMODEL = 'MLmodel';
const STALE_AFTER_MS = 24 * 60 * 60 * 1000;
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

/**
 * Copies a model file with what lies beside it, or a folder, to `<artifactsDir>/<sha256>/`. Of a directory with an
 * MLmodel everything is copied, and nothing that lies outside: links that lead out are refused.
 */
export async function storeArtifact(
  path: string,
  artifactsDir: string,
  options: StoreOptions = {},
): Promise<StoredArtifact> {
  const given = resolve(path);
  const from = basename(given) === MLMODEL ? dirname(given) : given;
  const staging = join(artifactsDir, `.incoming-${randomUUID()}`);
  try {
    if (!existsSync(from)) {
      throw new ServingError('INVALID_PARAMETER', `There is no file or folder ${from}.`);
    }
    const isDirectory = (await stat(from)).isDirectory();
    const isWhole = isDirectory && existsSync(join(from, MLMODEL));
    if (isWhole) await refuseLinksOut(from);
    await mkdir(artifactsDir, { recursive: true, mode: 0o700 });
    if (options.isOurs === true && isDirectory) await rename(from, staging);
    else {
      await mkdir(staging, { recursive: true, mode: 0o700 });
      if (isDirectory) await copyFolder(from, staging, isWhole);
      else await copyFile(from, staging);
    }
    const main = isDirectory ? (options.mainFile ?? (await mainFileOf(staging, from))) : basename(from);
    const files = await digestFiles(staging);
    const mainFile = files.find((file) => file.name === main);
    if (mainFile === undefined) throw new Error(`${main} is not a file`);
    const digest = sha256Hex(files.map((file) => `${file.sha256} ${file.name}`).join('\n'));
    // Weights of ONNX that are too large for its own file lie beside it.
    const hasOuterWeights = files.some((file) => /[._]data$/.test(file.name));
    const countsAll = isWhole || options.countsAllFiles === true || hasOuterWeights;
    const name = files.length === 1 && !isWhole ? mainFile.sha256 : digest;
    await publish(staging, join(artifactsDir, name));
    return {
      source: `${name}/${main}`,
      sha256: countsAll ? digest : mainFile.sha256,
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

/** Removes what a process that was killed has left half copied or unpacked. */
export async function removeStale(artifactsDir: string, nowMs: number): Promise<void> {
  const names = await readdir(artifactsDir).catch(() => []);
  for (const name of names) {
    if (!/^\.(incoming|unpacked)-/.test(name)) continue;
    const path = join(artifactsDir, name);
    const found = await stat(path).catch(() => undefined);
    if (found !== undefined && nowMs - found.mtimeMs > STALE_AFTER_MS)
      await rm(path, { recursive: true, force: true });
  }
}

/** A folder that does not exist yet, for what an archive holds; whoever asks for one removes it. */
export function scratchFolder(artifactsDir: string): string {
  return join(artifactsDir, `.unpacked-${randomUUID()}`);
}

/** Removes the directory of an artifact that no version uses any more. */
export async function removeArtifact(source: string, artifactsDir: string): Promise<void> {
  await rm(join(artifactsDir, artifactName(source)), { recursive: true, force: true });
}

/** The directory of an artifact below the directory of artifacts. */
export function artifactName(source: string): string {
  return source.split('/')[0] ?? source;
}

async function copyFolder(from: string, to: string, isWhole: boolean): Promise<void> {
  // Folders of model hubs hold links into a cache: what they point to is copied.
  const filter = (source: string) => isWhole || source === from || !basename(source).startsWith('.');
  await cp(from, to, { recursive: true, dereference: true, filter });
}

async function copyFile(from: string, to: string): Promise<void> {
  const file = basename(from);
  await cp(from, join(to, file), { dereference: true });
  for (const name of [...SIDECARS, `${file}.data`, `${file}_data`]) {
    const sidecar = join(dirname(from), name);
    if (name !== file && existsSync(sidecar)) await cp(sidecar, join(to, name), { dereference: true });
  }
}

/**
 * Throws INVALID_PARAMETER for links that lead out of the directory or to a folder (which may hold the link), and for
 * what is neither file nor folder.
 */
async function refuseLinksOut(folder: string): Promise<void> {
  const root = await realpath(folder);
  // Not readdir's own recursion: it goes into what links point to.
  const walk = async (inner: string): Promise<void> => {
    for (const entry of await readdir(join(root, inner), { withFileTypes: true })) {
      const name = join(inner, entry.name);
      if (entry.isDirectory()) await walk(name);
      else if (!entry.isFile()) {
        const problem = entry.isSymbolicLink()
          ? await linkProblem(root, name)
          : 'neither a file nor a folder';
        if (problem === undefined) continue;
        throw new ServingError(
          'INVALID_PARAMETER',
          `${join(folder, name)} is ${problem}. Put the file itself there, or remove it.`,
        );
      }
    }
  };
  await walk('');
}

async function linkProblem(root: string, name: string): Promise<string | undefined> {
  const target = await realpath(join(root, name)).catch(() => undefined);
  if (target === undefined) return 'a link that leads nowhere';
  const inner = relative(root, target);
  if (inner === '..' || inner.startsWith(`..${sep}`) || isAbsolute(inner))
    return 'a link that leads out of the model directory';
  return (await stat(target)).isFile() ? undefined : 'a link to a folder';
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
