import { describe, expect, it } from 'vitest';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { openaiEngine } from '#engines/openai/openai.ts';
import { startStubProvider, stubChatText } from '../stub/provider.ts';
import { answerText, bench, chats, contents, ScriptedEngine, targetOf } from './support.ts';

const numbered = (count: number) => Array.from({ length: count }, (_, at) => `text ${at}`);

describe('throughput', () => {
  it('grows to the concurrency that the endpoint allows, and no further', async () => {
    const engine = new ScriptedEngine(
      async (batch, ask) => {
        await SYSTEM_CLOCK.sleep(5);
        return answerText(batch, ask);
      },
      { maxConcurrency: 256, isAdaptive: true },
    );
    const { serving, call } = bench([engine]);
    const inputs = chats(...numbered(4_000));
    const answer = await serving.invoke(call(inputs));
    expect(answer.items.every((item) => item.ok)).toBe(true);
    expect(engine.peak).toBe(256);
  });
});

describe('a provider that misbehaves', () => {
  it('gives every answer all the same, once each, and its ledger is ours', async () => {
    const stub = await startStubProvider({
      latencyMs: 5,
      rate429: 0.05,
      rate500: 0.05,
      rateCut: 0.02,
      rateMalformed: 0.02,
      retryAfterMs: 20,
      seed: 7,
    });
    const target = targetOf('m', {}, { baseUrl: `${stub.url}/v1`, apiKey: 'x', maxConcurrency: 64 });
    const { serving, answers, usage, call } = bench([openaiEngine], {
      target,
      retry: { baseDelayMs: 20, maxTries: 8 },
    });
    const texts = numbered(1000);
    const answer = await serving.invoke(call(chats(...texts)));
    expect(contents(answer.items)).toEqual(texts.map((text) => stubChatText(text)));
    expect(answers.count).toBe(1000);
    expect(usage.sum('attempts')).toBe(stub.ledger().requests);
    expect(usage.sum('inputCount')).toBe(1000);
    await serving.close();
    await stub.close();
  });

  it('with a limit on parallel requests is found out', async () => {
    const stub = await startStubProvider({ latencyMs: 10, maxParallel: 50, retryAfterMs: 10, seed: 7 });
    const target = targetOf('m', {}, { baseUrl: `${stub.url}/v1`, apiKey: 'x', maxConcurrency: 256 });
    const { serving, usage, call } = bench([openaiEngine], { target });
    const texts = numbered(3000);
    const answer = await serving.invoke(call(chats(...texts)));
    expect(contents(answer.items)).toEqual(texts.map((text) => stubChatText(text)));
    expect(usage.sum('attempts')).toBe(stub.ledger().requests);
    // How close depends on the machine; that it is not given up for lost does not.
    expect(stub.ledger().requests).toBeLessThan(6000);
    await serving.close();
    await stub.close();
  });
});
