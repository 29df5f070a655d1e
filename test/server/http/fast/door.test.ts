// The short way through the HTTP door, held against the long one: two servers on one application, of which one has
// no short way. A caller sees the same status and headers, the books the same rows; only the provider's own bytes
// (ids, fields beyond ours) come through unchanged.
import net from 'node:net';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { UsageRow } from '#core/stores.ts';
import { type HttpServer, startHttpServer } from '#server/http/server.ts';
import type { App } from '../../../../src/app.ts';
import { until, Workplace } from '../../../app/support.ts';
import type { StubBehaviour, StubProvider } from '../../../stub/provider.ts';

const workplace = new Workplace();
let app: App;
let stub: StubProvider;
let short: HttpServer;
let long: HttpServer;
const rows: UsageRow[] = [];

const WELL: StubBehaviour = {
  latencyMs: 0,
  eventGapMs: 0,
  rate500: 0,
  rate429: 0,
  rateCut: 0,
  rateMalformed: 0,
  omitUsage: false,
};

async function createEndpoint(name: string, more: object = {}, model: object = {}): Promise<void> {
  const task = 'llm/v1/chat';
  const externalModel = { name: 'stub', provider: 'openai', task, baseUrl: stub.openaiUrl, ...model };
  await app.registry.createEndpoint({ name, servedEntities: [{ externalModel }], ...more }, LOCAL_OWNER);
}

beforeAll(async () => {
  stub = await workplace.stub();
  app = await workplace.app({ dataDir: ':memory:' });
  app.serving.onUsage((row) => rows.push(row));
  const { registry, identity, limits, createBudget, serving } = app;
  const deps = {
    ...{ registry, identity, limits, createBudget, serving, log: SILENT_LOG, version: 'test' },
    openSession: app.openSession,
  };
  short = await startHttpServer(deps, { port: 0 });
  workplace.onClear(() => short.close());
  const withoutRelay = {
    invoke: serving.invoke.bind(serving),
    stream: serving.stream.bind(serving),
    describe: serving.describe.bind(serving),
    onUsage: serving.onUsage.bind(serving),
    queueDepths: serving.queueDepths.bind(serving),
  };
  long = await startHttpServer({ ...deps, serving: withoutRelay }, { port: 0 });
  workplace.onClear(() => long.close());
  await createEndpoint('llm');
  // Opens the target: the short way is only for those that are open.
  await ask(long, chat('open'));
});
afterEach(() => {
  stub.behave(WELL);
  stub.resetLedger();
  rows.length = 0;
});
afterAll(() => workplace.clear());

const chat = (content: string, more: object = {}) => ({
  model: 'llm',
  messages: [{ role: 'user', content }],
  ...more,
});

interface Reply {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly text: string;
  /** The bytes are the provider's. */
  readonly isShort: boolean;
}

async function ask(
  server: HttpServer,
  body: object | string,
  path = '/v1/chat/completions',
  headers: Record<string, string> = {},
): Promise<Reply> {
  const response = await fetch(`${server.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  const text = await response.text();
  const requestId = response.headers.get('x-request-id') ?? '?';
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    text,
    isShort: response.ok && !text.includes(`chatcmpl-${requestId}`),
  };
}

/** Both servers, and what must be the same of both. */
async function askBoth(...request: [body: object | string, path?: string, headers?: Record<string, string>]) {
  const sides = [];
  for (const server of [short, long]) {
    rows.length = 0;
    const reply = await ask(server, ...request);
    const { date: _date, 'x-request-id': _id, 'content-length': _length, ...headers } = reply.headers;
    const books = rows.map(({ requestId, callId, requestTimeMs, durationMs, timeToFirstByteMs, ...row }) => ({
      ...row,
      isOfCall: callId === reply.headers['x-request-id'],
      // Characters are counted by who reads them.
      inputCharacters: 0,
      outputCharacters: 0,
    }));
    sides.push({ reply, facts: { status: reply.status, headers, books } });
  }
  const [first, second] = sides;
  if (!first || !second) throw new Error('two sides');
  return { short: first, long: second };
}

const contentOf = (text: string): string =>
  text
    .split('\n\n')
    .filter((event) => event.startsWith('data: {'))
    .map((event) => JSON.parse(event.slice(6)) as { choices: { delta?: { content?: string } }[] })
    .map((event) => event.choices[0]?.delta?.content ?? '')
    .join('');

describe('an answer on the short way', () => {
  it('has the status, the headers and the usage row of the long way', async () => {
    const both = await askBoth(chat('hello', { max_tokens: 50, user: 'ann' }), undefined, {
      'x-client-request-id': 'mine',
    });
    expect(both.short.facts).toEqual(both.long.facts);
    expect([both.short.reply.isShort, both.long.reply.isShort]).toEqual([true, false]);
    expect(JSON.parse(both.short.reply.text)).toMatchObject({
      choices: JSON.parse(both.long.reply.text).choices.map(
        ({ message: { content } }: { message: { content: string } }) => ({ message: { content } }),
      ),
      usage: JSON.parse(both.long.reply.text).usage,
    });
    expect(both.short.facts.books).toMatchObject([
      { attempts: 1, inputCount: 1, statusCode: 200, apiType: 'openai/v1/chat/completions', isOfCall: true },
    ]);
  });

  it.each([
    '/serving-endpoints/chat/completions',
    '/serving-endpoints/llm/invocations',
    '/ai-gateway/mlflow/v1/chat/completions',
  ])('is the same at %s', async (path) => {
    const { model: _model, ...unnamed } = chat(`at ${path}`);
    const both = await askBoth(path.endsWith('invocations') ? unnamed : chat(`at ${path}`), path);
    expect(both.short.facts).toEqual(both.long.facts);
    expect(both.short.reply.isShort).toBe(true);
  });

  it('sends what the caller sent, with the model named as the provider knows it', async () => {
    const body = chat('bytes', { seed: 7, tools: [{ type: 'function', function: { name: 'f' } }] });
    await ask(short, body);
    expect(stub.requests.at(-1)?.body).toEqual({ ...body, model: 'stub' });
  });

  it('is estimated where the provider does not count', async () => {
    stub.behave({ omitUsage: true });
    const { isShort } = await ask(short, chat('how many tokens?'));
    expect(isShort).toBe(true);
    expect(rows).toMatchObject([{ statusCode: 200 }]);
    expect(rows[0]?.inputTokens).toBeGreaterThan(0);
    expect(rows[0]?.outputTokens).toBeGreaterThan(0);
  });

  it('large bodies come and go whole', async () => {
    const content = 'ö\\"'.repeat(100_000);
    const { isShort, status } = await ask(short, chat(content));
    expect([status, isShort]).toEqual([200, true]);
    expect(stub.requests.at(-1)?.body).toMatchObject({ messages: [{ content }] });
  });

  it('many callers at once each get their own, and the books agree with the provider', async () => {
    const texts = Array.from({ length: 200 }, (_, index) => `caller ${index}`);
    const replies = await Promise.all(texts.map((text) => ask(short, chat(text))));
    const ledger = stub.ledger();
    for (const [index, { text }] of replies.entries()) expect(text).toContain(`caller ${index}`);
    expect(ledger.requests).toBe(200);
    const sum = (of: (row: UsageRow) => number) => rows.reduce((total, row) => total + of(row), 0);
    expect(sum((row) => row.attempts)).toBe(200);
    expect(sum((row) => row.inputTokens)).toBe(ledger.promptTokens);
    expect(sum((row) => row.outputTokens)).toBe(ledger.completionTokens);
  });
});

describe('a stream on the short way', () => {
  it('has the headers, the text and the usage row of the long way, and no usage nobody asked for', async () => {
    const both = await askBoth(chat('one two three', { stream: true }));
    expect(both.short.facts).toEqual(both.long.facts);
    expect(both.short.reply.isShort).toBe(true);
    expect(contentOf(both.short.reply.text)).toBe(contentOf(both.long.reply.text));
    expect(both.short.reply.text.endsWith('data: [DONE]\n\n')).toBe(true);
    expect(both.short.reply.text).not.toContain('prompt_tokens');
    expect(both.short.facts.books[0]?.outputTokens).toBeGreaterThan(0);
  });

  it('gives usage to who asks for it', async () => {
    const asked = chat('one two', { stream: true, stream_options: { include_usage: true } });
    expect((await ask(short, asked)).text).toContain('prompt_tokens');
  });

  it('that is cut ends in an event that says so, without [DONE], and a row that says so', async () => {
    stub.behave({ rateCut: 1 });
    const both = await askBoth(chat('cut me', { stream: true }));
    expect(both.short.reply.text).not.toContain('[DONE]');
    expect(both.short.reply.text.trimEnd().split('\n\n').at(-1)).toMatch(/^data: \{"error":\{"message"/);
    expect(both.short.facts.books.at(-1)).toMatchObject({ errorCode: 'UPSTREAM_ERROR', isStreaming: true });
    expect(both.long.facts.books.at(-1)).toMatchObject({ errorCode: 'UPSTREAM_ERROR', isStreaming: true });
  });

  it('whose caller leaves is stopped at the provider at once, and what was generated is in the books', async () => {
    stub.behave({ eventGapMs: 20 });
    const controller = new AbortController();
    const response = await fetch(`${short.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(chat('a long story '.repeat(200), { stream: true })),
      signal: controller.signal,
    });
    const reader = response.body?.getReader();
    await reader?.read();
    await reader?.read();
    controller.abort();
    await until(() => stub.ledger().aborted === 1 && rows.length === 1);
    expect(rows).toMatchObject([{ errorCode: 'CANCELLED', statusCode: 499, attempts: 1, inputCount: 1 }]);
    expect(rows[0]?.inputTokens).toBeGreaterThan(100);
  });

  it('waits for a caller who reads slowly', async () => {
    const event = `data: {"choices":[{"index":0,"delta":{"content":"${'word '.repeat(200)}"}}]}\n\n`;
    const answer = {
      headers: { 'content-type': 'text/event-stream' },
      body: `${event.repeat(8_000)}data: [DONE]\n\n`,
    };
    stub.behave({ answer: () => answer });
    const socket = net.connect(short.port, '127.0.0.1');
    const body = JSON.stringify(chat('a story', { stream: true }));
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    let words = 0;
    let last = '';
    for await (const piece of socket) {
      const text = (piece as Buffer).toString('latin1');
      words += text.split('data: {').length - 1;
      last = (last + text).slice(-200);
      await new Promise((resolve) => setImmediate(resolve));
    }
    stub.behave({ answer: () => undefined });
    expect(last).toContain('[DONE]');
    // A mark that falls between two pieces is not counted.
    expect(words).toBeGreaterThan(7_500);
  });
});

describe('when the first try fails', () => {
  it('the long way goes on, under the same id, and every request is in the books', async () => {
    let tries = 0;
    stub.behave({
      answer: () => (++tries === 1 ? { status: 500, body: { error: { message: 'try again' } } } : undefined),
    });
    const reply = await ask(short, chat('twice'));
    stub.behave({ answer: () => undefined });
    expect([reply.status, reply.isShort]).toEqual([200, false]);
    expect(stub.ledger().requests).toBe(2);
    expect(rows.map(({ attempts, errorCode, inputCount }) => ({ attempts, errorCode, inputCount }))).toEqual([
      { attempts: 1, errorCode: 'UPSTREAM_ERROR', inputCount: 0 },
      { attempts: 1, errorCode: null, inputCount: 1 },
    ]);
    expect(new Set(rows.map(({ callId }) => callId))).toEqual(new Set([reply.headers['x-request-id']]));
  });

  it('a refusal is told as on the long way', async () => {
    stub.behave({ answer: () => ({ status: 400, body: { error: { message: 'no ducks, please' } } }) });
    const both = await askBoth(chat('ducks'));
    stub.behave({ answer: () => undefined });
    expect(both.short.reply.status).toBe(400);
    expect(both.short.reply.text).toBe(both.long.reply.text);
    expect(both.short.reply.text).toContain('no ducks, please');
  });

  it.each([
    ['an error under status 200', { body: { error: { message: 'overloaded', type: 'overloaded_error' } } }],
    ['text that is not JSON', { body: '<html>', headers: { 'content-type': 'application/json' } }],
    ['another content type', { body: '{}', headers: { 'content-type': 'text/html' } }],
    ['no choices', { body: { usage: { prompt_tokens: 1, completion_tokens: 1 } } }],
  ])('%s is not passed on', async (_name, answer) => {
    let tries = 0;
    stub.behave({ answer: () => (++tries === 1 ? answer : undefined) });
    const reply = await ask(short, chat('fine in the end'));
    stub.behave({ answer: () => undefined });
    expect([reply.status, reply.isShort]).toEqual([200, false]);
  });
});

describe('what is not for the short way', () => {
  it.each([
    ['an answer that is kept', chat('kept', { temperature: 0 }), {}],
    ['a cache mode in the header', chat('kept too'), { 'x-duckserve-cache': 'on' }],
    ['fields of ours', chat('mine', { client_request_id: 'x' }), {}],
    ['tags', chat('tagged'), { 'databricks-ai-gateway-request-tags': '{"team":"a"}' }],
    ['unknown fields', chat('odd', { colour: 'red' }), {}],
    ['another content type', chat('text'), { 'content-type': 'text/plain' }],
  ])('%s takes the long one, with the same answer', async (_name, body, headers) => {
    const both = await askBoth(body, undefined, headers);
    expect(both.short.reply.isShort).toBe(false);
    expect(both.short.reply.status).toBe(200);
    expect(both.short.facts.headers).toEqual({
      ...both.long.facts.headers,
      // The second of two equal calls is answered from the store.
      'x-duckserve-cached': both.short.facts.headers['x-duckserve-cached'],
    });
  });

  it('an endpoint that is stopped, guarded, logged or hedged', async () => {
    const gateways: Record<string, object> = {
      guarded: { guardrails: { input: { pii: { behavior: 'MASK' } } } },
      logged: { inferenceTable: { enabled: true } },
      hedged: { hedging: { quantile: 0.9, maxExtraPercent: 5 } },
    };
    for (const [name, aiGateway] of Object.entries(gateways)) {
      await createEndpoint(name, { aiGateway });
      await ask(long, { ...chat('open'), model: name });
      const reply = await ask(short, { ...chat(`via ${name}`), model: name });
      expect([name, reply.status, reply.isShort]).toEqual([name, 200, false]);
    }
  });

  it('any body at all: both ways give the same status, up to what only the provider looks at', async () => {
    const field = fc.constantFrom(
      'model',
      'messages',
      'stream',
      'n',
      'max_tokens',
      'temperature',
      'x',
      '__proto__',
    );
    const value = fc.oneof(
      fc.constantFrom<unknown>('llm', 'nobody', true, null, 0, -1, 1.5, [], {}, [
        { role: 'user', content: 'hi' },
      ]),
      fc.jsonValue({ maxDepth: 2 }),
    );
    const texts = fc.oneof(
      fc.dictionary(field, value, { maxKeys: 5 }).map((body) => JSON.stringify(body)),
      fc.dictionary(field, value, { maxKeys: 5 }).map((body) => JSON.stringify({ ...chat('hi'), ...body })),
      fc.string({ unit: fc.constantFrom(...'{}[]":,a1 '), maxLength: 30 }),
    );
    await fc.assert(
      fc.asyncProperty(texts, async (text) => {
        const both = await askBoth(text);
        // What stands inside the messages goes on as bytes, and the provider judges it; this one takes anything.
        if (both.short.reply.status === 200 && /'messages[.[]/.test(both.long.reply.text)) return;
        expect(both.short.reply.status).toBe(both.long.reply.status);
        if (both.short.reply.status >= 400) {
          expect(JSON.parse(both.short.reply.text)).toEqual(JSON.parse(both.long.reply.text));
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe('on the connection', () => {
  const request = (body: string, more = '') =>
    `POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n${more}content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n`;

  async function talk(
    write: (socket: net.Socket) => unknown,
    isDone: (text: string) => boolean,
  ): Promise<string> {
    const socket = net.connect(short.port, '127.0.0.1');
    let text = '';
    socket.setEncoding('utf8');
    const done = new Promise<void>((resolve, reject) => {
      socket.on('data', (piece: string) => {
        text += piece;
        if (isDone(text)) resolve();
      });
      socket.on('error', reject);
      socket.on('close', () => resolve());
    });
    await write(socket);
    await done;
    socket.destroy();
    return text;
  }

  it('requests sent one behind the other are answered in their order', async () => {
    const bodies = ['first', 'second', 'third'].map((text) => JSON.stringify(chat(text)));
    const text = await talk(
      (socket) => socket.write(bodies.map((body) => request(body) + body).join('')),
      (seen) => seen.split('HTTP/1.1 200').length === 4 && seen.trimEnd().endsWith('}'),
    );
    const places = ['first', 'second', 'third'].map((word) => text.indexOf(word));
    expect(places).toEqual(places.toSorted((left, right) => left - right));
    expect(places[0]).toBeGreaterThan(0);
  });

  it('a body may come in pieces, and behind 100-continue', async () => {
    const body = JSON.stringify(chat('in pieces'));
    const text = await talk(
      async (socket) => {
        socket.write(request(body));
        for (const character of body) {
          socket.write(character);
          await new Promise((resolve) => setImmediate(resolve));
        }
      },
      (seen) => seen.includes('in pieces'),
    );
    expect(text).toContain('HTTP/1.1 200 OK');
    const polite = await talk(
      (socket) => {
        socket.write(request(body, 'expect: 100-continue\r\n'));
        socket.once('data', () => socket.write(body));
      },
      (seen) => seen.includes('in pieces'),
    );
    expect(polite).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK/);
  });

  it('a caller that leaves in the middle of its body leaves nothing behind', async () => {
    const before = stub.ledger().requests;
    await talk(
      (socket) => {
        socket.write(`${request(JSON.stringify(chat('never')))}{"model`);
        setImmediate(() => socket.destroy());
      },
      () => false,
    );
    expect((await ask(short, chat('still here'))).status).toBe(200);
    expect(stub.ledger().requests).toBe(before + 1);
  });
});

describe('an exact repeat of a call whose answer is kept', () => {
  const kept = (content: string, more: object = {}) => chat(content, { temperature: 0, ...more });
  const withoutIds = ({ text, headers }: Reply) => ({
    body: { ...(JSON.parse(text) as object), id: '', created: 0 },
    headers: { ...headers, date: '', 'x-request-id': '', 'x-duckserve-cached': '' },
  });

  it('is answered from the store as the long way answers it, with an id and a row of its own', async () => {
    const first = await ask(short, kept('eh, é'));
    const second = await ask(short, kept('eh, é'));
    const third = await ask(long, kept('eh, é'));
    expect(stub.ledger().requests).toBe(1);
    for (const again of [second, third]) {
      expect(withoutIds(again)).toEqual(withoutIds(first));
      expect(again.headers['x-duckserve-cached']).toBe('1');
      expect(again.text).toContain(`"id":"chatcmpl-${again.headers['x-request-id']}"`);
    }
    const [, short2, long2] = rows.map(({ requestId, callId, requestTimeMs, durationMs, ...row }) => row);
    expect(short2).toEqual(long2);
    expect(short2).toMatchObject({ cachedCount: 1, inputCount: 1, attempts: 0, cost: 0, statusCode: 200 });
  });

  it('goes past the routes, also for embeddings and where the header asks for it', async () => {
    await createEndpoint('vectors', {}, { task: 'llm/v1/embeddings' });
    const embed = { model: 'vectors', input: ['a duck', 'a goose'] };
    const asked = [
      [embed, '/v1/embeddings', {}],
      [chat('kept by header'), undefined, { 'x-duckserve-cache': 'on' }],
      [kept('kept by temperature', { colour: 'red' }), undefined, {}],
    ] as const;
    for (const [body, path, headers] of asked) {
      const replies = [];
      for (let times = 0; times < 3; times++) replies.push(await ask(short, body, path, headers));
      const [first, second, third] = replies.map(withoutIds);
      expect(second).toEqual(first);
      expect(third).toEqual(first);
      expect(replies[2]?.headers['x-duckserve-cached']).toBe(path ? '2' : '1');
    }
    expect(stub.ledger().requests).toBe(3);
  });

  it('is asked anew once the answer is cleared, stopped with its endpoint, and refused to who may not ask', async () => {
    await createEndpoint('mine');
    const body = { ...kept('mine alone'), model: 'mine' };
    await ask(short, body);
    expect((await ask(short, body)).headers['x-duckserve-cached']).toBe('1');
    await app.answers.clear({ endpoint: 'mine' });
    expect((await ask(short, body)).headers['x-duckserve-cached']).toBe('0');
    expect((await ask(short, body)).headers['x-duckserve-cached']).toBe('1');
    expect(stub.ledger().requests).toBe(2);
    await app.registry.deleteEndpoint('mine');
    expect((await ask(short, body)).status).toBe(404);
  });

  it('several choices, streams and failures are not remembered', async () => {
    for (const body of [kept('two', { n: 2 }), kept('stream', { stream: true })]) {
      const first = await ask(short, body);
      const second = await ask(short, body);
      expect([first.status, second.status]).toEqual([200, 200]);
    }
    stub.behave({ answer: () => ({ status: 400, body: { error: { message: 'no' } } }) });
    expect((await ask(short, kept('failing'))).status).toBe(400);
    stub.behave({ answer: () => undefined });
    expect((await ask(short, kept('failing'))).status).toBe(200);
  });
});

describe('governed', () => {
  it('what is over a limit is refused at once, in the words of the long way', async () => {
    const limits: Record<string, object> = {
      full: { rateLimits: [{ key: 'endpoint', calls: 1, renewalPeriod: 'minute' }] },
      poor: { budgets: [{ key: 'endpoint', amount: 0.001, renewalPeriod: 'day' }] },
    };
    for (const [name, aiGateway] of Object.entries(limits)) {
      await createEndpoint(name, { aiGateway }, { price: { inputPerMillion: 1, outputPerMillion: 1 } });
      await ask(long, { ...chat('open'), model: name, max_tokens: 1 });
      for (const path of ['/v1/chat/completions', `/serving-endpoints/${name}/invocations`]) {
        const both = await askBoth({ ...chat('one too many', { max_tokens: 5_000 }), model: name }, path);
        const { 'retry-after': _s, 'retry-after-ms': _ms, ...headers } = both.short.facts.headers;
        const { 'retry-after': _s2, 'retry-after-ms': _ms2, ...longHeaders } = both.long.facts.headers;
        expect(both.short.reply.status).toBe(429);
        expect(headers).toEqual(longHeaders);
        expect(both.short.facts.books.map(({ errorMessage: _, ...row }) => row)).toEqual(
          both.long.facts.books.map(({ errorMessage: _, ...row }) => row),
        );
        const withoutTimes = (text: string) => text.replace(/\d+(\.\d+)?/g, '#');
        expect(withoutTimes(both.short.reply.text)).toBe(withoutTimes(both.long.reply.text));
      }
    }
  });

  it('who finds no place free waits in line on the short way, and the provider never has more than it bears', async () => {
    await createEndpoint('narrow', {}, { maxConcurrency: 2 });
    await ask(long, { ...chat('open'), model: 'narrow' });
    stub.behave({ latencyMs: 5 });
    stub.resetLedger();
    const replies = await Promise.all(
      Array.from({ length: 40 }, (_, index) => ask(short, { ...chat(`narrow ${index}`), model: 'narrow' })),
    );
    expect(replies.every(({ isShort }) => isShort)).toBe(true);
    expect(stub.ledger()).toMatchObject({ requests: 40, peakInFlight: 2 });
  });

  it('who leaves while it waits is not sent', async () => {
    await createEndpoint('slow', {}, { maxConcurrency: 1 });
    await ask(long, { ...chat('open'), model: 'slow' });
    stub.resetLedger();
    rows.length = 0;
    stub.behave({ latencyMs: 300 });
    const first = ask(short, { ...chat('first'), model: 'slow' });
    await until(() => stub.ledger().inFlight === 1);
    const controller = new AbortController();
    const second = fetch(`${short.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...chat('second'), model: 'slow' }),
      signal: controller.signal,
    }).catch(() => undefined);
    await until(() =>
      app.serving.queueDepths().some(({ target, waiting }) => target.startsWith('slow/') && waiting === 1),
    );
    controller.abort();
    await second;
    await until(() => rows.length === 1);
    expect(rows).toMatchObject([{ errorCode: 'CANCELLED', attempts: 0, inputCount: 1 }]);
    expect((await first).status).toBe(200);
    expect(stub.ledger().requests).toBe(1);
  });

  it('a rate limit holds on both ways together', async () => {
    await createEndpoint('rated', {
      aiGateway: { rateLimits: [{ key: 'endpoint', calls: 5, renewalPeriod: 'minute' }] },
    });
    const statuses: number[] = [];
    for (let index = 0; index < 8; index++) {
      const reply = await ask(index % 2 === 0 ? long : short, { ...chat(`rate ${index}`), model: 'rated' });
      statuses.push(reply.status);
    }
    expect(statuses).toEqual([200, 200, 200, 200, 200, 429, 429, 429]);
  });

  it('a money budget is never crossed by 64 callers at once, and the limit on tokens is set for who sets none', async () => {
    const price = { inputPerMillion: 1_000_000, outputPerMillion: 1_000_000 };
    const budgets = [{ key: 'endpoint', amount: 50_000, renewalPeriod: 'day' }];
    await createEndpoint('paid', { aiGateway: { budgets } }, { price });
    await ask(long, { ...chat('open'), model: 'paid', max_tokens: 10 });
    rows.length = 0;
    stub.resetLedger();
    const replies = await Promise.all(
      Array.from({ length: 64 }, (_, index) => ask(short, { ...chat(`buy ${index}`), model: 'paid' })),
    );
    const spent = rows.reduce((sum, row) => sum + (row.cost ?? 0), 0);
    expect(spent).toBeLessThanOrEqual(50_000);
    expect(replies.some(({ isShort }) => isShort)).toBe(true);
    for (const { body } of stub.requests) expect(body).toMatchObject({ max_tokens: 1024 });
    expect(stub.ledger().promptTokens + stub.ledger().completionTokens).toBe(spent);
  });

  it('no token, a wrong one, and one without permission are refused as on the long way', async () => {
    const { token } = await app.identity.createToken({ principal: 'ann' }, LOCAL_OWNER);
    const { token: root } = await app.identity.createToken({ principal: 'root', isAdmin: true }, LOCAL_OWNER);
    for (const [headers, status] of [
      [{}, 401],
      [{ authorization: 'Bearer dsk_wrong' }, 401],
      [{ authorization: `Bearer ${token}` }, 403],
      [{ authorization: `Bearer ${root}` }, 200],
    ] as const) {
      const both = await askBoth(chat('may I?'), undefined, headers);
      expect([both.short.reply.status, both.long.reply.status]).toEqual([status, status]);
      if (status !== 200) expect(both.short.reply.text).toBe(both.long.reply.text);
    }
  });
});
