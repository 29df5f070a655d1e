import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { type ErrorCode, ServingError } from '#core/errors.ts';
import type { BatchAnswer } from '#engines/engine.ts';
import { createBudget } from '#governance/budget.ts';
import {
  answerText,
  bench,
  embeddings,
  itemFor,
  ScriptedEngine,
  settle,
  targetOf,
  textOf,
} from './support.ts';

const CODES: readonly ErrorCode[] = [
  'UPSTREAM_ERROR',
  'RATE_LIMITED',
  'UPSTREAM_REJECTED',
  'PAYLOAD_TOO_LARGE',
  'INVALID_RESPONSE',
  'TIMEOUT',
];

const plannedCall = fc.record({
  texts: fc.array(fc.constantFrom(...'abcdefghijkl'), { minLength: 1, maxLength: 12 }),
  cache: fc.constantFrom('on' as const, 'off' as const, 'read' as const, 'write' as const),
  cancelAfterTurns: fc.option(fc.integer({ min: 0, max: 6 })),
  hasBudget: fc.boolean(),
  dimensions: fc.constantFrom(1, 2),
});
const scenario = fc.record({
  calls: fc.array(plannedCall, { minLength: 1, maxLength: 8 }),
  fates: fc.array(fc.constantFrom('ok', 'ok', 'ok', 'mixed', ...CODES), { minLength: 1, maxLength: 20 }),
  maxInputs: fc.integer({ min: 1, max: 5 }),
  maxConcurrency: fc.integer({ min: 1, max: 4 }),
  isAdaptive: fc.boolean(),
  hasFallback: fc.boolean(),
  maxCalls: fc.integer({ min: 1, max: 40 }),
});

describe('the books', () => {
  it('balance whatever happens: every input is in one row, every request is counted, every budget is kept', async () => {
    await fc.assert(
      fc.asyncProperty(scenario, async ({ calls, fates, hasFallback, maxCalls, ...limits }) => {
        let asks = 0;
        const engine = new ScriptedEngine(async (batch): Promise<BatchAnswer> => {
          const fate = fates[asks++ % fates.length] ?? 'ok';
          await settle();
          if (batch.signal.aborted) throw new ServingError('CANCELLED', 'Aborted.');
          if (fate === 'ok') return answerText(batch, asks);
          const error = new ServingError(fate === 'mixed' ? 'TIMEOUT' : fate, fate);
          if (fate !== 'mixed') throw error;
          return { items: batch.inputs.map((input, at) => (at % 2 ? { ok: false, error } : itemFor(input))) };
        }, limits);
        const spare = new ScriptedEngine(answerText, {}, 'echo');
        const target = targetOf('e', { task: 'llm/v1/embeddings' });
        const { serving, usage, resolver, call } = bench([engine, spare], {
          target,
          retry: { baseDelayMs: 1, maxDelayMs: 2 },
        });
        if (hasFallback) {
          const { task } = target;
          resolver.set(
            target,
            targetOf('e', { task, engine: 'echo', servedEntity: 'spare', fingerprint: 's' }),
          );
          resolver.govern('e', { fallback: { enabled: true } });
        }
        const budget = createBudget({ maxCalls });
        let paid = 0;
        serving.onUsage((row) => {
          if (row.statusCode === 200) expect(row.errorCode).toBeNull();
        });
        const answers = await Promise.all(
          calls.map(async ({ texts, cache, cancelAfterTurns, hasBudget, dimensions }) => {
            const controller = new AbortController();
            const told = new Set<number>();
            const pending = serving.invoke(
              call(embeddings(...texts), {
                cache,
                signal: controller.signal,
                parameters: { dimensions },
                ...(hasBudget && { budget }),
                onItem: (index) => void told.add(index),
              }),
            );
            if (cancelAfterTurns !== null) {
              for (let turn = 0; turn < cancelAfterTurns; turn++) await SYSTEM_CLOCK.sleep(0);
              controller.abort();
            }
            const outcome = await pending.catch((error: ServingError) => error);
            if (outcome instanceof ServingError) expect(outcome.code).toBe('CANCELLED');
            else {
              expect(told.size).toBe(texts.length);
              for (const [at, item] of outcome.items.entries()) {
                if (!item.ok) continue;
                const text = texts[at] ?? '';
                expect('embedding' in item.output && item.output.embedding[0]).toBe(`${text}!`.length);
                if (!item.cached && hasBudget) paid++;
              }
            }
            return outcome;
          }),
        );
        for (let turn = 0; turn < 20; turn++) await settle();
        expect(answers).toHaveLength(calls.length);
        expect(paid).toBeLessThanOrEqual(maxCalls);
        expect(budget.spent.calls).toBeLessThanOrEqual(maxCalls);
        for (const depth of serving.queueDepths()) expect(depth).toMatchObject({ waiting: 0, inFlight: 0 });
        expect(usage.sum('inputCount')).toBe(calls.reduce((sum, { texts }) => sum + texts.length, 0));
        expect(usage.sum('attempts')).toBe(engine.batches.length + spare.batches.length);
        expect(new Set(usage.rows.map(({ callId }) => callId)).size).toBe(calls.length);
        const sent = [...engine.batches, ...spare.batches].flatMap(({ inputs }) => inputs.map(textOf));
        expect(sent.length).toBeGreaterThanOrEqual(paid);
        await serving.close();
      }),
      { numRuns: 150 },
    );
  });
});
