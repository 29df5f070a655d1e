// The stub provider and the load generator of this benchmark: two small C programs, compiled when they are needed,
// several times faster than what is measured with them. Where there is no compiler the benchmark is skipped.
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export interface Tools {
  readonly stub: string;
  readonly load: string;
}

/** Undefined: why there are none. */
export function compileTools(directory: string): Tools | string {
  if (process.platform !== 'linux') return `they use epoll, and this is ${process.platform}`;
  const paths: Record<string, string> = {};
  for (const name of ['stub', 'load']) {
    const source = fileURLToPath(new URL(`./${name}.c`, import.meta.url));
    const target = join(directory, name);
    const { status, error } = spawnSync('cc', ['-O2', '-o', target, source], { stdio: 'inherit' });
    if (status !== 0 || error) return 'there is no C compiler (cc)';
    paths[name] = target;
  }
  return { stub: paths.stub ?? '', load: paths.load ?? '' };
}

/** Arguments that keep a program on one core; none where that is not possible. */
export function onCore(core: number | undefined): readonly string[] {
  const isPossible = availableParallelism() > 1 && existsSync('/usr/bin/taskset');
  return core === undefined || !isPossible ? [] : ['taskset', '-c', String(core)];
}

export function start(command: readonly string[], env: NodeJS.ProcessEnv = process.env): ChildProcess {
  const [program = '', ...args] = command;
  return spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'], env });
}

/** The first line that matches. */
export function firstLine(child: ChildProcess, pattern: RegExp): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    if (!child.stdout) return reject(new Error('no standard output'));
    createInterface(child.stdout).on('line', (line) => {
      const match = pattern.exec(line);
      if (match) resolve(match);
    });
    child.once('exit', (code) =>
      reject(new Error(`A server of the benchmark ended with exit code ${code}.`)),
    );
  });
}

export async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const force = setTimeout(() => child.kill('SIGKILL'), 8_000);
  await ended;
  clearTimeout(force);
}

export interface Stub {
  readonly port: number;
  readonly pid: number;
  stop(): Promise<void>;
}

export async function startStub(
  { stub }: Tools,
  flags: { readonly 'latency-ms'?: number; readonly 'gap-ms'?: number; readonly events?: number } = {},
  core?: number,
): Promise<Stub> {
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const child = start([...onCore(core), stub, ...args]);
  const [line] = await firstLine(child, /^\d+$/);
  return { port: Number(line), pid: child.pid ?? 0, stop: () => stopProcess(child) };
}

export interface Loaded {
  readonly perSecond: number;
  readonly requests: number;
  readonly failures: number;
  /** Answers of another status than 200. */
  readonly refused: number;
  readonly unfinished: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly firstByteP50Ms: number;
  readonly firstByteP99Ms: number;
  readonly missingEvents: number;
  readonly wrongStreams: number;
  readonly cpuMicrosPerRequest: number;
  readonly residentMb: number;
  /** Processors that others of this machine used meanwhile. */
  readonly othersCores: number;
}

export interface LoadOptions {
  readonly port: number;
  readonly requests: string;
  readonly connections: number;
  readonly rate?: number;
  readonly events?: number;
  readonly warmUp: number;
  readonly seconds: number;
  /** Processes whose time and memory are measured. */
  readonly pids: readonly number[];
  /** Processes of the benchmark itself. */
  readonly own: readonly number[];
  readonly core?: number | undefined;
}

export async function runLoad({ load }: Tools, options: LoadOptions): Promise<Loaded> {
  const { core, pids, own, requests } = options;
  const flags: Record<string, string | number> = {
    port: options.port,
    connections: options.connections,
    requests,
    'warm-up': options.warmUp,
    seconds: options.seconds,
    ...(options.rate === undefined ? {} : { rate: options.rate }),
    ...(options.events === undefined ? {} : { events: options.events }),
  };
  const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
  for (const pid of pids) args.push('--pid', String(pid));
  for (const pid of own) args.push('--own', String(pid));
  const [program = '', ...rest] = [...onCore(core), load, ...args];
  const { stdout } = await promisify(execFile)(program, rest);
  return JSON.parse(stdout) as Loaded;
}

/** Whole requests as they are sent, one after the other. */
export function writeRequests(
  path: string,
  requests: Iterable<{
    readonly path: string;
    readonly token?: string;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body: object;
  }>,
): string {
  const pieces: Buffer[] = [];
  for (const request of requests) {
    const body = JSON.stringify(request.body);
    const bytes = Buffer.from(
      `POST ${request.path} HTTP/1.1\r\nhost: 127.0.0.1\r\n${
        request.token === undefined ? '' : `authorization: Bearer ${request.token}\r\n`
      }${Object.entries(request.headers ?? {})
        .map(([name, value]) => `${name}: ${value}\r\n`)
        .join(
          '',
        )}user-agent: bench\r\naccept: application/json\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
    pieces.push(Buffer.from(`${bytes.length}\n`), bytes);
  }
  writeFileSync(path, Buffer.concat(pieces));
  return path;
}
