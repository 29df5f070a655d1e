// Providers that break in every place an answer can break: what the caller is told, what the ledger says, and that
// the next call is none the worse. Both on the short way, where bytes are passed on, and on the long one.
import type { Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { rowsOf, until, Workplace } from '../app/support.ts';
import { type Fault, GOOD, type RawProvider, startRawProvider } from './raw-provider.ts';
import { type Answered, chatBody, type FaultServer, openFaultServer } from './support.ts';

const workplace = new Workplace();
let provider: RawProvider;
let server: FaultServer;
/** Calls that were carried the short way, by endpoint. */
const short = new Map<string, number>();
beforeAll(async () => {
  provider = await startRawProvider();
  workplace.onClear(() => provider.close());
  server = await openFaultServer(workplace);
  const start = server.app.serving.relay.start.bind(server.app.serving.relay);
  vi.spyOn(server.app.serving.relay, 'start').mockImplementation((call, reader) => {
    const run = start(call, reader);
    if (run) short.set(call.endpoint, (short.get(call.endpoint) ?? 0) + 1);
    return run;
  });
  for (const start of toMeet) start();
});
afterAll(() => workplace.clear());

const say = (text: string) => (socket: Socket) => void socket.write(text, 'latin1');
const sayAndEnd = (text: string) => (socket: Socket) => void socket.end(text, 'latin1');
const sayAndReset = (text: string) => (socket: Socket) =>
  void socket.write(text, 'latin1', () => setImmediate(() => socket.resetAndDestroy()));
/** A byte now and then, without end. */
const drip =
  (first: string, byte: string): Fault =>
  (socket) => {
    socket.write(first, 'latin1');
    const timer = setInterval(() => socket.write(byte, 'latin1'), 20);
    socket.on('close', () => clearInterval(timer));
  };
const status = (code: number, body: string, headers = '') =>
  say(
    `HTTP/1.1 ${code} X\r\ncontent-type: application/json\r\n${headers}content-length: ${body.length}\r\n\r\n${body}`,
  );

const half = GOOD.body.slice(0, 80);
const firstEvents = GOOD.streamHead + GOOD.chunk(GOOD.delta('all ')) + GOOD.chunk(GOOD.delta('is '));
const ok = 'HTTP/1.1 200 OK\r\n';

/** By name: what the provider does, and the code that the caller must get. */
const WHOLE: Readonly<Record<string, readonly [Fault, code: string]>> = {
  'a reset before any byte': [(socket) => void socket.resetAndDestroy(), 'UPSTREAM_ERROR'],
  'an end before any byte': [(socket) => void socket.end(), 'UPSTREAM_ERROR'],
  'a reset in the middle of the header': [sayAndReset('HTTP/1.1 200 OK\r\ncontent-ty'), 'UPSTREAM_ERROR'],
  'an end in the middle of the header': [sayAndEnd('HTTP/1.1 200 OK\r\ncontent-ty'), 'UPSTREAM_ERROR'],
  'a reset in the middle of the body': [sayAndReset(GOOD.head(GOOD.body.length) + half), 'UPSTREAM_ERROR'],
  'an end in the middle of the body': [sayAndEnd(GOOD.head(GOOD.body.length) + half), 'UPSTREAM_ERROR'],
  'silence on an open connection': [() => {}, 'TIMEOUT'],
  'a header that comes byte by byte': [drip(`${ok}x-a: `, 'a'), 'TIMEOUT'],
  'a body that comes byte by byte': [drip(GOOD.head(1_000_000), ' '), 'TIMEOUT'],
  'a 200 with an error in its body': [
    status(200, '{"error":{"message":"no capacity","type":"server_error"}}'),
    'UPSTREAM_ERROR',
  ],
  'an empty 200': [status(200, ''), 'INVALID_RESPONSE'],
  'a 200 with an object of nothing': [status(200, '{}'), 'INVALID_RESPONSE'],
  'a 200 with a list': [status(200, '[1,2,3]'), 'INVALID_RESPONSE'],
  'half an answer that says it is whole': [status(200, half), 'INVALID_RESPONSE'],
  'a page of a proxy': [
    say(`${ok}content-type: text/html\r\ncontent-length: 15\r\n\r\n<h1>Hello</h1>\n`),
    'INVALID_RESPONSE',
  ],
  'a header of 200 KB': [say(`${ok}x-a: ${'a'.repeat(200_000)}\r\n\r\n`), 'UPSTREAM_ERROR'],
  'bytes that are not HTTP': [sayAndEnd('\x16\x03\x01\x00 garbage \xff\xfe\r\n\r\n'), 'UPSTREAM_ERROR'],
  'a length beside chunks': [
    say(`${ok}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`),
    'UPSTREAM_ERROR',
  ],
  'a 503': [status(503, '{"error":{"message":"down"}}'), 'UPSTREAM_ERROR'],
  'a 401 that quotes the key': [
    status(401, '{"error":{"message":"Incorrect API key sk-live-0123456789abcdef"}}'),
    'UPSTREAM_AUTH',
  ],
};
/** Before the first event the caller gets a status, after it an event. */
const STREAMS: Readonly<Record<string, readonly [Fault, code: string, isAfterEvents: boolean]>> = {
  'a reset before any event': [sayAndReset(GOOD.streamHead), 'UPSTREAM_ERROR', false],
  'an end before any event': [sayAndEnd(`${GOOD.streamHead}0\r\n\r\n`), 'UPSTREAM_ERROR', false],
  'silence before any event': [say(GOOD.streamHead), 'TIMEOUT', false],
  'an error as the first event': [
    say(
      GOOD.streamHead +
        GOOD.chunk('data: {"error":{"message":"no capacity","type":"server_error"}}\n\n') +
        '0\r\n\r\n',
    ),
    'UPSTREAM_ERROR',
    false,
  ],
  'a whole answer where a stream was asked': [status(200, GOOD.body), 'INVALID_RESPONSE', false],
  'a reset between events': [sayAndReset(firstEvents), 'UPSTREAM_ERROR', true],
  'a reset in the middle of an event': [
    sayAndReset(`${firstEvents}80\r\ndata: {"choices":[{"ind`),
    'UPSTREAM_ERROR',
    true,
  ],
  'an end without the last event': [sayAndEnd(`${firstEvents}0\r\n\r\n`), 'UPSTREAM_ERROR', true],
  'silence after events': [say(firstEvents), 'TIMEOUT', true],
  'an error after events': [
    say(
      `${firstEvents + GOOD.chunk('data: {"error":{"message":"boom","type":"server_error"}}\n\n')}0\r\n\r\n`,
    ),
    'UPSTREAM_ERROR',
    true,
  ],
};

/** Hears the same answer, but is not for the short way. */
const LONG_WAY = { 'databricks-ai-gateway-request-tags': '{"way":"long"}' };
const WAYS = { short: {}, long: LONG_WAY };

interface Meeting {
  readonly name: string;
  readonly way: keyof typeof WAYS;
  readonly isStream: boolean;
  /** What is to be late is late soon; everything else has all the time that a busy machine may need. */
  readonly isLate?: boolean;
}

async function meet(fault: Fault, { name, way, isStream, isLate = false }: Meeting) {
  await server.app.registry.createEndpoint(
    {
      name,
      servedEntities: [
        {
          externalModel: {
            name: 'stub',
            provider: 'openai',
            task: 'llm/v1/chat',
            baseUrl: `${provider.url}/${name}`,
            timeoutMs: isLate ? 400 : 30_000,
          },
        },
      ],
      aiGateway: { timeoutMs: isLate ? 5_000 : 60_000 },
    },
    LOCAL_OWNER,
  );
  const chat = (content: string) =>
    server.ask('POST', '/v1/chat/completions', chatBody(name, content, { stream: isStream }), WAYS[way]);
  // The first call opens the target; only then there is a short way.
  expect((await chat('zeroth')).status).toBe(200);
  provider.faults.set(name, fault);
  const failed = await chat('first');
  const attempts = provider.requests.get(name) ?? 0;
  const rows = await server.usage(`endpoint = '${name}'`);
  provider.faults.delete(name);
  const next = await chat('second');
  return { failed, attempts, rows, next, wasShort: short.get(name) ?? 0 };
}

function expectPlainError(failed: Answered, code: string): void {
  expect(failed.status).toBeGreaterThanOrEqual(400);
  expect(failed.body.error).toMatchObject({ code, message: expect.stringMatching(/\w+ \w+/) });
  expect(failed.text).not.toContain('sk-live-0123456789abcdef');
}

function expectNextFine(next: Answered): void {
  expect(next.status, next.text).toBe(200);
  expect(next.text).toContain('well');
}

/** All meetings at once, as most of their time is waiting; a test looks at one of them. */
const cases = <Value extends readonly [Fault, string, ...unknown[]]>(
  table: Readonly<Record<string, Value>>,
  isStream: boolean,
) =>
  Object.entries(table).flatMap(([what, value], index) =>
    (['short', 'long'] as const).map((way) => {
      const name = `${isStream ? 'stream' : 'whole'}-${index}-${way}`;
      toMeet.push(() =>
        meetings.set(name, meet(value[0], { name, way, isStream, isLate: value[1] === 'TIMEOUT' })),
      );
      return { what, way, value, name };
    }),
  );
const toMeet: (() => unknown)[] = [];
const meetings = new Map<string, ReturnType<typeof meet>>();
async function met(name: string) {
  const meeting = meetings.get(name);
  if (!meeting) throw new Error(`Nothing was done with ${name}.`);
  return await meeting;
}

describe('an answer with', () => {
  it.each(cases(WHOLE, false))(
    '$what has its code, a row for each request, and the next call is fine (the $way way)',
    async ({ way, value: [, code], name }) => {
      const { failed, attempts, rows, next, wasShort } = await met(name);
      expect(wasShort).toBe(way === 'short' ? 2 : 0);
      expectPlainError(failed, code);
      // What the provider has counted, the ledger has counted.
      expect(rows.reduce((sum, row) => sum + row.attempts, 0)).toBe(attempts);
      expect(rows.at(-1)).toMatchObject({ statusCode: failed.status, errorCode: code });
      expectNextFine(next);
      await until(() => provider.openConnections(name) <= 2);
    },
  );
});

describe('a stream with', () => {
  it.each(cases(STREAMS, true))(
    '$what is not taken for a whole one, and the next is fine (the $way way)',
    async ({ way, value: [, code, isAfterEvents], name }) => {
      const { failed, attempts, rows, next, wasShort } = await met(name);
      expect(wasShort).toBe(way === 'short' ? 2 : 0);
      if (isAfterEvents) {
        expect(failed.status).toBe(200);
        const events = failed.text
          .split('\n\n')
          .filter((event) => event.startsWith('data:') && !event.includes('"role"'));
        expect(events.length, failed.text).toBe(3);
        expect(events[0]).toContain('all ');
        expect(JSON.parse(events.at(-1)?.slice(5) ?? '')).toMatchObject({ error: { code } });
        expect(failed.text).not.toContain('[DONE]');
      } else expectPlainError(failed, code);
      expect(rows.reduce((sum, row) => sum + row.attempts, 0)).toBe(attempts);
      expect(rows.at(-1)).toMatchObject({ errorCode: code });
      expectNextFine(next);
      expect(next.text).toContain('[DONE]');
      await until(() => provider.openConnections(name) <= 2);
    },
  );
});

describe('a provider that counts wrongly', () => {
  it.each([
    { prompt_tokens: 1e300, completion_tokens: 1e300 },
    { prompt_tokens: 1e19, completion_tokens: 1e19 },
    { prompt_tokens: -5, completion_tokens: -1_000_000 },
    { prompt_tokens: '12', completion_tokens: null },
    { prompt_tokens: 0.5, completion_tokens: [7] },
    'many',
  ])('is not believed, and its row holds up no other: %j', async (usage) => {
    for (const way of ['short', 'long'] as const) {
      const name = `counts-${way}-${JSON.stringify(usage).replace(/\W+/g, '-').slice(0, 40)}a`;
      await meet(status(400, '{}'), { name, way, isStream: false });
      const body = JSON.stringify({ ...JSON.parse(GOOD.body), usage });
      provider.faults.set(name, status(200, body));
      const answered = await server.ask('POST', '/v1/chat/completions', chatBody(name), WAYS[way]);
      expect(answered.status, answered.text).toBe(200);
      const session = await server.app.openSession();
      const rows = await rowsOf(
        session,
        `SELECT input_tokens::DOUBLE, output_tokens::DOUBLE FROM duckserve.usage WHERE endpoint = '${name}'
          AND status_code = 200 ORDER BY request_time DESC LIMIT 1`,
      );
      await session.close();
      for (const tokens of rows[0] ?? [0]) {
        expect(tokens, `${way} ${JSON.stringify(usage)}`).toBeGreaterThan(0);
        expect(tokens).toBeLessThan(100);
      }
    }
  });
});

describe('a caller of a stream', () => {
  /** Events until the other side takes no more; gives how many bytes went out. */
  const pour = () => {
    const state = { bytes: 0, isClosed: false };
    const event = GOOD.chunk(GOOD.delta('x'.repeat(16_000)));
    const fault: Fault = (socket) => {
      socket.on('close', () => {
        state.isClosed = true;
      });
      const fill = () => {
        let isTaken = true;
        while (isTaken && !socket.destroyed) {
          isTaken = socket.write(event);
          state.bytes += event.length;
        }
      };
      socket.on('drain', fill).write(GOOD.streamHead);
      fill();
    };
    return { state, fault };
  };
  /** Reads one event and no more. */
  const begin = async (name: string, way: keyof typeof WAYS) => {
    const stop = new AbortController();
    const response = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...WAYS[way] },
      body: JSON.stringify(chatBody(name, 'begin', { stream: true })),
      signal: stop.signal,
    });
    const reader = response.body?.getReader();
    await reader?.read();
    return stop;
  };

  it.each(['short', 'long'] as const)(
    'who does not read holds up the provider, and fills no memory (the %s way)',
    async (way) => {
      const name = `slow-reader-${way}`;
      await meet(status(400, '{}'), { name, way, isStream: true });
      const { state, fault } = pour();
      provider.faults.set(name, fault);
      const stop = await begin(name, way);
      let before = -1;
      // It stands still when every buffer between the two is full.
      while (before !== state.bytes) {
        before = state.bytes;
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
      expect(state.bytes).toBeLessThan(32 * 1024 * 1024);
      stop.abort();
      await until(() => state.isClosed);
    },
  );

  it.each(['short', 'long'] as const)(
    'who hangs up ends it at the provider, and pays for what came (the %s way)',
    async (way) => {
      const name = `hang-up-${way}`;
      await meet(status(400, '{}'), { name, way, isStream: true });
      let isClosed = false;
      provider.faults.set(name, (socket) => {
        socket.write(firstEvents);
        socket.on('close', () => {
          isClosed = true;
        });
      });
      const stop = await begin(name, way);
      stop.abort();
      await until(() => isClosed);
      const rows = async () => await server.usage(`endpoint = '${name}' AND error_code = 'CANCELLED'`);
      while ((await rows()).length === 0);
      expect(await rows()).toMatchObject([{ statusCode: 499, attempts: 1 }]);
      const session = await server.app.openSession();
      const paid = `SELECT output_tokens > 0 FROM duckserve.usage WHERE endpoint = '${name}' AND error_code = 'CANCELLED'`;
      expect(await rowsOf(session, paid)).toEqual([[true]]);
      await session.close();
      provider.faults.delete(name);
      const next = await server.ask(
        'POST',
        '/v1/chat/completions',
        chatBody(name, 'next', { stream: true }),
        WAYS[way],
      );
      expectNextFine(next);
    },
  );
});

describe('a key that a provider quotes', () => {
  it('is in no line of the log', async () => {
    await Promise.all(meetings.values());
    expect(server.logged.length).toBeGreaterThan(0);
    expect(server.logged.join('\n')).not.toContain('sk-live-0123456789abcdef');
  });
});
