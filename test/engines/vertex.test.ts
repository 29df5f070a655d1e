// The google-cloud-vertex-ai engine against the local stub, whose identity provider checks the signed assertion:
// Gemini whole and streamed, tools, schemas, withheld answers, Claude, embeddings, tokens.
import { generateKeyPairSync } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ExternalModel } from '#core/endpoint.ts';
import type { JsonObject } from '#core/json.ts';
import { addressOf } from '#engines/vertex/address.ts';
import { toGeminiSchema } from '#engines/vertex/schema.ts';
import { vertexEngine } from '#engines/vertex/vertex.ts';
import { type StubProvider, stubChatText, stubEmbedding, stubTokens } from '../stub/provider.ts';
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
  user,
} from './provider-stub.ts';

const { publicKey, privateKey } = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
});
const EMAIL = 'duck@project-1.iam.gserviceaccount.com';
const secrets: Record<string, string> = {};
const vertex = { projectId: 'project-1', region: 'us-central1', privateKey: '{{env/ACCOUNT}}' };
const modelOf: ModelOf = ({ url }, task) => ({
  name: task === 'llm/v1/embeddings' ? 'text-embedding-005' : 'gemini-2.5-flash',
  provider: 'google-cloud-vertex-ai',
  baseUrl: url,
  vertex,
});

/** The key file of the account, and the stub's knowledge of it. */
function know(provider: StubProvider): void {
  const audience = `${provider.url}/google/token`;
  provider.tokens.google = { publicKey, email: EMAIL, audience };
  secrets['{{env/ACCOUNT}}'] = JSON.stringify({
    type: 'service_account',
    project_id: 'project-1',
    private_key_id: 'key-1',
    private_key: privateKey,
    client_email: EMAIL,
    token_uri: audience,
  });
}

let stub: ProviderStub;
beforeAll(async () => {
  stub = await startProviderStub(vertexEngine, modelOf, secrets);
});
// The other stub of this file has an address of its own.
afterEach(() => stub.reset());
afterAll(() => stub.close());

describe('google-cloud-vertex-ai', () => {
  beforeAll(() => know(stub.provider));

  const open = (task: ExternalModel['task'], name?: string) => () =>
    vertexEngine.open(stub.target(task, name === undefined ? {} : { name }), contextOf(secrets));
  describeEngine('google-cloud-vertex-ai', {
    task: 'llm/v1/chat',
    open: open('llm/v1/chat'),
    inputs: ['What is a duck?', 'One', 'Two lines\nof text'].map(user),
  });
  describeEngine('google-cloud-vertex-ai (Claude)', {
    task: 'llm/v1/chat',
    open: open('llm/v1/chat', 'claude-sonnet-4@20250514'),
    inputs: ['What is a duck?', 'One', 'Two lines\nof text'].map(user),
  });
  describeEngine('google-cloud-vertex-ai', {
    task: 'llm/v1/embeddings',
    open: open('llm/v1/embeddings'),
    inputs: ['a duck', 'a goose on the lake', 'x'].map((text) => ({ text })),
  });

  test('a call in the spelling of Gemini', async () => {
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
                { type: 'image_url', url: 'gs://bucket/duck.webp' },
              ],
            },
            {
              role: 'assistant',
              content: '',
              toolCalls: [
                { id: 'a', name: 'w', arguments: '{"c":1}' },
                { id: 'b', name: 'v', arguments: '' },
              ],
            },
            { role: 'tool', content: '{"sky":"sun"}', toolCallId: 'a' },
            { role: 'tool', content: 'rain', toolCallId: 'b' },
          ],
        },
        {
          maxTokens: 9,
          temperature: 0.2,
          topP: 0.9,
          topK: 5,
          stop: ['END'],
          seed: 3,
          tools: [
            {
              name: 'w',
              parameters: {
                type: 'object',
                properties: { c: { type: ['integer', 'null'] } },
                additionalProperties: false,
              },
            },
            { name: 'v', parameters: { type: 'object', properties: {} } },
          ],
          toolChoice: { name: 'w' },
          extra: {
            user: 'u',
            presence_penalty: 0.5,
            generationConfig: { thinkingConfig: { thinkingBudget: 0 } },
            labels: { team: 'x' },
          },
        },
      ),
    );
    expect(stub.provider.requests.at(-1)?.url).toBe(
      '/v1/projects/project-1/locations/us-central1/publishers/google/models/gemini-2.5-flash:generateContent',
    );
    expect(stub.sent()).toEqual({
      labels: { team: 'x' },
      systemInstruction: { parts: [{ text: 'Be short.' }] },
      contents: [
        {
          role: 'user',
          parts: [
            { text: 'look' },
            { inlineData: { mimeType: 'image/png', data: 'QUJD' } },
            { fileData: { mimeType: 'image/webp', fileUri: 'gs://bucket/duck.webp' } },
          ],
        },
        {
          role: 'model',
          parts: [{ functionCall: { name: 'w', args: { c: 1 } } }, { functionCall: { name: 'v', args: {} } }],
        },
        {
          role: 'user',
          parts: [
            { functionResponse: { name: 'w', response: { sky: 'sun' } } },
            { functionResponse: { name: 'v', response: { output: 'rain' } } },
          ],
        },
      ],
      generationConfig: {
        thinkingConfig: { thinkingBudget: 0 },
        maxOutputTokens: 9,
        temperature: 0.2,
        topP: 0.9,
        topK: 5,
        stopSequences: ['END'],
        seed: 3,
        presencePenalty: 0.5,
      },
      tools: [
        {
          functionDeclarations: [
            {
              name: 'w',
              parameters: { type: 'object', properties: { c: { type: 'integer', nullable: true } } },
            },
            { name: 'v' },
          ],
        },
      ],
      toolConfig: { functionCallingConfig: { mode: 'ANY', allowedFunctionNames: ['w'] } },
    });
  });

  test('tool calls, whole and streamed, have the same ids', async () => {
    const runner = await stub.open('llm/v1/chat');
    const tools = [{ name: 'w', parameters: { properties: { city: { type: 'string' } } } }];
    const parameters = { tools, toolChoice: 'required' } as const;
    const { output } = await ask(runner, chat('Bonn', parameters));
    expect(output).toMatchObject({
      content: null,
      toolCalls: [
        { id: expect.stringMatching(/^call_0_[0-9a-f]{16}$/), name: 'w', arguments: '{"city":"Bonn"}' },
      ],
      finishReason: 'tool_calls',
    });
    const events = await collect(streamOf(runner, chat('Bonn', parameters)));
    const [call] = 'toolCalls' in output ? (output.toolCalls ?? []) : [];
    expect(events[0]).toMatchObject({ type: 'tool_call', index: 0, id: call?.id, name: 'w' });
    expect(argumentsOf(events)).toBe('{"city":"Bonn"}');
    expect(events.at(-1)).toMatchObject({ type: 'end', finishReason: 'tool_calls' });
  });

  test('calls of Gemini 3 go back with the signature that stands for a foreign call', async () => {
    const messages = [
      { role: 'user', content: 'x' },
      {
        role: 'assistant',
        content: null,
        toolCalls: [
          { id: 'a', name: 'w', arguments: '{}' },
          { id: 'b', name: 'w', arguments: '{}' },
        ],
      },
      { role: 'tool', content: 'sun', toolCallId: 'a' },
    ] as const;
    const signed = {
      functionCall: { name: 'w', args: {} },
      thoughtSignature: 'skip_thought_signature_validator',
    };
    for (const [name, first] of [
      ['gemini-3-pro-preview', signed],
      ['gemini-2.5-pro', { functionCall: { name: 'w', args: {} } }],
    ] as const) {
      const runner = await stub.open('llm/v1/chat', { name });
      await ask(runner, chat({ messages }));
      expect(stub.sent().contents).toMatchObject([
        {},
        { parts: [first, { functionCall: { name: 'w' } }] },
        {},
      ]);
      const [, turn] = stub.sent().contents as readonly { readonly parts: readonly object[] }[];
      expect(turn?.parts[0]).toEqual(first);
    }
  });

  test('a schema goes as responseSchema; beside tools it is asked for in words', async () => {
    const runner = await stub.open('llm/v1/chat');
    const schema = {
      type: 'object',
      properties: { label: { enum: ['a', 'b'] } },
      required: ['label'],
      additionalProperties: false,
    };
    const responseFormat = { type: 'json_schema', name: 'r', schema } as const;
    const { output } = await ask(runner, chat('which?', { responseFormat }));
    expect(stub.sent().generationConfig).toEqual({
      responseMimeType: 'application/json',
      responseSchema: {
        type: 'object',
        properties: { label: { type: 'string', enum: ['a', 'b'] } },
        required: ['label'],
      },
    });
    expect(output).toEqual({ content: expect.stringMatching(/^\{"label":"[ab]"\}$/), finishReason: 'stop' });
    await ask(runner, chat('which?', { responseFormat, tools: [{ name: 'w' }] }));
    expect(stub.sent()).not.toHaveProperty('generationConfig');
    expect(JSON.stringify(stub.sent().systemInstruction)).toContain('JSON schema');
    await ask(runner, chat('which?', { responseFormat: { type: 'json_object' } }));
    expect(stub.sent().generationConfig).toEqual({ responseMimeType: 'application/json' });
  });

  test('usage counts thoughts as output; without any it is estimated', async () => {
    const runner = await stub.open('llm/v1/chat');
    const usage = {
      inputTokens: stubTokens('two words'),
      outputTokens: stubTokens(stubChatText('two words')),
    };
    expect((await ask(runner, chat('two words'))).usage).toEqual(usage);
    expect((await collect(streamOf(runner, chat('two words')))).at(-1)).toMatchObject({ usage });
    stub.reply({
      body: {
        candidates: [
          {
            content: { parts: [{ text: 'hm', thought: true }, { text: 'yes' }] },
            finishReason: 'MAX_TOKENS',
          },
        ],
        usageMetadata: { promptTokenCount: 2, candidatesTokenCount: 3, thoughtsTokenCount: 40 },
      },
    });
    expect(await ask(runner, chat('x'))).toMatchObject({
      output: { content: 'yes', finishReason: 'length' },
      usage: { inputTokens: 2, outputTokens: 43 },
    });
    stub.provider.behave({ answer: () => undefined, omitUsage: true });
    expect((await ask(runner, chat('abc'))).usage.inputTokens).toBe(1);
  });

  test('what is withheld ends with content_filter, be it the prompt or the answer', async () => {
    const runner = await stub.open('llm/v1/chat');
    const prompt = {
      promptFeedback: { blockReason: 'PROHIBITED_CONTENT' },
      usageMetadata: { promptTokenCount: 7 },
    };
    const answer = {
      candidates: [{ finishReason: 'SAFETY', safetyRatings: [] }],
      usageMetadata: { promptTokenCount: 7 },
    };
    for (const body of [prompt, answer]) {
      stub.reply({ body });
      expect(await ask(runner, chat('x'))).toMatchObject({
        output: { content: '', finishReason: 'content_filter' },
        usage: { inputTokens: 7, outputTokens: 0 },
      });
      stub.reply({
        headers: { 'content-type': 'text/event-stream' },
        body: `data: ${JSON.stringify(body)}\n\n`,
      });
      expect(await collect(streamOf(runner, chat('x')))).toEqual([
        { type: 'end', finishReason: 'content_filter', usage: { inputTokens: 7, outputTokens: 0 } },
      ]);
    }
    stub.reply({ body: { candidates: [{ finishReason: 'MALFORMED_FUNCTION_CALL' }] } });
    await expectCode('INVALID_RESPONSE', runner.invoke(chat('x')));
  });

  test('a body that ends before its reason was cut', async () => {
    const runner = await stub.open('llm/v1/chat');
    const body = 'data: {"candidates":[{"content":{"parts":[{"text":"half"}]}}]}\n\n';
    stub.reply({ headers: { 'content-type': 'text/event-stream' }, body });
    await expectCode('UPSTREAM_ERROR', collect(streamOf(runner, chat('x'))));
  });

  test('the wait that Google asks for stands in the details of the error', async () => {
    const details = [{ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '34.5s' }];
    const runner = await stub.open('llm/v1/chat');
    const body = [
      { error: { code: 429, message: 'Resource exhausted', status: 'RESOURCE_EXHAUSTED', details } },
    ];
    stub.reply({ status: 429, body });
    const error = await expectCode('RATE_LIMITED', runner.invoke(chat('x')));
    expect(error.retryAfterMs).toBe(34_500);
    expect(error.message).toContain('Resource exhausted');
  });

  test('Claude is asked with its version in the body and its name in the path', async () => {
    const runner = await stub.open('llm/v1/chat', { name: 'claude-sonnet-4@20250514' });
    await ask(runner, chat('x'));
    const base =
      '/v1/projects/project-1/locations/us-central1/publishers/anthropic/models/claude-sonnet-4@20250514';
    expect(stub.provider.requests.at(-1)?.url).toBe(`${base}:rawPredict`);
    expect(stub.sent()).toEqual({
      anthropic_version: 'vertex-2023-10-16',
      max_tokens: 1024,
      messages: [{ role: 'user', content: 'x' }],
    });
    await collect(streamOf(runner, chat('x')));
    expect(stub.provider.requests.at(-1)?.url).toBe(`${base}:streamRawPredict`);
    expect(stub.sent()).toMatchObject({ stream: true });
    await expectCode('WRONG_TASK', stub.open('llm/v1/embeddings', { name: 'claude-sonnet-4' }));
    await expectCode('WRONG_TASK', stub.open('llm/v1/completions'));
  });

  test('embeddings go many at a time, with the kind of task and the length asked for', async () => {
    const runner = await stub.open('llm/v1/embeddings');
    expect(runner.limits.maxInputs).toBe(250);
    const inputs = [{ text: 'a' }, { text: 'b c' }];
    const { items } = await runner.invoke(
      batchOf('llm/v1/embeddings', inputs, {
        dimensions: 16,
        extra: { task_type: 'RETRIEVAL_QUERY', autoTruncate: false },
      }),
    );
    expect(stub.sent()).toEqual({
      instances: [
        { content: 'a', task_type: 'RETRIEVAL_QUERY' },
        { content: 'b c', task_type: 'RETRIEVAL_QUERY' },
      ],
      parameters: { autoTruncate: false, outputDimensionality: 16 },
    });
    expect(items).toMatchObject([
      { output: { embedding: stubEmbedding('a', 16) } },
      { output: { embedding: stubEmbedding('b c', 16) } },
    ]);
    const tokens = items.reduce((sum, item) => sum + (item.ok ? item.usage.inputTokens : 0), 0);
    expect(tokens).toBe(stubTokens('a') + stubTokens('b c'));
    expect((await stub.open('llm/v1/embeddings', { name: 'gemini-embedding-001' })).limits.maxInputs).toBe(1);
  });

  test('one token serves all requests at once and after; a revoked one is renewed without a failure', async () => {
    const before = stub.provider.tokens.issued;
    const runner = await stub.open('llm/v1/chat');
    await Promise.all(Array.from({ length: 8 }, (_, row) => runner.invoke(chat(`row ${row}`))));
    expect(stub.provider.tokens.issued).toBe(before + 1);
    stub.provider.tokens.revokeAll();
    await ask(runner, chat('x'));
    stub.provider.tokens.revokeAll();
    await collect(streamOf(runner, chat('x')));
    expect(stub.provider.tokens.issued).toBe(before + 3);
  });

  test('a key that is not the account’s, and a text that is no account, are refused without showing it', async () => {
    const other = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    });
    const audience = `${stub.provider.url}/google/token`;
    const account = JSON.stringify({
      private_key: other.privateKey,
      client_email: EMAIL,
      token_uri: audience,
    });
    const refused = await stub.open('llm/v1/chat', { vertex: { ...vertex, privateKey: account } });
    const error = await expectCode('UPSTREAM_AUTH', refused.invoke(chat('x')));
    expect(error.message).toContain('invalid_grant: Invalid JWT Signature.');
    for (const text of [
      'not json',
      '{}',
      JSON.stringify({ client_email: EMAIL, private_key: 'secret-pem' }),
    ]) {
      const runner = await stub.open('llm/v1/chat', { vertex: { ...vertex, privateKey: text } });
      const wrong = await expectCode('INVALID_PARAMETER', runner.invoke(chat('x')));
      expect(wrong.message).not.toContain(text);
      expect(wrong.message).not.toContain('secret-pem');
    }
    const { privateKey: _, ...bare } = vertex;
    await expectCode('INVALID_PARAMETER', stub.open('llm/v1/chat', { vertex: bare }));
  });

  test('addresses are those of the region, and names those of Google and Anthropic', () => {
    const of = (name: string, region = 'us-central1') =>
      addressOf({
        name,
        provider: 'google-cloud-vertex-ai',
        task: 'llm/v1/chat',
        vertex: { projectId: 'p', region },
      });
    expect(of('gemini-2.5-pro').baseUrl).toBe('https://us-central1-aiplatform.googleapis.com');
    expect(of('gemini-2.5-pro', 'global')).toMatchObject({
      baseUrl: 'https://aiplatform.googleapis.com',
      path: '/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-pro',
    });
    expect(of('gemini-2.5-pro', 'eu').baseUrl).toBe('https://aiplatform.eu.rep.googleapis.com');
    expect(of('endpoints/123').path).toBe('/v1/projects/p/locations/us-central1/endpoints/123');
    expect(of('publishers/anthropic/models/claude-x').publisher).toBe('anthropic');
    expect(() => of('publishers/meta/models/llama')).toThrow('no model of Vertex AI');
    expect(() => of('../../other')).toThrow('no model of Vertex AI');
    expect(() => of('gemini', 'x.evil.com/')).toThrow('no region');
  });
});

const half = 'data: {"candidates":[{"content":{"role":"model","parts":[{"text":"half"}]}}]}\n\n';
describeFailures('google-cloud-vertex-ai', {
  engine: vertexEngine,
  modelOf,
  secrets,
  prepare: know,
  hidden: [`ya29.${'a1'.repeat(30)}`, privateKey.slice(30, 90).replaceAll('\n', '')],
  error: (message) => ({ body: { error: { code: 0, message, status: 'SOME_STATUS' } } }),
  inside: {
    code: 'RATE_LIMITED',
    answer: {
      headers: { 'content-type': 'text/event-stream' },
      body: `${half}data: {"error":{"code":429,"message":"exhausted","status":"RESOURCE_EXHAUSTED"}}\n\n`,
    },
  },
});

describe('schemas for Gemini', () => {
  const cases: readonly (readonly [string, JsonObject, JsonObject])[] = [
    ['type lists become nullable', { type: ['string', 'null'] }, { type: 'string', nullable: true }],
    [
      'references are put in place',
      {
        $ref: '#/$defs/A',
        $defs: { A: { type: 'object', properties: { x: { $ref: '#/$defs/B' } } }, B: { type: 'integer' } },
      },
      { type: 'object', properties: { x: { type: 'integer' } } },
    ],
    [
      'oneOf becomes anyOf',
      { oneOf: [{ type: 'string' }, { type: 'integer' }] },
      { anyOf: [{ type: 'string' }, { type: 'integer' }] },
    ],
    [
      'an optional one is nullable',
      { anyOf: [{ type: 'string' }, { type: 'null' }] },
      { nullable: true, type: 'string' },
    ],
    ['choices of numbers keep only their type', { enum: [1, 2] }, { type: 'integer' }],
    ['a constant is the only choice', { const: 'x' }, { type: 'string', enum: ['x'] }],
    [
      'what is unknown is left out',
      { type: 'string', format: 'email', $schema: 'x', default: 'y' },
      { type: 'string' },
    ],
  ];
  test.each(cases)('%s', (_, schema, expected) => {
    expect(toGeminiSchema(schema)).toEqual(expected);
  });

  test('a schema that refers to itself comes to an end', () => {
    const schema = {
      $ref: '#/$defs/N',
      $defs: { N: { type: 'object', properties: { next: { $ref: '#/$defs/N' } } } },
    };
    expect(JSON.stringify(toGeminiSchema(schema)).length).toBeLessThan(2_000);
  });
});
