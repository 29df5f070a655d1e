// The OpenAI routes with the real `openai` package over a real socket: what its users rely on.
import OpenAI from 'openai';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { type HttpServer, startHttpServer } from '../../../src/server/http/server.ts';
import { createFakeDeps, type FakeDeps } from './fake-deps.ts';

let deps: FakeDeps;
let server: HttpServer;
let client: OpenAI;

async function start(base = '/v1', authTokens?: readonly string[], apiKey = 'unused') {
  deps = createFakeDeps(authTokens ? { authTokens } : {});
  server = await startHttpServer(deps, { port: 0 });
  client = new OpenAI({ baseURL: `${server.url}${base}`, apiKey, maxRetries: 0 });
}

beforeEach(() => start());
afterEach(() => server.close());

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const collected: T[] = [];
  for await (const item of items) collected.push(item);
  return collected;
}

const hello = { model: 'chat', messages: [{ role: 'user' as const, content: 'hello my friend' }] };

describe('the openai client', () => {
  it('gets a chat answer with usage and the name of the model', async () => {
    const answer = await client.chat.completions.create({
      ...hello,
      max_tokens: 9,
      temperature: 0,
      stop: 'x',
    });
    expect(answer.choices[0]?.message).toMatchObject({ role: 'assistant', content: 'hello my friend' });
    expect(answer.choices[0]?.finish_reason).toBe('stop');
    expect(answer.model).toBe('echo/chat');
    expect(answer.usage).toEqual({ prompt_tokens: 2, completion_tokens: 3, total_tokens: 5 });
    expect(deps.calls[0]).toMatchObject({
      origin: 'http',
      parameters: { maxTokens: 9, temperature: 0, stop: ['x'] },
      cache: 'on',
    });
    expect(answer.id).toBe(`chatcmpl-${deps.calls[0]?.id}`);
    expect(answer._request_id).toBe(deps.calls[0]?.id);
  });

  it('gets a stream of deltas, the finish reason and, when asked for, the usage', async () => {
    const stream = await client.chat.completions.create({
      ...hello,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await collect(stream);
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe('hello my friend');
    expect(chunks[0]?.choices[0]?.delta.role).toBe('assistant');
    expect(chunks.map((chunk) => chunk.choices[0]?.finish_reason).filter(Boolean)).toEqual(['stop']);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: 2, completion_tokens: 3 } });
    expect(chunks.every((chunk) => chunk.id === chunks[0]?.id && chunk.model === 'echo/chat')).toBe(true);
  });

  it('sees no usage in a stream that did not ask for it', async () => {
    const chunks = await collect(await client.chat.completions.create({ ...hello, stream: true }));
    expect(chunks.some((chunk) => 'usage' in chunk)).toBe(false);
  });

  it('gets all of a stream that is longer than the socket takes at once', async () => {
    deps.events = async function* () {
      for (let sent = 0; sent < 2000; sent++) yield { type: 'delta', text: 'x'.repeat(4096) };
      yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 1, outputTokens: 1 } };
    };
    const chunks = await collect(await client.chat.completions.create({ ...hello, stream: true }));
    const length = chunks.reduce((sum, chunk) => sum + (chunk.choices[0]?.delta.content?.length ?? 0), 0);
    expect(length).toBe(2000 * 4096);
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop');
  });

  it('gets tool calls, whole and streamed', async () => {
    const toolCalls = [{ id: 'call_1', name: 'weather', arguments: '{"city":"Rome"}' }];
    deps.answer = async (call) => ({
      items: [
        {
          ok: true,
          output: { content: null, toolCalls, finishReason: 'tool_calls' },
          usage: { inputTokens: 1, outputTokens: 1 },
          cached: false,
        },
      ],
      usage: { inputTokens: 1, outputTokens: 1 },
      cost: null,
      servedEntity: 's',
      model: call.endpoint,
    });
    deps.events = async function* () {
      yield { type: 'tool_call', index: 0, id: 'call_1', name: 'weather', arguments: '' };
      yield { type: 'tool_call', index: 0, arguments: '{"city":' };
      yield { type: 'tool_call', index: 0, arguments: '"Rome"}' };
      yield { type: 'end', finishReason: 'tool_calls', usage: { inputTokens: 1, outputTokens: 1 } };
    };
    const tools = [
      { type: 'function' as const, function: { name: 'weather', parameters: { type: 'object' } } },
    ];
    const body = {
      ...hello,
      tools,
      tool_choice: { type: 'function' as const, function: { name: 'weather' } },
    };
    const whole = await client.chat.completions.create(body);
    const expected = [
      { id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{"city":"Rome"}' } },
    ];
    expect(whole.choices[0]?.message.tool_calls).toEqual(expected);
    expect(deps.calls[0]?.parameters).toMatchObject({
      tools: [{ name: 'weather', parameters: { type: 'object' } }],
      toolChoice: { name: 'weather' },
    });
    const streamed = await client.chat.completions.stream(body).finalChatCompletion();
    expect(streamed.choices[0]?.message.tool_calls).toMatchObject(expected);
    expect(streamed.choices[0]?.finish_reason).toBe('tool_calls');
  });

  it('sends a conversation with tool results and images, and all of it reaches the call', async () => {
    await client.chat.completions.create({
      model: 'chat',
      messages: [
        { role: 'developer', content: 'be brief' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'see' },
            { type: 'image_url', image_url: { url: 'data:,x' } },
          ],
        },
        {
          role: 'assistant',
          tool_calls: [{ id: 'a', type: 'function', function: { name: 'f', arguments: '{}' } }],
        },
        { role: 'tool', tool_call_id: 'a', content: '42' },
      ],
    });
    expect(deps.calls[0]?.inputs).toEqual([
      {
        messages: [
          { role: 'system', content: 'be brief' },
          {
            role: 'user',
            content: [
              { type: 'text', text: 'see' },
              { type: 'image_url', url: 'data:,x' },
            ],
          },
          { role: 'assistant', content: null, toolCalls: [{ id: 'a', name: 'f', arguments: '{}' }] },
          { role: 'tool', content: '42', toolCallId: 'a' },
        ],
      },
    ]);
  });

  it('gets vectors, which it asks for as base64 by itself, exactly', async () => {
    const answer = await client.embeddings.create({ model: 'vectors', input: ['a', 'four'], dimensions: 3 });
    expect(answer.data.map((item) => Array.from(item.embedding))).toEqual([
      [1, 0.5, -1.25],
      [4, 0.5, -1.25],
    ]);
    expect(answer.usage).toEqual({ prompt_tokens: 4, total_tokens: 4 });
    expect(deps.calls[0]).toMatchObject({ parameters: { dimensions: 3 }, cache: 'on' });
    const asNumbers = await client.embeddings.create({
      model: 'vectors',
      input: 'ab',
      encoding_format: 'float',
    });
    expect(asNumbers.data[0]?.embedding).toEqual([2, 0.5, -1.25]);
  });

  it('completes one prompt, several prompts, and one as a stream', async () => {
    const several = await client.completions.create({ model: 'text', prompt: ['one', 'two'] });
    expect(several.choices.map((choice) => [choice.index, choice.text])).toEqual([
      [0, 'one'],
      [1, 'two'],
    ]);
    const chunks = await collect(
      await client.completions.create({ model: 'text', prompt: 'a b c', stream: true }),
    );
    expect(chunks.map((chunk) => chunk.choices[0]?.text).join('')).toBe('a b c');
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop');
  });

  it('lists endpoints as models and finds one by name', async () => {
    const models = await collect(client.models.list());
    expect(models.map((model) => model.id)).toEqual(['chat', 'text', 'vectors', 'iris']);
    expect(await client.models.retrieve('vectors')).toMatchObject({ object: 'model', owned_by: 'duckserve' });
    await expect(client.models.retrieve('none')).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  });

  it('works the same against the Databricks base path', async () => {
    await server.close();
    await start('/serving-endpoints');
    expect((await client.chat.completions.create(hello)).choices[0]?.message.content).toBe('hello my friend');
    expect((await client.embeddings.create({ model: 'vectors', input: 'a' })).data).toHaveLength(1);
    expect((await client.completions.create({ model: 'text', prompt: 'p' })).choices[0]?.text).toBe('p');
    await expect(client.chat.completions.create({ ...hello, model: 'none' })).rejects.toBeInstanceOf(
      OpenAI.NotFoundError,
    );
  });
});

describe('structured output', () => {
  it('needs no name for the schema, which helpers of some clients forget', async () => {
    const json_schema = { schema: { type: 'object' } } as never;
    await client.chat.completions.create({ ...hello, response_format: { type: 'json_schema', json_schema } });
    expect(deps.calls[0]?.parameters.responseFormat).toEqual({
      type: 'json_schema',
      name: 'answer',
      schema: { type: 'object' },
    });
  });
});

describe('errors the openai client sees', () => {
  const failing = (error: ServingError) => {
    deps.answer = () => Promise.reject(error);
    return client.chat.completions.create(hello);
  };

  it('are its own classes, with our code and message', async () => {
    const missing = client.chat.completions.create({ ...hello, model: 'gpt-4' });
    await expect(missing).rejects.toMatchObject({
      status: 404,
      code: 'ENDPOINT_NOT_FOUND',
      type: 'not_found_error',
    });
    await expect(missing).rejects.toThrow("There is no endpoint 'gpt-4'");
    await expect(failing(new ServingError('WRONG_TASK', 'no'))).rejects.toBeInstanceOf(
      OpenAI.BadRequestError,
    );
    await expect(failing(new ServingError('PERMISSION_DENIED', 'no'))).rejects.toBeInstanceOf(
      OpenAI.PermissionDeniedError,
    );
    await expect(failing(new ServingError('RATE_LIMITED', 'no'))).rejects.toBeInstanceOf(
      OpenAI.RateLimitError,
    );
    await expect(failing(new ServingError('TIMEOUT', 'no'))).rejects.toBeInstanceOf(
      OpenAI.InternalServerError,
    );
  });

  it('name the field that is wrong', async () => {
    const part = { type: 'input_audio', input_audio: { data: '', format: 'wav' } } as const;
    const asked = client.chat.completions.create({
      model: 'chat',
      messages: [{ role: 'user', content: [part] }],
    });
    await expect(asked).rejects.toMatchObject({ status: 400, param: 'messages[0].content[0].type' });
    await expect(asked).rejects.toThrow('a part is text, image_url, refusal or reasoning; got "input_audio"');
  });

  it('of a single input are the error of the request', async () => {
    deps.answer = async (call) => ({
      items: [{ ok: false, error: new ServingError('INVALID_RESPONSE', 'no JSON') }],
      usage: { inputTokens: 0, outputTokens: 0 },
      cost: null,
      servedEntity: 's',
      model: call.endpoint,
    });
    await expect(client.chat.completions.create(hello)).rejects.toMatchObject({
      status: 502,
      code: 'INVALID_RESPONSE',
    });
  });

  it('say how long to wait, and not to repeat what will fail again', async () => {
    const limited = await failing(new ServingError('RATE_LIMITED', 'no', { retryAfterMs: 1500 })).catch(
      (error) => error,
    );
    expect(limited.headers.get('retry-after')).toBe('2');
    expect(limited.headers.get('x-should-retry')).toBeNull();
    const spent = await failing(new ServingError('BUDGET_EXCEEDED', 'no')).catch((error) => error);
    expect(spent.headers.get('x-should-retry')).toBe('false');
  });

  it('before the first token of a stream have their own status', async () => {
    const refuse = () => Promise.reject(new ServingError('UPSTREAM_AUTH', 'key refused'));
    deps.events = () => ({ [Symbol.asyncIterator]: () => ({ next: refuse }) });
    await expect(client.chat.completions.create({ ...hello, stream: true })).rejects.toMatchObject({
      status: 502,
      code: 'UPSTREAM_AUTH',
    });
  });

  it('after the first token arrive in the stream', async () => {
    deps.events = async function* () {
      yield { type: 'delta', text: 'half' };
      throw new ServingError('UPSTREAM_ERROR', 'connection broke');
    };
    const stream = await client.chat.completions.create({ ...hello, stream: true });
    let text = '';
    await expect(async () => {
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    }).rejects.toThrow('connection broke');
    expect(text).toBe('half');
  });

  it('for a token that is unknown is an authentication error; the right one passes', async () => {
    await server.close();
    await start('/v1', [sha256Hex('right')], 'wrong');
    await expect(client.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
    expect((await client.withOptions({ apiKey: 'right' }).models.list()).data).toHaveLength(4);
    expect(deps.logged.join()).not.toContain('wrong');
  });
});

describe('a client that leaves', () => {
  it('aborts the call it waited for', async () => {
    const controller = new AbortController();
    const aborted = new Promise<void>((resolve) => {
      deps.answer = (call) =>
        new Promise((_, reject) => {
          call.signal?.addEventListener('abort', () => {
            reject(call.signal?.reason);
            resolve();
          });
          controller.abort();
        });
    });
    await expect(client.chat.completions.create(hello, { signal: controller.signal })).rejects.toBeInstanceOf(
      OpenAI.APIUserAbortError,
    );
    await aborted;
  });

  it('aborts the stream it read from, and the upstream is let go', async () => {
    let released = () => {};
    const isReleased = new Promise<void>((resolve) => {
      released = resolve;
    });
    deps.events = async function* (call) {
      try {
        yield { type: 'delta', text: 'first' };
        await new Promise((_, reject) =>
          call.signal?.addEventListener('abort', () => reject(call.signal?.reason)),
        );
      } finally {
        released();
      }
    };
    const stream = await client.chat.completions.create({ ...hello, stream: true });
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
    stream.controller.abort();
    await isReleased;
  });
});
