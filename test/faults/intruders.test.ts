// Everybody who should not get in, at every route there is: without a token, with one that is no longer good, with
// somebody else's endpoint in the path, with a token for less.
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import { stubSpec, Workplace } from '../app/support.ts';
import type { StubProvider } from '../stub/provider.ts';
import { bodyOf, fillPath, listRoutes, type Places, type Route } from './routes.ts';
import { type Answered, type FaultServer, openFaultServer } from './support.ts';

const workplace = new Workplace();
const OPEN = ['/health', '/ping', '/v2/health/live', '/v2/health/ready', '/.well-known/databricks-config'];
/** Nothing in them belongs to anybody. */
const FOR_ALL = /^(\/version|\/v2|\/openapi\.json|\/api\/2\.0\/preview\/scim\/v2\/Me)$/;
/** They answer with what the caller may see. */
const LISTS = /(\/models|serving-endpoints|token\/list)$/;

let stub: StubProvider;
let server: FaultServer;
let routes: readonly Route[];
let places: Places;
let rootToken: string;
let annToken: string;
let eveToken: string;

const give = async (principal: string, more: object = {}) =>
  (await server.app.identity.createToken({ principal, ...more }, LOCAL_OWNER)).token;
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const send = (route: Route, headers: Record<string, string>, at = places): Promise<Answered> =>
  server.ask(route.method, fillPath(route.path, at), bodyOf(route, at), headers);
const labelOf = ({ method, path }: Route) => `${method} ${path}`;

beforeAll(async () => {
  stub = await workplace.stub();
  server = await openFaultServer(workplace);
  rootToken = await give('root', { isAdmin: true });
  annToken = await give('ann');
  eveToken = await give('eve');
  const ann = server.app.identity.authenticate(annToken) as Principal;
  await server.app.registry.createEndpoint(stubSpec('anns', stub), ann);
  const { id, servedEntities } = server.app.registry.getEndpoint('anns');
  const entity = servedEntities[0]?.name ?? '';
  places = { name: 'anns', id, entity, baseUrl: stub.openaiUrl, principal: 'ann' };
  routes = await listRoutes(server, bearer(rootToken));
  expect(routes.length).toBeGreaterThan(70);
});
afterEach(() => vi.restoreAllMocks());
afterAll(() => workplace.clear());

/** A refusal with words, in JSON, that tells nothing of the inside. */
function expectRefusal(answered: Answered, label: string, statuses: readonly number[]): void {
  expect(statuses, `${label}: ${answered.status} ${answered.text.slice(0, 200)}`).toContain(answered.status);
  expect(answered.body, `${label}: ${answered.text}`).toBeTypeOf('object');
  expect(answered.text).not.toMatch(/\.ts:|node_modules|\bat .*\(/);
}

describe('a credential that is none', () => {
  const revoke = async () => {
    const { token, info } = await server.app.identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    await server.app.identity.revokeToken(info.id, LOCAL_OWNER);
    return token;
  };
  const kinds: Readonly<Record<string, () => Promise<Record<string, string>>>> = {
    nothing: async () => ({}),
    'a token that never was': async () => bearer(`dsk_${'A'.repeat(43)}`),
    'a token that was revoked': async () => bearer(await revoke()),
    'a token that has expired': async () => {
      const token = await give('ann', { lifetimeMs: 60_000 });
      const now = Date.now.bind(Date);
      vi.spyOn(Date, 'now').mockImplementation(() => now() + 60_001);
      return bearer(token);
    },
    'a token with one letter changed': async () =>
      bearer(annToken.slice(0, -1) + (annToken.endsWith('a') ? 'b' : 'a')),
    'a token of another case': async () => bearer(annToken.toLowerCase()),
    'the hash of a token': async () =>
      bearer((await import('node:crypto')).createHash('sha256').update(annToken).digest('hex')),
    'SQL in the bearer token': async () => bearer("' OR '1'='1"),
    'SQL in x-api-key': async () => ({ 'x-api-key': "x' UNION SELECT * FROM duckserve.registry --" }),
    'a token of 16 KB': async () => bearer(`dsk_${'A'.repeat(16_000)}`),
    'Basic with another user': async () => ({
      authorization: `Basic ${Buffer.from(`root:${annToken}`).toString('base64')}`,
    }),
    'an unsigned JWT': async () => {
      const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
      return bearer(`${part({ alg: 'none', typ: 'JWT' })}.${part({ sub: 'local', email: 'local' })}.`);
    },
    'a name in place of a token': async () => bearer('local'),
    'the Host of this machine': async () => ({ host: 'localhost', 'x-forwarded-for': '127.0.0.1' }),
  };

  it.each(Object.entries(kinds))('is refused at every route but the open ones: %s', async (_kind, make) => {
    const headers = await make();
    const before = stub.ledger().requests;
    for (const route of routes) {
      const answered = await send(route, headers);
      if (OPEN.includes(route.path)) expect(answered.status, labelOf(route)).toBe(200);
      else expectRefusal(answered, labelOf(route), [401]);
      expect(answered.text).not.toContain('anns');
    }
    expect(stub.ledger().requests).toBe(before);
  });
});

describe("another user's endpoint", () => {
  const concerned = () =>
    routes.filter(
      ({ path }) =>
        !OPEN.includes(path) &&
        !FOR_ALL.test(path) &&
        !LISTS.test(path) &&
        !/token\/create$|external-function$|serving-endpoints\/pt/.test(path),
    );

  it('cannot be seen, asked or changed by any route, and its owner and permissions stay as they were', async () => {
    const before = JSON.stringify(server.app.registry.getEndpoint('anns'));
    const permissions = JSON.stringify(
      server.app.identity.permissionsOf(server.app.registry.getEndpoint('anns')),
    );
    expect(concerned().length).toBeGreaterThan(50);
    for (const route of concerned()) {
      const answered = await send(route, bearer(eveToken));
      expectRefusal(answered, labelOf(route), [403, 404, 501]);
      expect(answered.text, labelOf(route)).not.toContain(stub.url);
      expect(answered.text, labelOf(route)).not.toContain('"ann"');
    }
    expect(stub.ledger().requests).toBe(0);
    expect(JSON.stringify(server.app.registry.getEndpoint('anns'))).toBe(before);
    expect(JSON.stringify(server.app.identity.permissionsOf(server.app.registry.getEndpoint('anns')))).toBe(
      permissions,
    );
  });

  it('is in no list', async () => {
    for (const route of routes.filter(({ method, path }) => method === 'GET' && LISTS.test(path))) {
      const mine = await send(route, bearer(annToken));
      const hers = await send(route, bearer(eveToken));
      expect(hers.status, labelOf(route)).toBe(200);
      expect(hers.text, labelOf(route)).not.toContain('anns');
      if (!route.path.includes('token')) expect(mine.text, labelOf(route)).toContain('anns');
    }
  });

  it('cannot be taken over by creating it again, or by a token that somebody makes for its owner', async () => {
    const create = { method: 'POST', path: '/api/2.0/serving-endpoints' };
    const body = { ...bodyOf({ ...create, schema: undefined }, places), name: 'anns' };
    expect((await server.ask('POST', create.path, body, bearer(eveToken))).status).toBe(409);
    for (const more of [{ principal: 'ann' }, { groups: ['admins'] }, { admin: true }]) {
      const made = await server.ask('POST', '/api/2.0/token/create', more, bearer(eveToken));
      expectRefusal(made, JSON.stringify(more), [400, 403]);
    }
    const taken = { service_principal: true, principal: 'local' };
    expectRefusal(await server.ask('POST', '/api/2.0/token/create', taken, bearer(eveToken)), 'local', [403]);
  });

  it('is open to its owner by the same requests, so that it was not they that were refused', async () => {
    const asked = concerned().filter(
      ({ path, method }) =>
        /chat\/completions$|messages|\{name\}\/(config$|tags|ai-gateway|invocations|openapi|metrics)|permissions/.test(
          path,
        ) && method !== 'DELETE',
    );
    expect(asked.length).toBeGreaterThan(15);
    for (const route of asked) {
      const answered = await send(route, bearer(annToken));
      expect(answered.status, `${labelOf(route)} ${answered.text.slice(0, 300)}`).toBe(200);
    }
    expect(stub.ledger().requests).toBeGreaterThan(5);
  });
});

describe('a token for less', () => {
  const asks = (route: Route) =>
    /(completions|embeddings|responses|invocations|infer|\/messages)$/.test(route.path);
  const changes = ({ method, path }: Route) =>
    method !== 'GET' && /serving-endpoints|limits/.test(path) && /api\/2\.0/.test(path) && !/\/pt/.test(path);
  const tokens = ({ path }: Route) => /\/token(\/|-)/.test(path);

  /** Of its owner, an administrator, so that nothing but the restriction refuses. */
  const scoped = (more: object) => give('root', more);

  it.each([
    ['query', (route: Route) => changes(route) || tokens(route) || /sql/.test(route.path)],
    ['manage', (route: Route) => asks(route) || tokens(route) || /sql/.test(route.path)],
    ['sql', (route: Route) => asks(route) || changes(route) || tokens(route)],
  ] as const)('with scope %s does nothing else', async (scope, isForbidden) => {
    const headers = bearer(await scoped({ scopes: [scope] }));
    const before = [stub.ledger().requests, JSON.stringify(server.app.registry.listEndpoints())];
    const forbidden = routes.filter(isForbidden);
    expect(forbidden.length).toBeGreaterThan(10);
    for (const route of forbidden) {
      // The owner of the token may see what the endpoint serves, and is told that it takes no tensors.
      const other = route.path.endsWith('/infer') ? [400] : [];
      expectRefusal(await send(route, headers), labelOf(route), [403, 404, 501, ...other]);
    }
    expect([stub.ledger().requests, JSON.stringify(server.app.registry.listEndpoints())]).toEqual(before);
  });

  it('that names an endpoint is for that alone, by every route', async () => {
    const headers = bearer(await scoped({ endpoints: ['echo-chat'] }));
    const before = stub.ledger().requests;
    const own = { model: 'echo-chat', messages: [{ role: 'user', content: 'hello' }] };
    expect((await server.ask('POST', '/v1/chat/completions', own, headers)).status).toBe(200);
    for (const route of routes.filter((each) => asks(each) || changes(each) || tokens(each))) {
      expectRefusal(await send(route, headers), labelOf(route), [403, 404, 501]);
    }
    for (const path of ['/metrics', '/api/2.0/duckserve/limits']) {
      expectRefusal(await server.ask('GET', path, undefined, headers), path, [403]);
    }
    expect(stub.ledger().requests).toBe(before);
  });
});

describe('SQL', () => {
  it('of somebody without rights is refused on every row, whatever the function', async () => {
    const eve = server.app.identity.authenticate(eveToken) as Principal;
    const before = stub.ledger().requests;
    for (const sql of [
      "SELECT ai_query('anns', 'x')",
      "SELECT ai_query('anns', 'x', failOnError => false)",
      "SELECT ai_gen('x') FROM (SELECT ai_query('anns', 'y'))",
      "CREATE TABLE t AS SELECT ai_query('anns', 'row ' || i) AS a FROM range(3) r(i)",
      "SELECT ai_query(name, 'x') FROM (VALUES ('an' || 'ns')) v(name)",
    ]) {
      const session = await server.app.openSession({ principal: eve });
      const outcome = await session.run(sql).then(
        (results) => JSON.stringify([...(results.at(-1)?.rows() ?? [])]),
        (error: { code: string }) => error.code,
      );
      expect(outcome, sql).toMatch(/PERMISSION_DENIED|may not query|SQL_ERROR|INVALID_PARAMETER/);
      await session.close();
    }
    expect(stub.ledger().requests).toBe(before);
  });
});
