// The HTTP door in front of the real pipeline with the echo engine, asked by the real `openai` client.
import OpenAI from 'openai';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Task } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { AnswerStore, StoredAnswer, UsageRow } from '#core/stores.ts';
import { echoEngine } from '#engines/echo.ts';
import { Serving } from '#serving/serving.ts';
import { type HttpServer, startHttpServer } from '../../../src/server/http/server.ts';
import { createFakeDeps } from './fake-deps.ts';

let serving: Serving;
let server: HttpServer;
let client: OpenAI;
let usage: UsageRow[];
let latencyMs: number;

beforeEach(async () => {
  usage = [];
  latencyMs = 0;
  const deps = createFakeDeps();
  serving = createServing(deps.registry);
  server = await startHttpServer({ ...deps, serving }, { port: 0 });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'unused', maxRetries: 0 });
});
afterEach(async () => {
  await server.close();
  await serving.close();
});

function createServing(registry: ReturnType<typeof createFakeDeps>['registry']): Serving {
  return new Serving({
    resolver: {
      resolve(name) {
        const endpoint = registry.getEndpoint(name);
        return { endpoint, target: createTarget(name, endpoint.task), fallbacks: [] };
      },
      onChange() {},
    },
    engines: new Map([['echo', echoEngine]]),
    engineContext: {
      log: SILENT_LOG,
      modelCacheDir: '',
      resolveSecret: (reference) => reference,
      allowDownload: () => false,
      notify() {},
    },
    answers: createAnswerStore(),
    usage: { add: (row) => void usage.push(row), flush: async () => {} },
    clock: SYSTEM_CLOCK,
    log: SILENT_LOG,
    authorize: () => {},
  });
}

function createTarget(endpoint: string, task: Task): Target {
  const model = 'echo';
  const modelVersion = {
    model,
    version: '1',
    engine: 'echo' as const,
    task,
    source: 'embedded:echo',
    sha256: '',
    sizeBytes: 0,
    options: { latencyMs },
    createdAtMs: 0,
  };
  return {
    endpoint,
    servedEntity: `${endpoint}-1`,
    engine: 'echo',
    task,
    fingerprint: `echo/${task}`,
    model,
    modelVersion,
  };
}

function createAnswerStore(): AnswerStore {
  const kept = new Map<string, StoredAnswer>();
  return {
    get: (key) => kept.get(key),
    put: (key, answer) => void kept.set(key, answer),
    flush: async () => {},
    entries: () => kept.entries(),
    clear: async () => 0,
    get count() {
      return kept.size;
    },
  };
}

const hello = { model: 'chat', messages: [{ role: 'user' as const, content: 'hello my friend' }] };

it('a chat answer comes back, and one usage row is written for it', async () => {
  const answer = await client.chat.completions.create(hello);
  expect(answer.choices[0]?.message.content).toContain('hello my friend');
  expect(usage).toMatchObject([{ origin: 'http', endpoint: 'chat', statusCode: 200, isStreaming: false }]);
  expect(usage[0]?.inputTokens).toBe(answer.usage?.prompt_tokens);
});

it('the stream of an answer has the same text and the same usage', async () => {
  const whole = await client.chat.completions.create(hello);
  const streamed = await client.chat.completions
    .stream({ ...hello, stream_options: { include_usage: true } })
    .finalChatCompletion();
  expect(streamed.choices[0]?.message.content).toBe(whole.choices[0]?.message.content);
  expect(streamed.usage).toEqual(whole.usage);
  expect(usage[1]).toMatchObject({ isStreaming: true, statusCode: 200 });
});

it('equal questions at temperature 0 are paid once, and the header says so', async () => {
  const ask = async (temperature: number) => {
    const { response } = await client.chat.completions.create({ ...hello, temperature }).withResponse();
    return response.headers.get('x-duckserve-cached');
  };
  expect([await ask(0), await ask(0), await ask(1), await ask(1)]).toEqual(['0', '1', '0', '0']);
  expect(usage.map((row) => row.attempts)).toEqual([1, 0, 1, 1]);
});

it('vectors in base64 and as numbers are the same', async () => {
  const asked = { model: 'vectors', input: ['a duck', 'a goose'] };
  const packed = await client.embeddings.create(asked);
  const plain = await client.embeddings.create({ ...asked, encoding_format: 'float' });
  expect(packed.data.map((item) => Array.from(item.embedding))).toEqual(
    plain.data.map((item) => item.embedding),
  );
  expect(packed.data[0]?.embedding).not.toEqual(packed.data[1]?.embedding);
});

it('an endpoint asked for another task is a bad request or a missing one, never a wrong answer', async () => {
  await expect(client.chat.completions.create({ ...hello, model: 'vectors' })).rejects.toBeInstanceOf(
    OpenAI.BadRequestError,
  );
  await expect(client.chat.completions.create({ ...hello, model: 'none' })).rejects.toBeInstanceOf(
    OpenAI.NotFoundError,
  );
});

it.each([false, true])('a client that leaves frees the engine (stream: %s)', async (stream) => {
  latencyMs = 600_000;
  const controller = new AbortController();
  const asked = client.chat.completions.create({ ...hello, stream }, { signal: controller.signal });
  await expect.poll(() => serving.queueDepths().some((depth) => depth.inFlight > 0)).toBe(true);
  controller.abort();
  await expect(asked).rejects.toBeInstanceOf(OpenAI.APIUserAbortError);
  await expect.poll(() => serving.queueDepths().every((depth) => depth.inFlight === 0)).toBe(true);
  await expect.poll(() => usage.map((row) => row.attempts)).toContain(1);
  expect(usage.every((row) => row.errorCode === 'CANCELLED')).toBe(true);
});

it('three choices are three requests with a usage row each, past the answer store', async () => {
  const answer = await client.chat.completions.create({ ...hello, n: 3, temperature: 0, seed: 1 });
  expect(answer.choices).toHaveLength(3);
  expect(usage.map((row) => [row.attempts, row.cachedCount, row.statusCode])).toEqual([
    [1, 0, 200],
    [1, 0, 200],
    [1, 0, 200],
  ]);
  const sum = usage.reduce((total, row) => total + row.inputTokens + row.outputTokens, 0);
  expect(answer.usage?.total_tokens).toBe(sum);
});

it.each([
  ['/v1/responses', { model: 'chat', input: 'a b c', stream: true }],
  ['/v1/messages', { ...hello, stream: true }],
  ['/v1/chat/completions', { ...hello, n: 2, stream: true }],
])('a client of %s that leaves frees the engine, and its call is recorded', async (path, body) => {
  latencyMs = 600_000;
  const controller = new AbortController();
  const init = { method: 'POST', body: JSON.stringify(body), signal: controller.signal };
  const asked = fetch(server.url + path, init);
  await expect.poll(() => serving.queueDepths().some((depth) => depth.inFlight > 0)).toBe(true);
  controller.abort();
  await expect(asked).rejects.toThrow('abort');
  await expect.poll(() => serving.queueDepths().every((depth) => depth.inFlight === 0)).toBe(true);
  await expect.poll(() => usage.map((row) => row.attempts)).toContain(1);
  expect(usage.every((row) => row.errorCode === 'CANCELLED' && row.isStreaming)).toBe(true);
});
