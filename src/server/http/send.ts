// Sends the JSON of an answer. On a socket it is written straight to Node's response, past the web stream that
// Hono's own c.json would wrap around it: that is the larger part of the door's time for a small answer.
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response';
import type { HttpContext } from './request.ts';

/** Status 200. For answers of calls; errors and small lists take c.json. */
export function sendJson(c: HttpContext, body: object, headers: Readonly<Record<string, string>>): Response {
  const outgoing = c.env?.outgoing;
  if (outgoing === undefined) return c.json(body, 200, headers);
  const text = JSON.stringify(body);
  outgoing.writeHead(200, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'x-request-id': c.get('requestId'),
    ...headers,
  });
  outgoing.end(text);
  return RESPONSE_ALREADY_SENT;
}
