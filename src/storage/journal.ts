// An append-only file in pieces: lines are added at the end of the newest piece, whole pieces are taken away when
// what they hold is somewhere better. Writing is a hundred times cheaper than an INSERT, and survives SIGKILL.
// What the lines mean is not known here.
import { type FileHandle, mkdir, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#core/clock.ts';

/** A piece that is complete. `path` is null in memory, where `text` holds its lines. */
export interface Segment {
  readonly name: string;
  readonly path: string | null;
  readonly text: string;
}

export interface Journal {
  /** `lines` ends with a line feed. With `isSynced` it is on the disk itself when this resolves. */
  append(lines: string, isSynced: boolean): Promise<void>;
  /** Completes the newest piece, if it holds anything, and gives all pieces there are, oldest first. */
  seal(): Promise<readonly Segment[]>;
  remove(segment: Segment): Promise<void>;
  close(): Promise<void>;
}

/** Pieces left by an earlier process are given by the first `seal`. `directory` null: in memory. */
export async function openJournal(directory: string | null, name: string, clock: Clock): Promise<Journal> {
  if (directory === null) return new MemoryJournal(name);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const left = (await readdir(directory)).filter(
    (file) => file.startsWith(`${name}-`) && file.endsWith('.ndjson'),
  );
  return new FileJournal(directory, name, clock, left.sort());
}

class FileJournal implements Journal {
  readonly #directory: string;
  readonly #name: string;
  readonly #clock: Clock;
  readonly #sealed: Segment[];
  #current: { readonly segment: Segment; readonly file: FileHandle } | undefined;
  #sizeBytes = 0;
  #count = 0;
  /** One thing after another: a piece must not be sealed while lines are on their way into it. */
  #tail: Promise<unknown> = Promise.resolve();

  constructor(directory: string, name: string, clock: Clock, left: readonly string[]) {
    this.#directory = directory;
    this.#name = name;
    this.#clock = clock;
    this.#sealed = left.map((file) => ({ name: file, path: join(directory, file), text: '' }));
  }

  append(lines: string, isSynced: boolean): Promise<void> {
    return this.#inTurn(async () => {
      this.#current ??= await this.#begin();
      const { file } = this.#current;
      try {
        await file.appendFile(lines);
        if (isSynced) await file.datasync();
        this.#sizeBytes += Buffer.byteLength(lines);
      } catch (error) {
        // Part of it may be there, and the caller will write all of it again: into a piece of its own.
        await file.truncate(this.#sizeBytes).catch(() => undefined);
        const { segment } = this.#current;
        await this.#end();
        // A disk that stays full would leave an empty piece behind ten times a second.
        if (this.#sizeBytes === 0) await this.#drop(segment).catch(() => undefined);
        throw error;
      }
    });
  }

  seal(): Promise<readonly Segment[]> {
    return this.#inTurn(async () => {
      await this.#end();
      return [...this.#sealed];
    });
  }

  remove(segment: Segment): Promise<void> {
    return this.#inTurn(() => this.#drop(segment));
  }

  close(): Promise<void> {
    return this.#inTurn(() => this.#end());
  }

  async #begin() {
    // Sorts by time, and is never the name of an earlier piece.
    const time = String(this.#clock.now()).padStart(15, '0');
    this.#count += 1;
    this.#sizeBytes = 0;
    const name = `${this.#name}-${time}-${process.pid}-${String(this.#count).padStart(6, '0')}.ndjson`;
    const path = join(this.#directory, name);
    return { segment: { name, path, text: '' }, file: await open(path, 'ax', 0o600) };
  }

  async #drop({ name, path }: Segment): Promise<void> {
    if (path !== null) await rm(path, { force: true });
    const at = this.#sealed.findIndex((other) => other.name === name);
    if (at >= 0) this.#sealed.splice(at, 1);
  }

  async #end(): Promise<void> {
    const current = this.#current;
    if (current === undefined) return;
    this.#current = undefined;
    this.#sealed.push(current.segment);
    await current.file.close();
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#tail.then(work);
    this.#tail = done.catch(() => undefined);
    return done;
  }
}

class MemoryJournal implements Journal {
  readonly #name: string;
  readonly #sealed: Segment[] = [];
  #text = '';
  #count = 0;

  constructor(name: string) {
    this.#name = name;
  }

  async append(lines: string): Promise<void> {
    this.#text += lines;
  }

  async seal(): Promise<readonly Segment[]> {
    if (this.#text !== '') {
      this.#count += 1;
      this.#sealed.push({ name: `${this.#name}-${this.#count}`, path: null, text: this.#text });
      this.#text = '';
    }
    return [...this.#sealed];
  }

  async remove(segment: Segment): Promise<void> {
    this.#sealed.splice(this.#sealed.indexOf(segment), 1);
  }

  async close(): Promise<void> {}
}
