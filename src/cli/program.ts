// The command line as a whole: all commands, and running one from arguments to exit code.
// 0 done, 1 failed, 2 used wrongly, 130 interrupted. Rows go to standard output, all else to standard error.
import { Command, CommanderError } from 'commander';
import { toServingError } from '#core/errors.ts';
import { addEndpointCommands } from './commands/endpoints.ts';
import { addLimitCommands } from './commands/limits.ts';
import { addModelCommands } from './commands/models.ts';
import { addPriceCommands } from './commands/prices.ts';
import { addServeCommands } from './commands/serve.ts';
import { addAnswerCommands, addSecretCommands, addSettingCommands } from './commands/settings.ts';
import { addShellCommand } from './commands/shell.ts';
import { addSqlCommands } from './commands/sql.ts';
import { addTokenCommands } from './commands/tokens.ts';
import { Context, withCommonOptions } from './context.ts';
import type { CliDeps } from './deps.ts';
import { OutputClosed } from './output.ts';
import { errorText } from './report-error.ts';

export type { AppHandle, CliDeps, Io } from './deps.ts';

export function createProgram(deps: CliDeps): Command {
  return buildProgram(new Context(deps));
}

/** `argv` without the program and script names. Never throws; nothing is left running afterwards. */
export async function runCli(argv: readonly string[], deps: CliDeps): Promise<number> {
  const context = new Context(deps);
  const program = buildProgram(context);
  // A reader that goes away (`| head`) is noticed by the write it breaks; the event must not end the process first.
  for (const stream of [deps.io.stdout, deps.io.stderr]) stream.on('error', ignore);
  if (argv.length === 0) {
    program.outputHelp();
    return 0;
  }
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return context.exitCode;
  } catch (thrown) {
    context.status.clear();
    if (thrown instanceof OutputClosed) return 0;
    // Already explained on standard error by commander; asking for help or the version is no mistake.
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? 0 : 2;
    deps.io.stderr.write(errorText(thrown, { isVerbose: context.isVerbose, isTty: deps.io.isStderrTty }));
    return toServingError(thrown).code === 'CANCELLED' ? 130 : 1;
  }
}

function ignore(): void {}

function buildProgram(context: Context): Command {
  const { io, version } = context.deps;
  const program = new Command('duckserve')
    .description('Model serving and AI functions for DuckDB')
    .version(version, '-V, --version', 'print the version')
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      getOutHelpWidth: () => (io.isStdoutTty ? io.columns : 100),
      getErrHelpWidth: () => (io.isStderrTty ? io.columns : 100),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })
    .showHelpAfterError('(--help shows how it is used)');
  withCommonOptions(program).hook('preAction', (_program, command) => {
    for (let at: Command | null = command; at !== null; at = at.parent) {
      if (at.opts().verbose === true) context.isVerbose = true;
    }
  });
  addSqlCommands(program, context);
  addShellCommand(program, context);
  addServeCommands(program, context);
  addEndpointCommands(program, context);
  addModelCommands(program, context);
  addLimitCommands(program, context);
  addSettingCommands(program, context);
  addSecretCommands(program, context);
  addTokenCommands(program, context);
  addAnswerCommands(program, context);
  addPriceCommands(program, context);
  return program;
}
