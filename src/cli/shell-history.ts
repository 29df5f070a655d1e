// What was typed in earlier shells: one file in the data directory, readable by its owner only.
import { appendFileSync } from 'node:fs';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from './context.ts';

const LINES_KEPT = 1_000;

export interface ShellHistory {
  readonly newestFirst: readonly string[];
  /** On disk at once, so that a killed shell forgets nothing. */
  add(line: string): void;
}

/** A history that cannot be read or written is said once and is no reason to fail. */
export async function openHistory(dataDir: string, context: Pick<Context, 'say'>): Promise<ShellHistory> {
  const path = join(dataDir, 'shell_history');
  let isBroken = false;
  const complain = (error: unknown) => {
    if (!isBroken) context.say(`History is not kept: ${(error as Error).message}`);
    isBroken = true;
  };
  let lines: string[] = [];
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    const content = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return '';
      throw error;
    });
    const stored = content.split('\n').filter((line) => line !== '');
    lines = stored.slice(-LINES_KEPT);
    if (stored.length > lines.length || content === '') {
      await writeFile(path, lines.map((line) => `${line}\n`).join(''), { mode: 0o600 });
    }
    await chmod(path, 0o600);
  } catch (error) {
    complain(error);
  }
  let last = lines.at(-1);
  return {
    newestFirst: lines.toReversed(),
    add(line) {
      if (isBroken || line.trim() === '' || line === last) return;
      last = line;
      try {
        appendFileSync(path, `${line}\n`, { mode: 0o600 });
      } catch (error) {
        complain(error);
      }
    },
  };
}
