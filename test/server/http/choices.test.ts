// Several answers to one request (`n`) with the real `openai` package: what is asked, what comes back, what is let
// go when one of them fails.
import OpenAI from 'openai';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Call, StreamEvent } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { type HttpServer, startHttpServer } from '../../../src/server/http/server.ts';
import { createFakeDeps, type FakeDeps } from './fake-deps.ts';

let deps: FakeDeps;
let server: HttpServer;
let client: OpenAI;
beforeEach(async () => {
  deps = createFakeDeps();
  server = await startHttpServer(deps, { port: 0 });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'unused', maxRetries: 0 });
});
afterEach(() => server.close());

const hello = { model: 'chat', messages: [{ role: 'user' as const, content: 'hello my friend' }] };
const choiceOf = (call: Call) => Number(/-(\d)$/.exec(call.id.slice(36))?.[1] ?? 0);

describe('n choices', () => {
  it('are asked for n times, past the store, with seeds of their own, and paid n times', async () => {
    const answer = await client.chat.completions.create({ ...hello, n: 3, seed: 10, temperature: 0 });
    expect(answer.choices.map((choice) => [choice.index, choice.message.content])).toEqual([
      [0, 'hello my friend'],
      [1, 'hello my friend'],
      [2, 'hello my friend'],
    ]);
    expect(answer.usage).toEqual({ prompt_tokens: 6, completion_tokens: 9, total_tokens: 15 });
    expect(deps.calls.map((call) => [call.parameters.seed, call.cache])).toEqual([
      [10, 'off'],
      [11, 'off'],
      [12, 'off'],
    ]);
    expect(new Set(deps.calls.map((call) => call.id)).size).toBe(3);
    expect(deps.calls[0]?.id).toBe(answer._request_id);
  });

  it('of several prompts stand in the order of the prompts', async () => {
    const answer = await client.completions.create({ model: 'text', prompt: ['one', 'two'], n: 2 });
    expect(answer.choices.map((choice) => [choice.index, choice.text])).toEqual([
      [0, 'one'],
      [1, 'one'],
      [2, 'two'],
      [3, 'two'],
    ]);
  });

  it('come mixed in one stream, each under its index, with the usage of all at the end', async () => {
    deps.events = async function* (call) {
      for (const word of ['a', 'b', 'c']) yield { type: 'delta', text: `${word}${choiceOf(call)} ` };
      yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 2, outputTokens: 3 } };
    };
    const stream = await client.chat.completions.create({
      ...hello,
      n: 3,
      stream: true,
      stream_options: { include_usage: true },
    });
    const texts = ['', '', ''];
    const finished: number[] = [];
    let total = 0;
    for await (const chunk of stream) {
      for (const { index, delta, finish_reason } of chunk.choices) {
        texts[index] += delta.content ?? '';
        if (finish_reason) finished.push(index);
      }
      total = chunk.usage?.total_tokens ?? total;
    }
    expect(texts).toEqual(['a0 b0 c0 ', 'a1 b1 c1 ', 'a2 b2 c2 ']);
    expect(finished.toSorted()).toEqual([0, 1, 2]);
    expect(total).toBe(15);
  });

  it('fail together: the others are cancelled, whole or streamed', async () => {
    const aborted = new Set<number>();
    const untilAborted = (call: Call) =>
      new Promise<never>((_, reject) => {
        call.signal?.addEventListener('abort', () => {
          aborted.add(choiceOf(call));
          reject(call.signal?.reason);
        });
      });
    deps.answer = (call) =>
      choiceOf(call) === 1 ? Promise.reject(new ServingError('RATE_LIMITED', 'no')) : untilAborted(call);
    await expect(client.chat.completions.create({ ...hello, n: 3 })).rejects.toMatchObject({
      status: 429,
      code: 'RATE_LIMITED',
    });
    expect([...aborted].toSorted()).toEqual([0, 2]);

    aborted.clear();
    let released = 0;
    deps.events = async function* (call): AsyncGenerator<StreamEvent> {
      try {
        if (choiceOf(call) === 1) throw new ServingError('UPSTREAM_AUTH', 'key refused');
        yield await untilAborted(call);
      } finally {
        released++;
      }
    };
    await expect(client.chat.completions.create({ ...hello, n: 3, stream: true })).rejects.toMatchObject({
      status: 502,
      code: 'UPSTREAM_AUTH',
    });
    await expect.poll(() => released).toBe(3);
    expect([...aborted].toSorted()).toEqual([0, 2]);
  });

  it('end with one error event when one breaks in the middle', async () => {
    deps.events = async function* (call) {
      yield { type: 'delta', text: `${choiceOf(call)}` };
      if (choiceOf(call) === 0) throw new ServingError('UPSTREAM_ERROR', 'broke');
      yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 1, outputTokens: 1 } };
    };
    const response = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      body: JSON.stringify({ ...hello, n: 2, stream: true }),
    });
    const text = await response.text();
    expect(text).toContain('"code":"UPSTREAM_ERROR"');
    expect(text.match(/"error"/g)).toHaveLength(1);
    expect(text).not.toContain('[DONE]');
  });

  it('all end when the client leaves', async () => {
    let released = 0;
    deps.events = async function* (call) {
      try {
        yield { type: 'delta', text: 'first' };
        await new Promise((_, reject) =>
          call.signal?.addEventListener('abort', () => reject(call.signal?.reason)),
        );
      } finally {
        released++;
      }
    };
    const stream = await client.chat.completions.create({ ...hello, n: 3, stream: true });
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
    stream.controller.abort();
    await expect.poll(() => released).toBe(3);
  });
});

describe('fields that clients send anyway', () => {
  it('echo puts the prompt before its completion, whole and streamed', async () => {
    const whole = await client.completions.create({ model: 'text', prompt: 'a b', echo: true, suffix: '!' });
    expect(whole.choices[0]?.text).toBe('a ba b');
    expect(deps.calls[0]?.parameters.extra).toEqual({ suffix: '!' });
    const stream = await client.completions.create({
      model: 'text',
      prompt: 'a b',
      echo: true,
      stream: true,
    });
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]?.text ?? '';
    expect(text).toBe('a ba b');
  });

  it('null stands for absent, names and thoughts in messages are taken', async () => {
    const body = {
      model: 'chat',
      max_tokens: null,
      temperature: null,
      n: null,
      functions: null,
      stop: null,
      tools: null,
      logprobs: false,
      stream_options: null,
      messages: [
        { role: 'user', name: 'ada', content: 'x' },
        {
          role: 'assistant',
          content: [
            { type: 'reasoning', summary: [] },
            { type: 'text', text: 'y' },
          ],
        },
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ id: 'a', type: 'function', function: { name: 'f', arguments: '' } }],
        },
      ],
    };
    await client.chat.completions.create(body as never);
    expect(deps.calls[0]?.parameters).toEqual({});
    expect(deps.calls[0]?.inputs).toMatchObject([
      {
        messages: [
          { role: 'user', name: 'ada' },
          { content: [{ type: 'text', text: 'y' }] },
          { content: null, toolCalls: [{ id: 'a' }] },
        ],
      },
    ]);
  });

  it('the program that asks and its tags are told to the usage table', async () => {
    const tags = 'Databricks-Ai-Gateway-Request-Tags';
    await client.chat.completions.create(hello, { headers: { [tags]: '{"team":"a","cost":7}' } });
    expect(deps.calls[0]?.client).toMatchObject({
      apiType: 'openai/v1/chat/completions',
      path: '/v1/chat/completions',
      userAgent: expect.stringContaining('OpenAI/JS'),
      requestTags: { team: 'a', cost: '7' },
    });
    await client.chat.completions.create(hello, { headers: { [tags]: 'team=a, env=b=c' } });
    expect(deps.calls[1]?.client?.requestTags).toEqual({ team: 'a', env: 'b=c' });
    for (const wrong of ['{"a":', '[1]', '{"a":{}}', 'team']) {
      await expect(
        client.chat.completions.create(hello, { headers: { [tags]: wrong } }),
      ).rejects.toBeInstanceOf(OpenAI.BadRequestError);
    }
  });

  it.each(['/ai-gateway/openai/v1', '/gateway/openai/v1', '/ai-gateway/mlflow/v1', '/gateway/mlflow/v1'])(
    'chat and embeddings are answered under %s, too',
    async (base) => {
      const aliased = new OpenAI({ baseURL: `${server.url}${base}`, apiKey: 'unused', maxRetries: 0 });
      expect((await aliased.chat.completions.create(hello)).choices).toHaveLength(1);
      expect((await aliased.embeddings.create({ model: 'vectors', input: 'a' })).data).toHaveLength(1);
      await expect(aliased.chat.completions.create({ ...hello, model: 'none' })).rejects.toMatchObject({
        code: 'ENDPOINT_NOT_FOUND',
      });
    },
  );
});
