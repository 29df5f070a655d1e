// What the tests of clients share: where the server is, who may ask it, and how a script of this folder is run.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, inject, type TestContext } from 'vitest';
import { packageRoot } from '#storage/package-root.ts';
import type { Python } from './python.ts';

const run = promisify(execFile);
const SCRIPT_MS = 110_000;

export interface Stage {
  /** Of `duckserve serve`, without a slash at the end. */
  readonly url: string;
  readonly stubUrl: string;
  /** Tokens: of an administrator, of somebody who may query, and of somebody who may not. */
  readonly admin: string;
  readonly client: string;
  readonly stranger: string;
  readonly python: Python;
}

declare module 'vitest' {
  interface ProvidedContext {
    stage: Stage;
  }
}

export const WRONG_TOKEN = 'dsk_0000000000000000000000000000000000000000000';
/** With a number that is that of a credit card by its check digit. */
export const WITH_CARD = 'My card is 4111 1111 1111 1111.';

export function stage(): Stage {
  return inject('stage');
}

/** What each call of a script came to; of a call that raised, the text of what it raised. */
type Said = Readonly<Record<string, unknown>>;

/**
 * Runs a script of this folder before the tests of a `describe`. The function it returns finds what the call came
 * to that the title of the test begins with, and skips the test where there is no Python.
 */
export function runScript(script: string): (test: TestContext) => unknown {
  let said: Said = {};
  beforeAll(async () => {
    const { python } = stage();
    if ('path' in python) said = await ask(python.path, script);
  });
  return ({ task, skip }) => {
    const { python } = stage();
    if ('reason' in python) return skip(python.reason);
    const [call = ''] = task.name.split(': ', 1);
    if (!Object.hasOwn(said, call)) throw new Error(`${script} makes no call "${call}"`);
    return said[call];
  };
}

async function ask(python: string, script: string): Promise<Said> {
  const { url, stubUrl, admin, client, stranger } = stage();
  const { stdout } = await run(python, [join(packageRoot(), 'test', 'clients', script)], {
    env: {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      PYTHONDONTWRITEBYTECODE: '1',
      DUCKSERVE_URL: url,
      STUB_URL: stubUrl,
      ADMIN_TOKEN: admin,
      CLIENT_TOKEN: client,
      STRANGER_TOKEN: stranger,
      WRONG_TOKEN,
      WITH_CARD,
    },
    timeout: SCRIPT_MS,
    maxBuffer: 16 * 1024 * 1024,
  });
  const last = stdout.trim().split('\n').at(-1) ?? '';
  return JSON.parse(last) as Said;
}
