// Opens an LMDB file, or sets a damaged one aside and starts an empty one. LMDB maps the file into memory, so a
// file that was cut off or is something else ends the process with SIGBUS; it is looked at before it is mapped.
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { open, type RootDatabase } from 'lmdb';
import { ServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';

/** `probe` opens the named databases and reads a little; when it throws the file counts as damaged. */
export async function openLmdbFile<T>(
  path: string,
  log: Log,
  probe: (root: RootDatabase<Buffer>) => T,
): Promise<T> {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    createPrivateFile(path);
    if (!hasSoundHead(path)) setAside(path, 'its head is not that of an LMDB file, or it was cut off', log);
    else if (endedAnOpener(path)) setAside(path, 'the process that opened it last ended while it did', log);
    markOpening(path);
    try {
      return await openAndProbe(path, probe);
    } catch (error) {
      setAside(path, error instanceof Error ? error.message : String(error), log);
      return await openAndProbe(path, probe);
    } finally {
      rmSync(openingMark(path), { force: true });
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ServingError(
      'STORAGE_ERROR',
      `The answer store ${path} cannot be opened: ${reason}. Check the permissions of the directory, or choose another with --data.`,
      { cause: error },
    );
  }
}

async function openAndProbe<T>(path: string, probe: (root: RootDatabase<Buffer>) => T): Promise<T> {
  const root = open<Buffer, string>({ path, noSubdir: true, encoding: 'binary', maxDbs: 4 });
  try {
    return probe(root);
  } catch (error) {
    await root.close();
    throw error;
  }
}

// Behind a sound head a damaged tree ends the process inside of LMDB, where nothing can be caught. A mark says that
// a process is about to look; the next one that finds the mark of a dead process does not look again.
const openingMark = (path: string): string => `${path}-opening`;

function markOpening(path: string): void {
  writeFileSync(openingMark(path), String(process.pid), { mode: 0o600 });
}

function endedAnOpener(path: string): boolean {
  let pid: number;
  try {
    pid = Number(readFileSync(openingMark(path), 'utf8'));
  } catch {
    return false;
  }
  if (!Number.isInteger(pid) || pid <= 0 || pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

function createPrivateFile(path: string): void {
  // Answers quote what users asked: for the owner alone.
  closeSync(openSync(path, 'a', 0o600));
}

function setAside(path: string, reason: string, log: Log): void {
  const damagedPath = `${path}.damaged`;
  log.warn({ path, damagedPath, reason }, 'answer store is damaged; it was set aside and an empty one begun');
  rmSync(damagedPath, { force: true });
  if (existsSync(path)) renameSync(path, damagedPath);
  rmSync(`${path}-lock`, { force: true });
  createPrivateFile(path);
}

// Layout of an LMDB meta page (two of them, at page 0 and 1), as offsets from the start of the page.
const MAGIC = 0xbeefc0de;
const MAGIC_AT = 24;
const PAGE_SIZE_AT = MAGIC_AT + 24;
const LAST_PAGE_AT = MAGIC_AT + 120;
const TRANSACTION_AT = MAGIC_AT + 128;
const META_BYTES = MAGIC_AT + 136;

/** An empty file is sound: LMDB writes its head. */
function hasSoundHead(path: string): boolean {
  const file = openSync(path, 'r');
  try {
    const size = fstatSync(file).size;
    if (size === 0) return true;
    const first = readMeta(file, 0);
    if (first === undefined) return false;
    const second = readMeta(file, first.pageSize);
    if (second === undefined) return false;
    const newest = second.transaction > first.transaction ? second : first;
    return size >= (newest.lastPage + 1) * first.pageSize;
  } finally {
    closeSync(file);
  }
}

function readMeta(file: number, at: number) {
  const bytes = Buffer.alloc(META_BYTES);
  if (readSync(file, bytes, 0, META_BYTES, at) < META_BYTES || bytes.readUInt32LE(MAGIC_AT) !== MAGIC)
    return undefined;
  return {
    pageSize: bytes.readUInt32LE(PAGE_SIZE_AT),
    lastPage: Number(bytes.readBigUInt64LE(LAST_PAGE_AT)),
    transaction: bytes.readBigUInt64LE(TRANSACTION_AT),
  };
}
