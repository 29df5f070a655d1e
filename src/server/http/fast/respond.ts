// Writes a whole answer with its head in one piece, together with the others of the turn. Where nothing stands against
// it the piece goes straight to the socket and the response is told that it is finished: its own way there costs as
// much as all of governance.
import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** What Node's response has and does not declare. All of them are looked at before one is used. */
interface Inner {
  _header: string | null;
  finished: boolean;
  shouldKeepAlive: boolean;
}

const STATUS = 'HTTP/1.1 200 OK\r\n';

let second = 0;
let date = '';

/** As Node writes it, made once a second. */
function dateAt(nowMs: number): string {
  const now = Math.floor(nowMs / 1_000);
  if (now !== second) {
    second = now;
    date = new Date(nowMs).toUTCString();
  }
  return date;
}

/**
 * Status 200. `headers`: names and values by turns, all of them known to be harmless in a header line; `body`: bytes
 * as characters of one byte each.
 */
export function respond(
  outgoing: ServerResponse,
  headers: readonly string[],
  body: string,
  nowMs: number,
): void {
  const { socket } = outgoing;
  if (!socket || !isDirect(outgoing, socket)) {
    outgoing.writeHead(200, [...headers, 'content-length', String(body.length)]);
    outgoing.end(body, 'latin1');
    return;
  }
  let head = STATUS;
  for (let at = 0; at < headers.length; at += 2) head += `${headers[at]}: ${headers[at + 1]}\r\n`;
  head += `content-length: ${body.length}\r\nDate: ${dateAt(nowMs)}\r\nConnection: keep-alive\r\n${keepAliveOf(socket)}\r\n`;
  if (due.push({ outgoing, socket, head, body }) === 1) setImmediate(writeDue);
}

interface Due {
  readonly outgoing: ServerResponse;
  readonly socket: Socket;
  readonly head: string;
  readonly body: string;
}

/** All of one turn of the event loop are written in a row: waking a caller's process costs more than a write. */
let due: Due[] = [];

function writeDue(): void {
  const answers = due;
  due = [];
  for (const { outgoing, socket, head, body } of answers) {
    if (socket.destroyed) continue;
    const inner = outgoing as unknown as Inner;
    inner._header = head;
    inner.finished = true;
    socket.write(head + body, 'latin1');
    // Node's server clears up after the response when it hears this, and goes on to the next request.
    outgoing.emit('finish');
  }
}

/** A plain response on a connection that stays, which nobody has begun or set a header of. */
function isDirect(outgoing: ServerResponse, socket: Socket): boolean {
  const inner = outgoing as unknown as Partial<Inner>;
  return (
    inner._header === null &&
    inner.finished === false &&
    inner.shouldKeepAlive === true &&
    socket.writable &&
    outgoing.req.httpVersionMinor === 1 &&
    outgoing.getHeaderNames().length === 0 &&
    outgoing.listenerCount('finish') > 0
  );
}

const KEEP_ALIVE = Symbol('keep-alive');
type Kept = Socket & { [KEEP_ALIVE]?: string; readonly server?: { readonly keepAliveTimeout?: number } };

function keepAliveOf(socket: Kept): string {
  const known = socket[KEEP_ALIVE];
  if (known !== undefined) return known;
  const ms = socket.server?.keepAliveTimeout ?? 0;
  const line = ms > 0 ? `Keep-Alive: timeout=${Math.floor(ms / 1_000)}\r\n` : '';
  socket[KEEP_ALIVE] = line;
  return line;
}
