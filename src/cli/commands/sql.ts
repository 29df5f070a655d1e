// `duckserve sql` and `duckserve estimate`: one piece of SQL, run or priced.
import { type Command, Option } from 'commander';
import { CACHE_MODES, type CacheMode, LOCAL_OWNER } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { cancelOnInterrupt, orCancelled } from '../cancellation.ts';
import { type Context, withCommonOptions } from '../context.ts';
import type { AppHandle, SessionLike } from '../deps.ts';
import { estimateSheet, estimateWire } from '../estimate.ts';
import { FORMATS, type Format } from '../formats.ts';
import { readSql } from '../read-input.ts';
import { isBlankSql } from '../sql-text.ts';
import { runSql } from '../statement.ts';
import { dollarsOption, type ListFormat, listFormatOption, wholeNumberOption } from './group.ts';

interface SqlFlags {
  readonly file?: string;
  readonly db?: string;
  readonly format: Format;
  readonly output?: string;
  readonly maxCalls?: number;
  readonly maxTokens?: number;
  readonly maxCost?: number;
  readonly cache?: CacheMode;
}

export function addSqlCommands(program: Command, context: Context): void {
  withCommonOptions(program.command('sql [sql]'))
    .description('run SQL from the argument, a file or standard input')
    .option('-f, --file <file>', 'read the SQL from a file (- is standard input)')
    .option('--db <file>', 'database file (default: in memory)')
    .addOption(new Option('--format <format>', 'how to print rows').choices(FORMATS).default('table'))
    .option('-o, --output <file>', 'write rows to a file')
    .option('--max-calls <n>', 'most model calls; nothing is asked beyond', wholeNumberOption(0))
    .option('--max-tokens <n>', 'most tokens, input and output together', wholeNumberOption(0))
    .option('--max-cost <dollars>', 'most US dollars', dollarsOption)
    .addOption(new Option('--cache <mode>', 'use of the answer store (default: on)').choices(CACHE_MODES))
    .action(async (argument: string | undefined, flags: SqlFlags, command: Command) => {
      if (flags.format === 'parquet' && flags.output === undefined) {
        command.error('error: --format parquet needs -o FILE', { code: 'duckserve.flags', exitCode: 2 });
      }
      const sql = await givenSql(context, command, argument, flags.file);
      await withSession(context, command, async (app, session, signal) => {
        await runSql(context, session, sql, {
          format: flags.format,
          outputPath: flags.output,
          budget: budgetOf(app, flags),
          cache: flags.cache,
          signal,
        });
      });
    });

  withCommonOptions(program.command('estimate [sql]'))
    .description('say what SQL would cost before anything is paid')
    .option('-f, --file <file>', 'read the SQL from a file (- is standard input)')
    .option('--db <file>', 'database file (default: in memory)')
    .addOption(listFormatOption())
    .action(
      async (
        argument: string | undefined,
        flags: { file?: string; format: ListFormat },
        command: Command,
      ) => {
        const sql = await givenSql(context, command, argument, flags.file);
        await withSession(context, command, async (_app, session, signal) => {
          const estimate = await orCancelled(signal, session.estimate(sql, { signal }));
          if (flags.format === 'json') return await context.printJson(estimateWire(estimate));
          await context.printSheet(estimateSheet(estimate), 'table');
          if (estimate.unknown !== null) context.say(estimate.unknown);
        });
      },
    );
}

async function withSession(
  context: Context,
  command: Command,
  use: (app: AppHandle, session: SessionLike, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const dbPath = context.dbPath(command, ':memory:');
  await context.withApp(
    command,
    async (app) => {
      const session = await app.openSession({ principal: LOCAL_OWNER, origin: 'cli' });
      const cancellation = cancelOnInterrupt(context.signals);
      try {
        await use(app, session, cancellation.signal);
      } finally {
        cancellation.dispose();
        await session.close();
      }
    },
    dbPath,
  );
}

async function givenSql(
  context: Context,
  command: Command,
  argument: string | undefined,
  file: string | undefined,
): Promise<string> {
  const refuse = (problem: string) =>
    command.error(`error: ${problem}`, { code: 'duckserve.flags', exitCode: 2 });
  if (argument !== undefined && file !== undefined)
    refuse('SQL was given both as an argument and with -f; leave one out');
  const sql = await readSql(context.io, argument, file);
  if (sql === undefined) {
    return refuse(
      `no SQL was given. Write duckserve ${command.name()} "SELECT ...", or -f FILE, or pipe it in`,
    );
  }
  if (isBlankSql(sql)) throw new ServingError('BAD_REQUEST', 'The SQL is empty.');
  return sql;
}

function budgetOf(app: AppHandle, flags: SqlFlags) {
  const limits = {
    ...(flags.maxCalls === undefined ? {} : { maxCalls: flags.maxCalls }),
    ...(flags.maxTokens === undefined ? {} : { maxTokens: flags.maxTokens }),
    ...(flags.maxCost === undefined ? {} : { maxCost: flags.maxCost }),
  };
  return Object.keys(limits).length === 0 ? undefined : app.createBudget(limits);
}
