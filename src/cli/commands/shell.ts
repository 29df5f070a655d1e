// `duckserve shell`: opens a session on the database file and hands it to the interactive shell.
import type { Command } from 'commander';
import { LOCAL_OWNER } from '#core/call.ts';
import { type Context, withCommonOptions } from '../context.ts';
import { Shell } from '../shell.ts';

export function addShellCommand(program: Command, context: Context): void {
  withCommonOptions(program.command('shell'))
    .description('SQL line by line; .help lists its own commands')
    .option('--db <file>', 'database file (default: main.duckdb in the data directory)')
    .action(async (_flags: object, command: Command) => {
      await context.withApp(
        command,
        async (app) => {
          const session = await app.openSession({ principal: LOCAL_OWNER, origin: 'cli' });
          try {
            const shell = new Shell(context, app, session, context.dataDir(command));
            context.exitCode = await shell.run();
          } finally {
            await session.close();
          }
        },
        context.dbPath(command, 'main.duckdb'),
      );
    });
}
