// The owner's way in without a token: a socket file that only the owner can open.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { SILENT_LOG } from '#core/log.ts';
import { askControlSocket } from '../../../src/server/http/control-client.ts';
import { findSocket } from '../../../src/server/http/control-place.ts';
import { startHttpServer } from '../../../src/server/http/server.ts';
import { openTestIdentity } from '../../governance/identity-support.ts';
import { createFakeDeps } from './fake-deps.ts';

let folder: string;
const undo: (() => unknown)[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'duckserve-control-test-'));
  undo.push(() => rmSync(folder, { recursive: true, force: true }));
});
afterEach(async () => {
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
});

async function serve(dataDir: string) {
  const { identity } = await openTestIdentity();
  const warnings: string[] = [];
  const log = { ...SILENT_LOG, warn: (_fields: object, message: string) => void warnings.push(message) };
  const server = await startHttpServer(
    { ...createFakeDeps(), identity, log },
    { port: 0, controlDir: dataDir },
  );
  let closing: Promise<void> | undefined;
  const close = () => (closing ??= server.close());
  undo.push(close);
  return { identity, server, close, warnings };
}

const list = { method: 'GET', path: '/api/2.0/token-management/tokens' } as const;

describe.skipIf(process.platform === 'win32')('the control socket', () => {
  it('lets its owner do everything, while the address asks for tokens', async () => {
    const { identity, server } = await serve(folder);
    await identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    expect((await fetch(`${server.url}${list.path}`)).status).toBe(401);
    expect(await askControlSocket(folder, list)).toMatchObject({ token_infos: [{ principal: 'ann' }] });
    const body = { principal: 'bob', admin: true };
    await askControlSocket(folder, { method: 'POST', path: '/api/2.0/token/create', body });
    expect(identity.listTokens().map(({ principal, createdBy }) => [principal, createdBy])).toContainEqual([
      'bob',
      'local',
    ]);
  });

  it('can be opened by nobody else, is alone in the directory, and goes with the server', async () => {
    const { close } = await serve(folder);
    const path = join(folder, 'control.sock');
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder)).toEqual(['control.sock']);
    await close();
    expect(readdirSync(folder)).toEqual([]);
    expect(await askControlSocket(folder, list)).toBeUndefined();
  });

  it('takes the place of one that a killed server has left', async () => {
    const path = join(folder, 'control.sock');
    const dead = createServer();
    await new Promise<void>((resolve) => dead.listen(join(folder, 'old'), resolve));
    // A socket nobody listens on any more, as SIGKILL leaves it: renamed so that closing does not find it.
    renameSync(join(folder, 'old'), path);
    await new Promise((resolve) => dead.close(resolve));
    expect(existsSync(path)).toBe(true);
    expect(await askControlSocket(folder, list)).toBeUndefined();
    const { warnings } = await serve(folder);
    expect(warnings).toEqual([]);
    expect(readdirSync(folder)).toEqual(['control.sock']);
    expect(await askControlSocket(folder, list)).toEqual({ token_infos: [] });
  });

  it('lies elsewhere where its path would be too long, and control.json says where', async () => {
    const deep = join(folder, 'd'.repeat(60), 'e'.repeat(60));
    mkdirSync(deep, { recursive: true });
    const { close } = await serve(deep);
    const path = findSocket(deep) ?? '';
    expect(path.startsWith(deep)).toBe(false);
    expect(statSync(join(deep, 'control.json')).mode & 0o777).toBe(0o600);
    expect(statSync(dirname(path)).mode & 0o777).toBe(0o700);
    expect(await askControlSocket(deep, list)).toEqual({ token_infos: [] });
    await close();
    expect([existsSync(dirname(path)), readdirSync(deep)]).toEqual([false, []]);
  });

  it('that cannot be opened is a warning, and the server runs without', async () => {
    const nowhere = join(folder, 'missing');
    const { server, warnings } = await serve(nowhere);
    expect(warnings).toEqual(['the control socket cannot be opened']);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    expect(await askControlSocket(nowhere, list)).toBeUndefined();
  });

  it('answers failures as the errors that the server had', async () => {
    await serve(folder);
    await expect(
      askControlSocket(folder, { method: 'DELETE', path: `${list.path}/none` }),
    ).rejects.toMatchObject({ code: 'NOT_FOUND', message: expect.stringContaining("no token 'none'") });
    await expect(
      askControlSocket(folder, { method: 'POST', path: '/api/2.0/token/create', body: { principal: ' ' } }),
    ).rejects.toMatchObject({ code: 'INVALID_PARAMETER' });
  });

  it('never removes a file that it has not made', async () => {
    const precious = join(folder, 'precious');
    mkdirSync(precious);
    writeFileSync(join(precious, 'control.sock'), 'x');
    writeFileSync(join(precious, 'data'), 'x');
    // As if another server's note were copied here.
    writeFileSync(join(folder, 'control.json'), JSON.stringify({ socket: join(precious, 'data') }));
    const { close } = await serve(folder);
    await close();
    expect(readdirSync(precious)).toEqual(['control.sock', 'data']);
  });

  it('of a note that is damaged is none', async () => {
    writeFileSync(join(folder, 'control.json'), '{"socket": 5}');
    expect(await askControlSocket(folder, list)).toBeUndefined();
    writeFileSync(join(folder, 'control.json'), 'x');
    chmodSync(join(folder, 'control.json'), 0o600);
    expect(await askControlSocket(folder, list)).toBeUndefined();
  });
});
