// What is other than OpenAI in servers of its API: Azure with a key and with Entra's tokens, custom servers, and
// the endpoints of a Databricks workspace.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ExternalModel } from '#core/endpoint.ts';
import { customEngine, databricksEngine, openaiEngine } from '#engines/openai/openai.ts';
import { DATABRICKS_TOKEN } from '../stub/databricks.ts';
import { stubChatText, stubTokens } from '../stub/provider.ts';
import { ENTRA } from '../stub/tokens.ts';
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

const KEY = 'sk-test-1234567890abcdef';
const secrets = {
  '{{env/KEY}}': KEY,
  '{{env/ENTRA}}': ENTRA.clientSecret,
  '{{env/DATABRICKS}}': DATABRICKS_TOKEN,
};
const data = (...chunks: readonly object[]) => ({
  headers: { 'content-type': 'text/event-stream' },
  body: chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join(''),
});
const half = { choices: [{ index: 0, delta: { content: 'half' }, finish_reason: null }] };

describe('azure', () => {
  const modelOf: ModelOf = ({ url }) => ({
    name: 'gpt-4o-mini',
    provider: 'openai',
    baseUrl: url,
    apiType: 'azure',
    apiKey: '{{env/KEY}}',
    deployment: 'my deployment',
  });
  let stub: ProviderStub;
  beforeAll(async () => {
    stub = await startProviderStub(openaiEngine, modelOf, secrets);
  });
  afterEach(() => stub.reset());
  afterAll(() => stub.close());

  test('the deployment stands in the path, the model in the body, the key in its own header', async () => {
    const runner = await stub.open('llm/v1/chat', { baseUrl: `${stub.provider.url}/openai/` });
    await ask(runner, chat('x'));
    const [request] = stub.provider.requests;
    expect(request?.url).toBe('/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21');
    expect(request?.headers['api-key']).toBe(KEY);
    expect(request?.headers.authorization).toBeUndefined();
    expect(stub.sent().model).toBe('gpt-4o-mini');
  });

  test('usage of streams is asked for only where the version of the API knows the question', async () => {
    const old = await stub.open('llm/v1/chat', { apiVersion: '2024-02-01' });
    await collect(streamOf(old, chat('x')));
    expect(stub.sent()).not.toHaveProperty('stream_options');
    const young = await stub.open('llm/v1/chat', { apiVersion: '2025-01-01-preview' });
    await collect(streamOf(young, chat('x')));
    expect(stub.sent()).toHaveProperty('stream_options');
  });

  test('without a base URL there is no resource to ask', async () => {
    const { externalModel, ...target } = stub.target('llm/v1/chat');
    const { baseUrl: _, ...model } = externalModel ?? { name: '', provider: 'openai', task: 'llm/v1/chat' };
    await expectCode(
      'INVALID_PARAMETER',
      openaiEngine.open({ ...target, externalModel: model }, contextOf()),
    );
  });
});

describe('azuread', () => {
  const modelOf: ModelOf = ({ url }) => ({
    name: 'gpt-4o-mini',
    provider: 'openai',
    baseUrl: url,
    apiType: 'azuread',
    entra: {
      tenantId: ENTRA.tenantId,
      clientId: ENTRA.clientId,
      clientSecret: '{{env/ENTRA}}',
      authorityUrl: `${url}/`,
    },
  });
  let stub: ProviderStub;
  beforeAll(async () => {
    stub = await startProviderStub(openaiEngine, modelOf, secrets);
  });
  afterEach(() => stub.reset());
  afterAll(() => stub.close());

  const guarded = (change?: Partial<ExternalModel>) => {
    stub.provider.behave({ needsToken: true });
    return stub.open('llm/v1/chat', change);
  };

  test('one token serves all that ask at once and those after them', async () => {
    const before = stub.provider.tokens.issued;
    const runner = await guarded();
    await Promise.all(Array.from({ length: 16 }, (_, row) => runner.invoke(chat(`row ${row}`))));
    await collect(streamOf(runner, chat('x')));
    expect(stub.provider.tokens.issued).toBe(before + 1);
    const { headers } = stub.provider.requests[0] ?? {};
    expect(headers?.authorization).toBe(`Bearer stub-access-token-${before + 1}`);
    expect(headers?.['api-key']).toBeUndefined();
  });

  test('a token that the provider refuses is renewed once, also for a stream', async () => {
    const runner = await guarded();
    await ask(runner, chat('x'));
    const before = stub.provider.tokens.issued;
    stub.provider.tokens.revokeAll();
    await Promise.all([runner.invoke(chat('a')), runner.invoke(chat('b'))]);
    expect(stub.provider.tokens.issued).toBe(before + 1);
    stub.provider.tokens.revokeAll();
    expect(textOf(await collect(streamOf(runner, chat('x'))))).toBe(stubChatText('x'));
    expect(stub.provider.tokens.issued).toBe(before + 2);
  });

  test('a provider that refuses every token is asked twice and no more', async () => {
    const runner = await stub.open('llm/v1/chat');
    stub.reply({ status: 401, body: { error: { message: 'no' } } });
    await expectCode('UPSTREAM_AUTH', runner.invoke(chat('x')));
    expect(stub.provider.ledger().requests).toBe(2);
    stub.reply({ status: 403, body: { error: { message: 'no' } } });
    await expectCode('UPSTREAM_AUTH', runner.invoke(chat('x')));
    expect(stub.provider.ledger().requests).toBe(3);
  });

  test('a wrong client secret is refused by its identity provider and shown by nobody', async () => {
    const secret = 'wrong-entra-secret';
    const runner = await guarded({
      entra: {
        tenantId: ENTRA.tenantId,
        clientId: ENTRA.clientId,
        clientSecret: secret,
        authorityUrl: stub.provider.url,
      },
    });
    const error = await expectCode('UPSTREAM_AUTH', runner.invoke(chat('x')));
    expect(error.message).toContain('AADSTS7000215');
    expect(error.message).not.toContain(secret);
    expect(stub.provider.ledger().requests).toBe(0);
    const unknown = await guarded({
      entra: {
        tenantId: ENTRA.tenantId,
        clientId: 'other',
        clientSecret: '{{env/ENTRA}}',
        authorityUrl: stub.provider.url,
      },
    });
    await expectCode('UPSTREAM_AUTH', unknown.invoke(chat('x')));
  });

  test('who goes away while the token is asked for is let go; the others get theirs', async () => {
    const runner = await guarded();
    const abort = new AbortController();
    const left = runner.invoke(chat('x', {}, abort.signal));
    const stays = runner.invoke(chat('y'));
    abort.abort();
    await expectCode('CANCELLED', left);
    expect((await stays).items[0]?.ok).toBe(true);
  });

  test('without Entra credentials it is refused when it is opened', async () => {
    const { externalModel, ...target } = stub.target('llm/v1/chat');
    const { entra: _, ...model } = externalModel ?? { name: '', provider: 'openai', task: 'llm/v1/chat' };
    await expectCode(
      'INVALID_PARAMETER',
      openaiEngine.open({ ...target, externalModel: model }, contextOf()),
    );
  });
});

describe('custom', () => {
  const modelOf: ModelOf = ({ url }) => ({
    name: 'my-model',
    provider: 'custom',
    baseUrl: `${url}/v1`,
    apiKey: '{{env/KEY}}',
  });
  let stub: ProviderStub;
  beforeAll(async () => {
    stub = await startProviderStub(customEngine, modelOf, secrets);
  });
  afterEach(() => stub.reset());
  afterAll(() => stub.close());

  const open = (task: ExternalModel['task']) => () =>
    customEngine.open(stub.target(task), contextOf(secrets));
  describeEngine('custom', {
    task: 'llm/v1/chat',
    open: open('llm/v1/chat'),
    inputs: ['What is a duck?', 'One'].map(user),
  });
  describeEngine('custom', {
    task: 'llm/v1/embeddings',
    open: open('llm/v1/embeddings'),
    inputs: ['a duck', 'a goose'].map((text) => ({ text })),
  });

  test('the key goes as a bearer token, or in the header that the server wants', async () => {
    await ask(await stub.open('llm/v1/chat'), chat('x'));
    expect(stub.provider.requests[0]?.headers.authorization).toBe(`Bearer ${KEY}`);
    await ask(await stub.open('llm/v1/chat', { apiKeyHeader: 'X-My-Key' }), chat('x'));
    expect(stub.provider.requests[1]?.headers['x-my-key']).toBe(KEY);
    expect(stub.provider.requests[1]?.headers.authorization).toBeUndefined();
  });

  test('the address may be that of the API or of the task itself', async () => {
    for (const baseUrl of [`${stub.provider.url}/v1/`, `${stub.provider.url}/v1/chat/completions`]) {
      await ask(await stub.open('llm/v1/chat', { baseUrl }), chat('x'));
      expect(stub.provider.requests.at(-1)?.url).toBe('/v1/chat/completions');
    }
    const { externalModel, ...target } = stub.target('llm/v1/chat');
    const { baseUrl: _, ...model } = externalModel ?? { name: '', provider: 'custom', task: 'llm/v1/chat' };
    await expectCode(
      'INVALID_PARAMETER',
      customEngine.open({ ...target, externalModel: model }, contextOf()),
    );
  });

  describeFailures('custom', {
    engine: customEngine,
    modelOf,
    secrets,
    hidden: [KEY],
    error: (message) => ({ body: { error: { message, type: 'x', code: null } } }),
    inside: { code: 'UPSTREAM_ERROR', answer: data(half, { error: 'the server broke' }) },
  });
});

describe('databricks-model-serving', () => {
  const modelOf: ModelOf = ({ url }) => ({
    name: 'my-endpoint',
    provider: 'databricks-model-serving',
    baseUrl: url,
    apiKey: '{{env/DATABRICKS}}',
  });
  let stub: ProviderStub;
  beforeAll(async () => {
    stub = await startProviderStub(databricksEngine, modelOf, secrets);
  });
  afterEach(() => stub.reset());
  afterAll(() => stub.close());

  const open = (task: ExternalModel['task'], name?: string) => () =>
    databricksEngine.open(stub.target(task, name === undefined ? {} : { name }), contextOf(secrets));
  for (const name of ['my-endpoint', 'reasoning-endpoint']) {
    describeEngine(`databricks-model-serving (${name})`, {
      task: 'llm/v1/chat',
      open: open('llm/v1/chat', name),
      inputs: ['What is a duck?', 'One', 'Two lines\nof text'].map(user),
    });
  }
  describeEngine('databricks-model-serving', {
    task: 'llm/v1/completions',
    open: open('llm/v1/completions'),
    inputs: [{ prompt: 'Once upon a time' }, { prompt: 'Then' }],
  });
  describeEngine('databricks-model-serving', {
    task: 'llm/v1/embeddings',
    open: open('llm/v1/embeddings'),
    inputs: ['a duck', 'a goose on the lake'].map((text) => ({ text })),
  });

  test('only fields that it knows are sent, to the invocations of the endpoint', async () => {
    const runner = await stub.open('llm/v1/chat', {
      baseUrl: `${stub.provider.url}/serving-endpoints/`,
      name: 'o3-mini',
    });
    const extra = { user: 'u', reasoning_effort: 'low', parallel_tool_calls: true };
    await ask(runner, chat('x', { maxTokens: 9, seed: 3, extra }));
    expect(stub.provider.requests[0]?.url).toBe('/serving-endpoints/o3-mini/invocations');
    expect(stub.sent()).toEqual({
      messages: [{ role: 'user', content: 'x' }],
      max_tokens: 9,
      reasoning_effort: 'low',
    });
    await collect(streamOf(runner, chat('x', { extra: { stream_options: { include_usage: true } } })));
    expect(stub.sent()).toEqual({ messages: [{ role: 'user', content: 'x' }], stream: true });
    const embedding = await stub.open('llm/v1/embeddings');
    await embedding.invoke(batchOf('llm/v1/embeddings', [{ text: 'a' }], { extra: { instruction: 'find' } }));
    expect(stub.sent()).toEqual({ input: ['a'], instruction: 'find' });
  });

  test('usage is that of the last chunk, for each has the count so far', async () => {
    const runner = await stub.open('llm/v1/chat');
    const events = await collect(streamOf(runner, chat('two words')));
    const usage = {
      inputTokens: stubTokens('two words'),
      outputTokens: stubTokens(stubChatText('two words')),
    };
    expect(events.at(-1)).toEqual({ type: 'end', finishReason: 'stop', usage });
  });

  test('tool calls, whole and streamed', async () => {
    const runner = await stub.open('llm/v1/chat');
    const tools = [{ name: 'w', parameters: { type: 'object', properties: { city: { type: 'string' } } } }];
    const parameters = { tools, toolChoice: 'required' } as const;
    const { output } = await ask(runner, chat('Bonn', parameters));
    expect(output).toMatchObject({ toolCalls: [{ name: 'w', arguments: '{"city":"Bonn"}' }] });
    expect(argumentsOf(await collect(streamOf(runner, chat('Bonn', parameters))))).toBe('{"city":"Bonn"}');
  });

  test('a token that is not known is UPSTREAM_AUTH with the words of the workspace', async () => {
    const runner = await stub.open('llm/v1/chat', { apiKey: 'dapi-wrong' });
    const error = await expectCode('UPSTREAM_AUTH', runner.invoke(chat('x')));
    expect(error.message).toContain('Invalid access token.');
    expect(error.details).toMatchObject({ status: 403, code: 'PERMISSION_DENIED' });
  });

  describeFailures('databricks-model-serving', {
    engine: databricksEngine,
    modelOf,
    secrets,
    hidden: [DATABRICKS_TOKEN],
    error: (message) => ({ body: { error_code: 'SOME_CODE', message } }),
    inside: {
      code: 'RATE_LIMITED',
      answer: data(half, { error_code: 'REQUEST_LIMIT_EXCEEDED', message: 'too many tokens' }),
    },
  });
});
