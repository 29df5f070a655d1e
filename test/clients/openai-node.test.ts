// The `openai` package for Node against the server, at each base URL it can be given.
import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { stubChatText, stubTokens } from '../stub/answers.ts';
import { stage, WITH_CARD, WRONG_TOKEN } from './stage.ts';

const QUESTION = 'Which duck is this?';
const messages = [{ role: 'user' as const, content: QUESTION }];
const usage = {
  prompt_tokens: stubTokens(QUESTION),
  completion_tokens: stubTokens(stubChatText(QUESTION)),
  total_tokens: stubTokens(QUESTION) + stubTokens(stubChatText(QUESTION)),
};
const tools = [
  {
    type: 'function' as const,
    function: {
      name: 'find_duck',
      description: 'Finds a duck.',
      parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
    },
  },
];

function client(apiKey = stage().client, base = '/v1'): OpenAI {
  return new OpenAI({ baseURL: `${stage().url}${base}`, apiKey, maxRetries: 0 });
}

async function refusal(promise: Promise<unknown>): Promise<InstanceType<typeof OpenAI.APIError>> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(OpenAI.APIError);
  return error as InstanceType<typeof OpenAI.APIError>;
}

describe('openai (Node)', () => {
  it('chat.completions.create: text, usage and served-model-name, at each base URL', async () => {
    for (const base of ['/v1', '/serving-endpoints', '/ai-gateway/openai/v1', '/gateway/mlflow/v1']) {
      const { data, response } = await client(undefined, base)
        .chat.completions.create({ model: 'chat', messages })
        .withResponse();
      expect(data.choices[0]?.message.content, base).toBe(stubChatText(QUESTION));
      expect(data.choices[0]?.finish_reason).toBe('stop');
      expect(data.usage).toMatchObject(usage);
      expect(response.headers.get('served-model-name')).toBe('stub-chat');
    }
  });

  it('chat.completions.create(stream): pieces of the text, usage in the last chunk', async () => {
    const stream = await client().chat.completions.create({
      model: 'chat',
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    let pieces = 0;
    let last: OpenAI.ChatCompletionChunk | undefined;
    for await (const chunk of stream) {
      const piece = chunk.choices[0]?.delta.content ?? '';
      if (piece !== '') pieces++;
      text += piece;
      last = chunk;
    }
    expect(text).toBe(stubChatText(QUESTION));
    expect(pieces).toBeGreaterThan(3);
    expect(last?.usage).toMatchObject(usage);
  });

  it('chat.completions.create(cut stream): an APIError after the first pieces, where the provider is cut off', async () => {
    const stream = await client().chat.completions.create({ model: 'cut', messages, stream: true });
    let text = '';
    const read = async () => {
      for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    };
    const error = await refusal(read());
    expect(stubChatText(QUESTION).startsWith(text)).toBe(true);
    expect(text).not.toBe('');
    expect(error.code).toBe('UPSTREAM_ERROR');
  });

  it('chat.completions.create(more fields): those that are not understood are named, not refused', async () => {
    const more = {
      user: 'ann',
      store: true,
      metadata: { team: 'ducks' },
      service_tier: 'auto' as const,
      quack: 1,
    };
    const { data, response } = await client()
      .chat.completions.create({ model: 'chat', messages, ...more, safety_identifier: 'a', n: 2 })
      .withResponse();
    expect(data.choices.map(({ message }) => message.content)).toEqual([
      stubChatText(QUESTION),
      stubChatText(QUESTION),
    ]);
    expect(response.headers.get('x-duckserve-ignored')).toBe('quack');
  });

  it('chat.completions.create(tools): a call of the tool, and the answer to its result', async () => {
    const answer = await client().chat.completions.create({
      model: 'chat',
      messages,
      tools,
      tool_choice: 'required',
    });
    const [choice] = answer.choices;
    expect(choice?.finish_reason).toBe('tool_calls');
    const call = choice?.message.tool_calls?.[0];
    if (choice === undefined || call?.type !== 'function') throw new Error('no call of a function');
    expect(call.function.name).toBe('find_duck');
    expect(JSON.parse(call.function.arguments)).toEqual({ city: expect.any(String) });
    const next = await client().chat.completions.create({
      model: 'chat',
      messages: [
        ...messages,
        choice.message,
        { role: 'tool', tool_call_id: call.id, content: 'in the pond' },
      ],
      tools,
    });
    expect(next.choices[0]?.message.content).toBe(stubChatText(QUESTION));
  });

  it('chat.completions.stream: events of a tool call, put together by the client', async () => {
    const stream = client().chat.completions.stream({
      model: 'chat',
      messages,
      tools,
      tool_choice: { type: 'function', function: { name: 'find_duck' } },
    });
    const whole = await stream.finalChatCompletion();
    expect(whole.choices[0]?.message.tool_calls?.[0]).toMatchObject({
      type: 'function',
      function: { name: 'find_duck' },
    });
  });

  it('chat.completions.parse: an object of the schema', async () => {
    const schema = z.object({ species: z.string(), legs: z.number() });
    const answer = await client().chat.completions.parse({
      model: 'chat',
      messages,
      response_format: zodResponseFormat(schema, 'duck'),
    });
    expect(answer.choices[0]?.message.parsed).toEqual({
      species: expect.any(String),
      legs: expect.any(Number),
    });
  });

  it('chat.completions.create(claude): a provider of another dialect', async () => {
    const answer = await client().chat.completions.create({ model: 'claude', messages, max_tokens: 100 });
    expect(answer.choices[0]?.message.content).toBe(stubChatText(QUESTION));
    expect(answer.usage).toMatchObject(usage);
  });

  it('completions.create: the text, whole and as a stream', async () => {
    const whole = await client().completions.create({ model: 'completions', prompt: 'Once' });
    const stream = await client().completions.create({ model: 'completions', prompt: 'Once', stream: true });
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]?.text ?? '';
    expect(whole.choices[0]?.text).toMatch(/^ and so it went on/);
    expect(text).toBe(whole.choices[0]?.text);
    expect(whole.usage?.prompt_tokens).toBe(stubTokens('Once'));
  });

  it('embeddings.create: vectors of the provider and of an embedded model, as floats and in base64', async () => {
    const input = ['a duck', 'a goose'];
    // The client asks for base64 by itself where nothing is said.
    const packed = await client().embeddings.create({ model: 'vectors', input });
    const plain = await client().embeddings.create({ model: 'vectors', input, encoding_format: 'float' });
    expect(packed.data.map(({ embedding }) => embedding.length)).toEqual([64, 64]);
    expect(packed.data[1]?.embedding[3]).toBeCloseTo(plain.data[1]?.embedding[3] ?? Number.NaN, 6);
    expect(plain.usage.prompt_tokens).toBe(stubTokens('a duck') + stubTokens('a goose'));
    const local = await client().embeddings.create({ model: 'embedded-static-256', input });
    expect(local.data.map(({ embedding }) => embedding.length)).toEqual([256, 256]);
  });

  it('responses.create: the text, usage, and a tool call', async () => {
    const answer = await client().responses.create({
      model: 'chat',
      input: QUESTION,
      instructions: 'Be brief.',
    });
    expect(answer.output_text).toBe(stubChatText(QUESTION));
    expect(answer.status).toBe('completed');
    expect(answer.usage?.output_tokens).toBe(usage.completion_tokens);
    const called = await client().responses.create({
      model: 'chat',
      input: QUESTION,
      tools: [
        {
          type: 'function',
          name: 'find_duck',
          strict: false,
          parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
        },
      ],
      tool_choice: 'required',
    });
    expect(called.output[0]).toMatchObject({ type: 'function_call', name: 'find_duck' });
  });

  it('responses.create(stream): numbered events up to the completed response', async () => {
    const stream = await client().responses.create({ model: 'chat', input: QUESTION, stream: true });
    const types: string[] = [];
    let text = '';
    let expected = 0;
    for await (const event of stream) {
      types.push(event.type);
      expect(event.sequence_number).toBe(expected++);
      if (event.type === 'response.output_text.delta') text += event.delta;
    }
    expect(types[0]).toBe('response.created');
    expect(types.at(-1)).toBe('response.completed');
    expect(text).toBe(stubChatText(QUESTION));
  });

  it('models.list: what the caller may see, and nothing else', async () => {
    const names: string[] = [];
    for await (const model of client().models.list()) names.push(model.id);
    expect(names).toEqual(expect.arrayContaining(['chat', 'claude', 'penguins', 'echo-chat']));
    expect(names).not.toContain('private');
    expect((await client().models.retrieve('chat')).id).toBe('chat');
  });

  it('AuthenticationError: 401 for a token that is not known', async () => {
    const error = await refusal(client(WRONG_TOKEN).chat.completions.create({ model: 'chat', messages }));
    expect(error).toBeInstanceOf(OpenAI.AuthenticationError);
    expect(error.status).toBe(401);
    expect(error.message).not.toContain(WRONG_TOKEN);
  });

  it('NotFoundError: 404 for an endpoint that does not exist', async () => {
    const error = await refusal(client().chat.completions.create({ model: 'gone', messages }));
    expect(error).toBeInstanceOf(OpenAI.NotFoundError);
    expect(error).toMatchObject({ status: 404, code: 'ENDPOINT_NOT_FOUND' });
  });

  it('PermissionDeniedError: 403 for an endpoint of somebody else', async () => {
    const error = await refusal(client().chat.completions.create({ model: 'private', messages }));
    expect(error).toBeInstanceOf(OpenAI.PermissionDeniedError);
    expect(error).toMatchObject({ status: 403, code: 'PERMISSION_DENIED' });
  });

  it('RateLimitError: 429 for the second call of a minute, with retry-after', async () => {
    const ask = () => client().chat.completions.create({ model: 'limited-openai-node', messages });
    expect((await ask()).usage).toMatchObject(usage);
    const error = await refusal(ask());
    expect(error).toBeInstanceOf(OpenAI.RateLimitError);
    expect(error).toMatchObject({ status: 429, code: 'RATE_LIMIT_EXCEEDED' });
    expect(Number(error.headers?.get('retry-after'))).toBeGreaterThan(0);
    expect(Number(error.headers?.get('retry-after'))).toBeLessThanOrEqual(61);
  });

  it('BadRequestError: 400 for what a guardrail blocks, whole and as a stream', async () => {
    for (const stream of [false, true]) {
      const error = await refusal(
        client().chat.completions.create({
          model: 'guarded',
          messages: [{ role: 'user', content: WITH_CARD }],
          stream,
        }),
      );
      expect(error).toBeInstanceOf(OpenAI.BadRequestError);
      expect(error).toMatchObject({ status: 400, code: 'GUARDRAIL_TRIGGERED' });
      expect(error.message).not.toContain('4111');
    }
    const fine = await client().chat.completions.create({ model: 'guarded', messages });
    expect(fine.choices[0]?.message.content).toBe(stubChatText(QUESTION));
  });
});
