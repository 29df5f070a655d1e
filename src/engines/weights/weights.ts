// Embedded weights on this machine: are they here, where, and the ways in (a shared download, local files).
// Files are checked by SHA-256 once and remembered as checked; which hashes count is in catalogue.ts.
import { statSync } from 'node:fs';
import { copyFile, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import type { EngineContext } from '../engine.ts';
import { type FetchedWeights, type WeightFile, weightsOf } from './catalogue.ts';
import { type FetchOptions, fetchInto, waysOut } from './fetch.ts';
import { mismatch, sha256OfFile } from './staging.ts';

const CHECKED_FILE = 'checked.json';

/** Where the files of an id are, or would be. */
export function weightsDirectory(id: string, cacheDir: string): string {
  const weights = weightsOf(id);
  return weights.kind === 'carried' ? fileURLToPath(weights.directory) : join(cacheDir, ...id.split('/'));
}

/** Are all files there in the right size? Content is checked when an engine opens them. */
export function isPresent(id: string, cacheDir: string): boolean {
  const directory = weightsDirectory(id, cacheDir);
  return weightsOf(id).files.every(({ name, forms }) => {
    const bytes = statSync(join(directory, name), { throwIfNoEntry: false })?.size;
    return forms.some((form) => form.bytes === bytes);
  });
}

/** The directory of checked weights: from the cache, or fetched when the context allows it, else MODEL_NOT_AVAILABLE. */
export async function loadWeights(id: string, context: EngineContext, signal?: AbortSignal): Promise<string> {
  const { modelCacheDir, notify, onDownloadProgress } = context;
  const weights = weightsOf(id);
  const directory = weightsDirectory(id, modelCacheDir);
  if (weights.kind === 'carried') return directory;
  if (isPresent(id, modelCacheDir)) {
    await check(weights, directory);
    return directory;
  }
  if (!context.allowDownload(id)) {
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The weights "${id}" are not on this machine and are not fetched without being asked for. ${waysOut(weights, directory)}`,
      { details: { id, directory } },
    );
  }
  return fetchWeights(id, modelCacheDir, {
    notify,
    ...(onDownloadProgress ? { onProgress: (done, total) => onDownloadProgress(id, done, total) } : {}),
    ...(signal ? { signal } : {}),
  });
}

/** A fetch in progress. It goes on as long as one caller still wants it. */
interface SharedFetch {
  readonly done: Promise<void>;
  readonly abort: AbortController;
  readonly listeners: Set<NonNullable<FetchOptions['onProgress']>>;
  waiting: number;
}
const fetches = new Map<string, SharedFetch>();

/** Fetches weights into the cache and gives their directory; what is there already is not fetched again. */
export async function fetchWeights(
  id: string,
  cacheDir: string,
  options: FetchOptions = {},
): Promise<string> {
  const weights = weightsOf(id);
  const directory = weightsDirectory(id, cacheDir);
  if (weights.kind === 'carried' || isPresent(id, cacheDir)) return directory;
  throwIfAborted(options.signal);
  const shared = fetches.get(directory) ?? startFetch(weights, cacheDir, directory, options);
  if (options.onProgress) shared.listeners.add(options.onProgress);
  shared.waiting++;
  try {
    await untilAborted(shared.done, options.signal);
  } finally {
    if (options.onProgress) shared.listeners.delete(options.onProgress);
    if (--shared.waiting === 0) shared.abort.abort();
  }
  return directory;
}

function startFetch(
  weights: FetchedWeights,
  cacheDir: string,
  directory: string,
  options: FetchOptions,
): SharedFetch {
  const abort = new AbortController();
  const listeners = new Set<NonNullable<FetchOptions['onProgress']>>();
  const onProgress: FetchOptions['onProgress'] = (done, total) => {
    for (const listener of listeners) listener(done, total);
  };
  const done = fetchInto(weights, cacheDir, directory, { ...options, onProgress, signal: abort.signal })
    .then(() => rememberChecked(weights, directory))
    .finally(() => fetches.delete(directory));
  const shared: SharedFetch = { done, abort, listeners, waiting: 0 };
  fetches.set(directory, shared);
  return shared;
}

function untilAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const onAbort = () =>
      reject(new ServingError('CANCELLED', 'The call was cancelled.', { cause: signal.reason }));
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/** Copies weights from a local folder (or from beside a local file) into the cache; gives their directory there. */
export async function importWeights(id: string, path: string, cacheDir: string): Promise<string> {
  const weights = weightsOf(id);
  const directory = weightsDirectory(id, cacheDir);
  if (weights.kind === 'carried') return directory;
  const info = await stat(path).catch(() => undefined);
  if (info === undefined)
    throw new ServingError('NOT_FOUND', `There is no file or folder ${path} to import.`);
  const places = info.isDirectory() ? [path] : [dirname(path), join(dirname(path), '..')];
  const found = new Map<WeightFile, string>();
  for (const file of weights.files) {
    const candidates = places.flatMap((place) => [join(place, file.name), join(place, file.hubPath)]);
    found.set(file, await genuine(file, info.isDirectory() ? candidates : [path, ...candidates]));
  }
  await mkdir(directory, { recursive: true });
  for (const [file, from] of found) {
    const temporary = join(directory, `.${file.name}.${process.pid}`);
    await copyFile(from, temporary);
    await rename(temporary, join(directory, file.name));
  }
  await rememberChecked(weights, directory);
  return directory;
}

async function genuine(file: WeightFile, candidates: readonly string[]): Promise<string> {
  let complaint = `looked for ${[...new Set(candidates)].join(', ')}`;
  for (const path of candidates) {
    const bytes = (await stat(path).catch(() => undefined))?.size;
    if (bytes === undefined) continue;
    // A file of another size is another file; its hash need not be computed.
    if (!file.forms.some((form) => form.bytes === bytes)) continue;
    const sha256 = await sha256OfFile(path);
    if (file.forms.some((form) => form.sha256 === sha256)) return path;
    complaint = mismatch(file, sha256);
  }
  throw new ServingError(
    'MODEL_NOT_AVAILABLE',
    `No genuine ${file.name} of ${file.forms.map((form) => form.bytes).join(' or ')} bytes was found: ${complaint}. Give the folder that holds it.`,
  );
}

/** Hashes files that were placed by hand; for those already checked a look at size and time is enough. */
async function check(weights: FetchedWeights, directory: string): Promise<void> {
  const remembered = await readFile(join(directory, CHECKED_FILE), 'utf8').catch(() => '');
  if (remembered !== '' && remembered === (await snapshot(weights, directory))) return;
  for (const file of weights.files) {
    const sha256 = await sha256OfFile(join(directory, file.name));
    if (file.forms.some((form) => form.sha256 === sha256)) continue;
    throw new ServingError(
      'MODEL_NOT_AVAILABLE',
      `${mismatch(file, sha256)}. Remove ${join(directory, file.name)} and try again. ${waysOut(weights, directory)}`,
    );
  }
  await rememberChecked(weights, directory);
}

/** Only saves time: in a directory that cannot be written the files are hashed at each start. */
async function rememberChecked(weights: FetchedWeights, directory: string): Promise<void> {
  const temporary = join(directory, `.${CHECKED_FILE}.${process.pid}`);
  try {
    await writeFile(temporary, await snapshot(weights, directory));
    await rename(temporary, join(directory, CHECKED_FILE));
  } catch {
    await rm(temporary, { force: true }).catch(() => undefined);
  }
}

async function snapshot(weights: FetchedWeights, directory: string): Promise<string> {
  const files = weights.files.map(async ({ name }) => {
    const { size, mtimeMs } = await stat(join(directory, name));
    return { name, bytes: size, modifiedMs: mtimeMs };
  });
  return JSON.stringify(await Promise.all(files));
}
