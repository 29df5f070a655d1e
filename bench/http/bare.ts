// The peer: the least that a proxy in Node can be, `node:http` in front and undici's dispatch behind. It reads
// nothing and decides nothing. Prints its port.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Pool } from 'undici';

const pool = new Pool(`http://127.0.0.1:${process.argv[2]}`, { connections: 512, pipelining: 1 });
const headers = { 'content-type': 'application/json', authorization: 'Bearer upstream' };

const server = createServer({ noDelay: true, keepAliveTimeout: 75_000 }, (incoming, outgoing) => {
  const chunks: Buffer[] = [];
  incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
  incoming.on('end', () => {
    const body = Buffer.concat(chunks);
    pool.dispatch(
      { method: 'POST', path: incoming.url ?? '/', headers, body },
      {
        onConnect() {},
        onHeaders(status, raw) {
          outgoing.writeHead(
            status,
            raw.map((each) => each.toString('latin1')),
          );
          return true;
        },
        onData(chunk) {
          outgoing.write(chunk);
          return true;
        },
        onComplete() {
          outgoing.end();
        },
        onError() {
          outgoing.destroy();
        },
      },
    );
  });
});
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
