// `duckserve prices`: what providers charge, by model. The same table is `duckserve.prices` in SQL.
import type { Command } from 'commander';
import { type Context, listSheet, textColumns, withCommonOptions } from '../context.ts';
import { addGroup, dollarsOption, type ListFormat, listFormatOption, refuseUnknown } from './group.ts';

export function addPriceCommands(program: Command, context: Context): void {
  const list = async (format: ListFormat, command: Command) =>
    await context.withApp(command, async ({ prices }) => {
      const rows = prices.list();
      if (format === 'json') {
        return await context.printJson(
          rows.map((row) => ({
            provider: row.provider,
            model: row.model,
            input_per_million: row.inputPerMillion,
            output_per_million: row.outputPerMillion,
            note: row.note,
          })),
        );
      }
      const columns = textColumns('provider', 'model', 'input_per_million', 'output_per_million', 'note');
      const cells = rows.map((row) => [
        row.provider,
        row.model,
        String(row.inputPerMillion),
        String(row.outputPerMillion),
        row.note,
      ]);
      await context.printSheet(listSheet(columns, cells), 'table');
    });

  const group = addGroup(program, 'prices', 'what providers charge, in US dollars per million tokens')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => {
      refuseUnknown(command);
      await list(flags.format, command);
    });

  withCommonOptions(group.command('list'))
    .description('list prices')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => await list(flags.format, command));

  withCommonOptions(group.command('set <provider> <model>'))
    .description("set a price; '*' in the model stands for any characters, as provider for any provider")
    .requiredOption('--input <dollars>', 'US dollars per million input tokens', dollarsOption)
    .requiredOption('--output <dollars>', 'US dollars per million output tokens', dollarsOption)
    .option('--note <text>', 'where the price is from')
    .action(
      async (
        provider: string,
        model: string,
        flags: { input: number; output: number; note?: string },
        command: Command,
      ) => {
        await context.withApp(command, async ({ prices }) => {
          await prices.set({
            provider,
            model,
            inputPerMillion: flags.input,
            outputPerMillion: flags.output,
            note: flags.note ?? null,
          });
          context.say(
            `${provider} ${model} costs $${flags.input} in and $${flags.output} out per million tokens.`,
          );
        });
      },
    );

  withCommonOptions(group.command('delete <provider> <model>'))
    .description('forget a price')
    .action(async (provider: string, model: string, _flags: object, command: Command) => {
      await context.withApp(command, async ({ prices }) => {
        await prices.delete(provider, model);
        context.say(`Forgot the price of ${provider} ${model}.`);
      });
    });
}
