// Started once for all clients: a provider on loopback, `duckserve serve` as a newcomer starts it, with tokens and a
// model from the command line, and the Python environment. Tests see it by `stage()`.
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { PENGUINS, Workplace } from '../app/support.ts';
import { Administrator, createEndpoints, GROUP } from './endpoints.ts';
import { openPython } from './python.ts';
import type { Stage } from './stage.ts';

/** `DUCKSERVE_TEST_WORKERS=2` asks a server of two workers. */
const WORKERS = process.env.DUCKSERVE_TEST_WORKERS ? ['--workers', process.env.DUCKSERVE_TEST_WORKERS] : [];
const EXAMPLE = join(PENGUINS, 'penguins.onnx');

export default async function open(project: TestProject): Promise<() => Promise<void>> {
  const workplace = new Workplace();
  try {
    const python = await openPython();
    if ('reason' in python) console.log(`Python clients are skipped: ${python.reason}`);
    const stub = await workplace.stub();
    const cutting = await workplace.stub({ rateCut: 1 });
    const dataDir = workplace.directory();
    await command(workplace, dataDir, ['models', 'register', 'penguins', EXAMPLE]);
    const createToken = (...args: string[]) => command(workplace, dataDir, ['tokens', 'create', ...args]);
    const admin = await createToken('--principal', 'ann@example.org', '--admin');
    const server = workplace.program(['serve', '--port', '0', ...WORKERS], { dataDir });
    const [, url = ''] = await server.stdoutMatch(/duckserve listens on (http:\S+)/);
    // These two while it runs.
    const client = await createToken('--principal', 'bob@example.org', '--group', GROUP);
    const stranger = await createToken('--principal', 'eve@example.org');
    await createEndpoints(new Administrator(url, admin), { stubUrl: stub.url, cuttingUrl: cutting.url });
    const stage: Stage = { url, stubUrl: stub.url, admin, client, stranger, python };
    project.provide('stage', stage);
  } catch (error) {
    await workplace.clear();
    throw error;
  }
  return () => workplace.clear();
}

/** What it printed on standard output. */
async function command(workplace: Workplace, dataDir: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await workplace.run(args, { dataDir });
  if (code !== 0) throw new Error(`duckserve ${args.join(' ')} ended with ${code}: ${stderr}`);
  return stdout.trim();
}
