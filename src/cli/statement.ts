// Runs SQL for a person: progress while it runs, rows to where they go, what it cost afterwards.
// Shared by `sql` and the shell.
import { resolve } from 'node:path';
import type { Budget, CacheMode } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { orCancelled } from './cancellation.ts';
import type { Context } from './context.ts';
import type { Progress, SessionLike, StatementResult } from './deps.ts';
import { type Format, formatSheet } from './formats.ts';
import { Output } from './output.ts';
import { formatCost, wholeNumber } from './progress.ts';

export interface StatementOptions {
  readonly format: Format;
  readonly signal: AbortSignal;
  /** Rows go to this file instead of standard output. */
  readonly outputPath?: string | undefined;
  readonly budget?: Budget | undefined;
  readonly cache?: CacheMode | undefined;
}

export async function runSql(
  context: Context,
  session: SessionLike,
  sql: string,
  options: StatementOptions,
): Promise<void> {
  const printer = new ResultPrinter(context, options);
  let progress: Progress | undefined;
  try {
    const running = session.run(sql, {
      signal: options.signal,
      ...(options.budget === undefined ? {} : { budget: options.budget }),
      ...(options.cache === undefined ? {} : { cache: options.cache }),
      onProgress: (latest) => {
        progress = latest;
        context.status.progress(latest);
      },
      onResult: async (result) => {
        context.status.clear();
        await printer.print(result);
        const summary = callSummary(result.calls, progress);
        if (summary !== '') context.say(summary);
        progress = undefined;
      },
    });
    await orCancelled(options.signal, running);
    await printer.close();
  } finally {
    context.status.clear();
  }
}

class ResultPrinter {
  readonly #context: Context;
  readonly #options: StatementOptions;
  #output: Output | undefined;
  #forParquet: StatementResult | undefined;

  constructor(context: Context, options: StatementOptions) {
    this.#context = context;
    this.#options = options;
  }

  async print(result: StatementResult): Promise<void> {
    if (result.kind === 'changed' && result.changedRows !== null) {
      const count = wholeNumber(result.changedRows);
      this.#context.say(`${count} ${result.changedRows === 1 ? 'row' : 'rows'} changed`);
    }
    if (result.kind !== 'rows') return;
    const { format, outputPath } = this.#options;
    if (format === 'parquet') return this.#keepForParquet(result);
    this.#output ??=
      outputPath === undefined
        ? Output.toStream(this.#context.io.stdout)
        : Output.toFile(resolve(outputPath));
    const view = outputPath === undefined ? this.#context.view : { width: null, hasColor: false };
    await this.#output.writeAll(formatSheet(result, format, view), this.#options.signal);
  }

  #keepForParquet(result: StatementResult): void {
    if (this.#options.outputPath === undefined) {
      throw new ServingError(
        'INVALID_PARAMETER',
        'Parquet cannot go to a terminal or a pipe. Name a file with -o FILE.',
      );
    }
    if (this.#forParquet !== undefined) {
      throw new ServingError(
        'INVALID_PARAMETER',
        'A Parquet file holds one result and the SQL gave a second; nothing was written. Run the statements apart.',
      );
    }
    this.#forParquet = result;
  }

  /** After the last statement. A Parquet file is written here: DuckDB writes it, and the session was busy till now. */
  async close(): Promise<void> {
    const { outputPath } = this.#options;
    await this.#output?.close();
    if (outputPath === undefined || this.#output !== undefined) return;
    if (this.#forParquet === undefined) {
      this.#context.say(`No statement gave rows; ${outputPath} was not written.`);
    } else if (this.#forParquet.copyTo === undefined) {
      throw new ServingError(
        'NOT_OFFERED',
        'This result does not come from a query and cannot be written as Parquet. Use --format csv or jsonl.',
      );
    } else {
      await this.#forParquet.copyTo(resolve(outputPath), 'parquet');
    }
  }
}

/** `12 model calls, 3 from the answer store, 2 passes`; empty when no model was in play. */
function callSummary(calls: StatementResult['calls'], progress: Progress | undefined): string {
  if (calls.asked === 0 && calls.cached === 0) return '';
  const counted = (count: number, noun: string) =>
    `${wholeNumber(count)} ${count === 1 ? noun : `${noun}${noun.endsWith('s') ? 'es' : 's'}`}`;
  const parts = [
    counted(calls.asked, 'model call'),
    `${wholeNumber(calls.cached)} from the answer store`,
    counted(calls.passes, 'pass'),
  ];
  if (progress !== undefined && progress.failed > 0) parts.push(`${wholeNumber(progress.failed)} failed`);
  if (progress !== undefined && progress.tokens > 0) parts.push(counted(progress.tokens, 'token'));
  if (progress !== undefined && progress.cost !== null && progress.cost > 0)
    parts.push(formatCost(progress.cost));
  return parts.join(', ');
}
