// Who may run which CALL duckserve_...: the rules of HTTP for the same things. A command that no rule names is for
// administrators. Not here: what the commands do.
import type { Principal } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';
import type { Authorize } from '#core/policies.ts';
import { authorizeCreate, requireAdmin } from '#governance/access.ts';
import type { Command } from '#session/commands.ts';

export interface CommandRules {
  readonly identity: { readonly authorize: Authorize };
  readonly registry: { getEndpoint(name: string): Endpoint };
}

/** Commands that change the endpoint they name. */
const OF_MANAGERS: ReadonlySet<string> = new Set([
  'drop_endpoint',
  'update_endpoint',
  'set_gateway',
  'stop_endpoint',
  'start_endpoint',
]);

/** The same commands, refused with PERMISSION_DENIED to those who may not. */
export function guardCommands(commands: readonly Command[], rules: CommandRules): Command[] {
  return commands.map((command) => ({
    ...command,
    run: (args, principal) => {
      authorizeCommand(command.name, args, principal, rules);
      return command.run(args, principal);
    },
  }));
}

function authorizeCommand(
  command: string,
  args: Readonly<Record<string, Json>>,
  principal: Principal,
  { identity, registry }: CommandRules,
): void {
  const name = String(args.name ?? '');
  if (command === 'create_endpoint') authorizeCreate(principal, name);
  else if (OF_MANAGERS.has(command)) identity.authorize(principal, registry.getEndpoint(name), 'manage');
  else requireAdmin(principal, `run duckserve_${command}`, 'manage');
}
