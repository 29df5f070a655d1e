// Weights on their way into the cache: written and hashed in a directory beside it, moved in when all are genuine.
// Knows nothing of where the bytes come from.
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, mkdir, mkdtemp, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { WeightFile } from './catalogue.ts';

const STALE_AFTER_MS = 24 * 60 * 60 * 1000;
const PREFIX = '.fetch-';

interface OpenFile {
  readonly handle: FileHandle;
  readonly hash: Hash;
  bytes: number;
}

export class Staging {
  readonly directory: string;
  readonly #files = new Map<string, OpenFile>();

  private constructor(directory: string) {
    this.directory = directory;
  }

  /** A fresh directory in `cacheDir`, so that moving out of it is a rename on one file system. */
  static async create(cacheDir: string): Promise<Staging> {
    await mkdir(cacheDir, { recursive: true });
    await removeStale(cacheDir);
    return new Staging(await mkdtemp(join(cacheDir, PREFIX)));
  }

  /** Appends to a file; the first write of a name creates it. */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    let file = this.#files.get(name);
    if (file === undefined) {
      file = { handle: await open(join(this.directory, name), 'w'), hash: createHash('sha256'), bytes: 0 };
      this.#files.set(name, file);
    }
    file.hash.update(bytes);
    file.bytes += bytes.length;
    await file.handle.writeFile(bytes);
  }

  /** Forgets what was written, for the next attempt. */
  async clear(): Promise<void> {
    for (const [name, file] of this.#files) {
      await file.handle.close();
      await rm(join(this.directory, name), { force: true });
    }
    this.#files.clear();
  }

  /** Checks every hash, then moves the files to `target`. Throws a plain Error that names the file and both hashes. */
  async publish(files: readonly WeightFile[], target: string): Promise<void> {
    for (const file of files) {
      const written = this.#files.get(file.name);
      if (written === undefined) throw new Error(`${file.name} was not in it`);
      const sha256 = written.hash.digest('hex');
      if (!file.forms.some((form) => form.sha256 === sha256)) throw new Error(mismatch(file, sha256));
    }
    await mkdir(target, { recursive: true });
    for (const { name } of files) {
      const handle = this.#files.get(name)?.handle;
      // What is renamed must be on disk: after a power cut a file has either no content or its whole content.
      await handle?.sync();
      await handle?.close();
      this.#files.delete(name);
      await moveInto(join(this.directory, name), join(target, name));
    }
  }

  async remove(): Promise<void> {
    await this.clear();
    await rm(this.directory, { recursive: true, force: true, maxRetries: 3 });
  }
}

export function mismatch(file: WeightFile, sha256: string): string {
  const wanted = file.forms.map((form) => form.sha256).join(' or ');
  return `${file.name} has SHA-256 ${sha256}, expected is ${wanted}`;
}

export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 }))
    hash.update(chunk as Buffer);
  return hash.digest('hex');
}

async function moveInto(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    // On Windows a file that another process has open cannot be replaced. Then that process won the race with an
    // equal file; anything else is an error.
    if ((await sha256OfFile(to).catch(() => '')) !== (await sha256OfFile(from))) throw error;
  }
}

/** What a killed process left behind. */
async function removeStale(cacheDir: string): Promise<void> {
  for (const name of await readdir(cacheDir)) {
    if (!name.startsWith(PREFIX)) continue;
    const path = join(cacheDir, name);
    const modifiedMs = (await stat(path).catch(() => undefined))?.mtimeMs ?? Number.POSITIVE_INFINITY;
    if (Date.now() - modifiedMs > STALE_AFTER_MS) await rm(path, { recursive: true, force: true });
  }
}
