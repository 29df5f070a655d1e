// Sends an answer whole: JSON or bytes. On a socket it is written straight to Node's response, past the web stream that
// Hono's own c.json would wrap around it: that is the larger part of the door's time for a small answer.
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import type { JSONValue } from 'hono/utils/types';
import type { HttpContext } from './request.ts';

/** Status 200. For answers of calls; errors and small lists take c.json. */
export function sendJson(c: HttpContext, body: unknown, headers: Readonly<Record<string, string>>): Response {
  if (c.env?.outgoing === undefined) return c.json(body as JSONValue, 200, headers);
  return send(c, JSON.stringify(body), 'application/json', headers);
}

export function sendBytes(
  c: HttpContext,
  bytes: Buffer<ArrayBuffer>,
  headers: Readonly<Record<string, string>>,
): Response {
  const type = 'application/octet-stream';
  if (c.env?.outgoing === undefined) return c.body(bytes, 200, { 'content-type': type, ...headers });
  return send(c, bytes, type, headers);
}

function send(
  c: HttpContext,
  body: string | Buffer,
  type: string,
  headers: Readonly<Record<string, string>>,
): Response {
  const { outgoing } = c.env;
  outgoing?.writeHead(200, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'x-request-id': c.get('requestId'),
    ...headers,
  });
  outgoing?.end(body);
  return RESPONSE_ALREADY_SENT;
}
