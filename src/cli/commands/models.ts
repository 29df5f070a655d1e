// `duckserve models`: registering, listing, fetching and deleting models and their aliases.
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Json } from '#core/json.ts';
import { type Context, listSheet, withCommonOptions } from '../context.ts';
import type { RegistryLike } from '../deps.ts';
import { toWire } from '../wire.ts';
import { addGroup, type ListFormat, listFormatOption, refuseUnknown } from './group.ts';

export function addModelCommands(program: Command, context: Context): void {
  const list = async (format: ListFormat, command: Command) =>
    await context.withApp(command, async ({ registry }) => await printModels(context, registry, format));

  const group = addGroup(program, 'models', 'list, register, fetch and delete models')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => {
      refuseUnknown(command);
      await list(flags.format, command);
    });

  withCommonOptions(group.command('list'))
    .description('list models and their versions')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => await list(flags.format, command));

  withCommonOptions(group.command('register <name> <path>'))
    .description('register a model file or folder as the next version of a model')
    .option('--alias <alias>', 'a name for this version, such as champion')
    .option('--description <text>', 'what this version is')
    .action(
      async (
        name: string,
        path: string,
        flags: { alias?: string; description?: string },
        command: Command,
      ) => {
        await context.withApp(command, async ({ registry }) => {
          const version = await registry.registerModel(name, resolve(path), {
            ...(flags.alias === undefined ? {} : { alias: flags.alias }),
            ...(flags.description === undefined ? {} : { description: flags.description }),
          });
          const alias = flags.alias === undefined ? '' : `, alias ${flags.alias}`;
          context.say(
            `Registered ${version.model} version ${version.version} (${version.engine}, ${version.task}${alias}).`,
          );
        });
      },
    );

  withCommonOptions(group.command('pull <id>'))
    .description('fetch the weights of a built-in model, such as embedded/all-minilm-l6-v2')
    .option('--from <path>', 'copy them from a file or folder on this machine instead')
    .action(async (id: string, { from }: { from?: string }, command: Command) => {
      await context.deps.pullWeights(id, context.dataDir(command), context.io, from);
    });

  withCommonOptions(group.command('alias <name> <alias> <version>'))
    .description('let an alias point to a version')
    .action(async (name: string, alias: string, version: string, _flags: object, command: Command) => {
      await context.withApp(command, async ({ registry }) => {
        await registry.setAlias(name, alias, version);
        context.say(`${name}@${alias} is now version ${version}.`);
      });
    });

  withCommonOptions(group.command('delete <name> <version>'))
    .description('delete one version of a model')
    .action(async (name: string, version: string, _flags: object, command: Command) => {
      await context.withApp(command, async ({ registry }) => {
        await registry.deleteModelVersion(name, version);
        context.say(`Deleted ${name} version ${version}.`);
      });
    });
}

export async function printModels(
  context: Context,
  registry: RegistryLike,
  format: ListFormat,
): Promise<void> {
  const models = registry.listModels();
  if (format === 'json') {
    return await context.printJson(
      models.map(({ model, versions }) => ({ ...(toWire(model) as object), versions: toWire(versions) })),
    );
  }
  const columns = ['name', 'version', 'aliases', 'engine', 'task', 'size'].map((name) => ({
    name,
    type: '',
    isNumber: name === 'size' || name === 'version',
  }));
  const rows = models.flatMap(({ model, versions }) =>
    versions.map((version): readonly Json[] => {
      const aliases = Object.entries(model.aliases).filter(([, target]) => target === version.version);
      return [
        model.name,
        version.version,
        aliases.map(([alias]) => alias).join(', '),
        version.engine,
        version.task,
        sizeText(version.sizeBytes),
      ];
    }),
  );
  await context.printSheet(listSheet(columns, rows), 'table');
}

function sizeText(bytes: number): string {
  if (bytes <= 0) return '-';
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1_048_576) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1_048_576).toFixed(1)} MiB`;
}
