// A command with subcommands that does something by itself (`duckserve endpoints` lists), and option parsers.
import { type Command, InvalidArgumentError, Option } from 'commander';
import { withCommonOptions } from '../context.ts';
import { closest } from '../suggest.ts';

/** commander suggests only where a group has no action of its own, so this one does it for the others. */
export function addGroup(program: Command, name: string, description: string): Command {
  const group = withCommonOptions(program.command(name))
    .description(description)
    .usage('[options] [command]')
    .allowExcessArguments(true);
  return group;
}

export function refuseUnknown(group: Command): void {
  const word = group.args[0];
  if (word === undefined) return;
  const names = group.commands.map((command) => command.name());
  const meant = closest(word, names);
  const hint = meant === undefined ? `Commands: ${names.join(', ')}.` : `(Did you mean ${meant}?)`;
  group.error(`error: unknown command '${word}'\n${hint}`, { code: 'commander.unknownCommand', exitCode: 2 });
}

export type ListFormat = 'table' | 'json';

export function listFormatOption(): Option {
  return new Option('--format <format>', 'how to print').choices(['table', 'json']).default('table');
}

export function wholeNumberOption(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < least || value > most) {
      const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`;
      throw new InvalidArgumentError(`It must be a whole number ${range}.`);
    }
    return value;
  };
}

/** US dollars, 0 or more. */
export function dollarsOption(text: string): number {
  const value = Number(text);
  if (!/^(\d+\.?\d*|\.\d+)(e-?\d+)?$/i.test(text) || !Number.isFinite(value)) {
    throw new InvalidArgumentError('It must be a number of US dollars, such as 0.15, without a sign.');
  }
  return value;
}
