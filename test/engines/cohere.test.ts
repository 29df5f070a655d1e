// The cohere engine against the local stub: chat, completions through chat, embeddings, and its own failures.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { cohereEngine } from '#engines/cohere/cohere.ts';
import { stubChatText, stubEmbedding, stubTokens } from '../stub/provider.ts';
import { collect, describeEngine, expectCode } from './contract.ts';
import {
  argumentsOf,
  ask,
  batchOf,
  chat,
  contextOf,
  describeFailures,
  type ModelOf,
  type ProviderStub,
  startProviderStub,
  streamOf,
  textOf,
  user,
} from './provider-stub.ts';

const KEY = 'cohere-key-0123456789abcdef';
const secrets = { '{{env/COHERE}}': KEY };
const modelOf: ModelOf = ({ url }) => ({
  name: 'command-a-03-2025',
  provider: 'cohere',
  baseUrl: `${url}/v1`,
  apiKey: '{{env/COHERE}}',
});

let stub: ProviderStub;
beforeAll(async () => {
  stub = await startProviderStub(cohereEngine, modelOf, secrets);
});
afterEach(() => stub.reset());
afterAll(() => stub.close());

const open = (task: Parameters<ProviderStub['target']>[0]) => () =>
  cohereEngine.open(stub.target(task), contextOf(secrets));
describeEngine('cohere', {
  task: 'llm/v1/chat',
  open: open('llm/v1/chat'),
  inputs: ['What is a duck?', 'One', 'Two lines\nof text'].map(user),
});
describeEngine('cohere', {
  task: 'llm/v1/completions',
  open: open('llm/v1/completions'),
  inputs: [{ prompt: 'Once upon a time' }, { prompt: 'Then' }],
});
describeEngine('cohere', {
  task: 'llm/v1/embeddings',
  open: open('llm/v1/embeddings'),
  inputs: ['a duck', 'a goose on the lake', 'x'].map((text) => ({ text })),
});

const sse = (...events: readonly (readonly [string, object])[]) => ({
  headers: { 'content-type': 'text/event-stream' },
  body: events
    .map(([type, rest]) => `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`)
    .join(''),
});
const half = ['content-delta', { index: 0, delta: { message: { content: { text: 'half' } } } }] as const;

describeFailures('cohere', {
  engine: cohereEngine,
  modelOf,
  secrets,
  hidden: [KEY],
  error: (message) => ({ body: { id: 'x', message } }),
  inside: {
    code: 'UPSTREAM_ERROR',
    answer: sse(half, ['message-end', { delta: { finish_reason: 'ERROR', error: 'the model broke' } }]),
  },
});

describe('cohere', () => {
  test('a call in the spelling of the API', async () => {
    const runner = await stub.open('llm/v1/chat');
    await ask(
      runner,
      chat(
        {
          messages: [
            { role: 'system', content: 'Be short.' },
            { role: 'user', content: 'weather?' },
            {
              role: 'assistant',
              content: 'I look.',
              toolCalls: [{ id: 'a', name: 'w', arguments: '{"c":1}' }],
            },
            { role: 'tool', content: 'sun', toolCallId: 'a' },
          ],
        },
        {
          maxTokens: 9,
          temperature: 0.2,
          topP: 1,
          topK: 5,
          stop: ['END'],
          seed: 3,
          tools: [
            { name: 'w', parameters: { type: 'object', properties: { c: { type: 'integer' } } } },
            { name: 'v' },
          ],
          toolChoice: { name: 'w' },
          // Two of OpenAI's fields that Cohere knows by their names, two that it does not, one of its own.
          extra: {
            frequency_penalty: 0.1,
            presence_penalty: 0.2,
            user: 'u',
            logit_bias: {},
            safety_mode: 'NONE',
          },
        },
      ),
    );
    const [request] = stub.provider.requests;
    expect(request?.path).toBe('/v2/chat');
    expect(request?.headers.authorization).toBe(`Bearer ${KEY}`);
    expect(stub.sent()).toEqual({
      model: 'command-a-03-2025',
      messages: [
        { role: 'system', content: 'Be short.' },
        { role: 'user', content: 'weather?' },
        {
          role: 'assistant',
          tool_plan: 'I look.',
          tool_calls: [{ id: 'a', type: 'function', function: { name: 'w', arguments: '{"c":1}' } }],
        },
        { role: 'tool', tool_call_id: 'a', content: 'sun' },
      ],
      max_tokens: 9,
      temperature: 0.2,
      p: 0.99,
      k: 5,
      stop_sequences: ['END'],
      seed: 3,
      tools: [
        {
          type: 'function',
          function: { name: 'w', parameters: { type: 'object', properties: { c: { type: 'integer' } } } },
        },
      ],
      tool_choice: 'REQUIRED',
      frequency_penalty: 0.1,
      presence_penalty: 0.2,
      safety_mode: 'NONE',
    });
  });

  test('tool calls, whole and streamed', async () => {
    const runner = await stub.open('llm/v1/chat');
    const tools = [{ name: 'w', parameters: { type: 'object', properties: { city: { type: 'string' } } } }];
    const parameters = { tools, toolChoice: 'required' } as const;
    const { output } = await ask(runner, chat('Bonn', parameters));
    expect(output).toMatchObject({
      content: null,
      toolCalls: [{ name: 'w', arguments: '{"city":"Bonn"}' }],
      finishReason: 'tool_calls',
    });
    const events = await collect(streamOf(runner, chat('Bonn', parameters)));
    expect(events[0]).toMatchObject({ type: 'tool_call', index: 0, name: 'w' });
    expect(argumentsOf(events)).toBe('{"city":"Bonn"}');
    expect(events.at(-1)).toMatchObject({ type: 'end', finishReason: 'tool_calls' });
  });

  test('a schema of an object goes as response_format; beside tools or for other types it is asked for in words', async () => {
    const runner = await stub.open('llm/v1/chat');
    const schema = { type: 'object', properties: { label: { enum: ['a', 'b'] } }, required: ['label'] };
    const responseFormat = { type: 'json_schema', name: 'r', schema } as const;
    const { output } = await ask(runner, chat('which?', { responseFormat }));
    expect(stub.sent().response_format).toEqual({ type: 'json_object', json_schema: schema });
    expect(output).toEqual({ content: expect.stringMatching(/^\{"label":"[ab]"\}$/), finishReason: 'stop' });
    await ask(runner, chat('which?', { responseFormat, tools: [{ name: 'w' }] }));
    expect(stub.sent()).not.toHaveProperty('response_format');
    expect(JSON.stringify(stub.sent().messages)).toContain('JSON schema');
    const list = { type: 'json_schema', name: 'r', schema: { type: 'array' } } as const;
    await ask(runner, chat('which?', { responseFormat: list }));
    expect(stub.sent()).not.toHaveProperty('response_format');
    await ask(runner, chat('which?', { responseFormat: { type: 'json_object' } }));
    expect(stub.sent().response_format).toEqual({ type: 'json_object' });
    expect(JSON.stringify(stub.sent().messages)).toContain('JSON');
  });

  test('usage is what is billed, not what the template adds; without it an estimate', async () => {
    const runner = await stub.open('llm/v1/chat');
    const usage = {
      inputTokens: stubTokens('two words'),
      outputTokens: stubTokens(stubChatText('two words')),
    };
    expect((await ask(runner, chat('two words'))).usage).toEqual(usage);
    expect((await collect(streamOf(runner, chat('two words')))).at(-1)).toMatchObject({ usage });
    stub.provider.behave({ omitUsage: true });
    expect((await ask(runner, chat('abc'))).usage.inputTokens).toBe(1);
  });

  test('thoughts are left out of the text, whole and streamed, and the plan of a call is said before it', async () => {
    const runner = await stub.open('llm/v1/chat');
    stub.reply({
      body: {
        finish_reason: 'COMPLETE',
        message: {
          role: 'assistant',
          content: [
            { type: 'thinking', thinking: 'hm' },
            { type: 'text', text: 'yes' },
          ],
        },
      },
    });
    expect((await ask(runner, chat('x'))).output).toMatchObject({ content: 'yes' });
    stub.reply(
      sse(
        ['message-start', { id: 'i', delta: { message: { role: 'assistant' } } }],
        ['content-delta', { index: 0, delta: { message: { content: { thinking: 'hm' } } } }],
        ['tool-plan-delta', { delta: { message: { tool_plan: 'I look.' } } }],
        [
          'tool-call-start',
          {
            index: 0,
            delta: { message: { tool_calls: { id: 'a', function: { name: 'w', arguments: '' } } } },
          },
        ],
        [
          'tool-call-start',
          {
            index: 1,
            delta: { message: { tool_calls: { id: 'b', function: { name: 'v', arguments: '' } } } },
          },
        ],
        [
          'tool-call-delta',
          { index: 1, delta: { message: { tool_calls: { function: { arguments: '{}' } } } } },
        ],
        [
          'message-end',
          {
            delta: {
              finish_reason: 'TOOL_CALL',
              usage: { billed_units: { input_tokens: 3, output_tokens: 4 } },
            },
          },
        ],
      ),
    );
    const events = await collect(streamOf(runner, chat('x')));
    expect(textOf(events)).toBe('I look.');
    expect(events.filter(({ type }) => type === 'tool_call')).toEqual([
      { type: 'tool_call', index: 0, id: 'a', name: 'w', arguments: '' },
      { type: 'tool_call', index: 1, id: 'b', name: 'v', arguments: '' },
      { type: 'tool_call', index: 1, arguments: '{}' },
    ]);
    expect(events.at(-1)).toEqual({
      type: 'end',
      finishReason: 'tool_calls',
      usage: { inputTokens: 3, outputTokens: 4 },
    });
  });

  test('embeddings carry the kind of their input, and at most 96 texts', async () => {
    const runner = await stub.open('llm/v1/embeddings');
    expect(runner.limits.maxInputs).toBe(96);
    const inputs = [{ text: 'a' }, { text: 'b c' }];
    const { items } = await runner.invoke(
      batchOf('llm/v1/embeddings', inputs, {
        dimensions: 16,
        extra: { input_type: 'search_query', user: 'u' },
      }),
    );
    expect(stub.sent()).toEqual({
      model: 'command-a-03-2025',
      texts: ['a', 'b c'],
      input_type: 'search_query',
      embedding_types: ['float'],
      output_dimension: 16,
    });
    expect(items).toMatchObject([
      { output: { embedding: stubEmbedding('a', 16) } },
      { output: { embedding: stubEmbedding('b c', 16) } },
    ]);
    const tokens = items.reduce((sum, item) => sum + (item.ok ? item.usage.inputTokens : 0), 0);
    expect(tokens).toBe(stubTokens('a') + stubTokens('b c'));
    stub.reply({ body: { embeddings: { float: [[1, 0]] } } });
    await expectCode('INVALID_RESPONSE', runner.invoke(batchOf('llm/v1/embeddings', inputs)));
  });

  test('an answer that the model did not finish is a failure by the name of its reason', async () => {
    const runner = await stub.open('llm/v1/chat');
    const message = { role: 'assistant', content: [] };
    stub.reply({ body: { finish_reason: 'TIMEOUT', message } });
    await expectCode('TIMEOUT', runner.invoke(chat('x')));
    stub.reply({ body: { finish_reason: 'ERROR', message } });
    await expectCode('UPSTREAM_ERROR', runner.invoke(chat('x')));
  });
});
