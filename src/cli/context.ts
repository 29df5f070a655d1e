// What every command shares: the terminal, the options that stand everywhere, opening and closing the application.
import { isAbsolute, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import type { Json } from '#core/json.ts';
import type { Sheet, SheetColumn } from './cells.ts';
import type { AppHandle, CliDeps, Io, Signals } from './deps.ts';
import { formatSheet, type TextFormat } from './formats.ts';
import { Output } from './output.ts';
import { StatusLine } from './status-line.ts';
import type { TableView } from './table.ts';

const PROCESS_SIGNALS: Signals = {
  on: (name, listener) => process.on(name, listener),
  off: (name, listener) => process.off(name, listener),
  kill: () => process.kill(process.pid, 'SIGINT'),
};

export class Context {
  readonly deps: CliDeps;
  readonly io: Io;
  readonly status: StatusLine;
  readonly signals: Signals;
  readonly clock: Clock;
  readonly view: TableView;
  /** Set by commands that end well with another code than 0. */
  exitCode = 0;
  isVerbose = false;

  constructor(deps: CliDeps) {
    this.deps = deps;
    this.io = deps.io;
    this.status = new StatusLine(deps.io);
    this.signals = deps.signals ?? PROCESS_SIGNALS;
    this.clock = deps.clock ?? SYSTEM_CLOCK;
    this.view = {
      width: deps.io.isStdoutTty ? deps.io.columns : null,
      hasColor: deps.io.isStdoutTty && !deps.env.NO_COLOR && deps.env.TERM !== 'dumb',
    };
  }

  /** One line for a person, on standard error. */
  say(line: string): void {
    this.status.say(line);
  }

  async print(text: string): Promise<void> {
    await Output.toStream(this.io.stdout).writeAll([text]);
  }

  async printSheet(sheet: Sheet, format: TextFormat): Promise<void> {
    await Output.toStream(this.io.stdout).writeAll(formatSheet(sheet, format, this.view));
  }

  async printJson(value: Json): Promise<void> {
    await this.print(`${JSON.stringify(value, null, 2)}\n`);
  }

  /** Absolute, or `:memory:`. */
  dataDir(command: Command): string {
    const path = option(command, 'data') ?? (this.deps.env.DUCKSERVE_DATA || '.duckserve');
    return path === ':memory:' ? path : resolve(path);
  }

  /** `fallback` is `:memory:` or the name of a file in the data directory. */
  dbPath(command: Command, fallback: string): string {
    const path = option(command, 'db');
    if (path !== undefined) return path === ':memory:' || isAbsolute(path) ? path : resolve(path);
    const dataDir = this.dataDir(command);
    return fallback === ':memory:' || dataDir === ':memory:' ? ':memory:' : join(dataDir, fallback);
  }

  /** Opens the application, hands it over and closes it whatever happens. */
  async withApp<T>(command: Command, use: (app: AppHandle) => Promise<T>, dbPath = ':memory:'): Promise<T> {
    const app = await this.deps.openApp({
      dataDir: this.dataDir(command),
      dbPath,
      verbose: this.isVerbose,
      notify: (line) => this.say(line),
      onDownloadProgress: (id, doneBytes, totalBytes) => this.status.download(id, doneBytes, totalBytes),
    });
    try {
      return await use(app);
    } finally {
      this.status.clear();
      await app.close();
    }
  }
}

/** A command with the options that stand everywhere. */
export function withCommonOptions(command: Command): Command {
  // A group takes any word to say what is unknown about it; the commands in it must not inherit that.
  return command
    .allowExcessArguments(false)
    .option('--data <dir>', 'data directory (default: $DUCKSERVE_DATA, else .duckserve)')
    .option('--verbose', 'show causes of errors');
}

/** The value of an option wherever it was written: `duckserve --data X sql` and `duckserve sql --data X` are the same. */
function option(command: Command, name: string): string | undefined {
  for (let at: Command | null = command; at !== null; at = at.parent) {
    const value: unknown = at.opts()[name];
    if (typeof value === 'string') return value;
  }
  return undefined;
}

/** A list that does not come from SQL. */
export function listSheet(columns: readonly SheetColumn[], rows: readonly (readonly Json[])[]): Sheet {
  return { columns, rowCount: rows.length, rows: () => rows };
}

export function textColumns(...names: string[]): SheetColumn[] {
  return names.map((name) => ({ name, type: '' }));
}
