// Requests on their way through a gateway to the primary and back: nothing added, nothing lost, and whoever leaves
// at one end is missed at the other. Raw sockets at the outer end, a server of Node's at the inner one.
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { keepRequestId } from '#server/http/fast/request-id.ts';
import { createForwarder, REQUEST_ID } from '../../src/workers/forward.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const each of undo.splice(0).reverse()) await each();
});

function listen(server: Server, where: string | number): Promise<void> {
  undo.push(() => {
    server.close();
    server.closeAllConnections();
  });
  return new Promise((resolve) => server.listen(where, resolve));
}

/** A gateway before this primary; `before` is done with each request on its way. */
async function open(primary: RequestListener, before: (incoming: IncomingMessage) => void = () => {}) {
  const directory = mkdtempSync(join(tmpdir(), 'duckserve-forward-'));
  undo.push(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 's');
  const inner = createServer(primary);
  await listen(inner, path);
  const forwarder = createForwarder(path);
  undo.push(() => forwarder.close());
  const outer = createServer((incoming, outgoing) => {
    before(incoming);
    forwarder.listener(incoming, outgoing);
  });
  await listen(outer, 0);
  return { inner, port: (outer.address() as AddressInfo).port };
}

/** Opens a connection, sends the bytes, and collects what comes. */
function talk(port: number, bytes: string): { socket: Socket; heard: () => string; closed: Promise<string> } {
  let heard = '';
  const socket = connect(port, '127.0.0.1');
  socket.write(bytes);
  const closed = new Promise<string>((resolve) => socket.on('close', () => resolve(heard)));
  socket.setEncoding('latin1').on('data', (text) => {
    heard += text;
  });
  socket.on('error', () => {});
  return { socket, heard: () => heard, closed };
}

async function bodyOf(incoming: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of incoming) text += chunk;
  return text;
}

const echo: RequestListener = (incoming, outgoing) => {
  void bodyOf(incoming).then((body) => {
    const { method, url, rawHeaders } = incoming;
    outgoing.setHeader('x-one', ['a', 'b']);
    outgoing.end(JSON.stringify({ method, url, rawHeaders, body }));
  });
};
const said = (answer: string) => JSON.parse(answer.slice(answer.indexOf('{'), answer.lastIndexOf('}') + 1));

describe('a request that is passed on', () => {
  it('arrives with its headers as they were written, without those of the connection', async () => {
    const { port } = await open(echo);
    const answer = await talk(
      port,
      'POST /a?b=%20c HTTP/1.1\r\nHost: example.org\r\nX-Caller: One\r\nX-Caller: two\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nContent-Length: 5\r\n\r\nhello',
    ).closed;
    const { method, url, rawHeaders, body } = said(answer);
    expect([method, url, body]).toEqual(['POST', '/a?b=%20c', 'hello']);
    expect(rawHeaders.slice(0, 8)).toEqual([
      ...['Host', 'example.org', 'X-Caller', 'One', 'X-Caller', 'two', 'Content-Length', '5'],
    ]);
    expect(rawHeaders.join('\n')).not.toMatch(/x-hop|trailers/i);
    expect(answer.match(/^x-one: [ab]$/gm)).toHaveLength(2);
    expect(answer.match(/^date:/gim)).toHaveLength(1);
  });

  it.each(['GET', 'POST', 'PUT', 'DELETE'])('in chunks arrives whole: %s', async (method) => {
    const { port } = await open(echo);
    const answer = await talk(
      port,
      `${method} /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n`,
    ).closed;
    expect(said(answer)).toMatchObject({ method, body: 'abcde' });
  });

  it.each([
    ['GET', 200],
    ['HEAD', 200],
    ['POST', 204],
    ['GET', 304],
  ])('and its answer without a body end: %s %i', async (method, status) => {
    const { port } = await open((_, outgoing) => outgoing.writeHead(status, { etag: '"x"' }).end());
    const answer = await talk(port, `${method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`).closed;
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(answer).toMatch(/\r\n\r\n(0\r\n\r\n)?$/);
  });

  it('is called as the gateway has begun it, and never as its caller says', async () => {
    const { port } = await open(echo, (incoming) => {
      if (incoming.url === '/begun') keepRequestId(incoming, 'ours');
    });
    const ask = (path: string) =>
      talk(port, `GET ${path} HTTP/1.1\r\nHost: a\r\n${REQUEST_ID}: theirs\r\nConnection: close\r\n\r\n`)
        .closed;
    expect(said(await ask('/begun')).rawHeaders.join(' ')).toContain(`${REQUEST_ID} ours`);
    expect(said(await ask('/other')).rawHeaders.join(' ')).not.toContain(REQUEST_ID);
  });

  it('is not read faster than the primary reads it', async () => {
    let read: (() => void) | undefined;
    const { port } = await open(async (incoming, outgoing) => {
      await new Promise<void>((resolve) => {
        read = resolve;
      });
      outgoing.end(String((await bodyOf(incoming)).length));
    });
    const size = 64 * 1024 * 1024;
    const { socket, closed } = talk(
      port,
      `POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: ${size}\r\n\r\n`,
    );
    for (let sent = 0; sent < size; sent += 1024 * 1024) socket.write(Buffer.alloc(1024 * 1024));
    await expect.poll(() => read).toBeDefined();
    await new Promise((resolve) => setTimeout(resolve, 100));
    // Buffers of sockets and streams take a few megabytes; the rest waits at the caller.
    expect(socket.writableLength).toBeGreaterThan(size / 2);
    read?.();
    expect(await closed).toMatch(new RegExp(`${size}$`));
  });

  it('that is refused before its body was read gives the caller the refusal', async () => {
    const { port } = await open((incoming, outgoing) => {
      outgoing.writeHead(413, { 'content-length': 3 }).end('big', () => {
        setTimeout(() => incoming.socket.destroy(), 20);
      });
    });
    const { socket, heard } = talk(port, 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n');
    const timer = setInterval(() => socket.write(Buffer.alloc(65_536)), 1);
    undo.push(() => clearInterval(timer));
    await expect.poll(heard).toMatch(/^HTTP\/1\.1 413 [\s\S]*big$/);
    socket.destroy();
  });
});

describe('a stream that is passed on', () => {
  const endless =
    (onClose: () => void): RequestListener =>
    (_, outgoing) => {
      outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
      outgoing.flushHeaders();
      const timer = setInterval(() => outgoing.write('data: x\n\n'), 5);
      outgoing.on('close', () => {
        clearInterval(timer);
        onClose();
      });
    };

  it('shows its head before its first event', async () => {
    const { port } = await open((_, outgoing) => outgoing.flushHeaders());
    const { heard, socket } = talk(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await expect.poll(heard).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
    socket.destroy();
  });

  it('ends at the primary when its caller leaves', async () => {
    const left = new Promise<void>((resolve) => {
      void open(endless(resolve)).then(async ({ port }) => {
        const { heard, socket } = talk(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
        await expect.poll(heard).toContain('data: x');
        socket.destroy();
      });
    });
    await left;
  });

  it('is cut, not ended, for its caller when the primary dies', async () => {
    const { inner, port } = await open(endless(() => {}));
    const { heard, closed } = talk(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await expect.poll(heard).toContain('data: x');
    inner.closeAllConnections();
    expect(await closed).not.toMatch(/\r\n0\r\n\r\n$/);
  });
});

describe('without a primary', () => {
  it('callers are told with 503 to come again', async () => {
    const { inner, port } = await open(echo);
    await new Promise((resolve) => inner.close(resolve));
    const answer = await talk(port, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n').closed;
    expect(answer).toMatch(/^HTTP\/1\.1 503 /);
    expect(answer).toMatch(/retry-after: 1/i);
    expect(said(answer)).toMatchObject({
      error_code: 'TEMPORARILY_UNAVAILABLE',
      error: { code: 'OVERLOADED' },
    });
  });

  it('that dies while it answers a request, they are told too', async () => {
    const { port } = await open((incoming) => void incoming.socket.destroy());
    const answer = await talk(port, 'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n').closed;
    expect(answer).toMatch(/^HTTP\/1\.1 503 /);
  });
});
