// The openai engine against the local stub: the contract, what is sent, and what is read.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { EmbeddingOutput, Input } from '#core/call.ts';
import { openaiEngine } from '#engines/openai/openai.ts';
import { stubChatText, stubEmbedding, stubTokens } from '../stub/provider.ts';
import { describeEngine, expectCode } from './contract.ts';
import {
  batch,
  chatOf,
  choice,
  context,
  KEY,
  type OpenaiStub,
  startOpenaiStub,
  user,
} from './openai-stub.ts';

let stub: OpenaiStub;
beforeAll(async () => {
  stub = await startOpenaiStub();
});
afterEach(() => stub.reset());
afterAll(() => stub.close());

describeEngine('openai', {
  task: 'llm/v1/chat',
  open: () => openaiEngine.open(stub.target('llm/v1/chat'), context),
  inputs: ['What is a duck?', 'One', ''].map(user),
});
describeEngine('openai', {
  task: 'llm/v1/completions',
  open: () => openaiEngine.open(stub.target('llm/v1/completions'), context),
  inputs: [{ prompt: 'Once upon a time' }, { prompt: 'Then' }],
});
describeEngine('openai', {
  task: 'llm/v1/embeddings',
  open: () => openaiEngine.open(stub.target('llm/v1/embeddings'), context),
  inputs: ['a duck', 'a goose on the lake', 'x'].map((text) => ({ text })),
});

describe('openai: what is sent', () => {
  test('messages, parameters, tools and format in the spelling of the API', async () => {
    const runner = await stub.open('llm/v1/chat', { organization: 'org-1' });
    const input: Input = {
      messages: [
        { role: 'system', content: 'Be short.' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'look' },
            { type: 'image_url', url: 'data:image/png;base64,AA' },
          ],
        },
        { role: 'assistant', content: null, toolCalls: [{ id: 'c1', name: 'f', arguments: '{"a":1}' }] },
        { role: 'tool', content: '2', toolCallId: 'c1' },
      ],
    };
    await runner.invoke(
      batch('llm/v1/chat', [input], {
        maxTokens: 7,
        temperature: 0.5,
        topP: 0.9,
        stop: ['END'],
        seed: 3,
        tools: [{ name: 'f', parameters: { type: 'object' } }],
        toolChoice: { name: 'f' },
        responseFormat: { type: 'json_schema', name: 'r', schema: { type: 'object' }, strict: true },
        extra: { user: 'u1', model: 'another' },
      }),
    );
    const [request] = stub.provider.requests;
    expect(request?.headers).toMatchObject({
      authorization: `Bearer ${KEY}`,
      'openai-organization': 'org-1',
    });
    expect(request?.body).toEqual({
      user: 'u1',
      model: 'stub-model',
      messages: [
        { role: 'system', content: 'Be short.' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'look' },
            { type: 'image_url', image_url: { url: 'data:image/png;base64,AA' } },
          ],
        },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{"a":1}' } }],
        },
        { role: 'tool', content: '2', tool_call_id: 'c1' },
      ],
      max_tokens: 7,
      temperature: 0.5,
      top_p: 0.9,
      stop: ['END'],
      seed: 3,
      tools: [{ type: 'function', function: { name: 'f', parameters: { type: 'object' } } }],
      tool_choice: { type: 'function', function: { name: 'f' } },
      response_format: {
        type: 'json_schema',
        json_schema: { name: 'r', schema: { type: 'object' }, strict: true },
      },
    });
  });

  test('Azure gets the deployment in the path, the version in the query and the key in its own header', async () => {
    const runner = await stub.open('llm/v1/chat', {
      baseUrl: stub.provider.url,
      apiType: 'azure',
      apiVersion: '2024-06-01',
    });
    await runner.invoke(chatOf('hi'));
    const [request] = stub.provider.requests;
    expect(request?.url).toBe('/openai/deployments/stub-model/chat/completions?api-version=2024-06-01');
    expect(request?.headers['api-key']).toBe(KEY);
    expect(request?.headers.authorization).toBeUndefined();
  });

  test('without a key no authorization header is sent', async () => {
    const { externalModel, ...target } = stub.target('llm/v1/chat');
    const { apiKey: _, ...model } = externalModel ?? { name: '', provider: 'openai', task: 'llm/v1/chat' };
    const runner = await openaiEngine.open({ ...target, externalModel: model }, context);

    await runner.invoke(chatOf('hi'));
    await runner.close();
    expect(stub.provider.requests[0]?.headers.authorization).toBeUndefined();
  });

  test('the reasoning models of OpenAI get max_completion_tokens', async () => {
    const runner = await stub.open('llm/v1/chat', { name: 'o3-mini' });
    await runner.invoke(chatOf('hi', { maxTokens: 9 }));
    expect(stub.provider.requests[0]?.body).toMatchObject({ max_completion_tokens: 9 });
    expect(stub.provider.requests[0]?.body).not.toHaveProperty('max_tokens');
  });

  test('one request for a batch of embeddings, as base64, with the dimensions asked for', async () => {
    const runner = await stub.open('llm/v1/embeddings');
    const { items } = await runner.invoke(
      batch('llm/v1/embeddings', [{ text: 'a' }, { text: 'b' }], { dimensions: 16 }),
    );
    expect(stub.provider.ledger()).toMatchObject({ requests: 1, inputs: 2 });
    expect(stub.provider.requests[0]?.body).toEqual({
      model: 'stub-model',
      input: ['a', 'b'],
      encoding_format: 'base64',
      dimensions: 16,
    });
    expect(items.map((item) => item.ok && item.output)).toEqual(
      ['a', 'b'].map((text) => ({ embedding: stubEmbedding(text, 16) })),
    );
  });
});

describe('openai: what is read', () => {
  test('text and the usage the provider counted', async () => {
    const runner = await stub.open('llm/v1/chat');
    const { items } = await runner.invoke(chatOf('two words'));
    const text = stubChatText('two words');
    expect(items).toEqual([
      {
        ok: true,
        output: { content: text, finishReason: 'stop' },
        usage: { inputTokens: stubTokens('two words'), outputTokens: stubTokens(text) },
      },
    ]);
  });

  test('usage is estimated from lengths where the provider gives none', async () => {
    const { items } = await stub.chatAgainst({ body: choice({ content: 'seven c' }) });
    expect(items[0]).toMatchObject({ usage: { inputTokens: 1, outputTokens: 2 } });
  });

  test('a list of content parts is joined, reasoning left out', async () => {
    const content = [
      { type: 'reasoning', summary: [] },
      { type: 'text', text: 'a' },
      { type: 'text', text: 'b' },
    ];
    const { items } = await stub.chatAgainst({ body: choice({ content }) });
    expect(items[0]).toMatchObject({ output: { content: 'ab' } });
  });

  test('tool calls, and finish reasons by their old names', async () => {
    const called = { id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } };
    const { items } = await stub.chatAgainst({
      body: choice({ content: null, tool_calls: [called] }, 'function_call'),
    });
    expect(items[0]).toMatchObject({
      output: {
        content: null,
        toolCalls: [{ id: 'c', name: 'f', arguments: '{}' }],
        finishReason: 'tool_calls',
      },
    });
  });

  test('embeddings as numbers and in another order are put in input order', async () => {
    stub.provider.behave({
      answer: () => ({
        body: {
          data: [
            { index: 1, embedding: [0, 1] },
            { index: 0, embedding: [1, 0] },
          ],
          usage: { prompt_tokens: 10 },
        },
      }),
    });
    const runner = await stub.open('llm/v1/embeddings');
    const { items } = await runner.invoke(
      batch('llm/v1/embeddings', [{ text: 'abc' }, { text: 'd'.repeat(35) }]),
    );
    stub.provider.behave({ answer: () => undefined });
    expect(items.map((item) => item.ok && Array.from((item.output as EmbeddingOutput).embedding))).toEqual([
      [1, 0],
      [0, 1],
    ]);
    expect(items.map((item) => item.ok && item.usage.inputTokens)).toEqual([1, 9]);
  });

  test('fewer or repeated embeddings are an INVALID_RESPONSE, never the vector of another text', async () => {
    const runner = await stub.open('llm/v1/embeddings');
    for (const data of [
      [{ index: 0, embedding: [1] }],
      [
        { index: 0, embedding: [1] },
        { index: 0, embedding: [2] },
      ],
      [
        { index: 0, embedding: 'AAAA' },
        { index: 1, embedding: [2] },
      ],
      [
        { index: 0, embedding: [null] },
        { index: 1, embedding: [2] },
      ],
      [
        { index: 0, embedding: [1] },
        { index: 1, embedding: [2, 3] },
      ],
    ]) {
      stub.provider.behave({ answer: () => ({ body: { data } }) });
      const work = runner.invoke(batch('llm/v1/embeddings', [{ text: 'a' }, { text: 'b' }]));
      await expectCode('INVALID_RESPONSE', work);
    }
    stub.provider.behave({ answer: () => undefined });
  });
});
