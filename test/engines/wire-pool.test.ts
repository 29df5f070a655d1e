// Connections to a provider over real sockets: used again, given up, sent again at most once, never mixed up.
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { afterEach, describe, expect, test } from 'vitest';
import type { WireListener } from '#engines/http/wire/exchange.ts';
import type { WireFailure } from '#engines/http/wire/failure.ts';
import { WirePool, type WirePoolOptions } from '#engines/http/wire/pool.ts';
import { makeCertificate } from '../stub/certificate.ts';

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

/** `answer` is called for each whole request (they end with a dot), with how many the connection has had. */
type Script = (socket: Socket, request: string, count: number, connection: number) => void;

async function startServer(
  script: Script,
  make = createServer,
): Promise<{ port: number; sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const server: Server = make((socket: Socket) => {
    sockets.push(socket);
    const connection = sockets.length;
    let count = 0;
    let text = '';
    socket.on('error', () => {});
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1');
      if (!text.endsWith('.')) return;
      const request = text;
      text = '';
      script(socket, request, ++count, connection);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  undo.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  return { port: (server.address() as AddressInfo).port, sockets };
}

function openPool(port: number, options: Partial<WirePoolOptions> = {}): WirePool {
  const pool = new WirePool({ host: '127.0.0.1', port, isSecure: false, timeoutMs: 20_000, ...options });
  undo.push(() => pool.close());
  return pool;
}

interface Outcome {
  readonly status: number;
  readonly body: string;
}

function ask(
  pool: WirePool,
  text: string,
  onStart: (exchange: ReturnType<WirePool['send']>) => void = () => {},
) {
  return new Promise<Outcome>((resolve, reject) => {
    let status = 0;
    let body = '';
    const listener: WireListener = {
      onHead: (head) => {
        status = head.status;
      },
      onBytes: (bytes) => {
        body += bytes.toString('latin1');
      },
      onEnd: () => resolve({ status, body }),
      onFailure: reject,
    };
    onStart(pool.send([Buffer.from(text)], listener));
  });
}

const reasonOf = async (outcome: Promise<Outcome>): Promise<string> =>
  outcome.then(
    ({ body }) => `answered ${body}`,
    (failure: WireFailure) => failure.reason,
  );

const good = (body: string, more = '') =>
  `HTTP/1.1 200 OK\r\n${more}Content-Length: ${body.length}\r\n\r\n${body}`;

describe('connections', () => {
  test('are used again, the one used last first', async () => {
    const { port, sockets } = await startServer((socket, request, _count, connection) => {
      socket.write(good(`${request} on ${connection}`));
    });
    const pool = openPool(port);
    expect((await ask(pool, 'a.')).body).toBe('a. on 1');
    expect((await ask(pool, 'b.')).body).toBe('b. on 1');
    await Promise.all([ask(pool, 'c.'), ask(pool, 'd.')]);
    expect(sockets).toHaveLength(2);
    expect(pool.size).toBe(2);
    expect(pool.inUse).toBe(0);
  });

  test('send a request that comes in pieces as one, and those of one turn on connections of their own', async () => {
    const { port } = await startServer((socket, request) => socket.write(good(request)));
    const pool = openPool(port);
    const bodies = await Promise.all(
      ['a', 'b', 'c'].map(
        (name) =>
          new Promise<string>((resolve, reject) => {
            let body = '';
            pool.send([Buffer.from(name), Buffer.from(name.repeat(8)), Buffer.from('.')], {
              onHead() {},
              onBytes: (bytes) => {
                body += bytes.toString('latin1');
              },
              onEnd: () => resolve(body),
              onFailure: reject,
            });
          }),
      ),
    );
    expect(bodies).toEqual(['aaaaaaaaa.', 'bbbbbbbbb.', 'ccccccccc.']);
    expect(pool.size).toBe(3);
  });

  test('given up in the turn they were sent are never seen by the provider', async () => {
    const seen: string[] = [];
    const { port } = await startServer((socket, request) => {
      seen.push(request);
      socket.write(good('x'));
    });
    const pool = openPool(port);
    await ask(pool, 'a.');
    const never = () => expect.unreachable();
    pool.send([Buffer.from('b.')], { onHead: never, onBytes: never, onEnd: never, onFailure: never }).abort();
    expect((await ask(pool, 'c.')).body).toBe('x');
    expect(seen).toEqual(['a.', 'c.']);
  });

  test.each([
    ['says that it closes', good('x', 'Connection: close\r\n')],
    ['sends more than its answer', `${good('x')}HTTP/1.1 200 OK\r\n`],
    ['ends its body by closing', undefined],
  ])('are not used again where the provider %s', async (_name, answer) => {
    const { port, sockets } = await startServer((socket) => {
      if (answer === undefined) socket.end('HTTP/1.1 200 OK\r\n\r\nx');
      else socket.write(answer);
    });
    const pool = openPool(port);
    expect((await ask(pool, 'a.')).body).toBe('x');
    expect((await ask(pool, 'b.')).body).toBe('x');
    expect(sockets).toHaveLength(2);
  });

  test('that say something unasked are closed, and nobody gets to see it', async () => {
    const { port, sockets } = await startServer((socket, request) => socket.write(good(request)));
    const pool = openPool(port);
    await ask(pool, 'a.');
    const closed = once(sockets[0] as Socket, 'close');
    sockets[0]?.write(good('stolen'));
    await closed;
    expect((await ask(pool, 'b.')).body).toBe('b.');
  });

  test('that the provider has closed meanwhile cost one more try, on a fresh one', async () => {
    const seen: string[] = [];
    const { port, sockets } = await startServer((socket, request, count) => {
      seen.push(request);
      // The second request of a connection finds it dead, as when a server closes it for being idle.
      if (count === 2) socket.resetAndDestroy();
      else socket.write(good(request));
    });
    const pool = openPool(port);
    await ask(pool, 'a.');
    expect((await ask(pool, 'b.')).body).toBe('b.');
    expect(seen).toEqual(['a.', 'b.', 'b.']);
    expect(sockets).toHaveLength(2);
  });

  test('a request is not sent again on a connection that was fresh, nor after a byte of an answer', async () => {
    const seen: string[] = [];
    const { port } = await startServer((socket, request, count) => {
      seen.push(request);
      if (request === 'fresh.') socket.resetAndDestroy();
      else if (count === 1) socket.write(good(request));
      else socket.end('HTTP/1.1 200 OK\r\nContent-Le');
    });
    const pool = openPool(port);
    expect(await reasonOf(ask(pool, 'fresh.'))).toBe('broken');
    await ask(pool, 'a.');
    expect(await reasonOf(ask(pool, 'b.'))).toBe('broken');
    expect(seen).toEqual(['fresh.', 'a.', 'b.']);
  });

  test('idle ones are closed after their time, which the provider may shorten', async () => {
    let nowMs = 1_000_000;
    const clock = { now: () => nowMs, random: () => 0, sleep: async () => {} };
    const { port, sockets } = await startServer((socket, request) => {
      socket.write(good('x', request === 'short.' ? 'Keep-Alive: timeout=5\r\n' : ''));
    });
    const pool = openPool(port, { clock, idleMs: 30_000 });
    await ask(pool, 'a.');
    nowMs += 29_000;
    await ask(pool, 'short.');
    expect(sockets).toHaveLength(1);
    nowMs += 4_500;
    await ask(pool, 'b.');
    expect(sockets).toHaveLength(2);
    nowMs += 31_000;
    await ask(pool, 'c.');
    expect(sockets).toHaveLength(3);
  });
});

describe('failures', () => {
  test('nobody listens', async () => {
    const { port } = await startServer(() => {});
    for (const step of undo.splice(0)) await step();
    expect(await reasonOf(ask(openPool(port), 'a.'))).toBe('broken');
  });

  test.each([
    ['nothing, and closes', '', 'broken'],
    ['half a head, and closes', 'HTTP/1.1 200', 'broken'],
    ['half a body, and closes', 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf', 'broken'],
    ['half a chunk, and closes', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf', 'broken'],
    ['something else', 'SSH-2.0-OpenSSH\r\n\r\n', 'malformed'],
    ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx', 'malformed'],
  ])('the provider sends %s', async (_name, text, reason) => {
    const { port } = await startServer((socket) => socket.end(text));
    const pool = openPool(port);
    expect(await reasonOf(ask(pool, 'a.'))).toBe(reason);
    expect(pool.inUse).toBe(0);
  });

  test('a provider that says nothing is given up after the time, and its connection closed', async () => {
    const { port, sockets } = await startServer(() => {});
    const pool = openPool(port, { timeoutMs: 60 });
    expect(await reasonOf(ask(pool, 'a.'))).toBe('late');
    if (!sockets[0]?.destroyed) await once(sockets[0] as Socket, 'close');
    expect(pool.inUse).toBe(0);
  });

  test('a deadline that comes first counts', async () => {
    const { port } = await startServer(() => {});
    const pool = openPool(port, { timeoutMs: 400 });
    const late = new Promise<string>((resolve) => {
      const listener = {
        onHead() {},
        onBytes() {},
        onEnd() {},
        onFailure: (failure: WireFailure) => resolve(failure.reason),
      };
      pool.send([Buffer.from('a.')], listener, Date.now());
    });
    expect(await late).toBe('late');
  });

  test('an aborted request closes its connection at once and says nothing more', async () => {
    const { port, sockets } = await startServer((socket) => {
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n');
    });
    const pool = openPool(port);
    const heard: string[] = [];
    await new Promise<void>((resolve) => {
      const exchange = pool.send([Buffer.from('a.')], {
        onHead: () => heard.push('head'),
        onBytes: () => {
          exchange.abort();
          resolve();
        },
        onEnd: () => heard.push('end'),
        onFailure: () => heard.push('failure'),
      });
    });
    if (!sockets[0]?.destroyed) await once(sockets[0] as Socket, 'close');
    expect(heard).toEqual(['head']);
    expect(pool.inUse).toBe(0);
  });

  test('closing the pool fails what is under way', async () => {
    const { port } = await startServer(() => {});
    const pool = openPool(port);
    const outcome = reasonOf(ask(pool, 'a.'));
    pool.close();
    expect(await outcome).toBe('aborted');
    expect(await reasonOf(ask(pool, 'b.'))).toBe('aborted');
  });
});

describe('reading', () => {
  test('a paused answer stops the provider, and goes on where it stopped', async () => {
    const body = 'x'.repeat(8 * 1024 * 1024);
    const { port } = await startServer((socket) => socket.write(good(body)));
    const pool = openPool(port);
    let length = 0;
    let pauses = 0;
    await new Promise<void>((resolve, reject) => {
      const exchange = pool.send([Buffer.from('a.')], {
        onHead() {},
        onBytes: (bytes) => {
          expect(exchange.isPaused).toBe(false);
          length += bytes.length;
          if (pauses >= 5) return;
          pauses++;
          exchange.pause();
          setImmediate(() => exchange.resume());
        },
        onEnd: resolve,
        onFailure: reject,
      });
    });
    expect(pauses).toBe(5);
    expect(length).toBe(body.length);
  });

  test('many at once are never mixed up, whatever the pieces', async () => {
    const { port } = await startServer((socket, request) => {
      const answer = Buffer.from(good(`for ${request}`));
      for (let at = 0; at < answer.length; at += 7) socket.write(answer.subarray(at, at + 7));
    });
    const pool = openPool(port);
    const requests = Array.from({ length: 300 }, (_, index) => `request ${index}.`);
    const answers = await Promise.all(requests.map((request) => ask(pool, request)));
    expect(answers.map(({ body }) => body)).toEqual(requests.map((request) => `for ${request}`));
  });
});

describe('TLS', () => {
  const { cert, key } = makeCertificate();
  const make = ((onSocket: (socket: Socket) => void) =>
    createTlsServer({ cert, key }, onSocket)) as unknown as typeof createServer;

  test('a certificate that is trusted is accepted, and the connection used again', async () => {
    const { port, sockets } = await startServer((socket, request) => socket.write(good(request)), make);
    const pool = openPool(port, { host: 'localhost', isSecure: true, ca: cert });
    expect((await ask(pool, 'a.')).body).toBe('a.');
    expect((await ask(pool, 'b.')).body).toBe('b.');
    expect(sockets).toHaveLength(1);
  });

  test('one that is not is refused before anything is sent', async () => {
    const seen: string[] = [];
    const { port } = await startServer((_socket, request) => seen.push(request), make);
    const outcome = await ask(openPool(port, { host: 'localhost', isSecure: true }), 'secret.').catch(
      (failure: WireFailure) => failure,
    );
    expect(outcome).toMatchObject({ reason: 'broken', message: 'DEPTH_ZERO_SELF_SIGNED_CERT' });
    expect(seen).toEqual([]);
  });
});
