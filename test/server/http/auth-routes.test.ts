// Permissions, tokens and principals over HTTP, in the shapes that Databricks' clients send and read.
import { beforeEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import type { Identity } from '#governance/identity/identity.ts';
import { createHttpApp } from '../../../src/server/http/app.ts';
import { NOW_MS, openTestIdentity } from '../../governance/identity-support.ts';
import { createFakeDeps } from './fake-deps.ts';

let identity: Identity;
let root: string;
let ann: string;
let app: ReturnType<typeof createHttpApp>;

const give = async (principal: string, more: object = {}) =>
  (await identity.createToken({ principal, ...more }, LOCAL_OWNER)).token;

beforeEach(async () => {
  ({ identity } = await openTestIdentity());
  app = createHttpApp({ ...createFakeDeps(), identity });
  root = await give('root', { isAdmin: true });
  ann = await give('ann', { groups: ['team'] });
});

async function ask(method: string, path: string, token: string, body?: unknown) {
  const response = await app.request(path, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

describe('permissions of an endpoint', () => {
  const path = '/api/2.0/permissions/serving-endpoints/id-of-chat';
  const query = { group_name: 'team', permission_level: 'CAN_QUERY' };

  it('are given by PUT, added to by PATCH, and shown with what the creator and administrators have', async () => {
    const put = await ask('PUT', path, root, { access_control_list: [query] });
    expect(put).toEqual({
      status: 200,
      body: {
        object_id: '/serving-endpoints/id-of-chat',
        object_type: 'serving-endpoint',
        access_control_list: [
          {
            user_name: 'local',
            display_name: 'local',
            all_permissions: [{ permission_level: 'CAN_MANAGE', inherited: false }],
          },
          {
            group_name: 'admins',
            all_permissions: [
              {
                permission_level: 'CAN_MANAGE',
                inherited: true,
                inherited_from_object: ['/serving-endpoints/'],
              },
            ],
          },
          { group_name: 'team', all_permissions: [{ permission_level: 'CAN_QUERY', inherited: false }] },
        ],
      },
    });
    await ask('PATCH', path, root, {
      access_control_list: [{ user_name: 'ann', permission_level: 'CAN_MANAGE' }],
    });
    // Who manages may see and give permissions.
    const seen = await ask('GET', path, ann);
    expect(seen.status).toBe(200);
    expect(JSON.stringify(seen.body)).toContain('"user_name":"ann"');
    expect((await ask('PUT', path, ann, { access_control_list: [] })).status).toBe(200);
    expect((await ask('GET', path, ann)).status).toBe(404);
  });

  it('can be sent back as they were shown', async () => {
    await ask('PUT', path, root, { access_control_list: [query] });
    const shown = await ask('GET', path, root);
    const list = (shown.body.access_control_list as Record<string, unknown>[]).map((entry) => ({
      ...entry,
      permission_level: (entry.all_permissions as { permission_level: string }[])[0]?.permission_level,
    }));
    expect(await ask('PUT', path, root, { access_control_list: list })).toEqual(shown);
  });

  it('have three levels, each with its meaning', async () => {
    const { body } = await ask('GET', `${path}/permissionLevels`, root);
    expect(body.permission_levels).toEqual(
      ['CAN_VIEW', 'CAN_QUERY', 'CAN_MANAGE'].map((permission_level) => ({
        permission_level,
        description: expect.stringMatching(/^Can see/),
      })),
    );
  });

  it('are hidden from who may not see the endpoint, and closed to who may only query it', async () => {
    const hidden = await ask('GET', path, ann);
    const unknown = await ask('GET', path.replace('chat', 'none'), ann);
    expect([hidden.status, unknown.status]).toEqual([404, 404]);
    expect(String(hidden.body.message).replace('chat', 'none')).toBe(unknown.body.message);
    await ask('PUT', path, root, { access_control_list: [query] });
    for (const method of ['GET', 'PUT', 'PATCH']) {
      const body = method === 'GET' ? undefined : { access_control_list: [] };
      const refused = await ask(method, path, ann, body);
      expect([refused.status, refused.body.error_code]).toEqual([403, 'PERMISSION_DENIED']);
    }
  });

  it.each([
    [{}, 'access_control_list'],
    [{ access_control_list: [{ permission_level: 'CAN_QUERY' }] }, 'exactly one of user_name, group_name'],
    [{ access_control_list: [{ ...query, user_name: 'ann' }] }, 'exactly one of'],
    [{ access_control_list: [{ user_name: 'ann', permission_level: 'CAN_FLY' }] }, 'CAN_FLY'],
    [
      { access_control_list: [{ user_name: "x'; DROP TABLE registry; --", permission_level: 'CAN_VIEW' }] },
      'no user',
    ],
  ])('%j are refused with the reason', async (body, message) => {
    const refused = await ask('PUT', path, root, body);
    expect(refused.status).toBeGreaterThanOrEqual(400);
    expect(refused.status).toBeLessThan(500);
    expect(refused.body.message).toContain(message);
    expect(identity.permissionsOf({ id: 'id-of-chat' } as never)).toEqual([]);
  });
});

describe('tokens', () => {
  it('of oneself are created, listed and deleted as Databricks does it', async () => {
    const created = await ask('POST', '/api/2.0/token/create', ann, {
      comment: 'ci',
      lifetime_seconds: 3600,
    });
    const { token_value, token_info } = created.body as {
      token_value: string;
      token_info: { token_id: string };
    };
    expect(token_value).toMatch(/^dsk_/);
    expect(token_info).toMatchObject({
      comment: 'ci',
      creation_time: NOW_MS,
      expiry_time: NOW_MS + 3_600_000,
      principal: 'ann',
    });
    const list = async () =>
      ((await ask('GET', '/api/2.0/token/list', ann)).body.token_infos as { expiry_time: number }[]).map(
        ({ expiry_time }) => expiry_time,
      );
    expect((await list()).sort()).toEqual([-1, NOW_MS + 3_600_000]);
    const id = token_info.token_id;
    expect((await ask('POST', '/api/2.0/token/delete', token_value, { token_id: id })).status).toBe(200);
    expect((await ask('GET', '/api/2.0/token/list', token_value)).status).toBe(401);
    expect(await list()).toEqual([-1]);
  });

  it('of others are the business of administrators', async () => {
    const body = {
      principal: 'bot',
      service_principal: true,
      groups: ['team'],
      scopes: ['query'],
      endpoints: ['chat'],
    };
    expect((await ask('POST', '/api/2.0/token/create', ann, body)).status).toBe(403);
    const made = await ask('POST', '/api/2.0/token/create', root, body);
    expect(made.body.token_info).toMatchObject({ ...body, admin: false });
    const all = '/api/2.0/token-management/tokens';
    expect((await ask('GET', all, ann)).status).toBe(403);
    const listed = await ask('GET', `${all}?created_by_username=bot`, root);
    const [info] = listed.body.token_infos as { token_id: string }[];
    expect(JSON.stringify(listed.body)).not.toContain(String(made.body.token_value).slice(6));
    expect((await ask('DELETE', `${all}/${info?.token_id}`, ann)).status).toBe(403);
    expect((await ask('DELETE', `${all}/${info?.token_id}`, root)).status).toBe(200);
    expect((await ask('GET', '/v1/models', String(made.body.token_value))).status).toBe(401);
    expect((await ask('DELETE', `${all}/none`, root)).status).toBe(404);
  });

  it('that are restricted make no tokens and see none, also those of administrators', async () => {
    const restricted = await give('root', { scopes: ['manage'] });
    for (const [method, path, body] of [
      ['POST', '/api/2.0/token/create', {}],
      ['GET', '/api/2.0/token/list', undefined],
      ['POST', '/api/2.0/token/delete', { token_id: 'x' }],
      ['GET', '/api/2.0/token-management/tokens', undefined],
    ] as const) {
      expect((await ask(method, path, restricted, body)).status, path).toBe(403);
    }
  });
});

describe('principals', () => {
  const scim = '/api/2.0/preview/scim/v2';

  it('are told who they are, with their groups', async () => {
    const email = await give('ann@example.org', { groups: ['team'] });
    expect((await ask('GET', `${scim}/Me`, email)).body).toEqual({
      schemas: ['urn:ietf:params:scim:schemas:core:2.0:User'],
      id: expect.any(String),
      userName: 'ann@example.org',
      displayName: 'ann@example.org',
      active: true,
      emails: [{ type: 'work', value: 'ann@example.org', primary: true }],
      groups: [{ display: 'team', type: 'direct', value: expect.any(String) }],
    });
    const bot = await give('bot', { kind: 'service_principal' });
    expect((await ask('GET', `${scim}/Me`, bot)).body).toMatchObject({
      applicationId: 'bot',
      userName: 'bot',
    });
  });

  it('are listed page by page, by name, to administrators alone', async () => {
    await give('bot', { kind: 'service_principal' });
    const names = async (query: string) => {
      const { body } = await ask('GET', `${scim}/${query}`, root);
      return (body.Resources as { displayName: string }[]).map(({ displayName }) => displayName);
    };
    expect(await names('Users')).toEqual(['ann', 'local', 'root']);
    expect(await names('Users?startIndex=2&count=1')).toEqual(['local']);
    expect(await names('Users?startIndex=4')).toEqual([]);
    expect(await names(`Users?filter=${encodeURIComponent('userName eq "ann"')}`)).toEqual(['ann']);
    expect(await names('ServicePrincipals')).toEqual(['bot']);
    expect(await names('Groups')).toEqual(['team']);
    const [group] = (await ask('GET', `${scim}/Groups`, root)).body.Resources as { id: string }[];
    expect((await ask('GET', `${scim}/Groups/${group?.id}`, root)).body).toMatchObject({
      members: [{ display: 'ann' }],
    });
    expect((await ask('GET', `${scim}/Users/none`, root)).status).toBe(404);
    expect((await ask('GET', `${scim}/Users?filter=a+or+b`, root)).status).toBe(501);
    expect((await ask('GET', `${scim}/Users?count=-1`, root)).status).toBe(400);
    expect((await ask('GET', `${scim}/Users`, ann)).status).toBe(403);
  });
});
