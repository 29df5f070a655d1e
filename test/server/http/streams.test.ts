// Streams on the wire, read byte by byte over a real socket: heartbeats in silence, ends and failures in each
// dialect, headers, and what a malformed request gets.
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { StreamEvent } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import { ServingError } from '#core/errors.ts';
import { type HttpServer, startHttpServer } from '../../../src/server/http/server.ts';
import { createFakeDeps, type FakeDeps, failingStream } from './fake-deps.ts';

/** Sleeps until the test says that time has passed. */
class TestClock implements Clock {
  #nowMs = 0;
  readonly #sleepers = new Set<{ readonly atMs: number; readonly wake: () => void }>();

  now(): number {
    return this.#nowMs;
  }

  random(): number {
    return 0;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const sleeper = { atMs: this.#nowMs + ms, wake: resolve };
      this.#sleepers.add(sleeper);
      signal?.addEventListener('abort', () => {
        this.#sleepers.delete(sleeper);
        reject(signal.reason);
      });
    });
  }

  get sleeping(): number {
    return this.#sleepers.size;
  }

  async pass(ms: number): Promise<void> {
    this.#nowMs += ms;
    for (const sleeper of [...this.#sleepers]) {
      if (sleeper.atMs > this.#nowMs) continue;
      this.#sleepers.delete(sleeper);
      sleeper.wake();
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
}

let deps: FakeDeps;
let clock: TestClock;
let server: HttpServer;
/** Ends the silence of the stream. */
let goOn: () => void;
beforeEach(async () => {
  deps = createFakeDeps();
  clock = new TestClock();
  server = await startHttpServer({ ...deps, clock }, { port: 0 });
  const silence = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  deps.events = async function* (): AsyncGenerator<StreamEvent> {
    yield { type: 'delta', text: 'first' };
    await silence;
    yield { type: 'delta', text: 'last' };
    yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 1, outputTokens: 1 } };
  };
});
afterEach(() => server.close());

const chat = { model: 'chat', messages: [{ role: 'user', content: 'hi' }], stream: true };
const DIALECTS = [
  ['/v1/chat/completions', chat, /: still here\n\n/g],
  ['/v1/completions', { model: 'text', prompt: 'hi', stream: true }, /: still here\n\n/g],
  ['/v1/responses', { model: 'chat', input: 'hi', stream: true }, /: still here\n\n/g],
  ['/v1/messages', chat, /event: ping\ndata: {"type":"ping"}\n\n/g],
  // MLflow's client takes no line but `data:` and empty ones.
  ['/serving-endpoints/chat/invocations', chat, /(?<=\n\n)\n/g],
] as const;

const ask = (path: string, body: object) =>
  fetch(server.url + path, { method: 'POST', body: JSON.stringify(body) });

describe.each(DIALECTS)('a stream of %s', (path, body, heartbeat) => {
  it('has a heartbeat after each 15 seconds of silence, and none while events come', async () => {
    const response = await ask(path, body);
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    expect(response.headers.get('x-accel-buffering')).toBe('no');
    expect(response.headers.get('served-model-name')).toMatch(/-1$/);
    expect(response.headers.get('x-request-id')).toBe(deps.calls[0]?.id);
    let text = '';
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    const readUntil = async (isTrue: () => boolean) => {
      while (!isTrue()) text += (await reader?.read())?.value ?? '';
    };
    await readUntil(() => text.includes('first'));
    const beats = () => text.match(heartbeat)?.length ?? 0;
    const begun = beats();
    await expect.poll(() => clock.sleeping).toBe(1);
    await clock.pass(14_999);
    await clock.pass(1);
    await readUntil(() => beats() === begun + 1);
    await clock.pass(15_000);
    await readUntil(() => beats() === begun + 2);
    await clock.pass(14_999);
    goOn();
    await readUntil(() => text.includes('last'));
    expect(beats()).toBe(begun + 2);
    await expect.poll(() => clock.sleeping).toBe(0);
  });

  it('fails with a status of its own as long as nothing was sent', async () => {
    deps.events = () =>
      failingStream(new ServingError('RATE_LIMIT_EXCEEDED', 'slow down', { retryAfterMs: 2500 }));
    const response = await ask(path, body);
    expect(response.status).toBe(429);
    expect(response.headers.get('content-type')).toContain('application/json');
    expect(response.headers.get('retry-after')).toBe('3');
  });

  it('ends with an error event and no end mark when it is cut', async () => {
    deps.events = async function* () {
      yield { type: 'delta', text: 'half' };
      throw new ServingError('UPSTREAM_ERROR', 'connection broke');
    };
    const text = await (await ask(path, body)).text();
    expect(text).toContain('half');
    expect(text.trimEnd().split('\n\n').at(-1)).toContain('connection broke');
    expect(text).not.toMatch(/\[DONE\]|response\.completed|message_stop/);
  });
});

describe('a request that is no request', () => {
  const send = (bytes: string) =>
    new Promise<string>((resolve, reject) => {
      const socket = connect(server.port, '127.0.0.1');
      let answer = '';
      socket.setEncoding('latin1').on('data', (chunk: string) => {
        answer += chunk;
      });
      socket.on('close', () => resolve(answer)).on('error', reject);
      socket.end(bytes, 'latin1');
    });
  const post = (path: string, headers: readonly string[], body: string) =>
    send(
      [`POST ${path} HTTP/1.1`, 'Host: 127.0.0.1', 'Connection: close', ...headers, '', body].join('\r\n'),
    );

  it.each([
    ['/v1/chat/completions', '"type":"invalid_request_error"'],
    ['/v1/messages', '"type":"error","error":{"type":"invalid_request_error"'],
    ['/v2/models/iris/infer', '{"error":"The body is not JSON'],
    ['/serving-endpoints/chat/invocations', '"error_code":"BAD_REQUEST"'],
  ])('a cut JSON at %s is a 400 in the dialect of the path', async (path, shape) => {
    const answer = await post(path, ['Content-Length: 12'], '{"model":"ch');
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer).toContain(shape);
  });

  it('bad UTF-8, a deep nest and a wrong charset are refused, too', async () => {
    expect(await post('/v1/chat/completions', ['Content-Length: 5'], '{"\xff"}')).toContain('not UTF-8');
    const deep = `{"model":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
    const nested = await post('/v1/chat/completions', [`Content-Length: ${deep.length}`], deep);
    expect(nested).toMatch(/^HTTP\/1\.1 400 /);
    expect(nested).toContain('more than 128 deep');
    const type = 'Content-Type: application/json; charset=utf-16';
    expect(await post('/v1/chat/completions', [type, 'Content-Length: 2'], '{}')).toMatch(/^HTTP\/1\.1 415 /);
  });

  it('a client that leaves in the middle of its body does no harm', async () => {
    await post('/v1/chat/completions', ['Content-Length: 1000'], '{"model":"chat"');
    expect((await ask('/v1/embeddings', { model: 'vectors', input: 'a' })).status).toBe(200);
    expect(deps.calls).toHaveLength(1);
  });
});
