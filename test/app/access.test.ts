// Who may do what, end to end: on rows of a statement as on HTTP requests, with tokens made while a server runs.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER, type Principal } from '#core/call.ts';
import { createStubEndpoint, Workplace } from './support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

/** Every file below a directory, as bytes. */
function* filesOf(directory: string): Generator<[path: string, content: Buffer]> {
  for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    const path = join(directory, name);
    if (statSync(path).isFile()) yield [path, readFileSync(path)];
  }
}

describe('a principal without CAN_QUERY', () => {
  it('is refused on the rows of a statement, and let in once it is given', async () => {
    const stub = await workplace.stub();
    const app = await workplace.app({ dataDir: ':memory:' });
    await createStubEndpoint(app, 'llm', stub);
    const { token } = await app.identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    const ann = app.identity.authenticate(token) as Principal;
    const session = await app.openSession({ principal: ann, origin: 'pg' });
    const statement = "SELECT ai_query('llm', 'row ' || i) FROM range(3) t(i)";
    await expect(session.run(statement)).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
      message: expect.stringContaining("'ann' may not query endpoint 'llm'"),
    });
    expect(stub.ledger().requests).toBe(0);
    await app.identity.setPermissions(app.registry.getEndpoint('llm'), [
      { kind: 'user', name: 'ann', level: 'CAN_QUERY' },
    ]);
    const [result] = await session.run(statement);
    expect(result?.rowCount).toBe(3);
    await session.close();
  });

  it('does not get by with what others have asked and paid for', async () => {
    const stub = await workplace.stub();
    const app = await workplace.app({ dataDir: ':memory:' });
    await createStubEndpoint(app, 'llm', stub);
    const { token } = await app.identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    const ann = app.identity.authenticate(token) as Principal;
    const owner = await app.openSession();
    const statement = "SELECT ai_query('llm', 'the same')";
    await owner.run(statement);
    const session = await app.openSession({ principal: ann });
    await expect(session.run(statement)).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
    await session.close();
    await owner.close();
  });
});

describe('CALL duckserve_...', () => {
  it('is for managers of the endpoint that it names, and otherwise for administrators', async () => {
    const stub = await workplace.stub();
    const app = await workplace.app({ dataDir: ':memory:' });
    await createStubEndpoint(app, 'llm', stub);
    const { token } = await app.identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    const ann = app.identity.authenticate(token) as Principal;
    const session = await app.openSession({ principal: ann });
    for (const call of [
      "duckserve_drop_endpoint('llm')",
      "duckserve_stop_endpoint('llm')",
      "duckserve_set_gateway('llm', '{}')",
      'duckserve_clear_answers()',
      "duckserve_register_model('m', '/etc/passwd')",
      "duckserve_set_setting('default_chat_endpoint', 'llm')",
    ]) {
      await expect(session.run(`CALL ${call}`), call).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
    }
    await app.identity.setPermissions(app.registry.getEndpoint('llm'), [
      { kind: 'user', name: 'ann', level: 'CAN_MANAGE' },
    ]);
    await session.run("CALL duckserve_drop_endpoint('llm')");
    expect(() => app.registry.getEndpoint('llm')).toThrow("no endpoint 'llm'");
    await session.close();
  });
});

describe('an access list', () => {
  it('ends with its endpoint: one of the same name begins without', async () => {
    const stub = await workplace.stub();
    const app = await workplace.app({ dataDir: join(workplace.directory(), 'data') });
    await createStubEndpoint(app, 'llm', stub);
    const { token } = await app.identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    const ann = app.identity.authenticate(token) as Principal;
    await app.identity.setPermissions(app.registry.getEndpoint('llm'), [
      { kind: 'user', name: 'ann', level: 'CAN_QUERY' },
    ]);
    expect(app.identity.levelOf(ann, app.registry.getEndpoint('llm'))).toBe('CAN_QUERY');
    await app.registry.deleteEndpoint('llm');
    await createStubEndpoint(app, 'llm', stub);
    expect(app.identity.levelOf(ann, app.registry.getEndpoint('llm'))).toBeUndefined();
    await app.identity.keepEndpoints(app.registry.listEndpoints().map(({ id }) => id));
    expect(app.identity.snapshot().filter(({ kind }) => kind === 'acl')).toEqual([]);
  });
});

describe('duckserve tokens', () => {
  it('works on a directory that nobody has open, and keeps no token there', async () => {
    const dataDir = workplace.directory();
    const created = await workplace.run(['tokens', 'create', '--principal', 'ann', '--expires', '30d'], {
      dataDir,
    });
    expect(created).toMatchObject({ code: 0, stdout: expect.stringMatching(/^dsk_[\w-]{43}\n$/) });
    const token = created.stdout.trim();
    let files = 0;
    for (const [path, content] of filesOf(join(dataDir, 'data'))) {
      files++;
      expect(content.includes(token.slice(6)), path).toBe(false);
    }
    expect(files).toBeGreaterThan(0);
    const listed = await workplace.run(['tokens', 'list', '--format', 'json'], { dataDir });
    const [info] = JSON.parse(listed.stdout) as { token_id: string; principal: string }[];
    expect(info?.principal).toBe('ann');
    expect((await workplace.run(['tokens', 'revoke', info?.token_id ?? ''], { dataDir })).code).toBe(0);
    expect((await workplace.run(['tokens', 'revoke', 'none'], { dataDir })).code).toBe(1);
  });

  it('works while a server has it open, and takes effect there at once', async () => {
    const dataDir = workplace.directory();
    const server = workplace.program(['serve', '--port', '0'], { dataDir, env: { DUCKSERVE_LOG: 'debug' } });
    let said = '';
    for (const stream of [server.child.stdout, server.child.stderr]) {
      stream.on('data', (text: string) => {
        said += text;
      });
    }
    await server.until(() => /duckserve listens on (http:\S+)/.test(said));
    const url = /duckserve listens on (http:\S+)/.exec(said)?.[1] ?? '';
    const status = async (token?: string, path = '/v1/models') =>
      (
        await fetch(`${url}${path}`, {
          headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        })
      ).status;
    expect(await status()).toBe(200);

    const created = await workplace.run(['tokens', 'create', '--principal', 'ann'], { dataDir });
    expect(created.code, created.stderr).toBe(0);
    const token = created.stdout.trim();
    expect([await status(), await status(token)]).toEqual([401, 200]);
    expect(await status(token, '/metrics')).toBe(403);

    const admin = await workplace.run(['tokens', 'create', '--principal', 'root', '--admin'], { dataDir });
    expect(await status(admin.stdout.trim(), '/metrics')).toBe(200);

    const listed = await workplace.run(['tokens', '--format', 'json'], { dataDir });
    const infos = JSON.parse(listed.stdout) as { token_id: string; principal: string }[];
    const id = infos.find(({ principal }) => principal === 'ann')?.token_id ?? '';
    expect((await workplace.run(['tokens', 'revoke', id], { dataDir })).code).toBe(0);
    expect([await status(token), await status()]).toEqual([401, 401]);

    server.child.kill('SIGTERM');
    expect((await server.ended).code).toBe(0);
    expect(readdirSync(join(dataDir, 'data')).filter((name) => name.startsWith('control'))).toEqual([]);
    for (const text of [token, admin.stdout.trim()]) {
      expect(said.includes(text.slice(6))).toBe(false);
      for (const [path, content] of filesOf(dataDir))
        expect(content.includes(text.slice(6)), path).toBe(false);
    }
  });
});
