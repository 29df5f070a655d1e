// Model directories that come as one file: .zip, .tar.gz, .tgz. Unpacked into a folder that was made for them, with
// limits, and refused when an entry would leave it. What is in them is looked at by whoever asked.
import { closeSync, createWriteStream, mkdirSync, openSync, write } from 'node:fs';
import { mkdir, readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import type { Entry } from 'yauzl';
import { ServingError } from '#core/errors.ts';
import { readTarball } from '../weights/tar.ts';
import { isInside } from './member-paths.ts';
import { MLMODEL } from './mlmodel.ts';
import { show } from './refusal.ts';

export interface ArchiveLimits {
  /** Of all files once they are unpacked. */
  readonly maxBytes: number;
  readonly maxEntries: number;
  /** Unpacked bytes for each byte of the archive. */
  readonly maxRatio: number;
  /** Fewer unpacked bytes may have any ratio: small files of zeros are no attack. */
  readonly ratioFromBytes: number;
}

export const ARCHIVE_LIMITS: ArchiveLimits = {
  maxBytes: 64 * 1024 ** 3,
  maxEntries: 100_000,
  maxRatio: 200,
  ratioFromBytes: 64 * 1024 ** 2,
};
const LONGEST_NAME = 1_024;
const writeBytes = promisify(write);

export function isArchive(path: string): boolean {
  return /\.(zip|tar\.gz|tgz)$/i.test(path);
}

/**
 * Unpacks into an empty folder and gives the model in it: the folder, or what alone lies in it. Throws
 * INVALID_PARAMETER for archives that are damaged, too large, or not only files and folders inside themselves.
 */
export async function unpackArchive(
  path: string,
  into: string,
  limits: ArchiveLimits = ARCHIVE_LIMITS,
): Promise<string> {
  try {
    const { size } = await stat(path);
    const quota = new Quota(path, size, limits);
    if (path.toLowerCase().endsWith('.zip')) await unpackZip(path, into, quota);
    else await unpackTar(path, into, quota);
  } catch (error) {
    if (error instanceof ServingError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw refused(path, reason.replace(/\.$/, ''), error);
  }
  return await modelIn(into, path);
}

/** The archive's only folder stands for the archive, as deep as that goes. */
async function modelIn(folder: string, path: string): Promise<string> {
  const entries = await readdir(folder, { withFileTypes: true });
  const [only] = entries;
  if (only === undefined) throw refused(path, 'it holds no files');
  if (entries.length > 1 || only.name === MLMODEL) return folder;
  const inner = join(folder, only.name);
  return only.isDirectory() ? await modelIn(inner, path) : inner;
}

async function unpackZip(path: string, into: string, quota: Quota): Promise<void> {
  const { openPromise } = await import('yauzl');
  const archive = await openPromise(path, { lazyEntries: true, autoClose: false, strictFileNames: true });
  try {
    for await (const entry of archive.eachEntry()) {
      const name = entry.fileName;
      if (name.startsWith('__MACOSX/')) continue;
      quota.addEntry(name);
      refuseSpecial(path, entry);
      if (name.endsWith('/')) continue;
      if (entry.isEncrypted()) throw refused(path, `its entry ${show(name)} is encrypted`);
      const target = join(into, name);
      await mkdir(dirname(target), { recursive: true, mode: 0o700 });
      await writeAll(await archive.openReadStreamPromise(entry), target, quota);
    }
  } finally {
    archive.close();
  }
}

/** Zip files made on Unix say what an entry is. */
function refuseSpecial(path: string, { externalFileAttributes, fileName }: Entry): void {
  const type = (externalFileAttributes >>> 16) & 0xf000;
  if (type === 0 || type === 0x8000 || type === 0x4000) return;
  throw refused(
    path,
    `its entry ${show(fileName)} is ${type === 0xa000 ? 'a link' : 'no file'}; only files and folders are unpacked`,
  );
}

async function writeAll(source: Readable, target: string, quota: Quota): Promise<void> {
  source.on('data', (chunk: Buffer) => {
    try {
      quota.addBytes(chunk.length);
    } catch (error) {
      source.destroy(error as Error);
    }
  });
  await pipeline(source, createWriteStream(target, { flags: 'wx', mode: 0o600 }));
}

async function unpackTar(path: string, into: string, quota: Quota): Promise<void> {
  let file: number | undefined;
  const close = () => {
    if (file !== undefined) closeSync(file);
    file = undefined;
  };
  try {
    await readTarball(
      path,
      (name) => {
        quota.addEntry(name);
        close();
        const target = join(into, name);
        mkdirSync(dirname(target), { recursive: true, mode: 0o700 });
        const opened = (file = openSync(target, 'wx', 0o600));
        return async (bytes) => {
          quota.addBytes(bytes.length);
          for (let at = 0; at < bytes.length; )
            at += (await writeBytes(opened, bytes, at, bytes.length - at)).bytesWritten;
        };
      },
      undefined,
      (name, type) => {
        const what = type === '1' || type === '2' ? 'a link' : 'no file';
        throw refused(path, `its entry ${show(name)} is ${what}; only files and folders are unpacked`);
      },
    );
  } finally {
    close();
  }
}

class Quota {
  readonly #path: string;
  readonly #packedBytes: number;
  readonly #limits: ArchiveLimits;
  #entries = 0;
  #bytes = 0;

  constructor(path: string, packedBytes: number, limits: ArchiveLimits) {
    this.#path = path;
    this.#packedBytes = packedBytes;
    this.#limits = limits;
  }

  addEntry(name: string): void {
    const { maxEntries } = this.#limits;
    if (++this.#entries > maxEntries) throw refused(this.#path, `it has more than ${maxEntries} entries`);
    const isPlain = name.length <= LONGEST_NAME && !/[\p{Cc}\\]/u.test(name) && isInside(name);
    if (!isPlain)
      throw refused(this.#path, `its entry ${show(name)} would lie outside the folder it is unpacked into`);
  }

  addBytes(count: number): void {
    const { maxBytes, maxRatio, ratioFromBytes } = this.#limits;
    this.#bytes += count;
    if (this.#bytes > maxBytes) {
      throw refused(
        this.#path,
        `its files have more than ${maxBytes} bytes; DUCKSERVE_MODEL_MAX_BYTES allows more`,
      );
    }
    if (this.#bytes > ratioFromBytes && this.#bytes > this.#packedBytes * maxRatio)
      throw refused(
        this.#path,
        `it unpacks to more than ${maxRatio} times its size; unpack it by hand if that is right`,
      );
  }
}

function refused(path: string, reason: string, cause?: unknown): ServingError {
  return new ServingError('INVALID_PARAMETER', `The archive ${path} cannot be used: ${reason}.`, { cause });
}
