// The openai engine's streams: pieces in order, one end, and no stream cut short that looks whole.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Batch, Runner } from '#engines/engine.ts';
import { stubChatText, stubTokens } from '../stub/provider.ts';
import { collect, expectCode } from './contract.ts';
import { chatOf, choice, type OpenaiStub, startOpenaiStub } from './openai-stub.ts';

let stub: OpenaiStub;
beforeAll(async () => {
  stub = await startOpenaiStub();
});
afterEach(() => stub.reset());
afterAll(() => stub.close());

describe('openai: streams', () => {
  const streamOf = (runner: Runner, asked: Batch) => {
    if (!runner.stream) throw new Error('openai streams');
    return runner.stream(asked);
  };

  test('usage comes from the last event, which is asked for', async () => {
    const runner = await stub.open('llm/v1/chat');
    const events = await collect(streamOf(runner, chatOf('two words')));
    expect(stub.provider.requests[0]?.body).toMatchObject({
      stream: true,
      stream_options: { include_usage: true },
    });
    expect(events.length).toBeGreaterThan(5);
    expect(events.at(-1)).toEqual({
      type: 'end',
      finishReason: 'stop',
      usage: { inputTokens: stubTokens('two words'), outputTokens: stubTokens(stubChatText('two words')) },
    });
  });

  test('stream_options can be left out for servers that refuse it; usage is then estimated', async () => {
    const runner = await stub.open('llm/v1/chat');
    const events = await collect(streamOf(runner, chatOf('abc', { extra: { stream_options: null } })));
    expect(stub.provider.requests[0]?.body).not.toHaveProperty('stream_options');
    expect(events.at(-1)).toMatchObject({ usage: { inputTokens: 1 } });
  });

  test('the pieces of a tool call arrive in order and add up to its arguments', async () => {
    const runner = await stub.open('llm/v1/chat');
    const tools = [{ name: 'f', parameters: { type: 'object', properties: { q: { type: 'string' } } } }];
    const events = await collect(streamOf(runner, chatOf('hello', { tools, toolChoice: 'required' })));
    const pieces = events.filter((event) => event.type === 'tool_call');
    expect(pieces[0]).toMatchObject({ index: 0, name: 'f' });
    expect(pieces.map((piece) => piece.arguments).join('')).toBe('{"q":"hello"}');
    expect(events.at(-1)).toMatchObject({ type: 'end', finishReason: 'tool_calls' });
  });

  test('a stream that is cut is an UPSTREAM_ERROR after what had come, never an end', async () => {
    stub.provider.behave({ rateCut: 1 });
    const runner = await stub.open('llm/v1/chat');
    const events: string[] = [];
    const read = async () => {
      for await (const event of streamOf(runner, chatOf('x'))) events.push(event.type);
    };
    await expectCode('UPSTREAM_ERROR', read());
    stub.provider.behave({ rateCut: 0 });
    expect(events).toContain('delta');
    expect(events).not.toContain('end');
  });

  test('a body that ends quietly before its last event was cut too', async () => {
    const body = 'data: {"choices":[{"delta":{"content":"half"},"finish_reason":null}]}\n\n';
    stub.provider.behave({ answer: () => ({ headers: { 'content-type': 'text/event-stream' }, body }) });
    const runner = await stub.open('llm/v1/chat');
    await expectCode('UPSTREAM_ERROR', collect(streamOf(runner, chatOf('x'))));
    const failing = `${body}data: {"error":{"message":"overloaded","type":"overloaded_error"}}\n\n`;
    stub.provider.behave({
      answer: () => ({ headers: { 'content-type': 'text/event-stream' }, body: failing }),
    });
    const error = await expectCode('UPSTREAM_ERROR', collect(streamOf(runner, chatOf('x'))));
    expect(error.message).toContain('overloaded');
    stub.provider.behave({ answer: () => undefined });
  });

  test('a malformed event is an INVALID_RESPONSE, and so is a body that is no stream', async () => {
    const runner = await stub.open('llm/v1/chat');
    stub.provider.behave({ rateMalformed: 1 });
    await expectCode('INVALID_RESPONSE', collect(streamOf(runner, chatOf('x'))));
    stub.provider.behave({ rateMalformed: 0, answer: () => ({ body: choice({ content: 'x' }) }) });
    await expectCode('INVALID_RESPONSE', collect(streamOf(runner, chatOf('x'))));
    stub.provider.behave({ answer: () => undefined });
  });

  test('an abort in the middle is CANCELLED and ends the request at the provider', async () => {
    stub.provider.behave({ eventGapMs: 20 });
    const runner = await stub.open('llm/v1/chat');
    const abort = new AbortController();
    const read = async () => {
      for await (const event of streamOf(runner, chatOf('x', {}, abort.signal))) {
        if (event.type === 'delta') abort.abort();
      }
    };
    await expectCode('CANCELLED', read());
    await expect.poll(() => stub.provider.ledger()).toMatchObject({ inFlight: 0, aborted: 1 });
    stub.provider.behave({ eventGapMs: 0 });
  });

  test('a consumer that stops early ends the request at the provider', async () => {
    stub.provider.behave({ eventGapMs: 20 });
    const runner = await stub.open('llm/v1/chat');
    for await (const event of streamOf(runner, chatOf('x'))) if (event.type === 'delta') break;
    await expect.poll(() => stub.provider.ledger()).toMatchObject({ inFlight: 0, aborted: 1 });
    stub.provider.behave({ eventGapMs: 0 });
  });

  test('a slow consumer is not a slow provider', async () => {
    stub.provider.behave({ eventGapMs: 5 });
    const runner = await stub.open('llm/v1/chat', { timeoutMs: 100 });
    const events: string[] = [];
    for await (const event of streamOf(runner, chatOf('x'))) {
      if (events.length === 0) await new Promise((resolve) => setTimeout(resolve, 150));
      events.push(event.type);
    }
    expect(events.at(-1)).toBe('end');
  });

  test('a stream read to its end leaves its connection to the next request', async () => {
    stub.provider.behave({ eventGapMs: 2 });
    const runner = await stub.open('llm/v1/chat', { maxConcurrency: 1 });
    for (let round = 0; round < 3; round++) await collect(streamOf(runner, chatOf(`round ${round}`)));
    expect(stub.provider.ledger()).toMatchObject({ requests: 3, aborted: 0, connections: 1 });
  });
});
