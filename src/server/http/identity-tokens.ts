// Tokens in the words of Databricks' token API: one's own, and with fields of ours those of others. The text of a
// token is in the answer that creates it and nowhere else.
import type { Hono } from 'hono';
import { z } from 'zod';
import type { Principal } from '#core/call.ts';
import type { JsonObject } from '#core/json.ts';
import { requireAdmin } from '#governance/access.ts';
import type { Identity, TokenInfo } from '#governance/identity/identity.ts';
import { refuseRestricted } from '#governance/identity/token-request.ts';
import { parseWith } from './errors.ts';
import { type HttpEnv, readJsonBody } from './request.ts';

const MANAGED = '/api/2.0/token-management/tokens';

const createBody = z.object({
  comment: z.string().nullish(),
  lifetime_seconds: z.number().nullish(),
  /** Ours. The first four are for administrators. */
  principal: z.string().nullish(),
  service_principal: z.boolean().nullish(),
  groups: z.array(z.string()).nullish(),
  admin: z.boolean().nullish(),
  scopes: z.array(z.string()).nullish(),
  endpoints: z.array(z.string()).nullish(),
});
const deleteBody = z.object({ token_id: z.string().min(1) });

export function addTokenRoutes(app: Hono<HttpEnv>, identity: Identity): void {
  app.post('/api/2.0/token/create', async (c) => {
    const { token, info } = await identity.createToken(
      toRequest(parseWith(createBody, await readJsonBody(c))),
      c.get('principal'),
    );
    return c.json({ token_value: token, token_info: formatToken(info) });
  });
  app.get('/api/2.0/token/list', (c) => {
    const principal = c.get('principal');
    refuseRestricted(principal);
    const tokens = identity.listTokens(principal.name).filter(({ revokedAtMs }) => revokedAtMs === null);
    return c.json({ token_infos: tokens.map(formatToken) });
  });
  app.post('/api/2.0/token/delete', async (c) => {
    const principal = c.get('principal');
    refuseRestricted(principal);
    await identity.revokeToken(parseWith(deleteBody, await readJsonBody(c)).token_id, principal);
    return c.json({});
  });
  app.get(MANAGED, (c) => {
    const principal = c.get('principal');
    requireAllTokens(principal);
    return c.json({ token_infos: identity.listTokens(c.req.query('created_by_username')).map(formatToken) });
  });
  app.delete(`${MANAGED}/:id`, async (c) => {
    const principal = c.get('principal');
    requireAllTokens(principal);
    await identity.revokeToken(c.req.param('id'), principal);
    return c.json({});
  });
}

function requireAllTokens(principal: Principal): void {
  requireAdmin(principal, 'see and revoke the tokens of others');
  refuseRestricted(principal);
}

function toRequest(body: z.output<typeof createBody>) {
  // Databricks' clients leave a lifetime out or send 0 for a token without an end.
  const lifetimeMs = body.lifetime_seconds ? body.lifetime_seconds * 1_000 : undefined;
  return {
    principal: body.principal ?? undefined,
    ...(typeof body.service_principal === 'boolean'
      ? { kind: body.service_principal ? ('service_principal' as const) : ('user' as const) }
      : {}),
    groups: body.groups ?? undefined,
    isAdmin: body.admin ?? undefined,
    scopes: body.scopes ?? undefined,
    endpoints: body.endpoints ?? undefined,
    comment: body.comment ?? undefined,
    lifetimeMs,
  };
}

function formatToken(info: TokenInfo): JsonObject {
  return {
    token_id: info.id,
    comment: info.comment,
    creation_time: info.createdAtMs,
    // -1: it has no end.
    expiry_time: info.expiresAtMs ?? -1,
    created_by_username: info.principal,
    ...(info.scopes === undefined ? {} : { scopes: info.scopes }),
    prefix: info.prefix,
    principal: info.principal,
    service_principal: info.kind === 'service_principal',
    admin: info.isAdmin,
    groups: info.groups,
    ...(info.endpoints === undefined ? {} : { endpoints: info.endpoints }),
    revocation_time: info.revokedAtMs,
    created_by: info.createdBy,
  };
}
