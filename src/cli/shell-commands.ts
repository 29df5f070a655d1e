// The shell's own commands, which begin with a dot. What each does in one place, so that .help cannot lie.
import { ServingError } from '#core/errors.ts';
import { endpointRow } from './commands/endpoints.ts';
import { printModels } from './commands/models.ts';
import { listSheet, textColumns } from './context.ts';
import { TEXT_FORMATS } from './formats.ts';
import { readSqlFile } from './read-input.ts';
import type { Shell } from './shell.ts';
import { closest } from './suggest.ts';

interface DotCommand {
  readonly usage: string;
  readonly help: string;
  run(shell: Shell, argument: string): Promise<void>;
}

const FUNCTIONS_SQL = `
  SELECT function_name AS "function", any_value(array_to_string(parameters, ', ')) AS parameters
  FROM duckdb_functions()
  WHERE function_type IN ('macro', 'table_macro') AND NOT internal AND NOT starts_with(function_name, '_')
  GROUP BY ALL ORDER BY ALL`;

const COMMANDS: Readonly<Record<string, DotCommand>> = {
  '.help': {
    usage: '.help',
    help: 'list these commands',
    async run(shell) {
      const width = Math.max(...Object.values(COMMANDS).map(({ usage }) => usage.length));
      for (const { usage, help } of Object.values(COMMANDS))
        shell.context.say(`${usage.padEnd(width)}  ${help}`);
    },
  },
  '.tables': {
    usage: '.tables',
    help: 'tables and views of the database',
    run: async (shell) => await shell.runSql('SHOW TABLES'),
  },
  '.endpoints': {
    usage: '.endpoints',
    help: 'endpoints that can be queried',
    async run(shell) {
      const columns = textColumns('name', 'task', 'serves', 'provider', 'description');
      const rows = shell.app.registry.listEndpoints().map(endpointRow);
      await shell.context.printSheet(listSheet(columns, rows), 'table');
    },
  },
  '.models': {
    usage: '.models',
    help: 'registered models and their versions',
    run: async (shell) => await printModels(shell.context, shell.app.registry, 'table'),
  },
  '.functions': {
    usage: '.functions',
    help: 'AI functions and their parameters',
    run: async (shell) => await shell.runSql(FUNCTIONS_SQL),
  },
  '.format': {
    usage: '.format F',
    help: `how rows are printed: ${TEXT_FORMATS.join(', ')}`,
    async run(shell, argument) {
      const format = TEXT_FORMATS.find((name) => name === argument);
      if (format === undefined) throw wrongUse('.format', argument, TEXT_FORMATS);
      shell.format = format;
    },
  },
  '.timer': {
    usage: '.timer on|off',
    help: 'say how long each statement took',
    async run(shell, argument) {
      if (argument !== 'on' && argument !== 'off') throw wrongUse('.timer', argument, ['on', 'off']);
      shell.hasTimer = argument === 'on';
    },
  },
  '.estimate': {
    usage: '.estimate SQL',
    help: 'what SQL would cost, before anything is paid',
    async run(shell, argument) {
      if (argument === '') throw wrongUse('.estimate', argument, ['a SELECT']);
      await shell.estimate(argument);
    },
  },
  '.read': {
    usage: '.read FILE',
    help: 'run the SQL of a file',
    async run(shell, argument) {
      if (argument === '') throw wrongUse('.read', argument, ['the name of a file']);
      await shell.runSql(await readSqlFile(argument.replace(/^(['"])(.*)\1$/, '$2')));
    },
  },
  '.quit': { usage: '.quit', help: 'leave (also Ctrl-D)', run: async (shell) => shell.leave() },
};
const SYNONYMS: Readonly<Record<string, string>> = { '.exit': '.quit', '.q': '.quit' };

export async function runDotCommand(shell: Shell, line: string): Promise<void> {
  const [, word = '', argument = ''] = /^(\S+)\s*([\s\S]*)$/.exec(line) ?? [];
  const command = COMMANDS[SYNONYMS[word] ?? word];
  if (command === undefined) {
    const meant = closest(word, Object.keys(COMMANDS));
    const hint = meant === undefined ? '.help lists the commands.' : `Did you mean ${meant}?`;
    throw new ServingError('BAD_REQUEST', `There is no command ${word}. ${hint}`);
  }
  await command.run(shell, argument.trim());
}

export function completeDotCommand(line: string): string[] {
  const typed = line.trimStart();
  if (typed.startsWith('.format ')) {
    return TEXT_FORMATS.map((format) => `.format ${format}`).filter((text) => text.startsWith(typed));
  }
  return Object.keys(COMMANDS).filter((name) => name.startsWith(typed));
}

function wrongUse(command: string, argument: string, allowed: readonly string[]): ServingError {
  const given = argument === '' ? 'nothing' : `"${argument}"`;
  return new ServingError(
    'INVALID_PARAMETER',
    `${command} was given ${given}; it takes ${allowed.join(', ')}.`,
  );
}
