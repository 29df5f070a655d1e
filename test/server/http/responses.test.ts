// The Responses API with the real `openai` package over a real socket: items in, items out, events in order.
import OpenAI from 'openai';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ChatOutput } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { type HttpServer, startHttpServer } from '../../../src/server/http/server.ts';
import { createFakeDeps, type FakeDeps, failingStream } from './fake-deps.ts';

let deps: FakeDeps;
let server: HttpServer;
let client: OpenAI;
beforeEach(async () => {
  deps = createFakeDeps();
  server = await startHttpServer(deps, { port: 0 });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'unused', maxRetries: 0 });
});
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

const weather = {
  type: 'function' as const,
  name: 'weather',
  description: 'today',
  parameters: { type: 'object' },
  strict: null,
};

describe('a response', () => {
  it('to a text has that text as a user message, the instructions before it, and usage', async () => {
    const { data, response } = await client.responses
      .create({
        model: 'chat',
        input: 'hello my friend',
        instructions: 'be brief',
        max_output_tokens: 9,
        temperature: 0,
        reasoning: { effort: 'low' },
        metadata: { ticket: '7' },
      })
      .withResponse();
    expect(data.output_text).toBe('hello my friend');
    expect(data.status).toBe('completed');
    expect(data.metadata).toEqual({ ticket: '7' });
    expect(data).toMatchObject({ store: false });
    expect(data.usage).toMatchObject({ input_tokens: 2, output_tokens: 3, total_tokens: 5 });
    expect(response.headers.get('served-model-name')).toBe('chat-1');
    expect(messages()).toEqual([
      { role: 'system', content: 'be brief' },
      { role: 'user', content: 'hello my friend' },
    ]);
    expect(deps.calls[0]).toMatchObject({
      parameters: { maxTokens: 9, temperature: 0, extra: { reasoning_effort: 'low' } },
      client: { apiType: 'openai/v1/responses', path: '/v1/responses' },
    });
    expect(deps.calls[0]?.parameters.extra).not.toHaveProperty('metadata');
  });

  it('to items sends a whole conversation, tool calls joined to the message they belong to', async () => {
    await client.responses.create({
      model: 'chat',
      input: [
        { role: 'developer', content: 'be brief' },
        {
          role: 'user',
          content: [
            { type: 'input_text', text: 'see' },
            { type: 'input_image', image_url: 'data:,x', detail: 'auto' },
          ],
        },
        { type: 'reasoning', id: 'rs_1', summary: [] },
        { role: 'assistant', content: 'let me look' },
        { type: 'function_call', call_id: 'a', name: 'weather', arguments: '{"city":"Rome"}' },
        { type: 'function_call', call_id: 'b', name: 'weather', arguments: '{"city":"Oslo"}' },
        { type: 'function_call_output', call_id: 'a', output: 'sunny' },
        { type: 'function_call_output', call_id: 'b', output: [{ type: 'input_text', text: 'snow' }] },
      ],
    });
    expect(messages()).toEqual([
      { role: 'system', content: 'be brief' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'see' },
          { type: 'image_url', url: 'data:,x' },
        ],
      },
      {
        role: 'assistant',
        content: 'let me look',
        toolCalls: [
          { id: 'a', name: 'weather', arguments: '{"city":"Rome"}' },
          { id: 'b', name: 'weather', arguments: '{"city":"Oslo"}' },
        ],
      },
      { role: 'tool', toolCallId: 'a', content: 'sunny' },
      { role: 'tool', toolCallId: 'b', content: 'snow' },
    ]);
  });

  it('passes on tools, a choice among them, and a schema for the answer', async () => {
    await client.responses.create({
      model: 'chat',
      input: 'x',
      tools: [weather, { ...weather, name: 'time' }],
      tool_choice: { type: 'allowed_tools', mode: 'required', tools: [{ type: 'function', name: 'time' }] },
      text: { format: { type: 'json_schema', name: 'town', schema: { type: 'object' }, strict: true } },
    });
    expect(deps.calls[0]?.parameters).toMatchObject({
      tools: [{ name: 'time', description: 'today', parameters: { type: 'object' } }],
      toolChoice: 'required',
      responseFormat: { type: 'json_schema', name: 'town', schema: { type: 'object' }, strict: true },
    });
  });

  it('with tool calls has them as items of their own', async () => {
    answerWith({
      content: null,
      toolCalls: [{ id: 'call_1', name: 'weather', arguments: '{"city":"Rome"}' }],
      finishReason: 'tool_calls',
    });
    const response = await client.responses.create({ model: 'chat', input: 'x', tools: [weather] });
    expect(response.output).toMatchObject([
      {
        type: 'function_call',
        call_id: 'call_1',
        name: 'weather',
        arguments: '{"city":"Rome"}',
        status: 'completed',
      },
    ]);
    expect(response.status).toBe('completed');
  });

  it('that was cut off is incomplete and says why', async () => {
    answerWith({ content: 'half', finishReason: 'length' });
    const response = await client.responses.create({ model: 'chat', input: 'x' });
    expect(response.status).toBe('incomplete');
    expect(response.incomplete_details).toEqual({ reason: 'max_output_tokens' });
  });

  it.each([
    [{ background: true }, "'background' is true"],
    [{ store: true }, "'store' is true"],
    [{ conversation: 'conv_1' }, '\'conversation\' is "conv_1"'],
    [{ previous_response_id: 'resp_1' }, 'send all items of the conversation in input'],
    [{ service_tier: 'flex' }, '\'service_tier\' is "flex"'],
    [{ tools: [{ type: 'web_search' }] }, '\'tools[0].type\' is "web_search"'],
    [{ input: [{ type: 'item_reference', id: 'x' }] }, '\'input[0].type\' is "item_reference"'],
    [{ input: [{ role: 'user', content: [{ type: 'input_file' }] }] }, 'a part is input_text'],
    [{ input: [{ type: 'reasoning' }] }, 'only reasoning'],
  ])('with %j is refused and told the way out', async (fields, message) => {
    const asked = client.responses.create({ model: 'chat', input: 'x', ...fields } as never);
    await expect(asked).rejects.toBeInstanceOf(OpenAI.BadRequestError);
    await expect(asked).rejects.toThrow(message);
    expect(deps.calls).toHaveLength(0);
  });

  it('takes fields that say what is done anyway, and names those it does not know', async () => {
    const fields = { store: false, background: false, service_tier: 'auto', include: [], colour: 'red' };
    const { response } = await client.responses
      .create({ model: 'chat', input: 'x', ...fields } as never)
      .withResponse();
    expect(response.headers.get('x-duckserve-ignored')).toBe('background, include, colour');
    expect(deps.calls[0]?.parameters.extra).toBeUndefined();
  });
});

describe('a streamed response', () => {
  it('has every event of a text in order, numbered without a gap, and no [DONE]', async () => {
    const stream = await client.responses.create({ model: 'chat', input: 'hello my friend', stream: true });
    const events = [];
    for await (const event of stream) events.push(event);
    expect(events.map((event) => event.type)).toEqual([
      'response.created',
      'response.in_progress',
      'response.output_item.added',
      'response.content_part.added',
      'response.output_text.delta',
      'response.output_text.delta',
      'response.output_text.delta',
      'response.output_text.done',
      'response.content_part.done',
      'response.output_item.done',
      'response.completed',
    ]);
    expect(events.map((event) => event.sequence_number)).toEqual(events.map((_, index) => index));
    const last = events.at(-1);
    expect(last?.type === 'response.completed' && last.response.usage?.total_tokens).toBe(5);
    const raw = await fetch(`${server.url}/v1/responses`, {
      method: 'POST',
      body: JSON.stringify({ model: 'chat', input: 'x', stream: true }),
    });
    expect(await raw.text()).not.toContain('[DONE]');
  });

  it('adds up to the whole response in the client', async () => {
    deps.events = async function* () {
      yield { type: 'delta', text: 'let me ' };
      yield { type: 'delta', text: 'look' };
      yield { type: 'tool_call', index: 0, id: 'a', name: 'weather', arguments: '' };
      yield { type: 'tool_call', index: 0, arguments: '{"city":' };
      yield { type: 'tool_call', index: 1, id: 'b', name: 'time', arguments: '{}' };
      yield { type: 'tool_call', index: 0, arguments: '"Rome"}' };
      yield { type: 'end', finishReason: 'tool_calls', usage };
    };
    const response = await client.responses
      .stream({ model: 'chat', input: 'x', tools: [weather] })
      .finalResponse();
    expect(response.output_text).toBe('let me look');
    expect(response.output).toMatchObject([
      { type: 'message', content: [{ text: 'let me look' }] },
      { type: 'function_call', call_id: 'a', arguments: '{"city":"Rome"}' },
      { type: 'function_call', call_id: 'b', name: 'time', arguments: '{}' },
    ]);
    expect(response.usage).toMatchObject({ input_tokens: 7, output_tokens: 5 });
  });

  it('that was cut off ends with response.incomplete', async () => {
    deps.events = async function* () {
      yield { type: 'end', finishReason: 'length', usage };
    };
    const stream = await client.responses.create({ model: 'chat', input: 'x', stream: true });
    const types: string[] = [];
    for await (const event of stream) types.push(event.type);
    expect(types.at(-1)).toBe('response.incomplete');
    expect(types).toContain('response.output_text.done');
  });

  it('that breaks ends with response.failed, which keeps what had come', async () => {
    deps.events = async function* () {
      yield { type: 'delta', text: 'half' };
      throw new ServingError('UPSTREAM_ERROR', 'connection broke');
    };
    const stream = await client.responses.create({ model: 'chat', input: 'x', stream: true });
    const events = [];
    for await (const event of stream) events.push(event);
    expect(events.at(-1)).toMatchObject({
      type: 'response.failed',
      response: {
        status: 'failed',
        error: { code: 'UPSTREAM_ERROR', message: 'connection broke' },
        output: [{ content: [{ text: 'half' }] }],
      },
    });
  });

  it('that fails before its first event is an ordinary error', async () => {
    deps.events = () => failingStream(new ServingError('RATE_LIMITED', 'slow down'));
    const asked = client.responses.create({ model: 'chat', input: 'x', stream: true });
    await expect(asked).rejects.toBeInstanceOf(OpenAI.RateLimitError);
  });
});
