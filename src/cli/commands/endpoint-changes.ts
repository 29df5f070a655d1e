// `duckserve endpoints update|gateway|stop|start`: changing an endpoint that is there. A new configuration is in
// force when the command ends, or the old one still is and the command has failed.
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { LOCAL_OWNER } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { type Context, withCommonOptions } from '../context.ts';
import { parseSpec } from '../from-wire.ts';
import { readSql } from '../read-input.ts';
import { toWire } from '../wire.ts';
import {
  addModelOptions,
  entitySpec,
  MODEL_FLAGS,
  type ModelFlags,
  modelFlagProblem,
  serves,
} from './endpoint-flags.ts';

interface UpdateFlags extends ModelFlags {
  readonly description?: string;
  readonly config?: string;
}
interface GatewayFlags {
  readonly set?: string;
  readonly clear?: boolean;
}

export const CONFIG_AND_FLAGS = '--config has all of it; leave the flags of the model out.';

export function addEndpointChanges(group: Command, context: Context): void {
  const refuse = (command: Command, problem: string): never =>
    command.error(`error: ${problem}`, { code: 'duckserve.flags', exitCode: 2 });

  addModelOptions(withCommonOptions(group.command('update <name>')))
    .description('serve another model, several, or other shares of the traffic')
    .option('--description <text>', 'what the endpoint is for')
    .option('--config <file>', 'JSON with served_entities and routes instead of flags; - is standard input')
    .action(async (name: string, flags: UpdateFlags, command: Command) => {
      const isModelGiven = MODEL_FLAGS.some((flag) => flags[flag] !== undefined);
      if (flags.config !== undefined && isModelGiven) refuse(command, CONFIG_AND_FLAGS);
      if (flags.config === undefined && flags.description === undefined && !isModelGiven) {
        refuse(
          command,
          'nothing to change: give --config FILE, or a model as for duckserve endpoints create.',
        );
      }
      const config = flags.config === undefined ? {} : await readSpec(context, flags.config);
      await context.withApp(command, async ({ registry }) => {
        // The task of an endpoint does not change, so it need not be said again.
        const model = { task: registry.getEndpoint(name).task, ...flags };
        const problem = isModelGiven ? modelFlagProblem(model) : undefined;
        if (problem !== undefined) refuse(command, problem);
        const spec = {
          ...config,
          ...(isModelGiven ? { servedEntities: [entitySpec(model)] } : {}),
          ...(flags.description === undefined ? {} : { description: flags.description }),
        };
        const endpoint = await registry.updateEndpointAndWait(name, spec, LOCAL_OWNER);
        context.say(
          `Updated endpoint ${name} (${serves(endpoint)}), configuration ${endpoint.configVersion}.`,
        );
      });
    });

  withCommonOptions(group.command('gateway <name>'))
    .description('show or set the policies of an endpoint: limits, budgets, guardrails, fallback')
    .option(
      '--set <file>',
      'JSON with the whole gateway, which replaces the one there is; - is standard input',
    )
    .option('--clear', 'remove all policies')
    .action(async (name: string, flags: GatewayFlags, command: Command) => {
      if (flags.set !== undefined && flags.clear) refuse(command, '--set and --clear exclude each other.');
      const gateway = flags.set === undefined ? undefined : await readSpec(context, flags.set);
      await context.withApp(command, async ({ registry }) => {
        if (gateway === undefined && !flags.clear) {
          return await context.printJson(toWire(registry.getEndpoint(name).aiGateway ?? {}));
        }
        await registry.setGateway(name, gateway ?? {});
        context.say(`${gateway === undefined ? 'Cleared' : 'Set'} the gateway of endpoint ${name}.`);
      });
    });

  for (const [verb, said, description] of [
    ['stop', 'Stopped', 'refuse queries until the endpoint is started'],
    ['start', 'Started', 'take queries again'],
  ] as const) {
    withCommonOptions(group.command(`${verb} <name>`))
      .description(description)
      .action(async (name: string, _flags: object, command: Command) => {
        await context.withApp(command, async ({ registry }) => {
          await (verb === 'stop' ? registry.stopEndpoint(name) : registry.startEndpoint(name));
          context.say(`${said} endpoint ${name}.`);
        });
      });
  }
}

/** Read before anything is opened. */
export async function readSpec(context: Context, file: string): Promise<JsonObject> {
  return parseSpec(await readJson(context, file), file === '-' ? 'Standard input' : `The file ${file}`);
}

async function readJson(context: Context, file: string): Promise<string> {
  try {
    return (file === '-' ? await readSql(context.io, undefined, '-') : await readFile(file, 'utf8')) ?? '';
  } catch (error) {
    const isAbsent = (error as NodeJS.ErrnoException).code === 'ENOENT';
    const reason = isAbsent ? 'there is no such file' : (error as Error).message;
    throw new ServingError('NOT_FOUND', `Cannot read ${file}: ${reason}.`, { cause: error });
  }
}
