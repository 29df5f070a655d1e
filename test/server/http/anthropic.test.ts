// The Messages API with the real `@anthropic-ai/sdk` over a real socket, in front of an endpoint that is no Claude.
import Anthropic from '@anthropic-ai/sdk';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ChatOutput } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { type HttpServer, startHttpServer } from '../../../src/server/http/server.ts';
import { createFakeDeps, type FakeDeps } from './fake-deps.ts';

let deps: FakeDeps;
let server: HttpServer;
let client: Anthropic;

async function start(base = '') {
  deps = createFakeDeps();
  const estimate = async () => ({ calls: 1, cached: 0, inputTokens: 42, cost: null, seconds: null });
  server = await startHttpServer({ ...deps, serving: { ...deps.serving, estimate } }, { port: 0 });
  client = new Anthropic({ baseURL: `${server.url}${base}`, apiKey: 'unused', maxRetries: 0 });
}
beforeEach(() => start());
afterEach(() => server.close());

const usage = { inputTokens: 7, outputTokens: 5 };
const answerWith = (output: ChatOutput) => {
  deps.answer = async () => ({
    items: [{ ok: true, output, usage, cached: false }],
    usage,
    cost: null,
    servedEntity: 'chat-1',
    model: 'm',
  });
};
const messages = () => {
  const input = deps.calls.at(-1)?.inputs[0];
  return input && 'messages' in input ? input.messages : undefined;
};
const hello = {
  model: 'chat',
  max_tokens: 9,
  messages: [{ role: 'user' as const, content: 'hello my friend' }],
};
const weather = { name: 'weather', description: 'today', input_schema: { type: 'object' as const } };

describe('a message', () => {
  it('comes back with its text, the reason it ended and the tokens', async () => {
    const { data, response } = await client.messages
      .create({
        ...hello,
        system: 'be brief',
        stop_sequences: ['x'],
        ...({ top_k: 3 } as object),
        metadata: { user_id: 'u7' },
      })
      .withResponse();
    expect(data).toMatchObject({
      type: 'message',
      role: 'assistant',
      model: 'echo/chat',
      content: [{ type: 'text', text: 'hello my friend' }],
      stop_reason: 'end_turn',
      usage: { input_tokens: 2, output_tokens: 3 },
    });
    expect(response.headers.get('served-model-name')).toBe('chat-1');
    expect(messages()).toEqual([
      { role: 'system', content: 'be brief' },
      { role: 'user', content: 'hello my friend' },
    ]);
    expect(deps.calls[0]).toMatchObject({
      parameters: { maxTokens: 9, stop: ['x'], topK: 3 },
      usageContext: { user_id: 'u7' },
      client: { apiType: 'anthropic/v1/messages' },
    });
    expect(deps.calls[0]?.parameters.extra).toBeUndefined();
  });

  it('carries blocks of all kinds: texts, images, tools called and what they gave', async () => {
    await client.messages.create({
      model: 'chat',
      max_tokens: 9,
      system: [
        { type: 'text', text: 'one', cache_control: { type: 'ephemeral' } },
        { type: 'text', text: 'two' },
      ],
      messages: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'see' },
            { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AAAA' } },
            { type: 'image', source: { type: 'url', url: 'https://example.org/a.png' } },
          ],
        },
        {
          role: 'assistant',
          content: [
            { type: 'thinking', thinking: 'hm', signature: 's' },
            { type: 'text', text: 'let me look' },
            { type: 'tool_use', id: 'a', name: 'weather', input: { city: 'Rome' } },
          ],
        },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'and?' },
            { type: 'tool_result', tool_use_id: 'a', content: [{ type: 'text', text: 'sunny' }] },
            { type: 'tool_result', tool_use_id: 'b', is_error: true },
          ],
        },
      ],
    });
    expect(messages()).toEqual([
      { role: 'system', content: 'one\n\ntwo' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'see' },
          { type: 'image_url', url: 'data:image/png;base64,AAAA' },
          { type: 'image_url', url: 'https://example.org/a.png' },
        ],
      },
      {
        role: 'assistant',
        content: 'let me look',
        toolCalls: [{ id: 'a', name: 'weather', arguments: '{"city":"Rome"}' }],
      },
      { role: 'tool', toolCallId: 'a', content: 'sunny' },
      { role: 'tool', toolCallId: 'b', content: 'The tool failed.' },
      { role: 'user', content: 'and?' },
    ]);
  });

  it.each([
    [{ type: 'auto' as const }, 'auto'],
    [{ type: 'any' as const }, 'required'],
    [{ type: 'none' as const }, 'none'],
    [{ type: 'tool' as const, name: 'weather' }, { name: 'weather' }],
  ])('offers tools with the choice %j', async (wire, toolChoice) => {
    await client.messages.create({ ...hello, tools: [weather], tool_choice: wire });
    expect(deps.calls[0]?.parameters).toMatchObject({
      tools: [{ name: 'weather', description: 'today', parameters: { type: 'object' } }],
      toolChoice,
    });
  });

  it('has tool calls with their arguments as an object', async () => {
    answerWith({
      content: null,
      toolCalls: [{ id: 'a', name: 'weather', arguments: '{"city":"Rome"}' }],
      finishReason: 'tool_calls',
    });
    const answer = await client.messages.create({ ...hello, tools: [weather] });
    expect(answer.stop_reason).toBe('tool_use');
    expect(answer.content).toEqual([{ type: 'tool_use', id: 'a', name: 'weather', input: { city: 'Rome' } }]);
  });

  it('passes thinking on, and a schema for the answer', async () => {
    await client.messages.create({
      ...hello,
      thinking: { type: 'enabled', budget_tokens: 1024 },
      output_config: { format: { type: 'json_schema', schema: { type: 'object' } } },
    });
    expect(deps.calls[0]?.parameters).toMatchObject({
      extra: { thinking: { type: 'enabled', budget_tokens: 1024 } },
      responseFormat: { type: 'json_schema', schema: { type: 'object' } },
    });
    await client.messages.create({ ...hello, thinking: { type: 'disabled' } });
    expect(deps.calls[1]?.parameters.extra).toBeUndefined();
  });

  it('is counted without being asked', async () => {
    const { messages: conversation, model } = hello;
    expect(await client.messages.countTokens({ model, messages: conversation })).toEqual({
      input_tokens: 42,
    });
    expect(deps.calls).toHaveLength(0);
  });

  it.each(['/serving-endpoints/anthropic', '/ai-gateway/anthropic', '/gateway/anthropic'])(
    'is answered under %s, too',
    async (base) => {
      await server.close();
      await start(base);
      expect((await client.messages.create(hello)).content).toMatchObject([{ text: 'hello my friend' }]);
    },
  );

  it('finds its models in the list that serves both kinds of clients', async () => {
    const { data } = await client.models.list();
    expect(data.map((model) => [model.type, model.id])).toContainEqual(['model', 'chat']);
  });
});

describe('a streamed message', () => {
  it('has every event of a text in order', async () => {
    const stream = await client.messages.create({ ...hello, stream: true });
    const types: string[] = [];
    for await (const event of stream) types.push(event.type);
    expect(types).toEqual([
      'message_start',
      'content_block_start',
      'content_block_delta',
      'content_block_delta',
      'content_block_delta',
      'content_block_stop',
      'message_delta',
      'message_stop',
    ]);
    const raw = await fetch(`${server.url}/v1/messages`, {
      method: 'POST',
      body: JSON.stringify({ ...hello, stream: true }),
    });
    expect(await raw.text()).toContain('event: ping\ndata: {"type":"ping"}\n\n');
  });

  it('adds up to the whole message in the client, tools included', async () => {
    deps.events = async function* () {
      yield { type: 'delta', text: 'let me ' };
      yield { type: 'delta', text: 'look' };
      yield { type: 'tool_call', index: 0, id: 'a', name: 'weather', arguments: '' };
      yield { type: 'tool_call', index: 0, arguments: '{"city":' };
      yield { type: 'tool_call', index: 0, arguments: '"Rome"}' };
      yield { type: 'tool_call', index: 1, id: 'b', name: 'time' };
      yield { type: 'end', finishReason: 'tool_calls', usage };
    };
    const message = await client.messages.stream({ ...hello, tools: [weather] }).finalMessage();
    expect(message.content).toMatchObject([
      { type: 'text', text: 'let me look' },
      { type: 'tool_use', id: 'a', name: 'weather', input: { city: 'Rome' } },
      { type: 'tool_use', id: 'b', name: 'time', input: {} },
    ]);
    expect(message.stop_reason).toBe('tool_use');
    expect(message.usage).toMatchObject({ input_tokens: 7, output_tokens: 5 });
  });

  it('that breaks ends with an error event and no message_stop', async () => {
    deps.events = async function* () {
      yield { type: 'delta', text: 'half' };
      throw new ServingError('OVERLOADED', 'too much');
    };
    const stream = await client.messages.create({ ...hello, stream: true });
    let text = '';
    await expect(async () => {
      for await (const event of stream)
        if (event.type === 'content_block_delta' && event.delta.type === 'text_delta')
          text += event.delta.text;
    }).rejects.toThrow('overloaded_error');
    expect(text).toBe('half');
  });
});

describe('errors the anthropic client sees', () => {
  it.each([
    ['BAD_REQUEST', Anthropic.BadRequestError, 'invalid_request_error'],
    ['UNAUTHENTICATED', Anthropic.AuthenticationError, 'authentication_error'],
    ['PERMISSION_DENIED', Anthropic.PermissionDeniedError, 'permission_error'],
    ['ENDPOINT_NOT_FOUND', Anthropic.NotFoundError, 'not_found_error'],
    ['RATE_LIMIT_EXCEEDED', Anthropic.RateLimitError, 'rate_limit_error'],
    ['OVERLOADED', Anthropic.InternalServerError, 'overloaded_error'],
    ['TIMEOUT', Anthropic.InternalServerError, 'timeout_error'],
    ['UPSTREAM_ERROR', Anthropic.InternalServerError, 'api_error'],
  ] as const)('%s is its own class', async (code, type, word) => {
    deps.answer = () => Promise.reject(new ServingError(code, 'no', { retryAfterMs: 1500 }));
    const error: unknown = await client.messages.create(hello).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(type);
    expect((error as InstanceType<typeof Anthropic.APIError>).error).toMatchObject({
      type: 'error',
      error: { type: word, message: 'no' },
      request_id: deps.calls[0]?.id,
    });
    expect((error as InstanceType<typeof Anthropic.APIError>).headers?.get('retry-after')).toBe('2');
  });

  it.each([
    [{ messages: [] }, "'messages': "],
    [{ tools: [{ type: 'web_search_20250305', name: 'web_search' }] }, 'web_search_20250305'],
    [
      { messages: [{ role: 'user', content: [{ type: 'document', source: { type: 'base64' } }] }] },
      'messages[0]',
    ],
    [{ messages: [{ role: 'user', content: [{ type: 'container_upload' }] }] }, 'a block is text, image'],
  ])('%j is refused with the reason', async (fields, message) => {
    await expect(client.messages.create({ ...hello, ...fields } as never)).rejects.toThrow(message);
    expect(deps.calls).toHaveLength(0);
  });

  it('arguments of a tool that are no JSON are the failure of the model', async () => {
    answerWith({
      content: null,
      toolCalls: [{ id: 'a', name: 'f', arguments: '{"x' }],
      finishReason: 'tool_calls',
    });
    await expect(client.messages.create(hello)).rejects.toMatchObject({ status: 502 });
  });
});
