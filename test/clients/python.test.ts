// Real Python clients against the real server: the openai package and the Databricks SDK, fresh from the registry.
// Skipped with a printed reason where there is no Python or the packages cannot be installed.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packageRoot } from '#storage/package-root.ts';
import { PENGUINS, Workplace } from '../app/support.ts';

const run = promisify(execFile);
const PACKAGES = ['openai==3.54.0', 'databricks-sdk==0.156.0', 'requests'];
const INSTALL_MS = 240_000;

const workplace = new Workplace();
let python: string | undefined;
let url = '';
let reason = '';

beforeAll(async () => {
  const venv = join(workplace.directory(), 'venv');
  try {
    await run('python3', ['-m', 'venv', venv]);
    const bin = join(venv, process.platform === 'win32' ? 'Scripts' : 'bin');
    await run(join(bin, 'pip'), ['install', '--quiet', ...PACKAGES], { timeout: INSTALL_MS });
    python = join(bin, 'python');
  } catch (error) {
    reason = (error as Error).message.trim().split('\n').at(-1) ?? '';
    console.log(`Python clients are not tested: ${reason}`);
    return;
  }
  const versions = await run(python, ['-m', 'pip', 'list', '--format', 'freeze']);
  console.log(
    versions.stdout
      .split('\n')
      .filter((line) => /^(openai|databricks-sdk)=/.test(line))
      .join(', '),
  );

  const dataDir = workplace.directory();
  const app = await workplace.app({ dataDir: join(dataDir, 'data') });
  await app.registry.registerModel('penguins', join(PENGUINS, 'penguins.onnx'), {});
  await app.close();
  const server = workplace.program(['serve', '--port', '0'], { dataDir });
  const [, address] = await server.stderrMatch(/duckserve listens on (http:\S+)/);
  url = address ?? '';
}, INSTALL_MS + 60_000);
afterAll(() => workplace.clear());

/** What a script of this folder printed. */
async function ask(script: string, argument: string): Promise<unknown> {
  const path = join(packageRoot(), 'test', 'clients', script);
  const { stdout } = await run(python ?? '', [path, argument]);
  return JSON.parse(stdout);
}

describe('the openai package for Python', () => {
  it.for(['/v1', '/serving-endpoints'])('chats, streams, embeds and lists at %s', async (base, { skip }) => {
    skip(python === undefined, reason);
    expect(await ask('openai_client.py', `${url}${base}`)).toEqual({
      content: 'quack quack quack',
      total_tokens: expect.any(Number),
      pieces: ['quack', ' quack', ' quack'],
      lengths: [256, 256],
      models: expect.arrayContaining(['echo-chat', 'embedded-static-256', 'penguins']),
      error: 'ENDPOINT_NOT_FOUND',
    });
  });
});

describe('the Databricks SDK for Python', () => {
  it('lists, queries chat, completions, embeddings and features, and runs SQL', async ({ skip }) => {
    skip(python === undefined, reason);
    expect(await ask('databricks_client.py', url)).toEqual({
      endpoints: expect.arrayContaining(['echo-chat', 'penguins']),
      state: 'READY',
      content: 'quack',
      completion: 'once',
      length: 256,
      predictions: [['Adelie'], ['Adelie'], ['Adelie'], ['Adelie']],
      rows: [['from SQL']],
      error: 'RESOURCE_DOES_NOT_EXIST',
    });
  });
});
