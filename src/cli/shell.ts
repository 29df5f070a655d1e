// The interactive shell: lines in, statements run one after the other, dot-commands beside them.
// Works without a terminal too: then there is no prompt, no history, and a failure makes the exit code 1.
import { createInterface, type Interface } from 'node:readline';
import { toServingError } from '#core/errors.ts';
import { orCancelled } from './cancellation.ts';
import type { Context } from './context.ts';
import type { AppHandle, SessionLike } from './deps.ts';
import { estimateSheet } from './estimate.ts';
import type { TextFormat } from './formats.ts';
import { OutputClosed } from './output.ts';
import { formatSeconds } from './progress.ts';
import { isTerminal } from './read-input.ts';
import { errorText } from './report-error.ts';
import { completeDotCommand, runDotCommand } from './shell-commands.ts';
import { openHistory, type ShellHistory } from './shell-history.ts';
import { endsStatement, isBlankSql } from './sql-text.ts';
import { runSql } from './statement.ts';

const PROMPT = 'duckserve> ';
const CONTINUED = '      ...> ';

export class Shell {
  readonly context: Context;
  readonly app: AppHandle;
  readonly session: SessionLike;
  format: TextFormat = 'table';
  hasTimer = false;
  readonly #dataDir: string;
  readonly #isInteractive: boolean;
  /** Lines typed or piped that have not been looked at yet; statements take longer than typing. */
  readonly #lines: string[] = [];
  #buffer = '';
  #running: AbortController | undefined;
  #isClosed = false;
  #hasFailed = false;
  #wake: () => void = () => {};
  #isLeaving = false;

  constructor(context: Context, app: AppHandle, session: SessionLike, dataDir: string) {
    this.context = context;
    this.app = app;
    this.session = session;
    this.#dataDir = dataDir;
    this.#isInteractive = isTerminal(context.io.stdin) && context.io.isStdoutTty;
  }

  /** Until the end of input or `.quit`; resolves to the exit code. */
  async run(): Promise<number> {
    const history = this.#isInteractive ? await openHistory(this.#dataDir, this.context) : undefined;
    const input = this.#openInput(history);
    const onInterrupt = () => {
      if (this.#interrupt(input)) return;
      // Without this listener the system's own handling ends the process.
      this.context.signals.off('SIGINT', onInterrupt);
      input.close();
      this.context.signals.kill();
    };
    input.on('SIGINT', onInterrupt);
    this.context.signals.on('SIGINT', onInterrupt);
    if (this.#isInteractive)
      this.context.say(`duckserve ${this.context.deps.version}. .help lists commands, Ctrl-D leaves.`);
    try {
      this.#prompt(input);
      while (!this.#isLeaving) {
        const line = this.#lines.shift();
        if (line !== undefined) {
          await this.#take(line);
          if (this.#lines.length === 0 && !this.#isLeaving) this.#prompt(input);
        } else if (this.#isClosed) {
          break;
        } else {
          await new Promise<void>((resolve) => (this.#wake = resolve));
        }
      }
      // A last statement without its semicolon still counts when it comes from a file, not from a person who left.
      if (!this.#isInteractive && !this.#isLeaving && !isBlankSql(this.#buffer))
        await this.#guard(() => this.runSql(this.#buffer));
    } finally {
      this.context.signals.off('SIGINT', onInterrupt);
      if (this.#isInteractive && this.#isClosed) this.context.io.stdout.write('\n');
      input.close();
    }
    return this.#hasFailed && !this.#isInteractive ? 1 : 0;
  }

  leave(): void {
    this.#isLeaving = true;
  }

  /** Runs SQL and prints its rows. Ctrl-C cancels it. */
  async runSql(sql: string): Promise<void> {
    await this.#cancellable(
      async (signal) => await runSql(this.context, this.session, sql, { format: this.format, signal }),
    );
  }

  async estimate(sql: string): Promise<void> {
    await this.#cancellable(async (signal) => {
      const estimate = await orCancelled(signal, this.session.estimate(sql, { signal }));
      await this.context.printSheet(estimateSheet(estimate), 'table');
      if (estimate.unknown !== null) this.context.say(estimate.unknown);
    });
  }

  async #cancellable(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const controller = new AbortController();
    this.#running = controller;
    const startedAtMs = this.context.clock.now();
    try {
      await work(controller.signal);
    } finally {
      this.#running = undefined;
      if (this.hasTimer) this.context.say(formatSeconds((this.context.clock.now() - startedAtMs) / 1000));
    }
  }

  #openInput(history: ShellHistory | undefined): Interface {
    const input = createInterface({
      input: this.context.io.stdin,
      ...(this.#isInteractive ? { output: this.context.io.stdout } : {}),
      terminal: this.#isInteractive,
      history: [...(history?.newestFirst ?? [])],
      historySize: 1_000,
      removeHistoryDuplicates: true,
      completer: (line: string, done: (error: Error | null, result: [string[], string]) => void) => {
        this.#complete(line).then(
          (result) => done(null, result),
          () => done(null, [[], line]),
        );
      },
    });
    input.on('line', (line) => {
      history?.add(line);
      this.#lines.push(line);
      this.#wake();
    });
    input.on('close', () => {
      this.#isClosed = true;
      this.#wake();
    });
    return input;
  }

  async #complete(line: string): Promise<[string[], string]> {
    const typed = /[^\s,;()]*$/.exec(line)?.[0] ?? '';
    if (this.#buffer === '' && /^\s*\./.test(line)) return [completeDotCommand(line), line.trimStart()];
    const found = await this.session.complete(this.#buffer + line);
    // A suggestion may be for the last part of a qualified name only.
    const word = found.some((name) => name.toLowerCase().startsWith(typed.toLowerCase()))
      ? typed
      : (/\w*$/.exec(typed)?.[0] ?? '');
    return [found.filter((name) => name.toLowerCase().startsWith(word.toLowerCase())), word];
  }

  async #take(line: string): Promise<void> {
    if (this.#buffer === '' && line.trimStart().startsWith('.')) {
      await this.#guard(async () => await runDotCommand(this, line.trim()));
      return;
    }
    this.#buffer += `${line}\n`;
    if (isBlankSql(this.#buffer)) {
      this.#buffer = '';
    } else if (endsStatement(this.#buffer)) {
      const sql = this.#buffer;
      this.#buffer = '';
      await this.#guard(async () => await this.runSql(sql));
    }
  }

  /** A failed statement is told and forgotten; only a reader that has gone ends the shell. */
  async #guard(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      if (thrown instanceof OutputClosed) throw thrown;
      if (!this.#isInteractive && toServingError(thrown).code === 'CANCELLED') throw thrown;
      this.#hasFailed = true;
      const { isVerbose, io } = this.context;
      this.context.status.clear();
      io.stderr.write(errorText(thrown, { isVerbose, isTty: io.isStderrTty }));
    }
  }

  /** Cancels what runs, or drops what is typed. False when there is nothing left but to end. */
  #interrupt(input: Interface): boolean {
    if (this.#running !== undefined) {
      if (this.#running.signal.aborted) return false;
      this.#lines.length = 0;
      this.#running.abort();
      return true;
    }
    if (!this.#isInteractive) return false;
    this.#buffer = '';
    this.context.io.stdout.write('^C\n');
    input.setPrompt(PROMPT);
    input.write(null, { ctrl: true, name: 'e' });
    input.write(null, { ctrl: true, name: 'u' });
    this.#prompt(input);
    return true;
  }

  #prompt(input: Interface): void {
    if (!this.#isInteractive || this.#isClosed) return;
    input.setPrompt(this.#buffer === '' ? PROMPT : CONTINUED);
    input.prompt();
  }
}
