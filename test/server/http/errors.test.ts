// Failures in the dialect of each path: which shape, and what a caller who was refused for a limit is told.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { createHttpApp } from '../../../src/server/http/app.ts';
import { dialectOf } from '../../../src/server/http/errors.ts';
import { createFakeDeps } from './fake-deps.ts';

const limited = new ServingError('RATE_LIMIT_EXCEEDED', 'Too many tokens.', {
  retryAfterMs: 1500,
  details: { limit_type: 'input_tokens_per_minute', limit: 200, current: 215, retry_after: 2, secret: 'no' },
});

function appThatFails(error: unknown) {
  const deps = createFakeDeps();
  deps.answer = () => Promise.reject(error);
  return createHttpApp(deps);
}
const ask = async (error: unknown, path: string, body: object) => {
  const response = await appThatFails(error).request(path, { method: 'POST', body: JSON.stringify(body) });
  return { headers: response.headers, status: response.status, body: await response.json() };
};
const chat = { model: 'chat', messages: [{ role: 'user', content: 'x' }] };

describe('a path has the dialect of its API', () => {
  it.each([
    ['/v1/chat/completions', 'openai'],
    ['/v1/nothing', 'openai'],
    ['/v1/messages', 'anthropic'],
    ['/v1/messages/count_tokens', 'anthropic'],
    ['/v1/messagesX', 'openai'],
    ['/serving-endpoints/anthropic/v1/messages', 'anthropic'],
    ['/serving-endpoints/anthropic/invocations', 'databricks'],
    ['/serving-endpoints/responses', 'openai'],
    ['/serving-endpoints/responses/invocations', 'databricks'],
    ['/ai-gateway/mlflow/v1/chat/completions', 'openai'],
    ['/gateway/anthropic/v1/messages', 'anthropic'],
    ['/gateway/iris/mlflow/invocations', 'databricks'],
    ['/v2/models/x', 'kserve'],
    ['/v2x', 'databricks'],
    ['/api/2.0/serving-endpoints', 'databricks'],
    ['/invocations', 'databricks'],
  ])('%s speaks %s', (path, dialect) => {
    expect(dialectOf(path)).toBe(dialect);
  });
});

describe('a limit that is reached', () => {
  const facts = { limit_type: 'input_tokens_per_minute', limit: 200, current: 215, retry_after: 2 };

  it('tells OpenAI clients which one, how far, and when to come back', async () => {
    const { headers, status, body } = await ask(limited, '/v1/chat/completions', chat);
    expect(status).toBe(429);
    expect(headers.get('retry-after')).toBe('2');
    expect(headers.get('retry-after-ms')).toBe('1500');
    expect(body).toEqual({
      error: {
        message: 'Too many tokens.',
        type: 'rate_limit_error',
        code: limited.code,
        param: null,
        ...facts,
      },
    });
  });

  it('tells Databricks clients the same, with RetryInfo', async () => {
    const { headers, body } = await ask(limited, '/serving-endpoints/chat/invocations', chat);
    expect(headers.get('retry-after')).toBe('2');
    expect(body).toMatchObject({
      error_code: 'REQUEST_LIMIT_EXCEEDED',
      ...facts,
      details: [
        { '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason: 'RATE_LIMIT_EXCEEDED' },
        { '@type': 'type.googleapis.com/google.rpc.RetryInfo', retry_delay: '1.5s' },
      ],
    });
    expect(JSON.stringify(body)).not.toContain('secret');
  });

  it('tells the others in their own words', async () => {
    expect((await ask(limited, '/v1/messages', chat)).body).toMatchObject({
      type: 'error',
      error: { type: 'rate_limit_error', message: 'Too many tokens.' },
    });
    const tensors = { inputs: [{ name: 'a', datatype: 'FP32', shape: [1], data: [1] }] };
    expect(await ask(limited, '/v2/models/iris/infer', tensors)).toMatchObject({
      status: 429,
      body: { error: 'Too many tokens.' },
    });
  });
});

const tool = { name: 'f', description: 'd', parameters: { type: 'object' } };
const called = { id: 'a', type: 'function', function: { name: 'f', arguments: '{}' } };
const image = { type: 'image_url', image_url: { url: 'data:,x' } };
const schema = { name: 's', schema: { type: 'object' } };
const table = { columns: ['a'], data: [[1]] };
const VALID: readonly (readonly [path: string, body: object])[] = [
  [
    '/v1/chat/completions',
    {
      ...chat,
      messages: [
        { role: 'user', content: [{ type: 'text', text: 'x' }, image] },
        { role: 'assistant', content: null, tool_calls: [called] },
        { role: 'tool', tool_call_id: 'a', content: '1' },
      ],
      tools: [{ type: 'function', function: tool }],
      tool_choice: { type: 'function', function: { name: 'f' } },
      response_format: { type: 'json_schema', json_schema: schema },
      stream: true,
      stream_options: { include_usage: true },
      n: 2,
      stop: ['x'],
      usage_context: { a: 'b' },
      extra_params: { a: 1 },
    },
  ],
  ['/v1/completions', { model: 'text', prompt: ['a', 'b'], echo: true, n: 2 }],
  ['/v1/embeddings', { model: 'vectors', input: ['a'], dimensions: 3, encoding_format: 'base64' }],
  [
    '/v1/responses',
    {
      model: 'chat',
      input: [
        { role: 'user', content: [{ type: 'input_text', text: 'x' }] },
        { type: 'function_call', call_id: 'a', name: 'f', arguments: '{}' },
        { type: 'function_call_output', call_id: 'a', output: 'x' },
      ],
      tools: [{ type: 'function', ...tool }],
      tool_choice: { type: 'allowed_tools', mode: 'auto', tools: [{ name: 'f' }] },
      text: { format: { type: 'json_schema', ...schema } },
      reasoning: { effort: 'low' },
      metadata: { a: 'b' },
      stream: true,
    },
  ],
  [
    '/v1/messages',
    {
      model: 'chat',
      max_tokens: 5,
      system: [{ type: 'text', text: 's' }],
      messages: [
        { role: 'user', content: [{ type: 'image', source: { type: 'url', url: 'x' } }] },
        { role: 'assistant', content: [{ type: 'tool_use', id: 'a', name: 'f', input: { a: 1 } }] },
        { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'a', content: 'x' }] },
      ],
      tools: [{ name: 'f', input_schema: { type: 'object' } }],
      tool_choice: { type: 'tool', name: 'f' },
      metadata: { user_id: 'u' },
      stream: true,
    },
  ],
  [
    '/v2/models/iris/infer',
    {
      id: 'x',
      inputs: [{ name: 'a', datatype: 'FP32', shape: [2, 1], data: [[1], [2]] }],
      outputs: [{ name: 'predictions' }],
    },
  ],
  ['/v2/models/vectors/infer', { inputs: [{ name: 'a', datatype: 'BYTES', shape: [1], data: ['x'] }] }],
  ['/invocations', { dataframe_split: table, params: { a: 1 }, client_request_id: 'x' }],
  ['/invocations', { dataframe_records: [{ a: 1 }] }],
  ['/invocations', { inputs: { a: [1, 2], b: ['x', 'y'] } }],
];

/** The value with what lies at a place replaced; numbers beyond the members count around. */
function replaceAt(value: unknown, [at, ...further]: readonly number[], by: unknown): unknown {
  if (at === undefined || typeof value !== 'object' || value === null) return by;
  const names = Object.keys(value);
  const name = names[at % Math.max(1, names.length)];
  if (name === undefined) return by;
  const members = value as Readonly<Record<string, unknown>>;
  if (Array.isArray(value))
    return value.map((member, index) => (String(index) === name ? replaceAt(member, further, by) : member));
  return { ...members, [name]: replaceAt(members[name], further, by) };
}

describe('whatever is sent', () => {
  const paths = [
    '/v1/chat/completions',
    '/v1/completions',
    '/v1/embeddings',
    '/v1/responses',
    '/v1/messages',
    '/v1/messages/count_tokens',
    '/v2/models/iris/infer',
    '/v2/models/vectors/infer',
    '/invocations',
    '/serving-endpoints/chat/invocations',
    '/serving-endpoints/iris/invocations',
    '/serving-endpoints/vectors/served-models/x/invocations',
  ];
  /** Values from nothing to nonsense, with the words of the APIs among them. */
  const words = fc.constantFrom(
    ...[
      'text',
      'image_url',
      'function',
      'tool_use',
      'tool_result',
      'message',
      'function_call',
      'user',
      'tool',
    ],
    ...['assistant', 'json_schema', 'auto', 'FP32', 'BYTES', 'a', '', '__proto__', '\u0000', '\ud800'],
  );
  const keys = fc.constantFrom(
    ...['type', 'text', 'role', 'content', 'name', 'id', 'input', 'inputs', 'outputs', 'messages', 'prompt'],
    ...[
      'tools',
      'function',
      'tool_choice',
      'response_format',
      'schema',
      'data',
      'shape',
      'datatype',
      'columns',
    ],
    ...['stream', 'n', 'params', 'instances', 'dataframe_split', 'dataframe_records', 'system', 'metadata'],
    ...[
      'tool_calls',
      'arguments',
      'call_id',
      'output',
      'source',
      'extra_params',
      'usage_context',
      '__proto__',
    ],
  );
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'medium', withCrossShrink: true },
      fc.constantFrom(null, true, false, 0, -1, 1.5, 1e308, 2 ** 53),
      words,
      fc.array(tie('value'), { maxLength: 4 }),
      fc.array(fc.tuple(keys, tie('value')), { maxLength: 5 }).map((members) => Object.fromEntries(members)),
    ),
  }));
  const model = fc.constantFrom('chat', 'text', 'vectors', 'iris', 'none');
  const body = fc
    .tuple(model, fc.array(fc.tuple(keys, value), { maxLength: 6 }))
    .map(([name, members]) => ({ ...Object.fromEntries(members), model: name }));

  it('no JSON body is ever a defect of the server', async () => {
    const app = createHttpApp(createFakeDeps());
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...paths), body, async (path, sent) => {
        const response = await app.request(path, { method: 'POST', body: JSON.stringify(sent) });
        await response.text();
        // 501: this server counts no tokens.
        expect(response.status === 501 || response.status < 500).toBe(true);
      }),
      { numRuns: 600 },
    );
  });

  it('no valid body in which one thing was replaced is ever a defect of the server', async () => {
    const app = createHttpApp(createFakeDeps());
    const place = fc.array(fc.nat(9), { minLength: 1, maxLength: 6 });
    const fields = fc.option(fc.tuple(keys, value), { nil: undefined });
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...VALID),
        place,
        value,
        fields,
        async ([path, valid], at, wild, more) => {
          const sent: unknown = replaceAt(valid, at, wild);
          const added = more ? { ...(sent as object), [more[0]]: more[1] } : sent;
          const response = await app.request(path, { method: 'POST', body: JSON.stringify(added) });
          await response.text();
          expect(response.status === 501 || response.status < 500).toBe(true);
        },
      ),
      { numRuns: 1500 },
    );
  });

  it('no bytes with any content type are ever a defect of the server', async () => {
    const app = createHttpApp(createFakeDeps());
    const types = fc.constantFrom(
      'application/json',
      'text/csv',
      'text/csv;charset=x',
      'x',
      ';;=',
      'text/plain;',
    );
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.stringMatching(/^[a,"\n\r;1. ]{0,60}$/).map((text) => new TextEncoder().encode(text)),
    );
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...paths), types, bytes, async (path, type, sent) => {
        const headers = { 'content-type': type };
        const response = await app.request(path, { method: 'POST', body: sent, headers });
        expect(response.status).toBeLessThan(500);
      }),
      { numRuns: 500 },
    );
  });
});
