// The openai engine when things go wrong: which failure is which, and that nothing is left running upstream.
import { type AddressInfo, createServer, type Server } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ErrorCode } from '#core/errors.ts';
import { openaiEngine } from '#engines/openai/openai.ts';
import type { StubAnswer } from '../stub/provider.ts';
import { expectCode } from './contract.ts';
import { chatOf, choice, context, KEY, type OpenaiStub, startOpenaiStub } from './openai-stub.ts';

let stub: OpenaiStub;
beforeAll(async () => {
  stub = await startOpenaiStub();
});
afterEach(() => stub.reset());
afterAll(() => stub.close());

const fails = (code: ErrorCode, answer: StubAnswer) => expectCode(code, stub.chatAgainst(answer));

describe('openai: failures', () => {
  test('each status has its code', async () => {
    const codes = {
      400: 'UPSTREAM_REJECTED',
      401: 'UPSTREAM_AUTH',
      403: 'UPSTREAM_AUTH',
      404: 'UPSTREAM_REJECTED',
      408: 'TIMEOUT',
      413: 'PAYLOAD_TOO_LARGE',
      422: 'UPSTREAM_REJECTED',
      429: 'RATE_LIMITED',
      500: 'UPSTREAM_ERROR',
      503: 'UPSTREAM_ERROR',
      504: 'TIMEOUT',
      529: 'UPSTREAM_ERROR',
      302: 'UPSTREAM_REJECTED',
    } as const;
    for (const [status, code] of Object.entries(codes)) {
      const error = await fails(code, { status: Number(status), body: { error: { message: 'because' } } });
      expect(error.message).toContain(`answered ${status}: because`);
      expect(error.details.status).toBe(Number(status));
    }
  });

  test('an exhausted quota is not a rate limit: trying again does not help', async () => {
    const body = { error: { message: 'You exceeded your current quota', code: 'insufficient_quota' } };
    const error = await fails('UPSTREAM_REJECTED', { status: 429, body });
    expect(error.row.isRetryable).toBe(false);
  });

  test('the wait asked for is read from every place providers put it', async () => {
    const rate = async (headers: Record<string, string>, body: object = {}) =>
      (await fails('RATE_LIMITED', { status: 429, headers, body })).retryAfterMs;
    expect(await rate({ 'retry-after': '3' })).toBe(3_000);
    expect(await rate({ 'retry-after': '3', 'retry-after-ms': '250' })).toBe(250);
    expect(await rate({}, { error: { message: 'slow down', retry_after: 1.5 } })).toBe(1_500);
    expect(await rate({}, { retry_after: 2 })).toBe(2_000);
    expect(await rate({})).toBeUndefined();
    const inAMinute = await rate({ 'retry-after': new Date(Date.now() + 60_000).toUTCString() });
    expect(inAMinute).toBeGreaterThan(50_000);
    expect(inAMinute).toBeLessThanOrEqual(60_000);
    const error = await fails('UPSTREAM_ERROR', { status: 503, headers: { 'retry-after': '1' }, body: {} });
    expect(error.retryAfterMs).toBe(1_000);
  });

  test('error texts of compatible servers are found, and keys never shown', async () => {
    const text = async (body: unknown) => (await fails('UPSTREAM_REJECTED', { status: 400, body })).message;
    expect(await text({ detail: 'from FastAPI' })).toContain('from FastAPI');
    expect(await text({ detail: [{ loc: ['body'], msg: 'bad' }] })).toContain('"msg":"bad"');
    expect(await text({ error: 'from Ollama' })).toContain('from Ollama');
    expect(await text({ error_code: 'BAD', message: 'from Databricks' })).toContain('from Databricks');
    expect(await text('<html>a proxy</html>')).toContain('a proxy');
    for (const secret of [
      KEY,
      'sk-proj-abcdefgh12345678',
      'sk-ab***********wxyz',
      'dapi0123456789abcdef',
      'a1'.repeat(22),
    ]) {
      const message = await text({ error: { message: `Incorrect key ${secret}. See the site.` } });
      expect(message).not.toContain(secret);
      expect(message).toContain('[redacted]');
      expect(message).toContain('See the site.');
    }
  });

  test('text that is not JSON, or lacks what an answer has, is an INVALID_RESPONSE', async () => {
    for (const body of [
      '{"choices":[{"mess',
      '',
      'null',
      '{}',
      '{"choices":[]}',
      choice({}),
      { choices: [{}] },
    ]) {
      await fails('INVALID_RESPONSE', { body });
    }
  });

  test('an error under status 200 is an error', async () => {
    await fails('RATE_LIMITED', { body: { error: { message: 'slow', code: 429 } } });
    await fails('UPSTREAM_ERROR', { body: { error: { message: 'oops' } } });
  });

  test('a cut connection and a refused one are UPSTREAM_ERROR', async () => {
    const runner = await stub.open('llm/v1/chat');
    stub.provider.behave({ rateCut: 1 });
    await expectCode('UPSTREAM_ERROR', runner.invoke(chatOf('x')));
    stub.provider.behave({ rateCut: 0 });
    const closed = await stub.open('llm/v1/chat', { baseUrl: await unusedUrl() });
    const error = await expectCode('UPSTREAM_ERROR', closed.invoke(chatOf('x')));
    expect(error.message).toContain('ECONNREFUSED');
  });

  test('an answer that does not come in time is a TIMEOUT, and the request is dropped', async () => {
    stub.provider.behave({ latencyMs: 60_000 });
    const runner = await stub.open('llm/v1/chat', { timeoutMs: 30 });
    await expectCode('TIMEOUT', runner.invoke(chatOf('x')));
    await expect.poll(() => stub.provider.ledger().aborted).toBe(1);
    stub.provider.behave({ latencyMs: 0 });
  });

  test('an abort ends the request at the provider too', async () => {
    stub.provider.behave({ latencyMs: 60_000 });
    const runner = await stub.open('llm/v1/chat');
    const abort = new AbortController();
    const work = runner.invoke(chatOf('x', {}, abort.signal));
    await expect.poll(() => stub.provider.ledger().inFlight).toBe(1);
    abort.abort();
    await expectCode('CANCELLED', work);
    await expect.poll(() => stub.provider.ledger()).toMatchObject({ inFlight: 0, aborted: 1 });
    stub.provider.behave({ latencyMs: 0 });
  });

  test('an abort is heard while the request still waits for a connection', async () => {
    stub.provider.behave({ latencyMs: 60_000 });
    const runner = await stub.open('llm/v1/chat', { maxConcurrency: 1 });
    const [first, second] = [new AbortController(), new AbortController()];
    const works = [first, second].map(({ signal }) => runner.invoke(chatOf('x', {}, signal)));
    await expect.poll(() => stub.provider.ledger().inFlight).toBe(1);
    second.abort();
    await expectCode('CANCELLED', works[1] ?? Promise.resolve());
    first.abort();
    await expectCode('CANCELLED', works[0] ?? Promise.resolve());
    stub.provider.behave({ latencyMs: 0 });
    expect(stub.provider.ledger().requests).toBe(1);
  });

  test('many requests may share one signal without a warning of a leak', async () => {
    const warnings: Error[] = [];
    const note = (warning: Error) => warnings.push(warning);
    process.on('warning', note);
    const runner = await stub.open('llm/v1/chat');
    const { signal } = new AbortController();
    await Promise.all(
      Array.from({ length: 40 }, (_, row) => runner.invoke(chatOf(`row ${row}`, {}, signal))),
    );
    await new Promise((resolve) => setImmediate(resolve));
    process.off('warning', note);
    expect(warnings).toEqual([]);
  });

  test('an answer of more than 64 MiB is refused, not read into memory', async () => {
    const server = await endlessServer();
    const { port } = server.address() as AddressInfo;
    const runner = await stub.open('llm/v1/chat', { baseUrl: `http://127.0.0.1:${port}` });
    const error = await expectCode('INVALID_RESPONSE', runner.invoke(chatOf('x')));
    expect(error.message).toContain('67108864 bytes');
    server.close();
  });

  test('a target that cannot be asked is refused when it is opened', async () => {
    const { externalModel: _, ...bare } = stub.target('llm/v1/chat');
    await expectCode('INVALID_PARAMETER', openaiEngine.open(bare, context));
    await expectCode('INVALID_PARAMETER', stub.open('llm/v1/chat', { baseUrl: 'localhost:8000' }));
  });
});

async function unusedUrl(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}

/** Sends a body without end to whoever connects. */
async function endlessServer(): Promise<Server> {
  const block = 'x'.repeat(1 << 20);
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n');
      const fill = () => {
        while (socket.writable && socket.write(block)) {}
      };
      socket.on('drain', fill);
      fill();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}
