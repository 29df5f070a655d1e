// `duckserve tokens`: giving, listing and taking away tokens. Where a server has the data directory open, it is
// asked over its control socket, so that a change takes effect there at once.
import { type Command, InvalidArgumentError, Option } from 'commander';
import { LOCAL_OWNER, TOKEN_SCOPES } from '#core/call.ts';
import { toServingError } from '#core/errors.ts';
import { isJsonObject, type Json, type JsonObject } from '#core/json.ts';
import type { TokenInfo } from '#governance/identity/identity.ts';
import { parseLifetime } from '#governance/identity/token-text.ts';
import { type Context, listSheet, textColumns, withCommonOptions } from '../context.ts';
import type { AppHandle } from '../deps.ts';
import { toWire } from '../wire.ts';
import { addGroup, type ListFormat, listFormatOption, refuseUnknown } from './group.ts';

interface CreateFlags {
  readonly principal: string;
  readonly group?: readonly string[];
  readonly admin?: boolean;
  readonly servicePrincipal?: boolean;
  readonly scope?: readonly string[];
  readonly endpoint?: readonly string[];
  /** Milliseconds. */
  readonly expires?: number;
  readonly comment?: string;
}

/** One token as it is printed, from either source. */
type TokenRow = JsonObject;

const MANAGED = '/api/2.0/token-management/tokens';

export function addTokenCommands(program: Command, context: Context): void {
  const list = async (format: ListFormat, command: Command) => {
    const rows = await ask(context, command, { method: 'GET', path: MANAGED }, async ({ identity }) => ({
      token_infos: identity.listTokens().map(toRow),
    }));
    const tokens =
      isJsonObject(rows) && Array.isArray(rows.token_infos) ? (rows.token_infos as TokenRow[]) : [];
    if (format === 'json') return await context.printJson(tokens);
    const names = ['id', 'token', 'principal', 'for', 'expires', 'state', 'comment'];
    const now = context.clock.now();
    await context.printSheet(
      listSheet(
        textColumns(...names),
        tokens.map((token) => cells(token, now)),
      ),
      'table',
    );
  };

  const group = addGroup(program, 'tokens', 'give, list and revoke the tokens that open the server')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => {
      refuseUnknown(command);
      await list(flags.format, command);
    });

  withCommonOptions(group.command('list'))
    .description('list tokens; their texts are not kept')
    .addOption(listFormatOption())
    .action(async (flags: { format: ListFormat }, command: Command) => await list(flags.format, command));

  withCommonOptions(group.command('create'))
    .description('create a token and print it, once')
    .requiredOption('--principal <name>', 'user (or service principal) it is for; made where there is none')
    .option('--group <name>', 'put the principal into a group; can be repeated', collect)
    .option('--admin', 'make the principal an administrator')
    .option('--service-principal', 'the principal is a program, not a user')
    .addOption(
      new Option('--scope <scope>', 'what the token is for (default: everything); can be repeated')
        .choices(TOKEN_SCOPES)
        .argParser(collectScope),
    )
    .option('--endpoint <name>', 'the token is for this endpoint only; can be repeated', collect)
    .option(
      '--expires <duration>',
      'lifetime, such as 30d, 12h or 45m (default: until it is revoked)',
      lifetime,
    )
    .option('--comment <text>', 'what it is for')
    .action(async (flags: CreateFlags, command: Command) => await create(context, flags, command));

  withCommonOptions(group.command('revoke <id>'))
    .description('revoke a token; takes effect at once')
    .action(async (id: string, _flags: object, command: Command) => {
      const path = `${MANAGED}/${encodeURIComponent(id)}`;
      await ask(context, command, { method: 'DELETE', path }, async ({ identity }) => {
        await identity.revokeToken(id, LOCAL_OWNER);
        return {};
      });
      context.say(`Revoked token ${id}.`);
    });
}

async function create(context: Context, flags: CreateFlags, command: Command): Promise<void> {
  const kind = flags.servicePrincipal ? ({ kind: 'service_principal' } as const) : {};
  const body: JsonObject = {
    principal: flags.principal,
    ...(flags.group === undefined ? {} : { groups: flags.group }),
    ...(flags.admin ? { admin: true } : {}),
    ...(flags.servicePrincipal ? { service_principal: true } : {}),
    ...(flags.scope === undefined ? {} : { scopes: flags.scope }),
    ...(flags.endpoint === undefined ? {} : { endpoints: flags.endpoint }),
    ...(flags.expires === undefined ? {} : { lifetime_seconds: flags.expires / 1_000 }),
    ...(flags.comment === undefined ? {} : { comment: flags.comment }),
  };
  const request = { method: 'POST', path: '/api/2.0/token/create', body } as const;
  const answer = await ask(context, command, request, async ({ identity }) => {
    const { token, info } = await identity.createToken(
      {
        principal: flags.principal,
        ...kind,
        groups: flags.group,
        isAdmin: flags.admin,
        scopes: flags.scope,
        endpoints: flags.endpoint,
        lifetimeMs: flags.expires,
        comment: flags.comment,
      },
      LOCAL_OWNER,
    );
    return { token_value: token, token_info: toRow(info) };
  });
  const { token_value: token, token_info: info } = isJsonObject(answer) ? answer : {};
  await context.print(`${String(token)}\n`);
  const id = isJsonObject(info) ? String(info.token_id) : '';
  context.say(
    `Token ${id} of ${flags.principal}. It is shown this once; revoke it with: duckserve tokens revoke ${id}`,
  );
}

/** From the server that runs on the data directory, else from the directory itself. */
async function ask(
  context: Context,
  command: Command,
  request: Parameters<Context['deps']['askServer']>[1],
  otherwise: (app: AppHandle) => Promise<Json>,
): Promise<Json> {
  const dataDir = context.dataDir(command);
  const answer = dataDir === ':memory:' ? undefined : await context.deps.askServer(dataDir, request);
  return answer === undefined ? await context.withApp(command, otherwise) : answer;
}

/** The names that the server's answers have. */
function toRow(info: TokenInfo): TokenRow {
  const { id, createdAtMs, expiresAtMs, revokedAtMs, kind, isAdmin, ...rest } = info;
  const wire = toWire(rest);
  return {
    token_id: id,
    creation_time: createdAtMs,
    expiry_time: expiresAtMs ?? -1,
    revocation_time: revokedAtMs,
    service_principal: kind === 'service_principal',
    admin: isAdmin,
    ...(isJsonObject(wire) ? wire : {}),
  };
}

function cells(token: TokenRow, nowMs: number): readonly Json[] {
  const expiresAtMs = Number(token.expiry_time);
  const isExpired = expiresAtMs >= 0 && expiresAtMs <= nowMs;
  const state = token.revocation_time !== null ? 'revoked' : isExpired ? 'expired' : 'valid';
  const expires =
    expiresAtMs < 0 ? 'never' : new Date(expiresAtMs).toISOString().slice(0, 16).replace('T', ' ');
  const uses = [...strings(token.scopes), ...strings(token.endpoints)].join(', ') || 'everything';
  const principal = `${String(token.principal)}${token.admin === true ? ' (admin)' : ''}`;
  return [
    token.token_id ?? '',
    `${String(token.prefix)}…`,
    principal,
    uses,
    expires,
    state,
    token.comment ?? '',
  ];
}

function strings(value: Json | undefined): readonly string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

function collectScope(value: string, before: readonly string[] = []): readonly string[] {
  if (TOKEN_SCOPES.some((scope) => scope === value)) return [...before, value];
  throw new InvalidArgumentError(`Allowed choices are ${TOKEN_SCOPES.join(', ')}.`);
}

function lifetime(text: string): number {
  try {
    return parseLifetime(text);
  } catch (error) {
    throw new InvalidArgumentError(toServingError(error).message);
  }
}
