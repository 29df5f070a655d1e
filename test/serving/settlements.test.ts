import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Budget, Reservation, Spend, StreamEvent } from '#core/call.ts';
import { type ErrorCode, ServingError } from '#core/errors.ts';
import type { Guard } from '#core/policies.ts';
import type { Batch, BatchAnswer } from '#engines/engine.ts';
import { bench, chats, itemFor, ManualClock, ScriptedEngine, targetOf, textOf } from './support.ts';

/** A meter that counts what is open and refuses, waits or throws as it is told. */
class WildMeter implements Budget {
  readonly limits = {};
  readonly spent: Spend[] = [];
  open = 0;
  granted = 0;
  twice = 0;
  readonly #moods: readonly string[];
  readonly #clock: ManualClock;
  #asks = 0;

  constructor(moods: readonly string[], clock: ManualClock) {
    this.#moods = moods;
    this.#clock = clock;
  }

  tryReserve(): Reservation | undefined {
    const mood = this.#mood();
    if (mood === 'wait') return undefined;
    if (mood === 'yes') return this.#grant();
    throw new ServingError(mood as ErrorCode, 'Limit.');
  }

  async reserve(_spend: Spend, signal?: AbortSignal): Promise<Reservation> {
    if (signal?.aborted) throw new ServingError('CANCELLED', 'Gone.');
    const mood = this.#mood();
    if (mood === 'wait') await this.#clock.sleep(30, signal);
    else if (mood !== 'yes') throw new ServingError(mood as ErrorCode, 'Limit.');
    return this.#grant();
  }

  #mood(): string {
    return this.#moods[this.#asks++ % this.#moods.length] ?? 'yes';
  }

  #grant(): Reservation {
    this.open++;
    this.granted++;
    let isSettled = false;
    return {
      settle: (actual) => {
        if (isSettled) this.twice++;
        isSettled = true;
        this.open--;
        this.spent.push(actual);
      },
    };
  }
}

const CODES: readonly ErrorCode[] = [
  'UPSTREAM_ERROR',
  'RATE_LIMITED',
  'TIMEOUT',
  'UPSTREAM_REJECTED',
  'INVALID_RESPONSE',
];
const fate = fc.record({
  what: fc.constantFrom('ok', 'ok', 'ok', 'hang', 'empty', ...CODES),
  afterMs: fc.constantFrom(0, 1, 20, 200, 3000),
});
const plannedCall = fc.record({
  texts: fc.array(fc.constantFrom('a', 'b', 'c', 'd', 'mask', 'refuse', 'withhold', 'break'), {
    minLength: 1,
    maxLength: 4,
  }),
  isStream: fc.boolean(),
  origin: fc.constantFrom('http' as const, 'sql' as const),
  cache: fc.constantFrom('on' as const, 'off' as const),
  hasBudget: fc.boolean(),
  startsAtMs: fc.nat(300),
  cancelAfterMs: fc.option(fc.nat(500)),
  deadlineMs: fc.option(fc.integer({ min: 1, max: 800 })),
  stopsReadingAfter: fc.option(fc.nat(2)),
});
const scenario = fc.record({
  calls: fc.array(plannedCall, { minLength: 1, maxLength: 10 }),
  fates: fc.array(fate, { minLength: 1, maxLength: 30 }),
  moods: fc.array(fc.constantFrom('yes', 'yes', 'yes', 'wait', 'RATE_LIMIT_EXCEEDED', 'BUDGET_EXCEEDED'), {
    minLength: 1,
    maxLength: 12,
  }),
  hasFallback: fc.boolean(),
  isHedged: fc.boolean(),
  isGuarded: fc.boolean(),
  maxConcurrency: fc.integer({ min: 1, max: 5 }),
  maxQueue: fc.constantFrom(1, 3, 1000),
});

const refusal = new ServingError('GUARDRAIL_TRIGGERED', 'No.');
const guardOn = (clock: ManualClock): Guard => ({
  fingerprint: 'g',
  inputs: async ({ inputs, signal }) => {
    if (inputs.length > 2) await clock.sleep(10, signal);
    return inputs.map((input) =>
      textOf(input) === 'refuse' ? refusal : textOf(input) === 'mask' ? (chats('<M>')[0] ?? input) : input,
    );
  },
  output: async (call, output) => {
    await clock.sleep(5, call.signal);
    if (!('content' in output)) return output;
    if (output.content?.startsWith('break')) throw new ServingError('UPSTREAM_ERROR', 'The judge is away.');
    return output.content?.startsWith('withhold') ? refusal : output;
  },
});

describe('every reservation', () => {
  it('is settled exactly once, whatever fails, hangs, is hedged, guarded, cancelled or late', async () => {
    await fc.assert(
      fc.asyncProperty(scenario, async ({ calls, fates, moods, maxQueue, ...options }) => {
        const clock = new ManualClock();
        let requests = 0;
        const next = () => fates[requests++ % fates.length] ?? { what: 'ok', afterMs: 0 };
        const act = async ({ signal }: Batch): Promise<string> => {
          const { what, afterMs } = next();
          await clock.sleep(what === 'hang' ? 1e9 : afterMs, signal).catch(() => {
            throw new ServingError('CANCELLED', 'Aborted.');
          });
          if (what !== 'ok' && what !== 'empty') throw new ServingError(what as ErrorCode, what);
          return what;
        };
        const engineOf = (kind: 'openai' | 'echo') => {
          const engine = new ScriptedEngine(
            async (batch): Promise<BatchAnswer> => {
              const what = await act(batch);
              const usage = { inputTokens: 10, outputTokens: 0 };
              return {
                items: batch.inputs.map((input) =>
                  what === 'ok'
                    ? itemFor(input)
                    : { ok: true, output: { content: '', finishReason: 'stop' }, usage },
                ),
              };
            },
            { maxConcurrency: options.maxConcurrency },
            kind,
          );
          engine.stream = async function* (batch): AsyncGenerator<StreamEvent> {
            const what = await act(batch);
            if (what === 'ok') {
              yield { type: 'delta', text: textOf(batch.inputs[0] ?? { text: '' }) };
              await clock.sleep(10, batch.signal);
              yield { type: 'delta', text: '!' };
            }
            yield {
              type: 'end',
              finishReason: 'stop',
              usage: { inputTokens: 10, outputTokens: what === 'ok' ? 5 : 0 },
            };
          };
          return engine;
        };
        const meter = new WildMeter(moods, clock);
        const budget = new WildMeter(['yes'], clock);
        const made = bench([engineOf('openai'), engineOf('echo')], {
          clock,
          meters: { meterOf: () => meter },
          ...(options.isGuarded && { guards: { guardOf: () => guardOn(clock) } }),
          retry: { maxQueue, sickAfterFailures: 6 },
        });
        const { serving, usage, resolver, call } = made;
        resolver.set(
          targetOf('m'),
          targetOf('m', { engine: 'echo', servedEntity: 'spare', fingerprint: 's' }),
        );
        resolver.govern('m', {
          fallback: { enabled: options.hasFallback },
          timeoutMs: 2500,
          ...(options.isHedged && { hedging: { quantile: 0.5, maxExtraPercent: 100 } }),
        });
        // Enough for the tail to be known: all of this takes no time, so every wait is a long one.
        if (options.isHedged) {
          const before = fates.splice(0);
          for (let at = 0; at < 24; at++) {
            const warm = serving.invoke(call(chats(`warm ${at}`), { origin: 'sql', cache: 'off' }));
            warm.catch(() => {});
          }
          await clock.advance(2000);
          fates.push(...before);
        }
        const over: Promise<unknown>[] = [];
        const begin = async (planned: (typeof calls)[number]) => {
          await clock.sleep(planned.startsAtMs);
          const controller = new AbortController();
          const { origin, cache, deadlineMs, cancelAfterMs, hasBudget } = planned;
          if (cancelAfterMs !== null) void clock.sleep(cancelAfterMs).then(() => controller.abort());
          const asked = call(chats(...(planned.isStream ? planned.texts.slice(0, 1) : planned.texts)), {
            ...{ origin, cache, signal: controller.signal },
            ...(deadlineMs !== null && { deadlineMs: clock.now() + deadlineMs }),
            ...(hasBudget && { budget }),
          });
          if (!planned.isStream) return await serving.invoke(asked);
          const { events } = await serving.stream(asked);
          let seen = 0;
          for await (const _ of events) if (seen++ === planned.stopsReadingAfter) break;
          return undefined;
        };
        let pending = calls.length;
        for (const planned of calls) {
          const ended = begin(planned).catch((error: ServingError) => error);
          over.push(ended.finally(() => pending--));
        }
        for (let step = 0; step < 5; step++) await clock.advance(20_000);
        // What hangs for rows of a statement, nobody ends but the end of the server.
        await serving.close();
        await clock.advance(1000);
        expect(pending).toBe(0);
        const outcomes = await Promise.all(over);
        for (const outcome of outcomes) {
          if (outcome instanceof Error) expect(outcome).toBeInstanceOf(ServingError);
          if (outcome instanceof ServingError) expect(outcome.code).not.toBe('INTERNAL');
        }
        expect({ open: meter.open, twice: meter.twice }).toEqual({ open: 0, twice: 0 });
        expect({ open: budget.open, twice: budget.twice }).toEqual({ open: 0, twice: 0 });
        for (const depth of serving.queueDepths()) expect(depth).toMatchObject({ waiting: 0, inFlight: 0 });
        expect(usage.sum('attempts')).toBe(requests);
        const inputs = calls.map(({ texts, isStream }) => (isStream ? 1 : texts.length));
        const warmed = options.isHedged ? 24 : 0;
        expect(usage.sum('inputCount')).toBe(inputs.reduce((sum, count) => sum + count, 0) + warmed);
        // Each request was paid for by one reservation, and each row's tokens by what was settled.
        expect(meter.spent.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(
          usage.sum('inputTokens') + usage.sum('outputTokens'),
        );
      }),
      { numRuns: 100 },
    );
  }, 120_000);
});
