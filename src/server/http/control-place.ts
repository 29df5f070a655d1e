// Where the control socket of a data directory lies: in it, or where its path would be too long for a socket, in a
// place that control.json names. For the server that opens it and the command line that asks there.
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** The operating system's limit is 103 (macOS) or 107 bytes (Linux). */
const LONGEST_PATH_BYTES = 100;

export function defaultSocket(dataDir: string): string {
  return join(dataDir, 'control.sock');
}

export function noteFile(dataDir: string): string {
  return join(dataDir, 'control.json');
}

export function isTooLong(path: string): boolean {
  return Buffer.byteLength(path) > LONGEST_PATH_BYTES;
}

/** Undefined where no server has one open (one that died may have left its own behind). */
export function findSocket(dataDir: string): string | undefined {
  const path = defaultSocket(dataDir);
  if (isSocket(path)) return path;
  try {
    const { socket } = JSON.parse(readFileSync(noteFile(dataDir), 'utf8')) as { readonly socket?: unknown };
    return typeof socket === 'string' && isSocket(socket) ? socket : undefined;
  } catch {
    return undefined;
  }
}

function isSocket(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isSocket() === true;
}
