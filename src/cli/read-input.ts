// What a person brings in: SQL from an argument, a file or standard input, and secrets that are not shown.
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { ServingError } from '#core/errors.ts';
import type { Io } from './deps.ts';

/** SQL from the argument, `-f FILE` or standard input (`-`); undefined when there is nowhere to take it from. */
export async function readSql(
  io: Io,
  argument: string | undefined,
  file: string | undefined,
): Promise<string | undefined> {
  if (file !== undefined && file !== '-') return await readSqlFile(file);
  if (file === undefined && argument !== undefined && argument !== '-') return argument;
  const isAsked = file === '-' || argument === '-';
  if (!isAsked && isTerminal(io.stdin)) return undefined;
  return withoutMark(await text(io.stdin));
}

export async function readSqlFile(path: string): Promise<string> {
  try {
    return withoutMark(await readFile(path, 'utf8'));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason = code === 'ENOENT' ? 'there is no such file' : (error as Error).message;
    throw new ServingError('NOT_FOUND', `Cannot read SQL from ${path}: ${reason}.`, { cause: error });
  }
}

/** All of standard input without its last line end, or one hidden line on a terminal. */
export async function readSecret(io: Io, prompt: string): Promise<string> {
  if (!isTerminal(io.stdin)) return (await text(io.stdin)).replace(/\r?\n$/, '');
  io.stderr.write(prompt);
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: io.stdin, output: nowhere, terminal: true });
  try {
    return await new Promise<string>((resolve, reject) => {
      lines.once('line', resolve);
      lines.once('SIGINT', () => reject(new ServingError('CANCELLED', 'Nothing was stored.')));
      lines.once('close', () => resolve(''));
    });
  } finally {
    lines.close();
    io.stderr.write('\n');
  }
}

export function isTerminal(stream: NodeJS.ReadableStream): boolean {
  return (stream as { readonly isTTY?: boolean }).isTTY === true;
}

/** Editors on Windows put a byte order mark before the text; SQL knows no such character. */
function withoutMark(content: string): string {
  return content.startsWith('\ufeff') ? content.slice(1) : content;
}
