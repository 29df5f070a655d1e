// The edge of `duckserve serve`: TLS, addresses, bytes that are no request, and ending well. Over raw sockets where a
// client library would be too polite.
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { connect as tlsConnect } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StubProvider } from '../stub/provider.ts';
import { createStubEndpoint, type Program, Workplace } from './support.ts';

const workplace = new Workplace();
afterAll(() => workplace.clear());

async function serve(dataDir: string, flags: readonly string[] = []) {
  const program = workplace.program(['serve', '--port', '0', ...flags], { dataDir });
  const [, url = '', port = ''] = await program.stdoutMatch(/duckserve listens on (https?:\/\/\S+:(\d+))\n/);
  return { program, url, port: Number(port) };
}

/** Everything the server says to these bytes until it closes. */
function exchange(port: number, bytes: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    let answer = '';
    socket.setEncoding('latin1').on('data', (text) => {
      answer += text;
    });
    socket.on('close', () => resolve(answer)).on('error', reject);
  });
}

describe('bytes that are no HTTP request', () => {
  let port: number;
  beforeAll(async () => {
    ({ port } = await serve(workplace.directory()));
  });

  const post = 'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n';
  it.each([
    ['no HTTP at all', '\x16\x03\x01 hello\r\n\r\n', '400'],
    [
      'a length beside chunks',
      `${post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      '400',
    ],
    ['two lengths', `${post}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde`, '400'],
    ['a chunk size that is no number', `${post}Transfer-Encoding: chunked\r\n\r\nzz\r\n`, '400'],
    ['a header continued on the next line', `${post}X-A: b\r\n c\r\n: d\r\n\r\n`, '400'],
    ['a header with a NUL', `${post}X-A: b\0c\r\n\r\n`, '400'],
    ['a header of 64 KB', `${post}X-A: ${'a'.repeat(65_536)}\r\n\r\n`, '431'],
  ])('are refused with a status and the end of the connection: %s', async (_name, bytes, status) => {
    expect(await exchange(port, bytes)).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
  });

  it('leave the server answering others', async () => {
    const answer = await exchange(
      port,
      'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
    );
    expect(answer).toContain('"status":"ok"');
  });

  it('of a request that was pipelined behind a good one do not become part of its answer', async () => {
    const good = 'GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n';
    const answer = await exchange(port, `${good}nonsense\r\n\r\n`);
    expect(answer.match(/HTTP\/1\.1 /g)?.length).toBeLessThanOrEqual(2);
    expect(answer).toMatch(/^HTTP\/1\.1 (200|400) /);
  });
});

describe('addresses', () => {
  it('that are not on the list get no answer', async () => {
    const { port } = await serve(workplace.directory(), ['--allow', '10.0.0.0/8', '192.168.1.7']);
    const asked = exchange(port, 'GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n');
    expect(await asked.catch((error: NodeJS.ErrnoException) => error.code)).toMatch(/^(ECONNRESET|EPIPE)?$/);
  });

  it('of others are believed from a trusted proxy alone, and from its end of the list', async () => {
    const flags = ['--allow', '10.0.0.0/8', '--trusted-proxy', '127.0.0.1'];
    const { port } = await serve(workplace.directory(), flags);
    const ask = (forwarded: string) =>
      exchange(
        port,
        `GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Forwarded-For: ${forwarded}\r\n\r\n`,
      );
    expect(await ask('10.1.2.3')).toMatch(/^HTTP\/1\.1 200/);
    expect(await ask('10.1.2.3, 8.8.8.8')).toMatch(/^HTTP\/1\.1 403/);
    expect(await ask('8.8.8.8, 10.1.2.3')).toMatch(/^HTTP\/1\.1 200/);
  });

  it('that cannot be read are refused at the start with their text', async () => {
    const ended = await workplace.run(['serve', '--port', '0', '--allow', '10.0.0.0/33'], {
      dataDir: workplace.directory(),
    });
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain('--allow "10.0.0.0/33" is no address or network');
  });
});

const hasOpenssl = spawnSync('openssl', ['version']).status === 0;
if (!hasOpenssl) console.log('The tests of TLS are skipped: no openssl to make certificates with.');

describe.skipIf(!hasOpenssl)('TLS', () => {
  const pairFor = (directory: string, name: string) => {
    const files = { cert: join(directory, `${name}.pem`), key: join(directory, `${name}.key`) };
    execFileSync(
      'openssl',
      [
        ...[
          'req',
          '-x509',
          '-newkey',
          'ec',
          '-pkeyopt',
          'ec_paramgen_curve:prime256v1',
          '-nodes',
          '-days',
          '2',
        ],
        ...[
          '-subj',
          `/CN=${name}`,
          '-addext',
          'subjectAltName=DNS:localhost',
          '-keyout',
          files.key,
          '-out',
          files.cert,
        ],
      ],
      { stdio: 'ignore' },
    );
    return files;
  };
  const get = (port: number): Promise<{ status: number | undefined; cn: string }> =>
    new Promise((resolve, reject) => {
      const asked = httpsRequest(
        { port, host: '127.0.0.1', path: '/health', rejectUnauthorized: false, agent: false },
        (response) => {
          const { subject } = (response.socket as import('node:tls').TLSSocket).getPeerCertificate();
          response.resume().on('end', () => resolve({ status: response.statusCode, cn: String(subject.CN) }));
        },
      );
      asked.on('error', reject).end();
    });

  it('serves the pair of the files, takes a new one when they change, and keeps the old one while they do not fit', async () => {
    const directory = workplace.directory();
    const first = pairFor(directory, 'first');
    const second = pairFor(directory, 'second');
    const flags = ['--tls-cert', first.cert, '--tls-key', first.key];
    const { port, url, program } = await serve(workplace.directory(), flags);
    expect(url).toMatch(/^https:/);
    expect(await get(port)).toEqual({ status: 200, cn: 'first' });

    writeFileSync(first.cert, readFileSync(second.cert));
    await program.stderrMatch(/the new TLS certificate cannot be used/);
    expect((await get(port)).cn).toBe('first');

    writeFileSync(first.key, readFileSync(second.key));
    let cn = '';
    while (cn !== 'second') ({ cn } = await get(port));
  });

  it('below version 1.2 is refused', async () => {
    const { cert, key } = pairFor(workplace.directory(), 'old');
    const { port } = await serve(workplace.directory(), ['--tls-cert', cert, '--tls-key', key]);
    const refused = new Promise((resolve) => {
      tlsConnect({
        port,
        host: '127.0.0.1',
        maxVersion: 'TLSv1.1',
        minVersion: 'TLSv1.1',
        rejectUnauthorized: false,
      })
        .on('error', resolve)
        .on('secureConnect', () => resolve('connected'));
    });
    expect(await refused).toBeInstanceOf(Error);
  });

  it('refuses at the start a key of another certificate, without showing it', async () => {
    const directory = workplace.directory();
    const flags = ['--tls-cert', pairFor(directory, 'a').cert, '--tls-key', pairFor(directory, 'b').key];
    const ended = await workplace.run(['serve', '--port', '0', ...flags], { dataDir: workplace.directory() });
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain('cannot be used together');
    expect(ended.stderr).not.toContain('PRIVATE');
  });
});

describe('the end', () => {
  let stub: StubProvider;
  async function serveStub(
    flags: readonly string[] = [],
  ): Promise<{ program: Program; port: number; url: string }> {
    stub = await workplace.stub({ latencyMs: 600 });
    const dataDir = workplace.directory();
    const app = await workplace.app({ dataDir: join(dataDir, 'data') });
    await createStubEndpoint(app, 'llm', stub);
    await app.close();
    return await serve(dataDir, flags);
  }
  const chat = (url: string, stream = false) =>
    fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'llm', stream, messages: [{ role: 'user', content: 'a b c d' }] }),
    });

  it('waits for answers and streams that are under way, and takes no new connection', async () => {
    const { program, port, url } = await serveStub();
    const answers = Promise.all([chat(url), chat(url, true)]);
    await program.until(() => stub.requests.length === 2);
    program.child.kill('SIGTERM');
    const bodies = await Promise.all((await answers).map((response) => response.text()));
    expect(bodies[0]).toContain('"finish_reason":"stop"');
    expect(bodies[1]).toContain('data: [DONE]');
    expect((await program.ended).code).toBe(0);
    await expect(exchange(port, 'GET /health HTTP/1.1\r\n\r\n')).rejects.toThrow('ECONNREFUSED');
  });

  it('cuts off what takes longer than it was given', async () => {
    const { program, url } = await serveStub(['--drain-seconds', '0']);
    const answer = chat(url).then(
      (response) => response.text(),
      (error: unknown) => error,
    );
    await program.until(() => stub.requests.length === 1);
    program.child.kill('SIGTERM');
    expect(await answer).toBeInstanceOf(Error);
    expect((await program.ended).code).toBe(0);
  });
});
