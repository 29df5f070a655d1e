// What every request passes: who is let in, what is too large or not JSON, unknown paths, metrics.
import { request as httpRequest } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sha256Hex } from '#core/fingerprint.ts';
import { createHttpApp } from '../../../src/server/http/app.ts';
import { type HttpServer, startHttpServer } from '../../../src/server/http/server.ts';
import { createFakeDeps, type FakeDeps, readJson } from './fake-deps.ts';

const chat = JSON.stringify({ model: 'chat', messages: [{ role: 'user', content: 'hi' }] });

describe('without tokens', () => {
  let deps: FakeDeps;
  let server: HttpServer;
  beforeEach(async () => {
    deps = createFakeDeps();
    server = await startHttpServer(deps, { port: 0 });
  });
  afterEach(() => server.close());

  /** Node's own client, because fetch does not let a test set Host or Origin. */
  const ask = (headers: Record<string, string>, method = 'POST', path = '/v1/chat/completions') =>
    new Promise<number | undefined>((resolve, reject) => {
      const asked = httpRequest(
        { host: '127.0.0.1', port: server.port, path, method, headers },
        (response) => {
          response.resume();
          resolve(response.statusCode);
        },
      );
      asked.on('error', reject);
      asked.end(method === 'POST' ? chat : undefined);
    });

  it('programs of this machine are let in', async () => {
    expect(await ask({})).toBe(200);
    expect(await ask({ host: `localhost:${server.port}` })).toBe(200);
    expect(await ask({ host: `[::1]:${server.port}` })).toBe(200);
    expect(await ask({ host: `localhost:${server.port}`, origin: `http://localhost:${server.port}` })).toBe(
      200,
    );
  });

  it('a web page that reaches the address through its visitor is not', async () => {
    expect(await ask({ host: 'evil.example' })).toBe(403);
    expect(await ask({ host: 'localhost.evil.example' })).toBe(403);
    expect(await ask({ origin: 'https://evil.example' })).toBe(403);
    expect(await ask({ origin: 'null' })).toBe(403);
    expect(
      await ask({ 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' }, 'GET', '/v1/models'),
    ).toBe(403);
    expect(deps.calls).toHaveLength(0);
  });

  it('the server does not listen where other machines can reach it', async () => {
    await expect(startHttpServer(deps, { host: '0.0.0.0', port: 0 })).rejects.toMatchObject({
      code: 'INVALID_PARAMETER',
      message: expect.stringContaining('listen on 127.0.0.1'),
    });
    await expect(startHttpServer(deps, { host: '::', port: 0 })).rejects.toThrow('no token is set');
  });

  it('a port that is taken is named', async () => {
    await expect(startHttpServer(deps, { port: server.port })).rejects.toThrow(
      `Cannot listen on 127.0.0.1:${server.port}: the port is in use`,
    );
  });

  it('a body over 16 MiB is refused, with its length announced or not', async () => {
    const body = 'x'.repeat(16 * 1024 * 1024 + 1);
    const announced = await fetch(`${server.url}/v1/chat/completions`, { method: 'POST', body });
    expect(announced.status).toBe(413);
    const chunks = new ReadableStream({
      start(controller) {
        for (let sent = 0; sent < 17; sent++) controller.enqueue(new Uint8Array(1024 * 1024));
        controller.close();
      },
    });
    const init = { method: 'POST', body: chunks, duplex: 'half' } as RequestInit;
    expect((await fetch(`${server.url}/v1/chat/completions`, init)).status).toBe(413);
  });

  it('requests in flight finish when the server closes', async () => {
    let answerNow = () => {};
    const isAsked = new Promise<void>((asked) => {
      const answer = deps.answer;
      deps.answer = (call) => {
        asked();
        return new Promise((resolve) => {
          answerNow = () => resolve(answer(call));
        });
      };
    });
    const response = fetch(`${server.url}/v1/chat/completions`, { method: 'POST', body: chat });
    await isAsked;
    const closed = server.close();
    answerNow();
    expect((await response).status).toBe(200);
    await closed;
  });
});

describe('with tokens', () => {
  const app = createHttpApp(createFakeDeps({ authTokens: [sha256Hex('one'), sha256Hex('two')] }));
  const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`;

  it.each([
    ['Bearer two', 200],
    ['bearer one', 200],
    [basic('token:one'), 200],
    [basic('admin:one'), 401],
    ['Bearer three', 401],
    ['Bearer', 401],
    ['', 401],
  ])('%s gets %i', async (authorization, status) => {
    const response = await app.request('/v1/models', { headers: { authorization } });
    expect(response.status).toBe(status);
    if (status === 401) expect(response.headers.get('www-authenticate')).toContain('Bearer');
  });

  it('only the probe is open', async () => {
    expect(await readJson(await app.request('/health'))).toEqual({ status: 'ok', version: '9.9.9' });
    expect((await app.request('/metrics')).status).toBe(401);
    expect((await app.request('/nowhere')).status).toBe(401);
  });
});

describe('requests that cannot be understood', () => {
  const deps = createFakeDeps();
  const app = createHttpApp(deps);
  const post = async (path: string, body: string, headers: Record<string, string> = {}) => {
    const response = await app.request(path, { method: 'POST', body, headers });
    return { status: response.status, body: await readJson(response) };
  };

  it.each([
    ['', 'The body is not JSON: it is empty.'],
    ['{"model":sk-secret', 'The body is not JSON'],
    ['[1]', 'The body must be a JSON object, got [1].'],
    ['{"messages":[]}', "'model': Invalid input: expected string, received undefined; it is missing."],
    ['{"model":"chat","messages":[]}', "'messages': "],
    ['{"model":"chat","messages":[{"role":"boss","content":"x"}]}', `'messages[0].role': `],
    [
      '{"model":"chat","messages":[{"role":"user","content":[{"type":"text","text":5}]}]}',
      `'messages[0].content[0].text': `,
    ],
    ['{"model":"chat","messages":[{"role":"user","content":"x"}],"temperature":3}', `'temperature': `],
    ['{"model":"chat","messages":[{"role":"user","content":"x"}],"n":0}', `'n': `],
    ['{"model":"chat","messages":[{"role":"user","content":"x"}],"n":129}', `'n': `],
    ['{"model":"chat","messages":[{"role":"user","content":"x"}],"logprobs":true}', `'logprobs' is true`],
    ['{"model":"chat","messages":[{"role":"user","content":"x"}],"functions":[]}', `replaced by 'tools'`],
  ])('%s is a 400 that says why', async (body, message) => {
    const answer = await post('/v1/chat/completions', body);
    expect(answer.status).toBe(400);
    expect(answer.body.error).toMatchObject({ type: 'invalid_request_error' });
    expect(answer.body.error.message).toContain(message);
    expect(answer.body.error.message + deps.logged.join()).not.toContain('sk-secret');
    expect(deps.calls).toHaveLength(0);
  });

  it.each([[[1, 2, 3]], [[[1, 2], [3]]]])('token ids %j are refused with the way out', async (input) => {
    const answer = await post('/v1/embeddings', JSON.stringify({ model: 'vectors', input }));
    expect(answer.status).toBe(400);
    expect(answer.body.error.message).toContain('send a string or a list of strings');
  });

  it('compressed bodies are refused', async () => {
    expect((await post('/v1/embeddings', 'x', { 'content-encoding': 'gzip' })).status).toBe(400);
  });

  it('unknown paths are told what exists, wrong methods what is taken', async () => {
    const unknown = await post('/v1/images', '{}');
    expect(unknown.status).toBe(404);
    expect(unknown.body.error.message).toContain('POST /v1/chat/completions');
    expect((await readJson(await app.request('/nowhere'))).error_code).toBe('RESOURCE_DOES_NOT_EXIST');
    const wrong = await app.request('/v1/chat/completions');
    expect(wrong.status).toBe(405);
    expect(wrong.headers.get('allow')).toBe('POST');
    expect((await readJson(wrong)).error.message).toBe('/v1/chat/completions takes POST, not GET.');
  });

  it('a defect is a 500 in the log with its stack, and no stack in the answer', async () => {
    deps.answer = () => Promise.reject(new TypeError('undefined is not a duck'));
    const answer = await post('/v1/chat/completions', chat);
    expect(answer).toMatchObject({ status: 500, body: { error: { code: 'INTERNAL' } } });
    expect(JSON.stringify(answer.body)).not.toContain('door.test');
    expect(deps.logged.at(-2)).toContain('door.test');
  });
});

describe('what operators see', () => {
  it('metrics count calls of all doors, tokens, cached inputs, queues and requests', async () => {
    const deps = createFakeDeps();
    const app = createHttpApp(deps);
    deps.emitUsage({
      origin: 'sql',
      inputCount: 10,
      cachedCount: 4,
      inputTokens: 100,
      outputTokens: 50,
      cost: 0.25,
    });
    deps.emitUsage({ endpoint: 'made-up', statusCode: 404, errorCode: 'ENDPOINT_NOT_FOUND', engine: null });
    await app.request('/v1/models/none');
    const text = await (await app.request('/metrics')).text();
    for (const line of [
      'duckserve_requests_total{endpoint="chat",origin="sql",status="200"} 1',
      'duckserve_requests_total{endpoint="(unknown)",origin="http",status="404"} 1',
      'duckserve_inputs_total{endpoint="chat"} 10',
      'duckserve_cached_inputs_total{endpoint="chat"} 4',
      'duckserve_tokens_total{endpoint="chat",type="output"} 50',
      'duckserve_cost_usd_total{endpoint="chat"} 0.25',
      'duckserve_queue_waiting{target="chat"} 3',
      'duckserve_queue_in_flight{target="chat"} 2',
      'duckserve_queue_limit{target="chat"} 8',
      'duckserve_http_requests_total{method="GET",route="/v1/models/:name",status="404"} 1',
      'gen_ai_client_operation_duration_seconds_count',
      'process_cpu_seconds_total',
    ]) {
      expect(text).toContain(line);
    }
    expect(text).not.toContain('made-up');
  });

  it('one log line a request, without query, body or credentials', async () => {
    const deps = createFakeDeps({ authTokens: [sha256Hex('top-secret')] });
    const headers = { authorization: 'Bearer top-secret' };
    await createHttpApp(deps).request('/v1/models?key=hidden', { headers });
    expect(deps.logged).toHaveLength(1);
    expect(deps.logged[0]).toMatch(/^request .*"path":"\/v1\/models","status":200/);
    expect(deps.logged[0]).not.toMatch(/secret|hidden/);
  });
});
