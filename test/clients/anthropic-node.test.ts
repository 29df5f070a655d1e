// The `@anthropic-ai/sdk` package for Node against the server: a provider of its own dialect, and one of another.
import Anthropic from '@anthropic-ai/sdk';
import { describe, expect, it } from 'vitest';
import { stubChatText, stubTokens } from '../stub/answers.ts';
import { stage, WITH_CARD, WRONG_TOKEN } from './stage.ts';

const QUESTION = 'Which duck is this?';
const messages = [{ role: 'user' as const, content: QUESTION }];
const usage = {
  input_tokens: stubTokens(QUESTION),
  output_tokens: stubTokens(stubChatText(QUESTION)),
};
const tools = [
  {
    name: 'find_duck',
    description: 'Finds a duck.',
    input_schema: { type: 'object' as const, properties: { city: { type: 'string' } }, required: ['city'] },
  },
];

function client(apiKey = stage().client, base = ''): Anthropic {
  return new Anthropic({ baseURL: `${stage().url}${base}`, apiKey, maxRetries: 0 });
}

async function refusal(promise: Promise<unknown>): Promise<InstanceType<typeof Anthropic.APIError>> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(Anthropic.APIError);
  return error as InstanceType<typeof Anthropic.APIError>;
}

describe('@anthropic-ai/sdk (Node)', () => {
  it('messages.create: text and usage of providers of both dialects, at each base URL', async () => {
    for (const base of ['', '/serving-endpoints/anthropic', '/ai-gateway/anthropic']) {
      for (const model of ['claude', 'chat']) {
        const answer = await client(undefined, base).messages.create({ model, max_tokens: 100, messages });
        expect(answer.content[0]).toMatchObject({ type: 'text', text: stubChatText(QUESTION) });
        expect(answer.usage).toMatchObject(usage);
        expect(answer.stop_reason).toBe('end_turn');
      }
    }
  });

  it('messages.create(stream): events from message_start to message_stop', async () => {
    const stream = await client().messages.create({
      model: 'claude',
      max_tokens: 100,
      messages,
      stream: true,
    });
    const types: string[] = [];
    let text = '';
    for await (const event of stream) {
      types.push(event.type);
      if (event.type === 'content_block_delta' && event.delta.type === 'text_delta') text += event.delta.text;
    }
    expect(types[0]).toBe('message_start');
    expect(types.at(-1)).toBe('message_stop');
    expect(text).toBe(stubChatText(QUESTION));
  });

  it('messages.create(cut stream): an APIError after the first pieces, where the provider is cut off', async () => {
    const stream = await client().messages.create({ model: 'cut', max_tokens: 100, messages, stream: true });
    let text = '';
    const read = async () => {
      for await (const event of stream) {
        if (event.type === 'content_block_delta' && event.delta.type === 'text_delta')
          text += event.delta.text;
      }
    };
    const error = await refusal(read());
    expect(stubChatText(QUESTION).startsWith(text)).toBe(true);
    expect(text).not.toBe('');
    expect(error).toMatchObject({ error: { type: 'error', error: { type: 'api_error' } } });
  });

  it('messages.stream: text and usage, put together by the client, of providers of both dialects', async () => {
    for (const model of ['claude', 'chat']) {
      const stream = client().messages.stream({ model, max_tokens: 100, messages });
      const whole = await stream.finalMessage();
      expect(await stream.finalText()).toBe(stubChatText(QUESTION));
      expect(whole.usage.output_tokens).toBe(usage.output_tokens);
    }
  });

  it('messages.create(tools): a tool_use block, and the answer to its result', async () => {
    for (const model of ['claude', 'chat']) {
      const answer = await client().messages.create({
        model,
        max_tokens: 100,
        messages,
        tools,
        tool_choice: { type: 'tool', name: 'find_duck' },
      });
      expect(answer.stop_reason).toBe('tool_use');
      const use = answer.content.find((block) => block.type === 'tool_use');
      if (use === undefined) throw new Error('no tool_use block');
      expect(use).toMatchObject({ name: 'find_duck', input: { city: expect.any(String) } });
      const next = await client().messages.create({
        model,
        max_tokens: 100,
        tools,
        messages: [
          ...messages,
          { role: 'assistant', content: answer.content },
          { role: 'user', content: [{ type: 'tool_result', tool_use_id: use.id, content: 'in the pond' }] },
        ],
      });
      expect(next.content[0]).toMatchObject({ type: 'text' });
      expect(next.stop_reason).toBe('end_turn');
    }
  });

  it('messages.countTokens: a number', async () => {
    const { input_tokens } = await client().messages.countTokens({ model: 'claude', messages });
    expect(input_tokens).toBeGreaterThan(0);
  });

  it('models.list: what the caller may see', async () => {
    const names: string[] = [];
    for await (const model of client().models.list()) names.push(model.id);
    expect(names).toEqual(expect.arrayContaining(['chat', 'claude']));
    expect(names).not.toContain('private');
  });

  it('AuthenticationError: 401 for a token that is not known', async () => {
    const error = await refusal(
      client(WRONG_TOKEN).messages.create({ model: 'claude', max_tokens: 9, messages }),
    );
    expect(error).toBeInstanceOf(Anthropic.AuthenticationError);
    expect(error.status).toBe(401);
    expect(error.error).toMatchObject({ type: 'error', error: { type: 'authentication_error' } });
  });

  it('NotFoundError: 404 for an endpoint that does not exist', async () => {
    const error = await refusal(client().messages.create({ model: 'gone', max_tokens: 9, messages }));
    expect(error).toBeInstanceOf(Anthropic.NotFoundError);
    expect(error).toMatchObject({ status: 404, error: { error: { type: 'not_found_error' } } });
  });

  it('PermissionDeniedError: 403 for an endpoint of somebody else', async () => {
    const error = await refusal(client().messages.create({ model: 'private', max_tokens: 9, messages }));
    expect(error).toBeInstanceOf(Anthropic.PermissionDeniedError);
    expect(error).toMatchObject({ status: 403, error: { error: { type: 'permission_error' } } });
  });

  it('RateLimitError: 429 for the second call of a minute, with retry-after', async () => {
    const ask = () =>
      client().messages.create({ model: 'limited-anthropic-node', max_tokens: 100, messages });
    expect((await ask()).usage).toMatchObject(usage);
    const error = await refusal(ask());
    expect(error).toBeInstanceOf(Anthropic.RateLimitError);
    expect(error).toMatchObject({ status: 429, error: { error: { type: 'rate_limit_error' } } });
    expect(Number(error.headers?.get('retry-after'))).toBeGreaterThan(0);
  });

  it('BadRequestError: 400 for what a guardrail blocks, whole and as a stream', async () => {
    const secret = [{ role: 'user' as const, content: WITH_CARD }];
    for (const stream of [false, true]) {
      const body = { model: 'guarded', max_tokens: 9, messages: secret, stream };
      const error = await refusal(client().messages.create(body));
      expect(error).toBeInstanceOf(Anthropic.BadRequestError);
      expect(error).toMatchObject({ status: 400, error: { error: { type: 'invalid_request_error' } } });
      expect(error.message).not.toContain('4111');
    }
  });
});
