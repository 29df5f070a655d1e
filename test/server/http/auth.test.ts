// Who comes through the door, by every header that can carry a credential, and who does not.
import { createConnection } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { createHttpApp } from '../../../src/server/http/app.ts';
import { resolveCaller } from '../../../src/server/http/auth.ts';
import { type HttpServer, startHttpServer } from '../../../src/server/http/server.ts';
import { openTestIdentity, startIssuer } from '../../governance/identity-support.ts';
import { createFakeDeps, readJson } from './fake-deps.ts';

const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;
const servers: HttpServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

async function open(env: Record<string, string> = {}) {
  const { identity, clock } = await openTestIdentity(env);
  const deps = { ...createFakeDeps(), identity };
  const app = createHttpApp(deps);
  const ask = (path: string, token?: string, init: RequestInit = {}) =>
    app.request(path, {
      ...init,
      headers: {
        'content-type': 'application/json',
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(init.headers as Record<string, string> | undefined),
      },
    });
  const give = async (principal: string, more: object = {}) =>
    (await identity.createToken({ principal, ...more }, LOCAL_OWNER)).token;
  return { identity, clock, deps, app, ask, give };
}

describe('a credential', () => {
  it('is understood in four headers, and Authorization goes first', async () => {
    const { identity, give } = await open();
    const token = await give('ann');
    for (const headers of [
      { authorization: `Bearer ${token}` },
      { authorization: `bearer  ${token}` },
      { authorization: basic(`token:${token}`) },
      { 'x-api-key': token },
      { 'api-key': token },
      { authorization: 'Negotiate abc', 'x-api-key': token },
    ]) {
      expect(resolveCaller(identity, headers), JSON.stringify(headers)).toMatchObject({ name: 'ann' });
    }
    expect(() => resolveCaller(identity, { authorization: 'Bearer wrong', 'x-api-key': token })).toThrow(
      'not known to this server',
    );
  });

  it.each([
    [{}],
    [{ authorization: '' }],
    [{ authorization: 'Bearer' }],
    [{ authorization: 'Bearer ' }],
    [{ authorization: basic('admin:x') }],
    [{ authorization: basic('token') }],
    [{ 'x-api-key': '  ' }],
    [{ cookie: 'token=x' }],
  ])('is missing in %j, and the answer says where it belongs', async (headers) => {
    const { identity, give } = await open();
    await give('ann');
    expect(() => resolveCaller(identity, headers)).toThrow("send 'Authorization: Bearer <token>'");
  });

  it('that is SQL, a path or another token with something around it opens nothing and is not repeated', async () => {
    const { ask, give, deps } = await open();
    const token = await give('ann');
    for (const wrong of [
      "' OR '1'='1",
      '../../etc/passwd',
      `${token}x`,
      `x${token}`,
      '{{env/HOME}}',
      '%0d%0a',
    ]) {
      const response = await ask('/v1/models', wrong);
      expect(response.status).toBe(401);
      expect(response.headers.get('www-authenticate')).toContain('Bearer');
      expect((await response.text()) + deps.logged.join()).not.toContain(wrong);
    }
  });

  it('may be a JWT, which takes a moment the first time', async () => {
    const issuer = await startIssuer();
    const { ask } = await open({ DUCKSERVE_OIDC_ISSUER: issuer.url, DUCKSERVE_OIDC_AUDIENCE: 'duckserve' });
    expect((await ask('/v1/models')).status).toBe(401);
    expect((await ask('/v1/models', await issuer.sign({ sub: 'ann' }))).status).toBe(200);
    expect((await ask('/v1/models', await issuer.sign({ sub: 'ann' }, { audience: 'x' }))).status).toBe(401);
    await issuer.close();
  });
});

describe('a server', () => {
  it('that has given its first token asks for one from then on, and a revoked one opens nothing', async () => {
    const { ask, identity } = await open();
    expect((await ask('/v1/models')).status).toBe(200);
    const created = (await (
      await ask('/api/2.0/token/create', undefined, { method: 'POST', body: '{}' })
    ).json()) as {
      token_value: string;
      token_info: { token_id: string };
    };
    expect((await ask('/v1/models')).status).toBe(401);
    expect((await ask('/v1/models', created.token_value)).status).toBe(200);
    await identity.revokeToken(created.token_info.token_id, LOCAL_OWNER);
    expect((await ask('/v1/models', created.token_value)).status).toBe(401);
    expect((await ask('/v1/models')).status).toBe(401);
  });

  it('without tokens takes nobody who comes by another name or from another page, token or not', async () => {
    const { identity } = await open();
    const host = 'localhost:8080';
    expect(resolveCaller(identity, { host })).toBe(LOCAL_OWNER);
    expect(resolveCaller(identity, { host, origin: 'https://localhost:8080' })).toBe(LOCAL_OWNER);
    for (const headers of [
      {},
      { host: 'evil.example' },
      { host: 'localhost.evil.example:8080' },
      { host: '127.0.0.1.evil.example' },
      { host, origin: 'https://evil.example' },
      { host, origin: 'null' },
      { host, 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'cors' },
    ]) {
      expect(() => resolveCaller(identity, headers), JSON.stringify(headers)).toThrow(
        'a server without tokens',
      );
    }
  });

  it('with a token listens where other machines can reach it', async () => {
    const { deps, give } = await open();
    await expect(startHttpServer(deps, { host: '0.0.0.0', port: 0 })).rejects.toThrow('no token is set');
    await give('ann');
    servers.push(await startHttpServer(deps, { host: '0.0.0.0', port: 0 }));
  });

  it('answers a header of a megabyte, and one with a line break in it, without ever looking at the token', async () => {
    const { deps, give } = await open();
    await give('ann');
    const server = await startHttpServer(deps, { port: 0 });
    servers.push(server);
    const send = (head: string) =>
      new Promise<string>((resolve) => {
        const socket = createConnection(server.port, '127.0.0.1');
        let answer = '';
        socket.on('data', (bytes) => {
          answer += bytes.toString('latin1');
        });
        socket.on('error', () => {});
        socket.on('close', () => resolve(answer));
        socket.end(`GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${head}\r\n\r\n`);
      });
    expect(await send(`Authorization: Bearer ${'x'.repeat(1_000_000)}`)).toMatch(/^(HTTP\/1\.1 431 |$)/);
    expect(await send('Authorization: Bearer a\nX-Api-Key: b')).toMatch(/^HTTP\/1\.1 4\d\d /);
    expect(await send('Authorization: Bearer a\rX-Injected: b')).toMatch(/^HTTP\/1\.1 400 /);
  });

  it('lets probes in without a token, and gives them nobody to be', async () => {
    const { ask, give } = await open();
    await give('ann');
    expect((await ask('/health')).status).toBe(200);
    expect(await (await ask('/.well-known/databricks-config')).json()).toEqual({ oidc_endpoint: '' });
    for (const path of ['/Health', '//health', '/health/../v1/models', '/metrics']) {
      expect((await ask(path)).status, path).not.toBe(200);
    }
  });
});

describe('what a principal sees', () => {
  it('is what it may see; the rest it cannot tell from what is not there', async () => {
    const { ask, give, identity, deps } = await open();
    const ann = await give('ann');
    await identity.setPermissions(deps.registry.getEndpoint('chat'), [
      { kind: 'user', name: 'ann', level: 'CAN_QUERY' },
    ]);
    const models = (await (await ask('/v1/models', ann)).json()) as { data: { id: string }[] };
    // `vectors` is built in.
    expect(models.data.map(({ id }) => id)).toEqual(['chat', 'vectors']);
    expect((await ask('/v1/models/chat', ann)).status).toBe(200);
    expect((await ask('/v1/models/iris', ann)).status).toBe(403);
    expect((await ask('/metrics', ann)).status).toBe(403);
    expect((await ask('/metrics', await give('root', { isAdmin: true }))).status).toBe(200);
  });

  it('is no SQL, unless it is an administrator whose token is for it', async () => {
    const { ask, give } = await open();
    const run = async (token: string) =>
      await ask('/api/2.0/sql/statements', token, { method: 'POST', body: '{"statement": "SELECT 1"}' });
    const refused = await run(await give('ann', { scopes: ['sql'] }));
    expect([refused.status, (await readJson(refused)).message]).toEqual([
      403,
      "Only administrators may run SQL over HTTP (it can read local files), and 'ann' is none.",
    ]);
    expect((await run(await give('root', { isAdmin: true, scopes: ['query'] }))).status).toBe(403);
    expect((await run(await give('root', { scopes: ['sql'] }))).status).toBe(200);
  });
});

describe('the functions that others call', () => {
  it('give the principal at once for tokens of ours', async () => {
    const { identity, give } = await open();
    const caller = resolveCaller(identity, { authorization: `Bearer ${await give('ann')}` });
    expect(caller).not.toBeInstanceOf(Promise);
    expect((caller as Principal).name).toBe('ann');
  });

  it('know the hashes of DUCKSERVE_TOKENS as the owner', async () => {
    const { identity } = await open({ DUCKSERVE_TOKENS: sha256Hex('one') });
    expect(resolveCaller(identity, { 'x-api-key': 'one' })).toBe(LOCAL_OWNER);
  });
});
