// What a model writes to its standard output and error: line by line into the log, bounded in length and in number,
// with secrets that it was given struck out. The last lines are kept, for an error while it starts.
import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import type { Clock } from '#core/clock.ts';
import type { Log } from '#core/log.ts';

const LONGEST_LINE = 2_000;
const LINES_PER_SECOND = 100;
const KEPT_LINES = 20;
/** Shorter values would strike out half of what a model says. */
const SHORTEST_SECRET = 5;

export interface WorkerOutputOptions {
  readonly log: Log;
  readonly clock: Clock;
  /** For the fields of each line: which model, which process. */
  readonly fields: object;
  readonly secrets: readonly string[];
}

export class WorkerOutput {
  readonly #options: WorkerOutputOptions;
  readonly #secrets: readonly string[];
  readonly #kept: string[] = [];
  #second = 0;
  #linesOfSecond = 0;
  #leftOut = 0;

  constructor(options: WorkerOutputOptions) {
    this.#options = options;
    this.#secrets = options.secrets.filter((secret) => secret.length >= SHORTEST_SECRET);
  }

  /** Of standard error, oldest first. */
  get lastLines(): readonly string[] {
    return this.#kept;
  }

  /** The same without the secrets that the model was given. */
  redact(text: string): string {
    return this.#secrets.reduce((rest, secret) => rest.replaceAll(secret, '***'), text);
  }

  read(stream: Readable, level: 'info' | 'warn'): void {
    const decoder = new StringDecoder('utf8');
    let rest = '';
    stream.on('data', (chunk: Buffer) => {
      const lines = (rest + decoder.write(chunk)).split(/\r\n|\n|\r/);
      rest = lines.pop() ?? '';
      // A line that never ends must not grow for ever.
      if (rest.length > LONGEST_LINE) {
        lines.push(rest);
        rest = '';
      }
      for (const line of lines) this.#say(level, line);
    });
    stream.on('end', () => {
      if (rest !== '') this.#say(level, rest);
    });
    stream.on('error', () => {});
  }

  #say(level: 'info' | 'warn', whole: string): void {
    if (whole.trim() === '') return;
    const line = this.redact(whole).slice(0, LONGEST_LINE);
    if (level === 'warn') {
      this.#kept.push(line);
      if (this.#kept.length > KEPT_LINES) this.#kept.shift();
    }
    const { log, clock, fields } = this.#options;
    const second = Math.floor(clock.now() / 1_000);
    if (second !== this.#second) {
      this.#second = second;
      this.#linesOfSecond = 0;
      if (this.#leftOut > 0) log.warn(fields, `The model wrote ${this.#leftOut} more lines.`);
      this.#leftOut = 0;
    }
    if (++this.#linesOfSecond > LINES_PER_SECOND) this.#leftOut++;
    else log[level](fields, line);
  }
}
