// The stub provider itself: what it says, how it misbehaves, and that its ledger is true.
import { afterEach, describe, expect, test } from 'vitest';
import {
  type StubOptions,
  type StubProvider,
  startStubProvider,
  stubChatText,
  stubEmbedding,
  stubTokens,
} from '../stub/provider.ts';

let stub: StubProvider | undefined;
afterEach(() => stub?.close());

async function start(options: StubOptions = {}): Promise<StubProvider> {
  stub = await startStubProvider(options);
  return stub;
}
const post = (url: string, body: object) =>
  fetch(url, { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });
const chat = (prompt: string, rest: object = {}) => ({
  model: 'm',
  messages: [{ role: 'user', content: prompt }],
  ...rest,
});

describe('stub provider', () => {
  test('answers a chat with the pure function of its prompt and honest usage', async () => {
    const { openaiUrl, ledger } = await start();
    const response = await post(`${openaiUrl}/chat/completions`, chat('two words'));
    expect(await response.json()).toMatchObject({
      choices: [{ message: { content: stubChatText('two words') }, finish_reason: 'stop' }],
      usage: {
        prompt_tokens: stubTokens('two words'),
        completion_tokens: stubTokens(stubChatText('two words')),
      },
    });
    expect(ledger()).toMatchObject({ requests: 1, byStatus: { 200: 1 }, inputs: 1, inFlight: 0, aborted: 0 });
  });

  test('counts distinct inputs and batches of embeddings', async () => {
    const { openaiUrl, ledger } = await start({ dimensions: 8 });
    const response = await post(`${openaiUrl}/embeddings`, { model: 'm', input: ['a', 'b', 'a'] });
    const { data } = (await response.json()) as { data: { embedding: number[] }[] };
    expect(data[1]?.embedding).toEqual(Array.from(stubEmbedding('b', 8)));
    expect(ledger()).toMatchObject({ requests: 1, inputs: 3, distinctInputs: 2, promptTokens: 6 });
  });

  test('misbehaves at the asked rates, the same for the same seed, and books each kind', async () => {
    const rates = { rate429: 0.2, rate500: 0.2, rateMalformed: 0.2, seed: 7 };
    const fates = async () => {
      const { openaiUrl, ledger, close } = await start(rates);
      const statuses = await Promise.all(
        Array.from({ length: 100 }, async (_, row) => {
          const response = await post(`${openaiUrl}/chat/completions`, chat(`row ${row}`));
          const isGood = await response.json().then(
            () => true,
            () => false,
          );
          return isGood ? response.status : 'malformed';
        }),
      );
      const book = ledger();
      await close();
      return { statuses, book };
    };
    const [first, second] = [await fates(), await fates()];
    expect(second.statuses).toEqual(first.statuses);
    for (const kind of ['rate429', 'rate500', 'rateMalformed'] as const) {
      expect(first.book.byMisbehaviour[kind]).toBeGreaterThan(8);
      expect(first.book.byMisbehaviour[kind]).toBeLessThan(35);
    }
    expect(first.statuses.filter((status) => status === 429)).toHaveLength(first.book.byStatus[429] ?? 0);
    expect(first.statuses.filter((status) => status === 'malformed')).toHaveLength(
      first.book.byMisbehaviour.rateMalformed ?? 0,
    );
  });

  test('the same request tried again may have another fate', async () => {
    const { openaiUrl } = await start({ rate500: 0.5 });
    const statuses = new Set<number>();
    for (let attempt = 0; attempt < 20; attempt++) {
      statuses.add((await post(`${openaiUrl}/chat/completions`, chat('again'))).status);
    }
    expect([...statuses].sort()).toEqual([200, 500]);
  });

  test('cuts connections', async () => {
    const { openaiUrl, ledger } = await start({ rateCut: 1 });
    await expect(post(`${openaiUrl}/chat/completions`, chat('x'))).rejects.toThrow('fetch failed');
    expect(ledger()).toMatchObject({ byStatus: { 0: 1 }, byMisbehaviour: { rateCut: 1 }, aborted: 0 });
  });

  test('answers 429 with Retry-After above the maximum of parallel requests, and knows its peak', async () => {
    const { openaiUrl, ledger } = await start({ maxParallel: 2, latencyMs: 30, retryAfterMs: 1_500 });
    const responses = await Promise.all(
      ['a', 'b', 'c', 'd'].map((prompt) => post(`${openaiUrl}/chat/completions`, chat(prompt))),
    );
    const refused = responses.filter(({ status }) => status === 429);
    expect(refused.length).toBeGreaterThanOrEqual(1);
    expect(refused[0]?.headers.get('retry-after')).toBe('2');
    expect(refused[0]?.headers.get('retry-after-ms')).toBe('1500');
    expect(ledger().byMisbehaviour.overParallel).toBe(refused.length);
    expect(ledger().peakInFlight).toBeGreaterThanOrEqual(2);
  });

  test('an answer can be replaced', async () => {
    const { url, requests } = await start({
      answer: (body) => ({ status: 418, body: { got: body.model ?? null } }),
    });
    const response = await post(`${url}/v1/messages`, chat('x'));
    expect([response.status, await response.json()]).toEqual([418, { got: 'm' }]);
    expect(requests).toMatchObject([{ path: '/v1/messages', body: { model: 'm' } }]);
  });
});
