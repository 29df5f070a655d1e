// What the end-to-end tests share: data directories that go away, the application with a stub behind it, and the
// real program as a child process whose output is waited for line by line.
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LOCAL_OWNER } from '#core/call.ts';
import type { Json } from '#core/json.ts';
import type { Session, StatementOptions } from '#session/session.ts';
import { packageRoot } from '#storage/package-root.ts';
import { type App, type AppOptions, openApp } from '../../src/app.ts';
import { type StubOptions, type StubProvider, startStubProvider } from '../stub/provider.ts';

export const PENGUINS = join(packageRoot(), 'examples', 'penguins');
const LAUNCHER = join(packageRoot(), 'bin', 'duckserve.cjs');

/** Undone after each test, last first. */
type Undo = () => unknown;

export class Workplace {
  readonly #undo: Undo[] = [];

  /** Call in `afterEach`. */
  async clear(): Promise<void> {
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) await undo();
  }

  onClear(undo: Undo): void {
    this.#undo.push(undo);
  }

  directory(): string {
    const path = mkdtempSync(join(tmpdir(), 'duckserve-app-'));
    this.onClear(() => rmSync(path, { recursive: true, force: true }));
    return path;
  }

  async stub(options: StubOptions = {}): Promise<StubProvider> {
    const stub = await startStubProvider(options);
    this.onClear(() => stub.close());
    return stub;
  }

  /** Closed at the end, or earlier by the test: closing twice does no harm. */
  async app(options: AppOptions): Promise<App> {
    const app = await openApp({ env: {}, ...options });
    let closing: Promise<void> | undefined;
    const close = () => {
      closing ??= app.close();
      return closing;
    };
    this.onClear(close);
    return { ...app, close };
  }

  program(args: readonly string[], options: ProgramOptions): Program {
    const program = new Program(args, options);
    this.onClear(() => program.kill());
    return program;
  }

  /** Runs the program to its end. */
  async run(args: readonly string[], options: ProgramOptions & { readonly input?: string }): Promise<Ended> {
    const program = this.program(args, options);
    program.child.stdin.end(options.input ?? '');
    return await program.ended;
  }
}

export interface ProgramOptions {
  readonly dataDir: string;
  readonly env?: Readonly<Record<string, string>>;
}

export interface Ended {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** `duckserve ARGS` as its own process. Standard input stays open until it is ended. */
export class Program {
  readonly child: ChildProcessWithoutNullStreams;
  readonly ended: Promise<Ended>;
  #stdout = '';
  #stderr = '';
  readonly #listeners = new Set<() => void>();

  constructor(args: readonly string[], { dataDir, env = {} }: ProgramOptions) {
    this.child = spawn(process.execPath, [LAUNCHER, ...args], {
      cwd: dataDir,
      env: { PATH: process.env.PATH, HOME: dataDir, DUCKSERVE_DATA: join(dataDir, 'data'), ...env },
    });
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
      this.#tell();
    });
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
      this.#tell();
    });
    // A child that ended early has closed its input.
    this.child.stdin.on('error', () => {});
    this.ended = new Promise((resolve) => {
      this.child.on('close', (code, signal) => {
        resolve({ code, signal, stdout: this.#stdout, stderr: this.#stderr });
        this.#tell();
      });
    });
  }

  /** Resolves with the match as soon as standard output holds it; rejects when the program ends without. */
  async stdoutMatch(pattern: RegExp): Promise<RegExpExecArray> {
    return await this.#match(pattern, () => this.#stdout);
  }

  async stderrMatch(pattern: RegExp): Promise<RegExpExecArray> {
    return await this.#match(pattern, () => this.#stderr);
  }

  async #match(pattern: RegExp, text: () => string): Promise<RegExpExecArray> {
    return await new Promise((resolve, reject) => {
      const look = () => {
        const match = pattern.exec(text());
        if (!match && !this.#isOver) return;
        this.#listeners.delete(look);
        if (match) resolve(match);
        else reject(new Error(`The program ended without ${pattern}; it said: ${this.#stderr}`));
      };
      this.#listeners.add(look);
      look();
    });
  }

  /** `until` for what the program has to bring about: does not wait for a program that has ended. */
  async until(isTrue: () => boolean): Promise<void> {
    await until(() => {
      if (this.#isOver && !isTrue()) throw new Error(`The program ended too early; it said: ${this.#stderr}`);
      return isTrue();
    });
  }

  get #isOver(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  async kill(): Promise<void> {
    if (!this.#isOver) this.child.kill('SIGKILL');
    await this.ended;
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

/** Looks every few milliseconds until it is so: what the ledger of a stub counts has no events to wait for. */
export async function until(isTrue: () => boolean, timeoutMs = 50_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!isTrue()) {
    if (Date.now() > deadline) throw new Error(`Waited ${timeoutMs} ms in vain for ${isTrue}.`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Rows of the last statement. */
export async function rowsOf(
  session: Pick<Session, 'run'>,
  sql: string,
  options?: StatementOptions,
): Promise<(readonly Json[])[]> {
  const results = await session.run(sql, options);
  return [...(results.at(-1)?.rows() ?? [])];
}

/** An endpoint on the stub, in the shape that every door hands to the registry. */
export function stubSpec(name: string, stub: StubProvider, model: object = {}): object {
  const task = 'llm/v1/chat';
  return {
    name,
    servedEntities: [
      { externalModel: { name: 'stub', provider: 'openai', task, baseUrl: stub.openaiUrl, ...model } },
    ],
  };
}

export async function createStubEndpoint(
  app: App,
  name: string,
  stub: StubProvider,
  model: object = {},
): Promise<void> {
  await app.registry.createEndpoint(stubSpec(name, stub, model), LOCAL_OWNER);
}
