// The anthropic engine against the local stub: hoisted system text, tools both ways, structured output, streams.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Input, Parameters } from '#core/call.ts';
import type { ExternalModel, Target } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import { SILENT_LOG } from '#core/log.ts';
import { anthropicEngine } from '#engines/anthropic/anthropic.ts';
import type { Batch, EngineContext, Runner } from '#engines/engine.ts';
import {
  type StubAnswer,
  type StubProvider,
  startStubProvider,
  stubChatText,
  stubTokens,
} from '../stub/provider.ts';
import { collect, describeEngine, expectCode } from './contract.ts';
import { describeFailures } from './provider-stub.ts';

const context: EngineContext = {
  log: SILENT_LOG,
  modelCacheDir: '',
  resolveSecret: () => 'sk-ant-secret-0123456789',
  allowDownload: () => false,
  notify: () => {},
};

let stub: StubProvider;
let runner: Runner;
beforeAll(async () => {
  stub = await startStubProvider();
  runner = await anthropicEngine.open(anthropicTarget(), context);
});
afterEach(() => {
  stub.behave({ answer: () => undefined, rateCut: 0, rateMalformed: 0 });
  stub.resetLedger();
});
afterAll(async () => {
  await runner.close();
  await stub.close();
});

function anthropicTarget(change: Partial<ExternalModel> = {}): Target {
  return {
    endpoint: 'e',
    servedEntity: 's',
    engine: 'anthropic',
    task: 'llm/v1/chat',
    fingerprint: 'f',
    model: 'stub-model',
    externalModel: {
      name: 'stub-model',
      provider: 'anthropic',
      task: 'llm/v1/chat',
      baseUrl: stub.url,
      apiKey: '{{env/KEY}}',
      ...change,
    },
  };
}

const user = (content: string): Input => ({ messages: [{ role: 'user', content }] });
const batchOf = (input: Input, parameters: Parameters = {}): Batch => ({
  task: 'llm/v1/chat',
  inputs: [input],
  parameters,
  signal: new AbortController().signal,
});
async function ask(input: Input, parameters?: Parameters) {
  const { items } = await runner.invoke(batchOf(input, parameters));
  const [item] = items;
  if (!item?.ok) throw item?.error ?? new Error('no item');
  return item;
}
const stream = (input: Input, parameters?: Parameters) => {
  if (!runner.stream) throw new Error('anthropic streams');
  return runner.stream(batchOf(input, parameters));
};
const sent = () => stub.requests.at(-1)?.body;
const reply = (answer: StubAnswer) => stub.behave({ answer: () => answer });
const format = (schema: JsonObject): Parameters => ({
  responseFormat: { type: 'json_schema', name: 'my answer', schema },
});

describeEngine('anthropic', {
  task: 'llm/v1/chat',
  open: () => anthropicEngine.open(anthropicTarget(), context),
  inputs: ['What is a duck?', 'One', 'Two lines\nof text'].map(user),
});

describe('anthropic', () => {
  test('sends key, version and a limit, and hoists system messages', async () => {
    await ask({
      messages: [
        { role: 'system', content: 'Be short.' },
        { role: 'user', content: 'hi' },
        { role: 'system', content: 'Be kind.' },
      ],
    });
    expect(stub.requests[0]?.headers).toMatchObject({
      'x-api-key': 'sk-ant-secret-0123456789',
      'anthropic-version': '2023-06-01',
    });
    expect(stub.requests[0]?.path).toBe('/v1/messages');
    expect(sent()).toEqual({
      model: 'stub-model',
      messages: [{ role: 'user', content: 'hi' }],
      max_tokens: 1024,
      system: 'Be short.\n\nBe kind.',
    });
  });

  test('a base URL may end in /v1', async () => {
    const other = await anthropicEngine.open(anthropicTarget({ baseUrl: `${stub.url}/v1/` }), context);
    await other.invoke(batchOf(user('hi')));
    await other.close();
    expect(stub.requests[0]?.path).toBe('/v1/messages');
  });

  test('system text alone is asked as the user, for there must be a turn', async () => {
    await ask({ messages: [{ role: 'system', content: 'Say hello.' }] });
    expect(sent()).toMatchObject({ messages: [{ role: 'user', content: 'Say hello.' }] });
    expect(sent()).not.toHaveProperty('system');
  });

  test('tool calls and their results go back as blocks, results of parallel calls in one turn', async () => {
    await ask({
      messages: [
        { role: 'user', content: 'weather?' },
        {
          role: 'assistant',
          content: '',
          toolCalls: [
            { id: 'a', name: 'w', arguments: '{"city":"Bonn"}' },
            { id: 'b', name: 'w', arguments: '' },
          ],
        },
        { role: 'tool', content: 'sun', toolCallId: 'a' },
        { role: 'tool', content: 'rain', toolCallId: 'b' },
        { role: 'user', content: [{ type: 'image_url', url: 'data:image/png;base64,QUJD' }] },
      ],
    });
    expect(sent()?.messages).toEqual([
      { role: 'user', content: 'weather?' },
      {
        role: 'assistant',
        content: [
          { type: 'tool_use', id: 'a', name: 'w', input: { city: 'Bonn' } },
          { type: 'tool_use', id: 'b', name: 'w', input: {} },
        ],
      },
      {
        role: 'user',
        content: [
          { type: 'tool_result', tool_use_id: 'a', content: 'sun' },
          { type: 'tool_result', tool_use_id: 'b', content: 'rain' },
          { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'QUJD' } },
        ],
      },
    ]);
  });

  test('tools are offered, and a call comes back as JSON text', async () => {
    const tools = [
      { name: 'w', description: 'Weather', parameters: { properties: { city: { type: 'string' } } } },
    ];
    const { output } = await ask(user('Bonn'), { tools, toolChoice: 'required' });
    expect(sent()).toMatchObject({
      tools: [{ name: 'w', description: 'Weather', input_schema: { type: 'object' } }],
      tool_choice: { type: 'any' },
    });
    expect(output).toMatchObject({
      content: null,
      toolCalls: [{ name: 'w', arguments: '{"city":"Bonn"}' }],
      finishReason: 'tool_calls',
    });
  });

  test('a JSON schema becomes a tool that must be called, and its input the content', async () => {
    const schema = { type: 'object', properties: { label: { enum: ['a', 'b'] } }, required: ['label'] };
    const { output } = await ask(user('which?'), format(schema));
    expect(sent()).toMatchObject({
      tools: [{ name: 'my_answer', input_schema: schema }],
      tool_choice: { type: 'tool', name: 'my_answer' },
    });
    expect(output).toEqual({ content: expect.stringMatching(/^\{"label":"[ab]"\}$/), finishReason: 'stop' });
  });

  test('a schema that is not of an object is wrapped on the way out and unwrapped on the way back', async () => {
    const parameters = format({ type: 'array', items: { enum: ['x'] }, minItems: 2 });
    expect((await ask(user('list'), parameters)).output).toMatchObject({
      content: '["x","x"]',
      finishReason: 'stop',
    });
    const events = await collect(stream(user('list'), parameters));
    expect(events[0]).toEqual({ type: 'delta', text: '["x","x"]' });
    expect(events.at(-1)).toMatchObject({ type: 'end', finishReason: 'stop' });
  });

  test('a structured answer that is streamed is the same JSON', async () => {
    const parameters = format({ type: 'object', properties: { note: { type: 'string' } } });
    const { output } = await ask(user('hello'), parameters);
    const events = await collect(stream(user('hello'), parameters));
    const text = events.map((event) => (event.type === 'delta' ? event.text : '')).join('');
    expect(output).toMatchObject({ content: text });
  });

  test('json_object is asked for in words', async () => {
    await ask(user('hi'), { responseFormat: { type: 'json_object' } });
    expect(sent()?.system).toContain('JSON object');
  });

  test('reads text, usage and the cached part of it, and stop reasons', async () => {
    const { output, usage } = await ask(user('two words'), { maxTokens: 2 });
    expect(output).toEqual({ content: 'You asked', finishReason: 'length' });
    expect(usage).toEqual({ inputTokens: stubTokens('two words'), outputTokens: stubTokens('You asked') });
    reply({
      body: {
        content: [{ type: 'text', text: 'no' }],
        stop_reason: 'refusal',
        usage: { input_tokens: 2, cache_read_input_tokens: 30, output_tokens: 1 },
      },
    });
    const refused = await ask(user('x'));
    expect(refused.output).toEqual({ content: 'no', finishReason: 'content_filter' });
    expect(refused.usage).toEqual({ inputTokens: 32, outputTokens: 1 });
  });

  test('overload is retryable, a refused key is not, and neither text shows the key', async () => {
    reply({
      status: 529,
      body: { type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } },
    });
    const overloaded = await expectCode('UPSTREAM_ERROR', ask(user('x')));
    expect(overloaded.row.isRetryable).toBe(true);
    const message = 'invalid x-api-key sk-ant-secret-0123456789';
    reply({ status: 401, body: { type: 'error', error: { type: 'authentication_error', message } } });
    const refused = await expectCode('UPSTREAM_AUTH', ask(user('x')));
    expect(refused.message).not.toContain('secret');
    reply({ body: { content: 'text' } });
    await expectCode('INVALID_RESPONSE', ask(user('x')));
  });

  test('streams tool calls in pieces', async () => {
    const tools = [{ name: 'w', parameters: { properties: { city: { type: 'string' } } } }];
    const events = await collect(stream(user('Bonn'), { tools, toolChoice: { name: 'w' } }));
    const pieces = events.filter((event) => event.type === 'tool_call');
    expect(pieces[0]).toMatchObject({ index: 0, name: 'w' });
    expect(pieces.map((piece) => piece.arguments ?? '').join('')).toBe('{"city":"Bonn"}');
    expect(events.at(-1)).toMatchObject({ type: 'end', finishReason: 'tool_calls' });
  });

  test('a stream carries usage of both ends', async () => {
    const events = await collect(stream(user('two words')));
    const usage = {
      inputTokens: stubTokens('two words'),
      outputTokens: stubTokens(stubChatText('two words')),
    };
    expect(events.at(-1)).toEqual({ type: 'end', finishReason: 'stop', usage });
  });

  test('a cut stream, a malformed event and an error event are failures, not ends', async () => {
    stub.behave({ rateCut: 1 });
    await expectCode('UPSTREAM_ERROR', collect(stream(user('x'))));
    stub.behave({ rateCut: 0, rateMalformed: 1 });
    await expectCode('INVALID_RESPONSE', collect(stream(user('x'))));
    stub.behave({ rateMalformed: 0 });
    const headers = { 'content-type': 'text/event-stream' };
    const half = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"half"}}';
    reply({ headers, body: `event: content_block_delta\ndata: ${half}\n\n` });
    await expectCode('UPSTREAM_ERROR', collect(stream(user('x'))));
    const event = '{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}';
    reply({ headers, body: `event: error\ndata: ${event}\n\n` });
    await expectCode('RATE_LIMITED', collect(stream(user('x'))));
  });

  test('a model that thinks has room for it, is not forced, and its thoughts are no text', async () => {
    const thinking = { type: 'enabled', budget_tokens: 2_000 };
    const schema = { type: 'object', properties: { label: { enum: ['a'] } } };
    reply({
      body: {
        content: [
          { type: 'thinking', thinking: 'hm', signature: 's' },
          { type: 'text', text: '{"label":"a"}' },
        ],
        stop_reason: 'end_turn',
      },
    });
    const { output } = await ask(user('x'), { ...format(schema), extra: { thinking } });
    expect(output).toEqual({ content: '{"label":"a"}', finishReason: 'stop' });
    expect(sent()).toMatchObject({ thinking, max_tokens: 3_024, tool_choice: { type: 'auto' } });
    const event = (type: string, rest: object) =>
      `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`;
    const delta = (index: number, piece: object) => event('content_block_delta', { index, delta: piece });
    reply({
      headers: { 'content-type': 'text/event-stream' },
      body: [
        event('content_block_start', { index: 0, content_block: { type: 'thinking', thinking: '' } }),
        delta(0, { type: 'thinking_delta', thinking: 'hm' }),
        delta(0, { type: 'signature_delta', signature: 's' }),
        event('content_block_start', { index: 1, content_block: { type: 'text', text: '' } }),
        delta(1, { type: 'text_delta', text: '{"label":"a"}' }),
        event('message_delta', { delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 9 } }),
        event('message_stop', {}),
      ].join(''),
    });
    const events = await collect(stream(user('x'), { ...format(schema), extra: { thinking } }));
    expect(events).toMatchObject([
      { type: 'delta', text: '{"label":"a"}' },
      { type: 'end', finishReason: 'stop', usage: { outputTokens: 9 } },
    ]);
  });

  test('fields of OpenAI become those of Anthropic or stay behind; its own go through', async () => {
    const tools = [{ name: 'w' }];
    const extra = {
      user: 'u1',
      parallel_tool_calls: false,
      frequency_penalty: 1,
      logit_bias: {},
      service_tier: 'flex',
      metadata: { job: 'x' },
      cache_control: { type: 'ephemeral' },
      container: 'c',
    };
    await ask(user('x'), { tools, extra });
    expect(sent()).toEqual({
      model: 'stub-model',
      messages: [{ role: 'user', content: 'x' }],
      max_tokens: 1024,
      tools: [{ name: 'w', input_schema: { type: 'object' } }],
      tool_choice: { type: 'auto', disable_parallel_tool_use: true },
      metadata: { user_id: 'u1' },
      cache_control: { type: 'ephemeral' },
      container: 'c',
    });
    await ask(user('x'), { tools, toolChoice: 'none', extra: { service_tier: 'standard_only' } });
    expect(sent()).toMatchObject({ tool_choice: { type: 'none' }, service_tier: 'standard_only' });
  });

  test('a stop sequence is a stop, and an image by address goes as one', async () => {
    reply({
      body: { content: [{ type: 'text', text: 'a' }], stop_reason: 'stop_sequence', stop_sequence: 'END' },
    });
    const content = [{ type: 'image_url', url: 'https://example.com/duck.png' }] as const;
    const { output } = await ask({ messages: [{ role: 'user', content }] }, { stop: ['END'] });
    expect(output).toEqual({ content: 'a', finishReason: 'stop' });
    expect(sent()).toMatchObject({
      stop_sequences: ['END'],
      messages: [
        { content: [{ type: 'image', source: { type: 'url', url: 'https://example.com/duck.png' } }] },
      ],
    });
  });

  test('only chat is served', async () => {
    await expectCode(
      'WRONG_TASK',
      anthropicEngine.open({ ...anthropicTarget(), task: 'llm/v1/embeddings' }, context),
    );
  });
});

const half = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"half"}}';
const overloaded = '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}';
describeFailures('anthropic', {
  engine: anthropicEngine,
  modelOf: ({ url }) => ({ name: 'claude', provider: 'anthropic', baseUrl: url, apiKey: '{{env/KEY}}' }),
  secrets: { '{{env/KEY}}': 'sk-ant-secret-0123456789' },
  hidden: ['sk-ant-secret-0123456789'],
  error: (message) => ({ body: { type: 'error', error: { type: 'some_error', message } } }),
  inside: {
    code: 'UPSTREAM_ERROR',
    answer: {
      headers: { 'content-type': 'text/event-stream' },
      body: `event: content_block_delta\ndata: ${half}\n\nevent: error\ndata: ${overloaded}\n\n`,
    },
  },
});
