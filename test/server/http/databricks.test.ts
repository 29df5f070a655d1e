// The Databricks routes without a socket: invocations, the cache mode, endpoints.
import { beforeEach, describe, expect, it } from 'vitest';
import { createHttpApp } from '../../../src/server/http/app.ts';
import { createFakeDeps, type FakeDeps, readJson } from './fake-deps.ts';

let deps: FakeDeps;
let app: ReturnType<typeof createHttpApp>;
beforeEach(() => {
  deps = createFakeDeps();
  app = createHttpApp(deps);
});

const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  app.request(path, {
    method: 'POST',
    body: typeof body === 'string' ? body : JSON.stringify(body),
    headers,
  });
const invoke = (name: string, body: unknown) => post(`/serving-endpoints/${name}/invocations`, body);

describe('POST /serving-endpoints/{name}/invocations', () => {
  it.each([
    [
      'dataframe_split',
      {
        columns: ['a', 'b'],
        index: [0, 1],
        data: [
          [1, 'x'],
          [2, 'y'],
        ],
      },
    ],
    [
      'dataframe_records',
      [
        { a: 1, b: 'x' },
        { a: 2, b: 'y' },
      ],
    ],
    [
      'instances',
      [
        { a: 1, b: 'x' },
        { a: 2, b: 'y' },
      ],
    ],
    ['inputs', { a: [1, 2], b: ['x', 'y'] }],
  ])('takes features by name as %s', async (format, value) => {
    const response = await invoke('iris', { [format]: value });
    expect(await readJson(response)).toEqual({
      predictions: [
        [1, 'x'],
        [2, 'y'],
      ],
    });
    expect(response.headers.get('served-model-name')).toBe('iris-1');
    expect(deps.calls[0]).toMatchObject({
      task: 'predict',
      cache: 'on',
      inputs: [{ features: { a: 1, b: 'x' } }, { features: { a: 2, b: 'y' } }],
    });
  });

  it.each([
    [
      'dataframe_split',
      {
        data: [
          [1, 2],
          [3, 4],
        ],
      },
    ],
    [
      'instances',
      [
        [1, 2],
        [3, 4],
      ],
    ],
    [
      'inputs',
      [
        [1, 2],
        [3, 4],
      ],
    ],
  ])('takes features by position as %s', async (format, value) => {
    await invoke('iris', { [format]: value });
    expect(deps.calls[0]?.inputs).toEqual([{ features: [1, 2] }, { features: [3, 4] }]);
  });

  it('takes a list of plain values as rows of one feature, and params', async () => {
    await invoke('iris', { instances: [1, 2], params: { threshold: 0.5 } });
    expect(deps.calls[0]).toMatchObject({
      inputs: [{ features: [1] }, { features: [2] }],
      parameters: { extra: { threshold: 0.5 } },
    });
  });

  it('answers no rows with no predictions and asks nobody', async () => {
    expect(await readJson(await invoke('iris', { dataframe_records: [] }))).toEqual({ predictions: [] });
    expect(deps.calls).toHaveLength(0);
  });

  it.each([
    [{ dataframe_split: { columns: ['a', 'b'], data: [[1]] } }, "'dataframe_split.data[0]' must be 2 values"],
    [{ dataframe_records: [1] }, "'dataframe_records[0]' must be an object"],
    [{ inputs: { a: [1, 2], b: [1] } }, "'inputs.b' must be 2 values, as many as 'a' has; got [1]"],
    [{ instances: 5 }, "'instances' must be a list; got 5"],
    [
      { rows: [] },
      'takes exactly one of dataframe_split, dataframe_records, instances, inputs; the body has rows',
    ],
    [{ inputs: [1], instances: [1] }, 'exactly one of'],
  ])('says what is wrong with %j', async (body, message) => {
    const response = await invoke('iris', body);
    expect(response.status).toBe(400);
    expect((await readJson(response)).message).toContain(message);
  });

  it('lets the task of the endpoint decide what the body means', async () => {
    const chat = await readJson(await invoke('chat', { messages: [{ role: 'user', content: 'hi' }] }));
    expect(chat.choices[0]?.message.content).toBe('hi');
    expect((await readJson(await invoke('text', { prompt: 'p' }))).choices[0]?.text).toBe('p');
    const vectors = await readJson(await invoke('vectors', { input: ['abc'] }));
    expect(vectors.data[0]?.embedding).toEqual([3, 0.5, -1.25]);
    const wrong = await invoke('chat', { inputs: ['hi'] });
    expect(wrong.status).toBe(400);
    expect((await readJson(wrong)).message).toBe(
      "Endpoint 'chat' serves llm/v1/chat and takes 'messages'; the body has inputs.",
    );
  });

  it('asks one served entity directly when it is named', async () => {
    await post('/serving-endpoints/iris/served-models/iris-2/invocations', { instances: [1] });
    expect(deps.calls[0]?.servedEntity).toBe('iris-2');
  });

  it('passes on who asked and why, and the fields of providers, and tells which fields it left out', async () => {
    const response = await invoke('chat', {
      messages: [{ role: 'user', content: 'hi' }],
      client_request_id: 'mine',
      usage_context: { project: 'p' },
      extra_params: { anything: 1 },
      min_p: 0.1,
      colour: 'red',
    });
    expect(deps.calls[0]).toMatchObject({ clientRequestId: 'mine', usageContext: { project: 'p' } });
    expect(deps.calls[0]?.parameters.extra).toEqual({ min_p: 0.1, anything: 1 });
    expect(response.headers.get('x-duckserve-ignored')).toBe('colour');
  });

  it('streams chat', async () => {
    const response = await invoke('chat', { messages: [{ role: 'user', content: 'a b' }], stream: true });
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    const lines = (await response.text()).trim().split('\n\n');
    expect(lines.at(-1)).toBe('data: [DONE]');
    expect(lines).toHaveLength(5);
  });

  it('has errors in the shape of Databricks, with our own code as the reason', async () => {
    const response = await invoke('none', { inputs: [1] });
    expect(response.status).toBe(404);
    expect(await readJson(response)).toMatchObject({
      error_code: 'RESOURCE_DOES_NOT_EXIST',
      message: expect.stringContaining("'none'"),
      details: [{ reason: 'ENDPOINT_NOT_FOUND' }],
    });
  });
});

describe('the cache mode of a call', () => {
  const chat = { messages: [{ role: 'user', content: 'hi' }] };
  it.each([
    [chat, {}, 'off'],
    [{ ...chat, temperature: 0.7 }, {}, 'off'],
    [{ ...chat, temperature: 0 }, {}, 'on'],
    [{ ...chat, cache: 'read' }, {}, 'read'],
    [{ ...chat, temperature: 0 }, { 'x-duckserve-cache': 'write' }, 'write'],
  ])('of %j with headers %j is %s', async (body, headers, mode) => {
    await post('/serving-endpoints/chat/invocations', body, headers);
    expect(deps.calls[0]?.cache).toBe(mode);
  });

  it('is refused when it is none of the four', async () => {
    const response = await post('/serving-endpoints/chat/invocations', chat, { 'x-duckserve-cache': 'yes' });
    expect(response.status).toBe(400);
    expect((await readJson(response)).message).toBe(
      'Header x-duckserve-cache is "yes"; it takes on, off, read, write.',
    );
  });

  it('shows in the number of inputs that came from the cache', async () => {
    const item = {
      ok: true as const,
      output: { embedding: Float32Array.of(1) },
      usage: { inputTokens: 0, outputTokens: 0 },
    };
    deps.answer = async () => ({
      items: [
        { ...item, cached: true },
        { ...item, cached: false },
      ],
      usage: { inputTokens: 0, outputTokens: 0 },
      cost: null,
      servedEntity: 's',
      model: 'm',
    });
    const response = await invoke('vectors', { input: ['a', 'b'] });
    expect(response.headers.get('x-duckserve-cached')).toBe('1');
  });
});
