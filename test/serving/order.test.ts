import { describe, expect, it } from 'vitest';
import { ServingError } from '#core/errors.ts';
import { answerText, bench, chats, MemoryUsage, ScriptedEngine } from './support.ts';

describe('the order of the stages', () => {
  it('is resolve, authorise, guard the input, look up, meter, ask, guard the output, store, record', async () => {
    const steps: string[] = [];
    const engine = new ScriptedEngine((batch) => {
      steps.push('ask');
      return answerText(batch, 1);
    });
    const usage = new MemoryUsage();
    usage.add = () => void steps.push('record');
    const { serving, answers, resolver, call } = bench([engine], {
      usage,
      authorize: () => void steps.push('authorize'),
      meters: {
        meterOf: () => ({
          limits: {},
          reserve: async () => {
            steps.push('meter');
            return { settle: () => void steps.push('settle') };
          },
        }),
      },
      guards: {
        guardOf: () => ({
          fingerprint: 'rules',
          inputs: async ({ inputs }) => {
            steps.push('guard inputs');
            return inputs;
          },
          output: async (_call, output) => {
            steps.push('guard output');
            return output;
          },
        }),
      },
    });
    const resolve = resolver.resolve.bind(resolver);
    resolver.resolve = (...asked) => {
      steps.push('resolve');
      return resolve(...asked);
    };
    const { get, put } = { get: answers.get.bind(answers), put: answers.put.bind(answers) };
    answers.get = (key) => {
      steps.push('look up');
      return get(key);
    };
    answers.put = (key, answer) => {
      steps.push('store');
      put(key, answer);
    };
    await serving.invoke(call(chats('a')));
    expect(steps).toEqual([
      'resolve',
      'authorize',
      'guard inputs',
      'look up',
      'meter',
      'ask',
      'settle',
      'guard output',
      'store',
      'record',
    ]);
  });

  it('authorises before the cache: who may not query learns nothing of stored answers', async () => {
    const engine = new ScriptedEngine();
    let isAllowed = true;
    const { serving, answers, usage, call } = bench([engine], {
      authorize: () => {
        if (!isAllowed) throw new ServingError('PERMISSION_DENIED', 'No.');
      },
    });
    await serving.invoke(call(chats('a')));
    isAllowed = false;
    answers.reads = 0;
    await expect(serving.invoke(call(chats('a')))).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
    expect(answers.reads).toBe(0);
    expect(usage.rows.at(-1)).toMatchObject({
      statusCode: 403,
      attempts: 0,
      inputCount: 1,
      servedEntity: 'm-1',
    });
  });
});
