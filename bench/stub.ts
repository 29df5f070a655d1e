// The stub provider as a process of its own, and its ledger: what the product's books are compared with.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Ledger } from '../test/stub/ledger.ts';

export interface Stub {
  /** Base URL of the OpenAI API. */
  readonly openaiUrl: string;
  ledger(): Promise<Ledger>;
  /** The ledger so far; it begins anew. */
  resetLedger(): Promise<Ledger>;
  stop(): Promise<void>;
}

/** `flags` are those of test/stub/main.ts without the dashes. */
export async function startStub(flags: Readonly<Record<string, number>>): Promise<Stub> {
  const child = spawn(
    process.execPath,
    [
      '--import',
      'tsx',
      fileURLToPath(new URL('../test/stub/main.ts', import.meta.url)),
      ...Object.entries(flags).map(([name, value]) => `--${name}=${value}`),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const url = await new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).once('line', (line) => resolve(line.replace('listening on ', '')));
    child.once('exit', (code) => reject(new Error(`The stub provider ended with exit code ${code}.`)));
  });
  const ledger = async () => (await (await fetch(`${url}/ledger`)).json()) as Ledger;
  return {
    openaiUrl: `${url}/v1`,
    ledger,
    resetLedger: async () => {
      const before = await ledger();
      await fetch(`${url}/ledger/reset`, { method: 'POST' });
      return before;
    },
    stop: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}
