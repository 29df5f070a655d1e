// What is said to those whose bytes are no HTTP request, or come too slowly: a short answer, and the connection ends.
// Nothing of what they sent is repeated.
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import type { Log } from '#core/log.ts';

const ANSWERS: Readonly<Record<string, readonly [status: string, message: string]>> = {
  HPE_HEADER_OVERFLOW: [
    '431 Request Header Fields Too Large',
    'The headers are over 32768 bytes: send less in them.',
  ],
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', 'The request did not arrive in time.'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: ['413 Payload Too Large', 'The chunk extensions are too long.'],
};
const BAD_REQUEST = ['400 Bad Request', 'This is not an HTTP request that can be understood.'] as const;

export function answerParserErrors(server: Server, log: Log): void {
  server.on('clientError', (error: NodeJS.ErrnoException, stream) => {
    const socket = stream as Socket;
    log.info({ code: error.code ?? error.message }, 'a request could not be read');
    // Part of an answer may be out already: more bytes would be taken for the rest of it.
    if (error.code === 'ECONNRESET' || !socket.writable || isAnswering(socket)) return void socket.destroy();
    const [status, message] = ANSWERS[error.code ?? ''] ?? BAD_REQUEST;
    const body = JSON.stringify({ error_code: 'BAD_REQUEST', message });
    socket.end(
      `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
    );
  });
}

/** Node keeps the answer in progress on the socket. */
function isAnswering(socket: Socket): boolean {
  const { _httpMessage: message } = socket as Socket & { _httpMessage?: { headersSent?: boolean } | null };
  return message?.headersSent === true;
}
