import { describe, expect, it } from 'vitest';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { openaiEngine } from '#engines/openai/openai.ts';
import { startStubProvider, stubChatText } from '../stub/provider.ts';
import { answerText, bench, chats, contents, ScriptedEngine, targetOf } from './support.ts';

const numbered = (count: number) => Array.from({ length: count }, (_, at) => `text ${at}`);

describe('throughput', () => {
  it('of 10,000 inputs at 50 ms and concurrency 256 is near the ideal of two seconds', async () => {
    const engine = new ScriptedEngine(
      async (batch, ask) => {
        await SYSTEM_CLOCK.sleep(50);
        return answerText(batch, ask);
      },
      { maxConcurrency: 256, isAdaptive: true },
    );
    const { serving, call } = bench([engine]);
    const inputs = chats(...numbered(10_000));
    const startedAt = performance.now();
    await serving.invoke(call(inputs));
    const seconds = (performance.now() - startedAt) / 1000;
    expect(engine.peak).toBe(256);
    // Ideal 1.95 s; the room is for a machine that does other things as well.
    expect(seconds).toBeLessThan(4);
  });

  it('of the queue itself is below 100 microseconds of work an input', async () => {
    const engine = new ScriptedEngine(answerText, { maxConcurrency: 64 });
    const { serving, call } = bench([engine]);
    const inputs = chats(...numbered(20_000));
    await serving.invoke(call(inputs.slice(0, 2000), { cache: 'off' }));
    expect(await microsecondsOfWork(() => serving.invoke(call(inputs)), inputs.length)).toBeLessThan(100);
  });

  it('of stored answers is below 30 microseconds of work an input', async () => {
    const { serving, call } = bench([new ScriptedEngine(answerText, { maxConcurrency: 64 })]);
    const inputs = chats(...numbered(50_000));
    await serving.invoke(call(inputs));
    expect(await microsecondsOfWork(() => serving.invoke(call(inputs)), inputs.length)).toBeLessThan(30);
  });
});

/** Processor time, not wall time: other work on the machine is not ours. */
async function microsecondsOfWork(work: () => Promise<unknown>, inputs: number): Promise<number> {
  const before = process.cpuUsage();
  await work();
  return process.cpuUsage(before).user / inputs;
}

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

  it('with a limit on parallel requests is found out and hardly ever exceeded', async () => {
    const stub = await startStubProvider({ latencyMs: 10, maxParallel: 50, retryAfterMs: 10, seed: 7 });
    const target = targetOf('m', {}, { baseUrl: `${stub.url}/v1`, apiKey: 'x', maxConcurrency: 256 });
    const { serving, usage, call } = bench([openaiEngine], { target });
    const texts = numbered(3000);
    const answer = await serving.invoke(call(chats(...texts)));
    expect(contents(answer.items)).toEqual(texts.map((text) => stubChatText(text)));
    expect(usage.sum('attempts')).toBe(stub.ledger().requests);
    expect(stub.ledger().requests).toBeLessThan(3600);
    await serving.close();
    await stub.close();
  });
});
