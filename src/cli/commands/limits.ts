// `duckserve limits`: the limits of the workspace, and what is used of all. Where a server has the data directory
// open, it is asked over its control socket: it knows what is used, and a change takes effect there at once.
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { ServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import { formatUse } from '#governance/limits/document.ts';
import { type Context, listSheet, textColumns, withCommonOptions } from '../context.ts';
import { addGroup, type ListFormat, listFormatOption, refuseUnknown } from './group.ts';

const PATH = '/api/2.0/duckserve/limits';

export function addLimitCommands(program: Command, context: Context): void {
  const show = async (format: ListFormat, command: Command) => {
    const limits = await ask(context, command, undefined);
    if (format === 'json') return await context.printJson(limits);
    const names = ['counts', 'principal', 'limit', 'per', 'used', 'renews'];
    await context.printSheet(listSheet(textColumns(...names), toRows(limits)), 'table');
  };

  const group = addGroup(program, 'limits', 'limits over all endpoints together, and what is used of them')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => {
      refuseUnknown(command);
      await show(flags.format, command);
    });

  withCommonOptions(group.command('show'))
    .description('show what is set and what is used now')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => await show(flags.format, command));

  withCommonOptions(group.command('set <file>'))
    .description('replace the limits by those of a JSON file (rate_limits, budgets)')
    .action(async (file: string, _flags: object, command: Command) => {
      const { rate_limits: rates, budgets } = await ask(context, command, await readDocument(file));
      const count = (Array.isArray(rates) ? rates.length : 0) + (Array.isArray(budgets) ? budgets.length : 0);
      context.say(`${count} ${count === 1 ? 'limit is' : 'limits are'} set for all endpoints together.`);
    });

  withCommonOptions(group.command('clear'))
    .description('set no limits; those of endpoints stay')
    .action(async (_flags: object, command: Command) => {
      await ask(context, command, {});
      context.say('No limits are set for all endpoints together.');
    });
}

/** `document`: what to set first. */
async function ask(
  context: Context,
  command: Command,
  document: JsonObject | undefined,
): Promise<JsonObject> {
  const dataDir = context.dataDir(command);
  const request =
    document === undefined
      ? ({ method: 'GET', path: PATH } as const)
      : ({ method: 'PUT', path: PATH, body: document } as const);
  const answer = dataDir === ':memory:' ? undefined : await context.deps.askServer(dataDir, request);
  if (answer !== undefined) return isJsonObject(answer) ? answer : {};
  return await context.withApp(command, async ({ limits }) => {
    if (document !== undefined) await limits.setRules(document);
    return formatUse(limits.rules, limits.readings());
  });
}

async function readDocument(file: string): Promise<JsonObject> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new ServingError('INVALID_PARAMETER', `${file} cannot be read: ${String(cause)}`, { cause });
  }
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw new ServingError('INVALID_PARAMETER', `${file} is not JSON: ${String(cause)}`, { cause });
  }
  if (isJsonObject(document)) return document;
  throw new ServingError(
    'INVALID_PARAMETER',
    `${file} must hold a JSON object with rate_limits and budgets.`,
  );
}

/** What is set first, then what is used of endpoints' own limits. */
function toRows({ rate_limits: rates, budgets, usage }: JsonObject): Json[][] {
  const used = objects(usage);
  const rows: Json[][] = [];
  for (const rule of [...objects(rates), ...objects(budgets)]) {
    for (const [measure, type, per] of measuresOf(rule)) {
      const now = used.filter(
        ({ endpoint, limit_type: its, key, principal }) =>
          endpoint === null &&
          its === type &&
          key === rule.key &&
          (rule.principal ?? principal) === principal,
      );
      const subject = String(
        rule.principal ?? (rule.key === 'endpoint' ? 'everybody' : `each ${String(rule.key)}`),
      );
      const limit = `${measure === 'amount' ? '$' : ''}${String(rule[measure])}`;
      if (now.length === 0) rows.push(['all endpoints', subject, limit, per, '0', '']);
      for (const reading of now) rows.push(toRow(reading));
    }
  }
  for (const reading of used) if (reading.endpoint !== null) rows.push(toRow(reading));
  return rows;
}

function measuresOf(rule: JsonObject): [measure: string, type: string, per: string][] {
  if (rule.amount !== undefined) {
    return [['amount', `cost_per_${String(rule.renewal_period)}`, String(rule.renewal_period)]];
  }
  return ['calls', 'tokens']
    .filter((measure) => rule[measure] !== undefined)
    .map((measure) => [measure, `${measure}_per_minute`, `${measure} a minute`]);
}

function toRow({
  endpoint,
  limit_type: type,
  principal,
  limit,
  current,
  renews_at: renewsAt,
}: JsonObject): Json[] {
  const [what = '', per = ''] = String(type).split('_per_');
  const isMoney = what === 'cost';
  const amount = (value: Json | undefined) => (isMoney ? `$${Number(value).toFixed(6)}` : String(value));
  return [
    endpoint === null ? 'all endpoints' : String(endpoint),
    String(principal ?? 'everybody'),
    isMoney ? `$${String(limit)}` : String(limit),
    isMoney ? per : `${what} a ${per}`,
    amount(current),
    typeof renewsAt === 'string' ? renewsAt : '',
  ];
}

function objects(value: Json | undefined): JsonObject[] {
  return Array.isArray(value) ? value.filter(isJsonObject) : [];
}
