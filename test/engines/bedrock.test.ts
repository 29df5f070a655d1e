// The amazon-bedrock engine against the local stub, which refuses wrong signatures: Converse whole and streamed,
// tools, structured output, images, embeddings, exceptions inside streams.
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ExternalModel } from '#core/endpoint.ts';
import { addressOf } from '#engines/bedrock/address.ts';
import { bedrockEngine } from '#engines/bedrock/bedrock.ts';
import { openMessageDecoder } from '#engines/bedrock/event-stream.ts';
import { AWS, BEDROCK_API_KEY, errorMessage } from '../stub/bedrock.ts';
import { encodeEvent, encodeException } from '../stub/event-stream.ts';
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

const secrets = {
  '{{env/AWS_ID}}': AWS.accessKeyId,
  '{{env/AWS_SECRET}}': ` ${AWS.secretAccessKey}\n`,
};
const bedrock = {
  region: 'us-east-1',
  modelProvider: 'anthropic',
  accessKeyId: '{{env/AWS_ID}}',
  secretAccessKey: '{{env/AWS_SECRET}}',
};
const CLAUDE = 'us.anthropic.claude-sonnet-4-20250514-v1:0';
const TITAN = 'amazon.titan-embed-text-v2:0';
const modelOf: ModelOf = ({ url }, task) => ({
  name: task === 'llm/v1/embeddings' ? TITAN : CLAUDE,
  provider: 'amazon-bedrock',
  baseUrl: url,
  bedrock,
});

let stub: ProviderStub;
beforeAll(async () => {
  stub = await startProviderStub(bedrockEngine, modelOf, secrets);
});
afterEach(() => stub.reset());
afterAll(() => stub.close());

const open = (task: ExternalModel['task'], name?: string) => () =>
  bedrockEngine.open(stub.target(task, name === undefined ? {} : { name }), contextOf(secrets));
describeEngine('amazon-bedrock', {
  task: 'llm/v1/chat',
  open: open('llm/v1/chat'),
  inputs: ['What is a duck?', 'One', 'Two lines\nof text'].map(user),
});
describeEngine('amazon-bedrock', {
  task: 'llm/v1/completions',
  open: open('llm/v1/completions'),
  inputs: [{ prompt: 'Once upon a time' }, { prompt: 'Then' }],
});
describeEngine('amazon-bedrock (Titan)', {
  task: 'llm/v1/embeddings',
  open: open('llm/v1/embeddings'),
  inputs: ['a duck', 'a goose on the lake', 'x'].map((text) => ({ text })),
});
describeEngine('amazon-bedrock (Cohere)', {
  task: 'llm/v1/embeddings',
  open: open('llm/v1/embeddings', 'cohere.embed-multilingual-v3'),
  inputs: ['a duck', 'a goose on the lake', 'x'].map((text) => ({ text })),
});

const stream = (...messages: readonly Buffer[]) => ({
  headers: { 'content-type': 'application/vnd.amazon.eventstream' },
  body: Buffer.concat(messages),
});
const half = encodeEvent('contentBlockDelta', { contentBlockIndex: 0, delta: { text: 'half' } });

describeFailures('amazon-bedrock', {
  engine: bedrockEngine,
  modelOf,
  secrets,
  hidden: [AWS.secretAccessKey, AWS.accessKeyId],
  error: (message) => ({
    body: { message },
    headers: { 'x-amzn-errortype': 'SomeException:http://internal.amazon.com/coral/' },
  }),
  inside: {
    code: 'RATE_LIMITED',
    answer: stream(half, encodeException('throttlingException', 'Too many tokens, please wait.')),
  },
});

describe('amazon-bedrock', () => {
  test('a wrong key is refused by its signature, and the way out is named', async () => {
    const runner = await stub.open('llm/v1/chat', {
      bedrock: { ...bedrock, secretAccessKey: 'wrong-secret' },
    });
    const error = await expectCode('UPSTREAM_AUTH', runner.invoke(chat('x')));
    expect(error.message).toContain('does not match');
    expect(error.message).not.toContain('wrong-secret');
    expect(error.details.code).toBe('InvalidSignatureException');
    const elsewhere = await stub.open('llm/v1/chat', { bedrock: { ...bedrock, region: 'eu-west-1' } });
    await expectCode('UPSTREAM_AUTH', elsewhere.invoke(chat('x')));
  });

  test('a key of Bedrock itself is a bearer token; without any key the environment is asked', async () => {
    const byKey = await stub.open('llm/v1/chat', { apiKey: BEDROCK_API_KEY });
    await ask(byKey, chat('x'));
    const { accessKeyId: _, secretAccessKey: _secret, ...bare } = bedrock;
    const target = stub.target('llm/v1/chat', { bedrock: bare });
    const none = await bedrockEngine.open(target, contextOf());
    await expectCode('SECRET_NOT_FOUND', none.invoke(chat('x')));
    const runner = await bedrockEngine.open(
      target,
      contextOf({
        '{{env/AWS_ACCESS_KEY_ID}}': AWS.accessKeyId,
        '{{env/AWS_SECRET_ACCESS_KEY}}': AWS.secretAccessKey,
      }),
    );
    await ask(runner, chat('x'));
    await Promise.all([none.close(), runner.close()]);
  });

  test('a session token is sent and signed', async () => {
    const runner = await stub.open('llm/v1/chat', {
      bedrock: { ...bedrock, sessionToken: 'session-0123456789' },
    });
    await ask(runner, chat('x'));
    const headers = stub.provider.requests[0]?.headers;
    expect(headers?.['x-amz-security-token']).toBe('session-0123456789');
    expect(headers?.authorization).toContain('x-amz-security-token');
  });

  test('addresses are those of the region; what is no region is no part of an address', async () => {
    expect(addressOf('us-east-1')).toBe('https://bedrock-runtime.us-east-1.amazonaws.com');
    expect(addressOf('cn-north-1')).toBe('https://bedrock-runtime.cn-north-1.amazonaws.com.cn');
    expect(() => addressOf('x.evil.com/')).toThrow('is no region of AWS');
    const { externalModel, ...target } = stub.target('llm/v1/chat');
    const { bedrock: _, ...without } = externalModel ?? { name: '', provider: 'custom', task: 'llm/v1/chat' };
    const opening = bedrockEngine.open({ ...target, externalModel: without }, contextOf());
    await expectCode('INVALID_PARAMETER', opening);
  });

  test('a call in the spelling of Converse', async () => {
    const runner = await stub.open('llm/v1/chat');
    await ask(
      runner,
      chat(
        {
          messages: [
            { role: 'system', content: 'Be short.' },
            {
              role: 'user',
              content: [
                { type: 'text', text: 'look' },
                { type: 'image_url', url: 'data:image/png;base64,QUJD' },
              ],
            },
            {
              role: 'assistant',
              content: '',
              toolCalls: [
                { id: 'a', name: 'w', arguments: '{"c":1}' },
                { id: 'b', name: 'w', arguments: '' },
              ],
            },
            { role: 'tool', content: 'sun', toolCallId: 'a' },
            { role: 'tool', content: 'rain', toolCallId: 'b' },
          ],
        },
        {
          maxTokens: 9,
          temperature: 0.2,
          topP: 0.9,
          topK: 5,
          stop: ['END'],
          tools: [{ name: 'w', description: 'Weather' }],
          toolChoice: 'required',
          extra: {
            user: 'u',
            frequency_penalty: 1,
            thinking: { type: 'disabled' },
            guardrailConfig: { guardrailIdentifier: 'g', guardrailVersion: '1' },
          },
        },
      ),
    );
    expect(stub.provider.requests[0]?.url).toBe(`/model/${encodeURIComponent(CLAUDE)}/converse`);
    expect(stub.sent()).toEqual({
      system: [{ text: 'Be short.' }],
      messages: [
        {
          role: 'user',
          content: [{ text: 'look' }, { image: { format: 'png', source: { bytes: 'QUJD' } } }],
        },
        {
          role: 'assistant',
          content: [
            { toolUse: { toolUseId: 'a', name: 'w', input: { c: 1 } } },
            { toolUse: { toolUseId: 'b', name: 'w', input: {} } },
          ],
        },
        {
          role: 'user',
          content: [
            { toolResult: { toolUseId: 'a', content: [{ text: 'sun' }] } },
            { toolResult: { toolUseId: 'b', content: [{ text: 'rain' }] } },
          ],
        },
      ],
      inferenceConfig: { maxTokens: 9, temperature: 0.2, topP: 0.9, stopSequences: ['END'] },
      toolConfig: {
        tools: [
          { toolSpec: { name: 'w', description: 'Weather', inputSchema: { json: { type: 'object' } } } },
        ],
        toolChoice: { any: {} },
      },
      guardrailConfig: { guardrailIdentifier: 'g', guardrailVersion: '1' },
      additionalModelRequestFields: { thinking: { type: 'disabled' }, top_k: 5 },
    });
  });

  test('a conversation with calls in it keeps their tools, whether they are offered again or not', async () => {
    const runner = await stub.open('llm/v1/chat');
    const messages = [
      { role: 'user', content: 'x' },
      { role: 'assistant', content: null, toolCalls: [{ id: 'a', name: 'w', arguments: '{}' }] },
      { role: 'tool', content: 'sun', toolCallId: 'a' },
    ] as const;
    await ask(runner, chat({ messages }));
    expect(stub.sent().toolConfig).toMatchObject({ tools: [{ toolSpec: { name: 'w' } }] });
    await ask(runner, chat('x', { tools: [{ name: 'w' }], toolChoice: 'none' }));
    expect(stub.sent()).not.toHaveProperty('toolConfig');
  });

  test('an image by address is refused with the way out, before anything is sent', async () => {
    const runner = await stub.open('llm/v1/chat');
    const content = [{ type: 'image_url', url: 'https://example.com/duck.png' }] as const;
    const error = await expectCode(
      'BAD_REQUEST',
      runner.invoke(chat({ messages: [{ role: 'user', content }] })),
    );
    expect(error.message).toContain('data:image/png;base64');
    expect(stub.provider.ledger().requests).toBe(0);
  });

  test('tool calls, whole and streamed', async () => {
    const runner = await stub.open('llm/v1/chat');
    const tools = [{ name: 'w', parameters: { properties: { city: { type: 'string' } } } }];
    const parameters = { tools, toolChoice: { name: 'w' } } as const;
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

  test('a schema is a tool that must be called where the model can be forced, and words where it cannot', async () => {
    const runner = await stub.open('llm/v1/chat');
    const responseFormat = {
      type: 'json_schema',
      name: 'my list',
      schema: { type: 'array', items: { enum: ['x'] }, minItems: 2 },
    } as const;
    const { output } = await ask(runner, chat('list', { responseFormat }));
    expect(output).toEqual({ content: '["x","x"]', finishReason: 'stop' });
    expect(stub.sent().toolConfig).toMatchObject({ toolChoice: { tool: { name: 'my_list' } } });
    const events = await collect(streamOf(runner, chat('list', { responseFormat })));
    expect(textOf(events)).toBe('["x","x"]');
    expect(events.at(-1)).toMatchObject({ type: 'end', finishReason: 'stop' });
    // A model that thinks cannot be forced; its words are the answer if it does not call the tool.
    const extra = { thinking: { type: 'enabled', budget_tokens: 1_024 } };
    const thought = await ask(runner, chat('list', { responseFormat, extra }));
    expect(stub.sent().toolConfig).not.toHaveProperty('toolChoice');
    expect(thought.output).toMatchObject({ content: stubChatText('list') });
    expect(textOf(await collect(streamOf(runner, chat('list', { responseFormat, extra }))))).toBe(
      stubChatText('list'),
    );
    const other = await stub.open('llm/v1/chat', { name: 'meta.llama3-70b-instruct-v1:0' });
    await ask(other, chat('list', { responseFormat }));
    expect(stub.sent()).not.toHaveProperty('toolConfig');
    expect(JSON.stringify(stub.sent().system)).toContain('JSON schema');
  });

  test('usage counts what came from and went into a prompt cache; without any it is estimated', async () => {
    const runner = await stub.open('llm/v1/chat');
    const usage = {
      inputTokens: stubTokens('two words'),
      outputTokens: stubTokens(stubChatText('two words')),
    };
    expect((await collect(streamOf(runner, chat('two words')))).at(-1)).toMatchObject({ usage });
    stub.reply({
      body: {
        output: { message: { role: 'assistant', content: [{ reasoningContent: {} }, { text: 'ok' }] } },
        stopReason: 'guardrail_intervened',
        usage: { inputTokens: 2, outputTokens: 3, cacheReadInputTokens: 10, cacheWriteInputTokens: 5 },
      },
    });
    expect(await ask(runner, chat('x'))).toMatchObject({
      output: { content: 'ok', finishReason: 'content_filter' },
      usage: { inputTokens: 17, outputTokens: 3 },
    });
    stub.provider.behave({ answer: () => undefined, omitUsage: true });
    expect((await collect(streamOf(runner, chat('abc')))).at(-1)).toMatchObject({
      usage: { inputTokens: 1 },
    });
  });

  test('exceptions and errors inside a stream are failures by their names', async () => {
    const runner = await stub.open('llm/v1/chat');
    const codes = {
      throttlingException: 'RATE_LIMITED',
      modelStreamErrorException: 'UPSTREAM_ERROR',
      internalServerException: 'UPSTREAM_ERROR',
      serviceUnavailableException: 'UPSTREAM_ERROR',
      validationException: 'UPSTREAM_REJECTED',
      modelTimeoutException: 'TIMEOUT',
      somethingNewException: 'UPSTREAM_ERROR',
    } as const;
    for (const [name, code] of Object.entries(codes)) {
      stub.reply(stream(half, encodeException(name, 'because')));
      const error = await expectCode(code, collect(streamOf(runner, chat('x'))));
      expect(error.message).toContain('because');
      expect(error.details.code).toBe(name);
    }
    stub.reply(stream(half, errorMessage('InternalFailure', 'it broke')));
    const error = await expectCode('UPSTREAM_ERROR', collect(streamOf(runner, chat('x'))));
    expect(error.message).toContain('it broke');
    stub.reply(stream(half));
    await expectCode('UPSTREAM_ERROR', collect(streamOf(runner, chat('x'))));
  });

  test('embeddings: Titan one text at a time with its dimensions, Cohere many with the kind of input', async () => {
    const titan = await stub.open('llm/v1/embeddings');
    expect(titan.limits.maxInputs).toBe(1);
    const one = await titan.invoke(batchOf('llm/v1/embeddings', [{ text: 'a b' }], { dimensions: 256 }));
    expect(stub.provider.requests[0]?.url).toBe(`/model/${encodeURIComponent(TITAN)}/invoke`);
    expect(stub.sent()).toEqual({ inputText: 'a b', dimensions: 256 });
    expect(one.items).toEqual([
      {
        ok: true,
        output: { embedding: stubEmbedding('a b', 256) },
        usage: { inputTokens: stubTokens('a b'), outputTokens: 0 },
      },
    ]);
    const old = await stub.open('llm/v1/embeddings', { name: 'amazon.titan-embed-text-v1' });
    await old.invoke(batchOf('llm/v1/embeddings', [{ text: 'a b' }]));
    expect(stub.sent()).toEqual({ inputText: 'a b' });
    await expectCode(
      'INVALID_PARAMETER',
      old.invoke(batchOf('llm/v1/embeddings', [{ text: 'a' }], { dimensions: 8 })),
    );
    const cohere = await stub.open('llm/v1/embeddings', { name: 'cohere.embed-english-v3' });
    expect(cohere.limits.maxInputs).toBe(96);
    const many = await cohere.invoke(batchOf('llm/v1/embeddings', [{ text: 'a' }, { text: 'b c' }]));
    expect(stub.sent()).toEqual({ texts: ['a', 'b c'], input_type: 'search_document' });
    const counted = many.items.reduce((sum, item) => sum + (item.ok ? item.usage.inputTokens : 0), 0);
    expect(counted).toBe(stubTokens('a') + stubTokens('b c'));
  });
});

describe("Amazon's event stream", () => {
  const invalid = (what: string) => new Error(what);

  test('messages arrive whole and in order however the bytes are cut', async () => {
    const start = await openMessageDecoder(invalid);
    const texts = fc.array(fc.string({ unit: 'grapheme', maxLength: 40 }), { maxLength: 8 });
    fc.assert(
      fc.property(texts, fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }), (bodies, sizes) => {
        const bytes = Buffer.concat(bodies.map((text) => encodeEvent('contentBlockDelta', { text })));
        const decode = start();
        const read: unknown[] = [];
        for (let from = 0, cut = 0; from < bytes.length; cut++) {
          const size = sizes[cut % sizes.length] ?? 1;
          for (const { body } of decode(bytes.subarray(from, from + size))) read.push(JSON.parse(body).text);
          from += size;
        }
        expect(decode(undefined)).toEqual([]);
        expect(read).toEqual(bodies);
      }),
    );
  });

  test('one flipped bit anywhere is noticed, and a length beyond all bounds is not waited for', async () => {
    const start = await openMessageDecoder(invalid);
    const message = encodeEvent('messageStop', { stopReason: 'end_turn' });
    for (let bit = 32; bit < message.length * 8; bit++) {
      const damaged = Buffer.from(message);
      damaged.writeUInt8(damaged.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      expect(() => start()(damaged), `bit ${bit}`).toThrow('damaged');
    }
    const endless = Buffer.from(message);
    endless.writeUInt32BE(0x7fffffff, 0);
    expect(() => start()(endless)).toThrow('2147483647 bytes');
  });
});
