// `duckserve settings`, `duckserve secrets` and `duckserve answers`: small things kept in the data directory.
import type { Command } from 'commander';
import { ServingError } from '#core/errors.ts';
import { type Context, listSheet, textColumns, withCommonOptions } from '../context.ts';
import { readSecret } from '../read-input.ts';
import { addGroup, type ListFormat, listFormatOption, refuseUnknown } from './group.ts';

const SETTINGS = ['default_chat_endpoint', 'default_embedding_endpoint', 'default_classify_endpoint'];

export function addSettingCommands(program: Command, context: Context): void {
  const list = async (command: Command) =>
    await context.withApp(command, async ({ registry }) => {
      const rows = SETTINGS.map((name) => [name, registry.getSetting(name) ?? null]);
      await context.printSheet(listSheet(textColumns('name', 'value'), rows), 'table');
    });

  const group = addGroup(
    program,
    'settings',
    'show and change settings, such as the default endpoints',
  ).action(async (_flags: object, command: Command) => {
    refuseUnknown(command);
    await list(command);
  });

  withCommonOptions(group.command('get [name]'))
    .description('print one setting, or all')
    .action(async (name: string | undefined, _flags: object, command: Command) => {
      if (name === undefined) return await list(command);
      await context.withApp(command, async ({ registry }) => {
        const value = registry.getSetting(name);
        if (value === undefined) {
          throw new ServingError(
            'NOT_FOUND',
            `Setting ${name} is not set. Set it with duckserve settings set ${name} VALUE.`,
          );
        }
        await context.print(`${value}\n`);
      });
    });

  withCommonOptions(group.command('set <name> <value>'))
    .description('change a setting')
    .action(async (name: string, value: string, _flags: object, command: Command) => {
      await context.withApp(command, async ({ registry }) => {
        await registry.setSetting(name, value);
        context.say(`${name} is now ${value}.`);
      });
    });
}

export function addSecretCommands(program: Command, context: Context): void {
  const list = async (format: ListFormat, command: Command) =>
    await context.withApp(command, async ({ secrets }) => {
      const names = secrets.listSecrets();
      if (format === 'json') return await context.printJson(names.map(({ scope, key }) => ({ scope, key })));
      const rows = names.map(({ scope, key }) => [scope, key, `{{secrets/${scope}/${key}}}`]);
      await context.printSheet(listSheet(textColumns('scope', 'key', 'reference'), rows), 'table');
    });

  const group = addGroup(program, 'secrets', 'keep API keys encrypted in the data directory')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => {
      refuseUnknown(command);
      await list(flags.format, command);
    });

  withCommonOptions(group.command('list'))
    .description('list secrets; values are never shown')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => await list(flags.format, command));

  withCommonOptions(group.command('set <scope> <key>'))
    .description('store a secret; its value is read from standard input')
    .action(async (scope: string, key: string, _flags: object, command: Command) => {
      const value = await readSecret(context.io, `Value of ${scope}/${key} (not shown): `);
      if (value === '') {
        throw new ServingError(
          'INVALID_PARAMETER',
          `The value of ${scope}/${key} is empty. Send it on standard input.`,
        );
      }
      await context.withApp(command, async ({ secrets }) => {
        await secrets.setSecret(scope, key, value);
        context.say(`Stored. Refer to it as {{secrets/${scope}/${key}}}.`);
      });
    });

  withCommonOptions(group.command('delete <scope> <key>'))
    .description('delete a secret')
    .action(async (scope: string, key: string, _flags: object, command: Command) => {
      await context.withApp(command, async ({ secrets }) => {
        await secrets.deleteSecret(scope, key);
        context.say(`Deleted ${scope}/${key}.`);
      });
    });
}

export function addAnswerCommands(program: Command, context: Context): void {
  const count = async (command: Command) =>
    await context.withApp(command, async ({ answers }) => await context.print(`${answers.count}\n`));

  const group = addGroup(program, 'answers', 'count and forget answers already paid for').action(
    async (_flags: object, command: Command) => {
      refuseUnknown(command);
      await count(command);
    },
  );

  withCommonOptions(group.command('count'))
    .description('number of answers in the store')
    .action(async (_flags: object, command: Command) => await count(command));

  withCommonOptions(group.command('clear'))
    .description('forget answers, so that they are asked and paid again')
    .option('--endpoint <name>', 'only those of this endpoint')
    .action(async (flags: { endpoint?: string }, command: Command) => {
      await context.withApp(command, async ({ answers }) => {
        const cleared = await answers.clear(
          flags.endpoint === undefined ? undefined : { endpoint: flags.endpoint },
        );
        context.say(`Forgot ${cleared} ${cleared === 1 ? 'answer' : 'answers'}.`);
      });
    });
}
