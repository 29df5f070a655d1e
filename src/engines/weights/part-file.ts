// A file that has arrived in part: `NAME.part`, and beside it what tells whether the rest still belongs to it.
// One process writes at a time. Knows nothing of where the bytes come from.
import { type FileHandle, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ServingError } from '#core/errors.ts';
import { sha256OfFile } from './staging.ts';

/** As the server said them of the bytes that are here. */
export interface Validators {
  /** Strong ones only. */
  readonly etag?: string;
  readonly lastModified?: string;
  /** The hash a hub names. */
  readonly sha256?: string;
  readonly totalBytes?: number;
}

export class PartFile {
  readonly path: string;
  readonly #to: string;
  readonly #handle: FileHandle;
  readonly #releaseLock: () => Promise<void>;
  #bytes: number;
  #validators: Validators;

  private constructor(
    to: string,
    handle: FileHandle,
    bytes: number,
    validators: Validators,
    releaseLock: () => Promise<void>,
  ) {
    this.#to = to;
    this.path = `${to}.part`;
    this.#handle = handle;
    this.#bytes = bytes;
    this.#validators = validators;
    this.#releaseLock = releaseLock;
  }

  /** Opens what is there of `to`, or begins it. Throws RESOURCE_CONFLICT while another process fetches it. */
  static async open(to: string): Promise<PartFile> {
    await mkdir(dirname(to), { recursive: true });
    const releaseLock = await lock(`${to}.lock`);
    try {
      const path = `${to}.part`;
      const handle = await open(path, 'a+');
      const bytes = (await handle.stat()).size;
      return new PartFile(to, handle, bytes, await readValidators(`${path}.json`), releaseLock);
    } catch (error) {
      await releaseLock();
      throw error;
    }
  }

  get bytes(): number {
    return this.#bytes;
  }

  get validators(): Validators {
    return this.#validators;
  }

  async append(bytes: Uint8Array): Promise<void> {
    await this.#handle.appendFile(bytes);
    this.#bytes += bytes.length;
  }

  /** To be called before the bytes they are said of are appended. */
  async remember(validators: Validators): Promise<void> {
    this.#validators = validators;
    const temporary = `${this.path}.json.${process.pid}`;
    await writeFile(temporary, JSON.stringify(validators));
    await rename(temporary, `${this.path}.json`);
  }

  async reset(): Promise<void> {
    await this.remember({});
    await this.#handle.truncate(0);
    this.#bytes = 0;
  }

  sha256(): Promise<string> {
    return sha256OfFile(this.path);
  }

  /** Puts the file in its place, whole; the part is gone. */
  async publish(): Promise<void> {
    await this.#handle.sync();
    await rename(this.path, this.#to);
    await rm(`${this.path}.json`, { force: true });
  }

  /** Removes what has arrived. */
  async discard(): Promise<void> {
    await rm(this.path, { force: true });
    await rm(`${this.path}.json`, { force: true });
  }

  async close(): Promise<void> {
    await this.#handle.close();
    await this.#releaseLock();
  }
}

async function readValidators(path: string): Promise<Validators> {
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'));
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}

/** A file with the id of the process that writes; that of a dead process counts for nothing. */
async function lock(path: string): Promise<() => Promise<void>> {
  for (let tries = 0; ; tries++) {
    try {
      await writeFile(path, String(process.pid), { flag: 'wx' });
      return () => rm(path, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const owner = Number(await readFile(path, 'utf8').catch(() => ''));
      // Without a number in it the lock was made this moment, or by a machine that lost power in that moment.
      const isOld = Date.now() - ((await stat(path).catch(() => undefined))?.mtimeMs ?? 0) > 10_000;
      if (tries < 2 && (owner > 0 ? !isAlive(owner) : isOld)) await rm(path, { force: true });
      else {
        throw new ServingError(
          'RESOURCE_CONFLICT',
          `The same file is being fetched by process ${owner > 0 ? owner : 'unknown'}. Wait for it, or remove ${path} if that is wrong.`,
        );
      }
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
