// A credential that takes a look at an issuer, and is refused: the short way leaves it to the routes, and nobody is
// left to hear of the refusal. An unheard one would end the process.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import { FastDoor } from '#server/http/fast/door.ts';
import { EarlyMessage } from '#server/http/fast/early-message.ts';

const unheard: unknown[] = [];
const onUnheard = (reason: unknown) => void unheard.push(reason);

afterEach(() => {
  process.off('unhandledRejection', onUnheard);
});

it('a refused JWT is answered by the routes and harms nobody else', async () => {
  process.prependListener('unhandledRejection', onUnheard);
  const identity = {
    isOpen: false,
    authenticate: () => Promise.reject(new ServingError('UNAUTHENTICATED', 'The JWT is refused.')),
  };
  const door = new FastDoor(
    {
      relay: { start: () => expect.fail('Nobody was authenticated.') },
      identity,
      findEndpoint: () => undefined,
      log: SILENT_LOG,
    },
    (incoming, outgoing) => {
      incoming.resume().on('end', () => outgoing.writeHead(401).end());
    },
  );
  const server = createServer({ IncomingMessage: EarlyMessage }, door.listener);
  await new Promise<void>((resolve) => server.listen(0, resolve));
  const response = await fetch(
    `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/chat/completions`,
    {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: 'Bearer eyJh.eyJh.c2ln' },
      body: '{"model":"llm","messages":[]}',
    },
  );
  expect(response.status).toBe(401);
  await new Promise((resolve) => setImmediate(resolve));
  expect(unheard).toEqual([]);
  server.closeAllConnections();
  server.close();
});
