// Passes requests on to the primary over its Unix socket, bodies and answers as they come, both ways. Whoever leaves
// at one end is missed at the other. Not here: which requests these are (the short way decides).
import { Agent, type IncomingMessage, type RequestListener, request, type ServerResponse } from 'node:http';
import { keptRequestId } from '#server/http/fast/request-id.ts';

/** Says to the primary under which id the short way has begun the request. Callers cannot: theirs is left out. */
export const REQUEST_ID = 'x-duckserve-begun-as';

/** They are of one connection, and there are two: each end makes its own. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'te',
  'trailer',
  'upgrade',
  'expect',
  REQUEST_ID,
]);
const MAX_FREE_SOCKETS = 64;

export interface Forwarder {
  readonly listener: RequestListener;
  close(): void;
}

export function createForwarder(socketPath: string): Forwarder {
  const agent = new Agent({ keepAlive: true, maxFreeSockets: MAX_FREE_SOCKETS, scheduling: 'lifo' });
  return {
    listener: (incoming, outgoing) => forward(incoming, outgoing, { socketPath, agent }),
    close: () => agent.destroy(),
  };
}

function forward(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  to: { readonly socketPath: string; readonly agent: Agent },
): void {
  const headers = keptHeaders(incoming);
  const requestId = keptRequestId(incoming);
  if (requestId !== undefined) headers.push(REQUEST_ID, requestId);
  const isChunked = incoming.headers['transfer-encoding'] !== undefined;
  if (isChunked) headers.push('transfer-encoding', 'chunked');
  const { method, url: path } = incoming;
  const onward = request({ ...to, method, path, headers, setHost: false });
  let isAnswered = false;
  onward.on('response', (response) => {
    isAnswered = true;
    outgoing.writeHead(response.statusCode ?? 502, keptHeaders(response));
    // Streams of events must not wait for their first byte of body.
    outgoing.flushHeaders();
    response.pipe(outgoing);
    // The primary ended in the middle: whoever waits must not take what came for a whole answer.
    response.on('error', () => outgoing.destroy());
  });
  // After the answer has begun its own end tells; a body that the primary did not want to read is no failure.
  onward.on('error', () => {
    if (!isAnswered) refuse(outgoing);
  });
  outgoing.on('close', () => {
    if (!outgoing.writableFinished) onward.destroy();
  });
  incoming.on('error', () => onward.destroy());
  if (isChunked || incoming.headers['content-length'] !== undefined) incoming.pipe(onward);
  else onward.end();
}

/** Names and values by turns, as Node has them raw; without those that are for this connection alone. */
function keptHeaders({ rawHeaders, headers }: IncomingMessage): string[] {
  const named = headers.connection?.toLowerCase() ?? '';
  const others = named === '' || named === 'keep-alive' || named === 'close' ? [] : named.split(/[\s,]+/);
  const kept: string[] = [];
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? '';
    const lower = name.toLowerCase();
    if (!HOP_BY_HOP.has(lower) && !others.includes(lower)) kept.push(name, rawHeaders[at + 1] ?? '');
  }
  return kept;
}

function refuse(outgoing: ServerResponse): void {
  if (outgoing.headersSent || outgoing.destroyed) {
    outgoing.destroy();
    return;
  }
  const message = 'The server is starting again or shutting down. Try again in a moment.';
  const body = JSON.stringify({
    error_code: 'TEMPORARILY_UNAVAILABLE',
    message,
    error: { message, type: 'api_error', code: 'OVERLOADED', param: null },
  });
  outgoing.writeHead(503, { 'content-type': 'application/json', 'retry-after': '1' }).end(body);
}
