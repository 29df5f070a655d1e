// Servers of the scoring protocol as processes, and how many rows a second they answer: MLflow's own and ours.
// Not here: what is in the rows.
import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

const BIN = fileURLToPath(new URL('../bin/duckserve.cjs', import.meta.url));
const START_MS = 120_000;
const POLL_MS = 20;

export interface ScoringServer {
  /** Where POST is answered, for the model of this name. */
  readonly invocations: (model: string) => string;
  /** From the start of the process to its first answer to `GET /ping`. */
  readonly startSeconds: number;
  stop(): Promise<void>;
}

/** `mlflow models serve` of one model, in the environment of this interpreter. */
export async function serveMlflow(python: string, model: string): Promise<ScoringServer> {
  const port = await freePort();
  const args = ['-m', 'mlflow', 'models', 'serve', '-m', model, '--env-manager', 'local'];
  const child = spawn(python, [...args, '--host', '127.0.0.1', '--port', String(port)], {
    // It starts its server by the name `uvicorn`.
    env: { ...process.env, PATH: `${dirname(python)}:${process.env.PATH ?? ''}` },
    stdio: 'ignore',
    // With a group of its own, since it has children.
    detached: true,
  });
  const url = `http://127.0.0.1:${port}`;
  const startSeconds = await untilAnswers(`${url}/ping`, child);
  return { invocations: () => `${url}/invocations`, startSeconds, stop: () => stop(child) };
}

export async function serveDuckserve(
  python: string,
  place: { readonly dataDir: string; readonly dbPath: string },
): Promise<ScoringServer> {
  const port = await freePort();
  const args = ['serve', '--port', String(port), '--data', place.dataDir, '--db', place.dbPath];
  const child = spawn(process.execPath, [BIN, ...args], {
    env: { ...process.env, DUCKSERVE_PYTHON: python },
    stdio: 'ignore',
    detached: true,
  });
  const url = `http://127.0.0.1:${port}`;
  const startSeconds = await untilAnswers(`${url}/ping`, child);
  return {
    invocations: (model) => `${url}/serving-endpoints/${model}/invocations`,
    startSeconds,
    stop: () => stop(child),
  };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function untilAnswers(url: string, child: ChildProcess): Promise<number> {
  const startedAt = performance.now();
  while (performance.now() - startedAt < START_MS) {
    if (child.exitCode !== null)
      throw new Error(`${child.spawnargs.join(' ')} ended with ${child.exitCode}.`);
    const isUp = await fetch(url).then(
      ({ ok }) => ok,
      () => false,
    );
    if (isUp) return (performance.now() - startedAt) / 1_000;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  await stop(child);
  throw new Error(`${child.spawnfile} did not answer at ${url} in ${START_MS} ms.`);
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = new Promise((resolve) => child.once('exit', resolve));
  if (child.exitCode !== null || child.pid === undefined) return;
  process.kill(-child.pid, 'SIGTERM');
  await ended;
}

export interface Posted {
  readonly seconds: number;
  /** Requests that were refused for the load, and sent again after the time that the refusal names. */
  readonly refused: number;
}

/** Until all bodies are answered, by `callers` at once. Throws for an answer that is none. */
export async function postAll(url: string, bodies: readonly string[], callers: number): Promise<Posted> {
  let next = 0;
  let refused = 0;
  const startedAt = performance.now();
  const call = async () => {
    for (let body = bodies[next++]; body !== undefined; body = bodies[next++]) {
      for (;;) {
        const response = await fetch(url, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body,
        });
        const text = await response.text();
        if (response.ok) break;
        if (response.status !== 429 && response.status !== 503)
          throw new Error(`${url}: ${response.status} ${text.slice(0, 300)}`);
        refused++;
        const waitSeconds = Number(response.headers.get('retry-after') ?? 1);
        await new Promise((resolve) => setTimeout(resolve, waitSeconds * 1_000));
      }
    }
  };
  await Promise.all(Array.from({ length: callers }, call));
  return { seconds: (performance.now() - startedAt) / 1_000, refused };
}
