// A lock between processes of one machine: a directory, which only one of them can make. A lock whose process has
// died is taken over. For work that lasts minutes and is done once, not for anything quick.
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#core/clock.ts';

const LOOK_EVERY_MS = 250;
/** A lock directory without the name of its process: whoever made it died between two system calls. */
const NAMELESS_AFTER_MS = 10_000;

/** Resolves when the lock is held; the function it gives ends it. `onWait` is heard once when another holds it. */
export async function lockDirectory(
  path: string,
  clock: Clock,
  onWait: (pid: number) => void,
): Promise<() => Promise<void>> {
  let hasWaited = false;
  for (;;) {
    if (await take(path)) return () => rm(path, { recursive: true, force: true });
    const holder = await holderOf(path);
    if (holder === undefined) continue;
    if (!isAlive(holder.pid, holder.ageMs)) {
      // Moved first: of two that want to take it over, one does, and neither removes what the other has made.
      const stale = `${path}.stale-${process.pid}-${Math.floor(clock.random() * 1e9)}`;
      await rename(path, stale).catch(() => {});
      await rm(stale, { recursive: true, force: true });
      continue;
    }
    if (!hasWaited) onWait(holder.pid);
    hasWaited = true;
    await clock.sleep(LOOK_EVERY_MS);
  }
}

async function take(path: string): Promise<boolean> {
  try {
    await mkdir(path);
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'EEXIST') return false;
    throw cause;
  }
  await writeFile(join(path, 'pid'), String(process.pid));
  return true;
}

/** Undefined where the lock is gone. */
async function holderOf(path: string): Promise<{ readonly pid: number; readonly ageMs: number } | undefined> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return undefined;
  const pid = Number(await readFile(join(path, 'pid'), 'utf8').catch(() => '0'));
  return { pid, ageMs: Date.now() - found.mtimeMs };
}

function isAlive(pid: number, ageMs: number): boolean {
  if (!(pid > 0)) return ageMs < NAMELESS_AFTER_MS;
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return cause instanceof Error && 'code' in cause && cause.code === 'EPERM';
  }
}
