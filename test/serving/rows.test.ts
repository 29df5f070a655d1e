import { describe, expect, it } from 'vitest';
import { type CallOptions, createCall, type Input, LOCAL_OWNER, type StreamEvent } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { PayloadRow } from '#core/stores.ts';
import { Ledger } from '#serving/ledger.ts';
import { payloadTableOf } from '#serving/payload.ts';
import { fail } from './queue-support.ts';
import {
  answerText,
  bench,
  chats,
  deferred,
  embeddings,
  endpointOf,
  ManualClock,
  MemoryUsage,
  ScriptedEngine,
  settle,
  targetOf,
} from './support.ts';

const http = { origin: 'http' as const };
const streaming = (...texts: string[]) => {
  const engine = new ScriptedEngine();
  engine.stream = async function* (): AsyncGenerator<StreamEvent> {
    for (const text of texts) yield { type: 'delta', text };
    yield { type: 'end', finishReason: 'stop', usage: { inputTokens: 3, outputTokens: 9 } };
  };
  return engine;
};
async function read(events: AsyncIterable<StreamEvent>): Promise<StreamEvent[]> {
  const all: StreamEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

describe('a usage row', () => {
  it('says who asked, by which interface, what for, and how much was read and written', async () => {
    const target = { ...targetOf('m'), endpointId: 'e-1', servedEntityId: 's-1' };
    const { serving, usage, call } = bench([new ScriptedEngine()], { target });
    const client = {
      apiType: 'openai/v1/chat/completions',
      path: '/v1/chat/completions',
      userAgent: 'test/1',
      requestTags: { team: 'a' },
    };
    const principal = { ...LOCAL_OWNER, name: 'robot', kind: 'service_principal' as const };
    await serving.invoke(call(chats('four'), { ...http, client, principal, clientRequestId: 'c' }));
    expect(usage.rows).toMatchObject([
      {
        ...{ endpointId: 'e-1', servedEntityId: 's-1', requester: 'robot', clientRequestId: 'c' },
        ...client,
        requesterType: 'service_principal',
        ...{ inputCharacters: 4, outputCharacters: 5 },
      },
    ]);
    // A stored answer was read and given, too.
    await serving.invoke(call(chats('four'), { ...http, client }));
    expect(usage.rows[1]).toMatchObject({ cachedCount: 1, inputCharacters: 4, outputCharacters: 5 });
  });

  it('knows the endpoint of a call that was refused, and the characters of a stream', async () => {
    const { serving, usage, call } = bench([streaming('12345', '67')], {
      authorize: ({ name }) => {
        if (name === 'nobody') throw new ServingError('PERMISSION_DENIED', 'No.');
      },
    });
    const nobody = { ...LOCAL_OWNER, name: 'nobody' };
    await expect(serving.invoke(call(chats('a'), { principal: nobody }))).rejects.toThrow('No.');
    await read((await serving.stream(call(chats('abc')))).events);
    expect(usage.rows).toMatchObject([
      { endpointId: 'm', statusCode: 403, inputCharacters: 1, outputCharacters: 0 },
      {
        endpointId: 'm',
        isStreaming: true,
        inputCharacters: 3,
        outputCharacters: 7,
        timeToFirstByteMs: expect.any(Number),
      },
    ]);
  });

  it('can be written for a request that was carried out elsewhere', () => {
    const usage = new MemoryUsage();
    const clock = new ManualClock();
    const ledger = new Ledger(usage, clock, SILENT_LOG);
    const heard: string[] = [];
    ledger.onRow(({ callId }) => heard.push(callId));
    const target = targetOf('m');
    const asked = createCall('m', 'llm/v1/chat', [], { id: 'x', ...http });
    const startedAtMs = clock.now() - 40;
    const facts = { target, startedAtMs, inputCount: 1, cachedCount: 0, attempts: 1, cost: 0.5 };
    ledger.add(asked, { ...facts, usage: { inputTokens: 1, outputTokens: 2 }, error: undefined });
    expect(usage.rows).toMatchObject([
      {
        callId: 'x',
        durationMs: 40,
        attempts: 1,
        cost: 0.5,
        inputTokens: 1,
        outputTokens: 2,
        statusCode: 200,
      },
    ]);
    expect(heard).toEqual(['x']);
  });
});

describe('in durable mode', () => {
  it('no answer, no last event and no error is given before its row is on disk', async () => {
    const usage = new (class extends MemoryUsage {
      readonly isDurable = true;
      gate = deferred();
      flushed = 0;
      override async flush(): Promise<void> {
        const { length } = this.rows;
        await this.gate.promise;
        this.flushed = length;
      }
    })();
    const { serving, call } = bench([streaming('a', 'b')], { usage });
    const seen: string[] = [];
    const note = (what: string) => () => void seen.push(`${what} with ${usage.flushed} rows`);
    const release = async () => {
      await settle();
      usage.gate.resolve();
      await settle();
      usage.gate = deferred();
    };

    const answered = serving.invoke(call(chats('x'))).then(note('answer'));
    await settle();
    expect([seen.length, usage.rows.length]).toEqual([0, 1]);
    await release();
    await answered;

    const { events } = await serving.stream(call(chats('y')));
    const iterator = events[Symbol.asyncIterator]();
    for (let at = 0; at < 2; at++) await iterator.next().then(note('delta'));
    const end = iterator.next().then(note('end'));
    await release();
    await end;

    const failed = serving.invoke(call([])).catch(note('error'));
    await release();
    await failed;
    const stored = serving.stream(call(chats('x'))).then(note('stored'));
    await release();
    await stored;
    expect(seen).toEqual([
      'answer with 1 rows',
      'delta with 1 rows',
      'delta with 1 rows',
      'end with 2 rows',
      'error with 3 rows',
      'stored with 4 rows',
    ]);
  });

  it('an answer whose row cannot be written is not given', async () => {
    const usage = Object.assign(new MemoryUsage(), {
      isDurable: true,
      flush: () => Promise.reject(new ServingError('STORAGE_ERROR', 'Disk full.')),
    });
    const { serving, call } = bench([streaming('a')], { usage });
    await expect(serving.invoke(call(chats('x')))).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    const { events } = await serving.stream(call(chats('y')));
    await expect(read(events)).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
  });
});

describe('an inference table', () => {
  const logged = { inferenceTable: { enabled: true } };
  const parse = ({ request, response }: PayloadRow) => [
    JSON.parse(request ?? 'null'),
    JSON.parse(response ?? 'null'),
  ];
  const bodies = (row: PayloadRow | undefined) => (row ? parse(row) : []);

  it('is named as the endpoint says, or after it', () => {
    const endpoint = endpointOf(targetOf('my.chat-1'));
    expect(payloadTableOf(endpoint)).toBeUndefined();
    expect(
      payloadTableOf({ ...endpoint, aiGateway: { inferenceTable: { enabled: false } } }),
    ).toBeUndefined();
    expect(payloadTableOf({ ...endpoint, aiGateway: logged })).toEqual({
      catalog: 'duckserve',
      schema: 'inference',
      name: 'my_chat_1_payload',
    });
    const inferenceTable = { enabled: true, catalogName: 'c', schemaName: 's', tableNamePrefix: 'a"b' };
    expect(payloadTableOf({ ...endpoint, aiGateway: { inferenceTable } })).toEqual({
      catalog: 'c',
      schema: 's',
      name: 'a_b_payload',
    });
  });

  it('has one row a call, off unless enabled', async () => {
    const { serving, usage, resolver, call } = bench([new ScriptedEngine()]);
    await serving.invoke(call(chats('a')));
    expect(usage.payloads).toHaveLength(0);
    resolver.govern('m', logged);
    const parameters = { maxTokens: 7, stop: ['x'], extra: { user: 'u' } };
    await serving.invoke(call(chats('hi'), { ...http, id: 'r-1', clientRequestId: 'c-1', parameters }));
    expect(usage.payloads).toMatchObject([
      {
        table: { name: 'm_payload' },
        ...{ requestId: 'r-1', clientRequestId: 'c-1', statusCode: 200, samplingFraction: 1 },
        ...{ requester: 'local', loggingErrorCodes: [] },
      },
    ]);
    expect(bodies(usage.payloads[0])).toEqual([
      { messages: [{ role: 'user', content: 'hi' }], max_tokens: 7, stop: ['x'], user: 'u' },
      {
        ...{ id: 'r-1', object: 'chat.completion', created: expect.any(Number), model: 'model-m' },
        choices: [{ index: 0, message: { role: 'assistant', content: 'hi!' }, finish_reason: 'stop' }],
        usage: { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 },
      },
    ]);
  });

  it('has embeddings, completions and features in their own shapes', async () => {
    const asked = async (task: 'llm/v1/embeddings' | 'llm/v1/completions' | 'predict', inputs: Input[]) => {
      const target = targetOf('m', { task, engine: task === 'predict' ? 'onnx' : 'openai' });
      const engine = new ScriptedEngine(answerText, { maxInputs: 4 }, target.engine);
      const { serving, usage, resolver, call } = bench([engine], { target });
      resolver.govern('m', logged);
      await serving.invoke(call(inputs, http));
      return bodies(usage.payloads[0]);
    };
    expect(await asked('llm/v1/embeddings', embeddings('a', 'bc'))).toMatchObject([
      { input: ['a', 'bc'] },
      {
        object: 'list',
        data: [
          { index: 0, embedding: [2, 1] },
          { index: 1, embedding: [3, 1] },
        ],
      },
    ]);
    expect(await asked('llm/v1/completions', [{ prompt: 'p' }])).toMatchObject([
      { prompt: 'p' },
      { object: 'text_completion', choices: [{ index: 0, text: 'p!', finish_reason: 'stop' }] },
    ]);
    expect(await asked('predict', [{ features: { x: 1 } }, { features: { x: 2 } }])).toEqual([
      { dataframe_records: [{ x: 1 }, { x: 2 }] },
      { predictions: ['{"x":1}!', '{"x":2}!'] },
    ]);
  });

  it('has streams put together, also one that broke off', async () => {
    const { serving, usage, resolver, call } = bench([streaming('Hel', 'lo')]);
    resolver.govern('m', logged);
    await read((await serving.stream(call(chats('a')))).events);
    for await (const _ of (await serving.stream(call(chats('b')))).events) break;
    expect(usage.payloads.map(({ statusCode }) => statusCode)).toEqual([200, 499]);
    expect(bodies(usage.payloads[0])).toMatchObject([
      { stream: true },
      { choices: [{ message: { content: 'Hello' }, finish_reason: 'stop' }], usage: { total_tokens: 12 } },
    ]);
    expect(bodies(usage.payloads[1])[1]).toMatchObject({
      choices: [{ message: { content: 'Hel' }, finish_reason: null }],
    });
  });

  it('has calls that failed, with their status and error', async () => {
    const { serving, usage, resolver, call } = bench([new ScriptedEngine(() => fail('UPSTREAM_REJECTED'))]);
    resolver.govern('m', logged);
    await serving.invoke(call(chats('a')));
    resolver.govern('m', logged, { isStopped: true });
    await expect(serving.invoke(call(chats('b')))).rejects.toThrow();
    expect(usage.payloads.map((row) => [row.statusCode, bodies(row)[1].error_code])).toEqual([
      [400, 'BAD_REQUEST'],
      [400, 'INVALID_STATE'],
    ]);
  });

  it('leaves out what is over one mebibyte, and says so', async () => {
    const { serving, usage, resolver, call } = bench([new ScriptedEngine()]);
    resolver.govern('m', logged);
    const ask = (text: string, options: CallOptions = http) => serving.invoke(call(chats(text), options));
    await ask('x'.repeat(1024 * 1024));
    await ask('é'.repeat(600 * 1024));
    expect(
      usage.payloads.map(({ request, response, loggingErrorCodes }) => [
        request,
        response,
        loggingErrorCodes,
      ]),
    ).toEqual(
      Array.from({ length: 2 }, () => [
        null,
        null,
        ['MAX_REQUEST_SIZE_EXCEEDED', 'MAX_RESPONSE_SIZE_EXCEEDED'],
      ]),
    );
  });

  it('has inputs and answers as the guard has left them, and nothing of what it refused', async () => {
    const { serving, usage, resolver, call } = bench([new ScriptedEngine()], {
      guards: {
        guardOf: () => ({
          fingerprint: 'x',
          inputs: async ({ inputs }) =>
            inputs.map((input) =>
              JSON.stringify(input).includes('refuse')
                ? new ServingError('GUARDRAIL_TRIGGERED', 'No.')
                : (chats('masked')[0] ?? input),
            ),
        }),
      },
    });
    resolver.govern('m', logged);
    await serving.invoke(call(chats('my secret')));
    await serving.invoke(call(chats('refuse my secret')));
    expect(JSON.stringify(usage.payloads)).not.toContain('secret');
    expect(bodies(usage.payloads[0])[0]).toMatchObject({ messages: [{ content: 'masked' }] });
    expect(bodies(usage.payloads[1])).toMatchObject([
      { messages: '[withheld by a guardrail]' },
      { error_code: 'BAD_REQUEST', message: 'No.' },
    ]);
  });
});
