// The key that encrypts secrets: 32 bytes from DUCKSERVE_MASTER_KEY, or from a file in the data directory that
// only its owner can read. Made when the first secret is set.
import { randomBytes } from 'node:crypto';
import { existsSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ServingError } from '#core/errors.ts';

const FILE = 'master.key';
const VARIABLE = 'DUCKSERVE_MASTER_KEY';
const KEY_BYTES = 32;
const BASE64 = /^[A-Za-z0-9+/_-]{43}=?$/;

/** Undefined where there is none yet. */
export function readMasterKey(
  dataDir: string | null,
  env: Readonly<Record<string, string | undefined>>,
): Buffer | undefined {
  const given = env[VARIABLE];
  if (given !== undefined && given !== '') return parseKey(given, `The environment variable ${VARIABLE}`);
  if (dataDir === null) return undefined;
  const file = join(dataDir, FILE);
  return existsSync(file) ? parseKey(readFileSync(file, 'utf8'), `The file ${file}`) : undefined;
}

/** Kept in the data directory; without one it lives as long as the process. */
export function createMasterKey(dataDir: string | null): Buffer {
  const key = randomBytes(KEY_BYTES);
  if (dataDir === null) return key;
  const file = join(dataDir, FILE);
  const staging = `${file}.${process.pid}`;
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    writeFileSync(staging, `${key.toString('base64')}\n`, { mode: 0o600, flag: 'wx', flush: true });
    // A link appears whole or not at all, and never replaces a key that encrypts something.
    linkSync(staging, file);
    return key;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ServingError('STORAGE_ERROR', `The master key ${file} cannot be written: ${reason}`, {
      cause: error,
    });
  } finally {
    rmSync(staging, { force: true });
  }
}

function parseKey(text: string, what: string): Buffer {
  const trimmed = text.trim();
  const key = Buffer.from(trimmed, 'base64');
  if (BASE64.test(trimmed) && key.length === KEY_BYTES) return key;
  throw new ServingError(
    'INVALID_PARAMETER',
    `${what} does not hold 32 bytes in base64. Make a key with: openssl rand -base64 32`,
  );
}
