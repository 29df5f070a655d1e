// The Vercel AI SDK with its provider for OpenAI-compatible servers.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import {
  APICallError,
  embed,
  embedMany,
  generateObject,
  generateText,
  stepCountIs,
  streamObject,
  streamText,
  tool,
} from 'ai';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { stubChatText, stubTokens } from '../stub/answers.ts';
import { stage, WITH_CARD, WRONG_TOKEN } from './stage.ts';

const prompt = 'Which duck is this?';
const usage = { inputTokens: stubTokens(prompt), outputTokens: stubTokens(stubChatText(prompt)) };
const schema = z.object({ species: z.string(), legs: z.number() });

function provider(apiKey = stage().client) {
  return createOpenAICompatible({
    name: 'duckserve',
    baseURL: `${stage().url}/v1`,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
}

async function refusal(promise: PromiseLike<unknown>): Promise<APICallError> {
  const error = await Promise.resolve(promise).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!APICallError.isInstance(error)) throw new Error(`APICallError was expected, not ${String(error)}`);
  return error;
}

const ask = (model: string, apiKey?: string) =>
  generateText({ model: provider(apiKey)(model), prompt, maxRetries: 0 });

describe('ai with @ai-sdk/openai-compatible (Node)', () => {
  it('generateText: text, reason of the end, usage', async () => {
    const answer = await ask('chat');
    expect(answer.text).toBe(stubChatText(prompt));
    expect(answer.finishReason).toBe('stop');
    expect(answer.usage).toMatchObject(usage);
  });

  it('generateText(tools): a tool is run, its result is sent, the text comes', async () => {
    const cities: string[] = [];
    const answer = await generateText({
      model: provider()('chat'),
      prompt,
      tools: {
        find_duck: tool({
          description: 'Finds a duck.',
          inputSchema: z.object({ city: z.string() }),
          execute: ({ city }) => {
            cities.push(city);
            return Promise.resolve('in the pond');
          },
        }),
      },
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'auto' }),
      stopWhen: stepCountIs(2),
    });
    expect(cities).toEqual([expect.any(String)]);
    expect(answer.steps.map(({ finishReason }) => finishReason)).toEqual(['tool-calls', 'stop']);
    expect(answer.text).toBe(stubChatText(prompt));
  });

  it('streamText: pieces of the text, usage', async () => {
    const stream = streamText({ model: provider()('chat'), prompt });
    const pieces: string[] = [];
    for await (const piece of stream.textStream) pieces.push(piece);
    expect(pieces.join('')).toBe(stubChatText(prompt));
    expect(pieces.length).toBeGreaterThan(3);
    expect(await stream.usage).toMatchObject(usage);
  });

  it('generateObject: an object of the schema', async () => {
    const { object } = await generateObject({ model: provider()('chat'), prompt, schema });
    expect(object).toEqual({ species: expect.any(String), legs: expect.any(Number) });
  });

  it('streamObject: an object of the schema, growing', async () => {
    const stream = streamObject({ model: provider()('chat'), prompt, schema });
    let parts = 0;
    for await (const _ of stream.partialObjectStream) parts++;
    expect(parts).toBeGreaterThan(0);
    expect(await stream.object).toEqual({ species: expect.any(String), legs: expect.any(Number) });
  });

  it('embed: a vector of the provider, with usage', async () => {
    const { embedding, usage: used } = await embed({
      model: provider().embeddingModel('vectors'),
      value: 'a duck',
    });
    expect(embedding).toHaveLength(64);
    expect(used.tokens).toBe(stubTokens('a duck'));
  });

  it('embedMany: vectors of an embedded model', async () => {
    const model = provider().embeddingModel('embedded-static-256');
    const { embeddings } = await embedMany({ model, values: ['a duck', 'a goose'] });
    expect(embeddings.map(({ length }) => length)).toEqual([256, 256]);
  });

  it('APICallError: 401 for a token that is not known, 404 for no endpoint, 403 for that of somebody else', async () => {
    expect(await refusal(ask('chat', WRONG_TOKEN))).toMatchObject({ statusCode: 401, isRetryable: false });
    expect(await refusal(ask('gone'))).toMatchObject({ statusCode: 404, isRetryable: false });
    expect(await refusal(ask('private'))).toMatchObject({ statusCode: 403, isRetryable: false });
  });

  it('APICallError(429): for the second call of a minute, to be tried again, with retry-after', async () => {
    expect((await ask('limited-vercel-ai')).usage).toMatchObject(usage);
    const error = await refusal(ask('limited-vercel-ai'));
    expect(error).toMatchObject({ statusCode: 429, isRetryable: true });
    expect(Number(error.responseHeaders?.['retry-after'])).toBeGreaterThan(0);
  });

  it('APICallError(400): for what a guardrail blocks', async () => {
    const error = await refusal(
      generateText({ model: provider()('guarded'), prompt: WITH_CARD, maxRetries: 0 }),
    );
    expect(error).toMatchObject({ statusCode: 400, isRetryable: false });
    expect(JSON.parse(error.responseBody ?? '')).toMatchObject({ error: { code: 'GUARDRAIL_TRIGGERED' } });
    expect(error.message).not.toContain('4111');
  });
});
