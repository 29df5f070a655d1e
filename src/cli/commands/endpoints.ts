// `duckserve endpoints`: creating, listing, showing and deleting endpoints. Changing them is in endpoint-changes.ts.
import type { Command } from 'commander';
import { LOCAL_OWNER } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { type Context, listSheet, textColumns, withCommonOptions } from '../context.ts';
import { toWire } from '../wire.ts';
import { addEndpointChanges, CONFIG_AND_FLAGS, readSpec } from './endpoint-changes.ts';
import {
  addModelOptions,
  entitySpec,
  MODEL_FLAGS,
  type ModelFlags,
  modelFlagProblem,
  serves,
} from './endpoint-flags.ts';
import { addGroup, type ListFormat, listFormatOption, refuseUnknown } from './group.ts';

export function addEndpointCommands(program: Command, context: Context): void {
  const list = async (format: ListFormat, command: Command) =>
    await context.withApp(command, async ({ registry }) => {
      const endpoints = registry.listEndpoints();
      if (format === 'json') return await context.printJson(toWire(endpoints));
      const columns = textColumns('name', 'task', 'serves', 'provider', 'description');
      await context.printSheet(listSheet(columns, endpoints.map(endpointRow)), 'table');
    });

  const group = addGroup(program, 'endpoints', 'list, create, show, change and delete endpoints')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => {
      refuseUnknown(command);
      await list(flags.format, command);
    });

  withCommonOptions(group.command('list'))
    .description('list endpoints')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => await list(flags.format, command));

  withCommonOptions(group.command('get <name>'))
    .description('show one endpoint')
    .addOption(listFormatOption())
    .action(async (name: string, flags: { format: ListFormat }, command: Command) => {
      await context.withApp(command, async ({ registry }) => {
        const endpoint = registry.getEndpoint(name);
        if (flags.format === 'json') return await context.printJson(toWire(endpoint));
        const rows = Object.entries(toWire(endpoint) ?? {});
        await context.printSheet(listSheet(textColumns('property', 'value'), rows), 'table');
      });
    });

  withCommonOptions(group.command('delete <name>'))
    .description('delete an endpoint')
    .action(async (name: string, _flags: object, command: Command) => {
      await context.withApp(command, async ({ registry }) => {
        await registry.deleteEndpoint(name);
        context.say(`Deleted endpoint ${name}.`);
      });
    });

  addModelOptions(withCommonOptions(group.command('create <name>')))
    .description('create an endpoint for an external model or a registered one')
    .option('--description <text>', 'what the endpoint is for')
    .option(
      '--config <file>',
      'JSON with served_entities, routes, ai_gateway, tags instead of flags; - is standard input',
    )
    .action(async (name: string, flags: CreateFlags, command: Command) => {
      const refuse = (problem: string): never =>
        command.error(`error: ${problem}`, { code: 'duckserve.flags', exitCode: 2 });
      const isModelGiven = MODEL_FLAGS.some((flag) => flags[flag] !== undefined);
      if (flags.config !== undefined && isModelGiven) refuse(CONFIG_AND_FLAGS);
      const problem = flags.config === undefined ? modelFlagProblem(flags) : undefined;
      if (problem !== undefined) refuse(problem);
      const spec = {
        name,
        ...(flags.config === undefined
          ? { ...(flags.task === undefined ? {} : { task: flags.task }), servedEntities: [entitySpec(flags)] }
          : await readSpec(context, flags.config)),
        ...(flags.description === undefined ? {} : { description: flags.description }),
      };
      await context.withApp(command, async ({ registry }) => {
        const endpoint = await registry.createEndpoint(spec, LOCAL_OWNER);
        context.say(`Created endpoint ${endpoint.name} (${endpoint.task}, ${serves(endpoint)}).`);
      });
    });

  addEndpointChanges(group, context);
}

interface CreateFlags extends ModelFlags {
  readonly description?: string;
  readonly config?: string;
}

export function endpointRow(endpoint: Endpoint): readonly string[] {
  const providers = endpoint.servedEntities.map((entity) => entity.externalModel?.provider ?? 'local');
  const description = endpoint.description || (endpoint.isEmbedded ? 'built in' : '');
  return [endpoint.name, endpoint.task, serves(endpoint), [...new Set(providers)].join(', '), description];
}
