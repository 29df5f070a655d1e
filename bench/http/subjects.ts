// What is measured, each as its own process: nothing in between, the bare proxy, duckserve governed in full, and
// Portkey's gateway from npm with the versions of its own lock file.
import { type ChildProcess, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LOCAL_OWNER } from '#core/call.ts';
import { packageRoot } from '#storage/package-root.ts';
import { openApp } from '../../src/app.ts';
import { firstLine, onCore, start, stopProcess } from './tools.ts';

export interface Subject {
  readonly port: number;
  /** Of all its processes. */
  readonly pids: readonly number[];
  stop(): Promise<void>;
}

export interface Governed {
  readonly dataDir: string;
  /** One for each principal. */
  readonly tokens: readonly string[];
  readonly endpoints: readonly string[];
}

/** A data directory where every call has a token, a permission, a rate limit, a budget and a price. */
export async function prepareGoverned(
  dataDir: string,
  upstreamPort: number,
  counts: { readonly tokens: number; readonly endpoints: number },
): Promise<Governed> {
  const app = await openApp({ dataDir, env: { ...process.env, DUCKSERVE_TOKENS: '' } });
  const task = 'llm/v1/chat';
  const endpoints = Array.from({ length: counts.endpoints }, (_, index) => `chat-${index}`);
  const tokens: string[] = [];
  try {
    for (let index = 0; index < counts.tokens; index++) {
      const made = await app.identity.createToken(
        { principal: `caller-${index}@example.com`, groups: ['callers'] },
        LOCAL_OWNER,
      );
      tokens.push(made.token);
    }
    for (const name of endpoints) {
      const externalModel = {
        name: 'stub-model',
        provider: 'openai',
        task,
        baseUrl: `http://127.0.0.1:${upstreamPort}/v1`,
        apiKey: '{{env/BENCH_UPSTREAM_KEY}}',
        maxConcurrency: 8_192,
        price: { inputPerMillion: 0.15, outputPerMillion: 0.6 },
      };
      const aiGateway = {
        rateLimits: [{ key: 'user', calls: 1e9, tokens: 1e12, renewalPeriod: 'minute' }],
        budgets: [{ key: 'endpoint', amount: 1e6, renewalPeriod: 'day' }],
      };
      const endpoint = await app.registry.createEndpoint(
        { name, servedEntities: [{ externalModel }], aiGateway },
        LOCAL_OWNER,
      );
      await app.identity.setPermissions(endpoint, [{ kind: 'group', name: 'callers', level: 'CAN_QUERY' }]);
    }
  } finally {
    await app.close();
  }
  return { dataDir, tokens, endpoints };
}

export async function startDuckserve(
  { dataDir }: Governed,
  options: { readonly core?: number | undefined; readonly workers?: number } = {},
): Promise<Subject> {
  const launcher = join(packageRoot(), 'bin', 'duckserve.cjs');
  const workers = options.workers ? ['--workers', String(options.workers)] : [];
  const profile = process.env.DUCKSERVE_BENCH_PROFILE;
  const child = start(
    [
      ...onCore(options.core),
      process.execPath,
      ...(profile ? ['--cpu-prof', `--cpu-prof-dir=${profile}`] : []),
      ...[launcher, 'serve', '--port', '0', '--drain-seconds', '2', ...workers],
    ],
    { ...process.env, DUCKSERVE_DATA: dataDir, BENCH_UPSTREAM_KEY: 'upstream' },
  );
  const [, port] = await firstLine(child, /listens on http:\/\/[^:]+:(\d+)/);
  return { port: Number(port), pids: familyOf(child), stop: () => stopProcess(child) };
}

export async function startBare(upstreamPort: number, core: number | undefined): Promise<Subject> {
  const file = fileURLToPath(new URL('./bare.ts', import.meta.url));
  const child = start([...onCore(core), process.execPath, '--import', 'tsx', file, String(upstreamPort)]);
  const [port] = await firstLine(child, /^\d+$/);
  return { port: Number(port), pids: familyOf(child), stop: () => stopProcess(child) };
}

const PORTKEY = '1.15.2';
/** Those of its own lock file; newer ones answer streams with 500. */
const PORTKEY_PINS = { '@hono/node-server': '1.13.5', hono: '4.9.7' };

/** The folder it is installed in, or why there is none. */
export function installPortkey(): { readonly folder: string } | { readonly reason: string } {
  const folder = join(
    process.env.DUCKSERVE_BENCH_CACHE ?? join(tmpdir(), 'duckserve-bench-cache'),
    `portkey-${PORTKEY}`,
  );
  const entry = join(folder, 'node_modules', '@portkey-ai', 'gateway', 'build', 'start-server.js');
  if (existsSync(entry)) return { folder };
  mkdirSync(folder, { recursive: true });
  const pins = Object.entries(PORTKEY_PINS).map(([name, version]) => `${name}@${version}`);
  try {
    execFileSync(
      'npm',
      [
        ...[
          'install',
          '--ignore-scripts',
          '--no-audit',
          '--no-fund',
          '--legacy-peer-deps',
          '--prefix',
          folder,
        ],
        ...[`@portkey-ai/gateway@${PORTKEY}`, ...pins],
      ],
      { cwd: folder, stdio: 'pipe', timeout: 180_000 },
    );
  } catch (error) {
    return { reason: `it could not be installed: ${String(error).split('\n')[0]}` };
  }
  return existsSync(entry) ? { folder } : { reason: 'its package has no server to start' };
}

export async function startPortkey(folder: string, core: number | undefined): Promise<Subject> {
  const port = await freePort();
  const entry = join(folder, 'node_modules', '@portkey-ai', 'gateway', 'build', 'start-server.js');
  const child = start([...onCore(core), process.execPath, entry, '--headless', `--port=${port}`], {
    ...process.env,
    NODE_ENV: 'production',
  });
  for (let tries = 0; tries < 100 && child.exitCode === null; tries++) {
    const answer = await fetch(`http://127.0.0.1:${port}/`).catch(() => undefined);
    if (answer) return { port, pids: familyOf(child), stop: () => stopProcess(child) };
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await stopProcess(child);
  throw new Error('Portkey did not start.');
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/** The process and those that it has started. */
function familyOf({ pid = 0 }: ChildProcess): number[] {
  const family = [pid];
  for (const each of family) {
    try {
      const children = readFileSync(`/proc/${each}/task/${each}/children`, 'utf8');
      family.push(...children.split(' ').filter(Boolean).map(Number));
    } catch {
      // It ended, or this is another system.
    }
  }
  return family;
}
