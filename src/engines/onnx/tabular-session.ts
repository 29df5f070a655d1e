// Opens ONNX models for the tabular runner: small ones here, large or slow ones on a thread of their own, and each
// only once however many endpoints and versions serve it.
import { realpath, stat } from 'node:fs/promises';
import { openBackgroundSession } from './background-session.ts';
import { readModelFile, unreadable } from './model-file.ts';
import { openNativeSession } from './native-session.ts';
import type { TabularSession } from './session.ts';

export interface SessionOptions {
  /** Threads of one run. */
  readonly threads: number;
  /** SHA-256 of the file where it is known: then the same file is found again under another path. */
  readonly sha256?: string;
}

interface Shared {
  readonly session: Promise<TabularSession>;
  readonly key: string;
  readonly contentKey: string | undefined;
  users: number;
}

/**
 * Loading takes 4 (dense layers) to 30 (trees) milliseconds a megabyte and blocks the thread; so does a run of these
 * operators. A thread costs some tenths of a millisecond a chunk, which small models would feel.
 */
const SMALL_BYTES = 1024 * 1024;
const SLOW_OPERATORS =
  /^(Conv|ConvTranspose|ConvInteger|QLinearConv|LSTM|GRU|RNN|Loop|Scan|Attention|MultiHeadAttention)$/;

const open = new Map<string, Shared>();
const openByContent = new Map<string, Shared>();

/**
 * Throws MODEL_NOT_AVAILABLE, or INVALID_PARAMETER for a model that points to files elsewhere. `close` of what is
 * returned gives back this use of the session; the last one closes it.
 */
export async function openTabularSession(path: string, options: SessionOptions): Promise<TabularSession> {
  const { threads, sha256 } = options;
  const contentKey = sha256 ? `${threads} ${sha256}` : undefined;
  const key = `${threads} ${await identityOf(path)}`;
  const known = open.get(key) ?? (contentKey === undefined ? undefined : openByContent.get(contentKey));
  if (known !== undefined) {
    known.users++;
    const session = await known.session;
    // The same graph with other weights beside it has the same hash.
    if (known.key === key || !session.hasExternalFiles) return useOf(known, session);
    await leave(known);
  }
  return openShared(path, key, contentKey, threads);
}

async function openShared(
  path: string,
  key: string,
  contentKey: string | undefined,
  threads: number,
): Promise<TabularSession> {
  const shared: Shared = { session: openOne(path, threads), key, contentKey, users: 1 };
  open.set(key, shared);
  if (contentKey !== undefined) openByContent.set(contentKey, shared);
  try {
    const session = await shared.session;
    void session.lost?.then(() => forget(shared));
    return useOf(shared, session);
  } catch (thrown) {
    forget(shared);
    throw thrown;
  }
}

async function openOne(path: string, threads: number): Promise<TabularSession> {
  const { size } = await stat(path);
  if (size > SMALL_BYTES) return openBackgroundSession(path, threads);
  const file = await readModelFile(path);
  return [...file.graph.operators].some((name) => SLOW_OPERATORS.test(name))
    ? openBackgroundSession(path, threads)
    : openNativeSession(file, threads);
}

/** A file that was replaced is another one. */
async function identityOf(path: string): Promise<string> {
  try {
    const real = await realpath(path);
    const { size, mtimeMs, ino } = await stat(real);
    return `${real} ${size} ${mtimeMs} ${ino}`;
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

function useOf(shared: Shared, session: TabularSession): TabularSession {
  let left: Promise<void> | undefined;
  const { inputs, outputs, operators, sha256, sizeBytes, hasExternalFiles, isBackground, runNow, lost } =
    session;
  return {
    inputs,
    outputs,
    operators,
    sha256,
    sizeBytes,
    hasExternalFiles,
    isBackground,
    run: (feeds, names) => session.run(feeds, names),
    ...(runNow ? { runNow } : {}),
    ...(lost ? { lost } : {}),
    close: () => {
      left ??= leave(shared);
      return left;
    },
  };
}

async function leave(shared: Shared): Promise<void> {
  shared.users--;
  if (shared.users > 0) return;
  forget(shared);
  await (await shared.session).close();
}

function forget(shared: Shared): void {
  if (open.get(shared.key) === shared) open.delete(shared.key);
  const { contentKey } = shared;
  if (contentKey !== undefined && openByContent.get(contentKey) === shared) openByContent.delete(contentKey);
}
