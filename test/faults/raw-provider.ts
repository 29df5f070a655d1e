// A provider of bytes: it reads a request, and what it says after that is up to the test, down to half a header.
// The first word of the path is the name of what goes wrong; the same path is well again once it is healed.
import { type AddressInfo, createServer, type Socket } from 'node:net';

/** Says what it likes. `attempt` counts from 1, for each fault by itself. */
export type Fault = (socket: Socket, attempt: number) => void;

export interface RawProvider {
  /** To be followed by the name of a fault. */
  readonly url: string;
  readonly faults: Map<string, Fault>;
  /** Requests so far, by fault. */
  readonly requests: Map<string, number>;
  /** Connections that are open, by the fault they were last used for. */
  openConnections(name: string): number;
  close(): Promise<void>;
}

const WHOLE = JSON.stringify({
  id: 'chatcmpl-1',
  object: 'chat.completion',
  created: 1,
  model: 'stub',
  choices: [{ index: 0, message: { role: 'assistant', content: 'all is well' }, finish_reason: 'stop' }],
  usage: { prompt_tokens: 3, completion_tokens: 3, total_tokens: 6 },
});
const delta = (content: string, finish: string | null = null) =>
  `data: ${JSON.stringify({
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 1,
    model: 'stub',
    choices: [{ index: 0, delta: { content }, finish_reason: finish }],
  })}\n\n`;

/** Parts of good answers, to be cut where the test likes. */
export const GOOD = {
  head: (length: number) =>
    `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`,
  streamHead: 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n',
  body: WHOLE,
  delta,
  chunk: (text: string) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`,
};

function answerWell(socket: Socket, isStream: boolean): void {
  if (!isStream) {
    socket.write(GOOD.head(WHOLE.length) + WHOLE);
    return;
  }
  const events = [delta('all '), delta('is '), delta('well', 'stop'), 'data: [DONE]\n\n'];
  socket.write(`${GOOD.streamHead}${events.map(GOOD.chunk).join('')}0\r\n\r\n`);
}

export async function startRawProvider(): Promise<RawProvider> {
  const faults = new Map<string, Fault>();
  const requests = new Map<string, number>();
  const open = new Map<Socket, string>();
  const server = createServer((socket) => {
    open.set(socket, '');
    let text = '';
    socket.setEncoding('latin1').on('data', (piece: string) => {
      text += piece;
      const end = text.indexOf('\r\n\r\n');
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0);
      if (end < 0 || text.length < end + 4 + length) return;
      const name = /^POST \/([\w-]+)\//.exec(text)?.[1] ?? '';
      const isStream = text.includes('"stream":true');
      text = text.slice(end + 4 + length);
      open.set(socket, name);
      const attempt = (requests.get(name) ?? 0) + 1;
      requests.set(name, attempt);
      const fault = faults.get(name);
      if (fault) fault(socket, attempt);
      else answerWell(socket, isStream);
    });
    socket.on('error', () => {}).on('close', () => open.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    faults,
    requests,
    openConnections: (name) => [...open.values()].filter((used) => used === name).length,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of open.keys()) socket.destroy();
      }),
  };
}
