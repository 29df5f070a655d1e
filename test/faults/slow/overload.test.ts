// Three times as many calls as can be answered: the shed ones are told so at once and when to come back, the others
// are answered as if there were no more than can be.
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { LOCAL_OWNER } from '#core/call.ts';
import { stubSpec, Workplace } from '../../app/support.ts';
import { type Answered, ask, chatBody } from '../support.ts';

const workplace = new Workplace();
afterEach(() => workplace.clear());

const PLACES = 4;
const LATENCY_MS = 100;
/** What the stub can answer in a second. */
const CAPACITY = (PLACES * 1_000) / LATENCY_MS;
const SECONDS = 5;

interface Outcome {
  readonly answered: Answered;
  readonly tookMs: number;
}

/** A caller whose connection was cut, instead of being told anything. */
const toNothing = (error: Error): Answered => ({
  ...{ status: 0, headers: new Headers(), text: String(error.cause ?? error), body: undefined },
});

const quantile = (values: readonly number[], share: number) =>
  [...values].sort((left, right) => left - right)[Math.floor((values.length - 1) * share)] ?? 0;

describe('three times the capacity', () => {
  it.each([
    ['answers', {}],
    ['streams', { stream: true }],
  ])('sheds with a status and a time to come back, and answers as many as ever (%s)', async (what, more) => {
    const stub = await workplace.stub({ latencyMs: LATENCY_MS });
    const dataDir = workplace.directory();
    const app = await workplace.app({ dataDir: join(dataDir, 'data') });
    const spec = { ...stubSpec('llm', stub, { maxConcurrency: PLACES }), aiGateway: { timeoutMs: 2_000 } };
    await app.registry.createEndpoint(spec, LOCAL_OWNER);
    await app.close();
    const program = workplace.program(['serve', '--port', '0'], { dataDir });
    const [, url = ''] = await program.stdoutMatch(/duckserve listens on (http:\S+)/);
    let number = 0;
    const chat = async (): Promise<Outcome> => {
      const startedAt = performance.now();
      const body = chatBody('llm', `question ${number++}`, more);
      const answered = await ask(`${url}/v1/chat/completions`, 'POST', body).catch(toNothing);
      return { answered, tookMs: performance.now() - startedAt };
    };
    const isGood = ({ answered }: Outcome) =>
      answered.status === 200 && (what === 'answers' || answered.text.includes('[DONE]'));

    /** Callers who wait for their answer before they ask again: as many as there are places. */
    const peak = async () => {
      const endAt = performance.now() + SECONDS * 1_000;
      let good = 0;
      await Promise.all(
        Array.from({ length: PLACES }, async () => {
          while (performance.now() < endAt) if (isGood(await chat())) good++;
        }),
      );
      return good;
    };
    /** Callers who come whether or not anybody is answered. */
    const flood = async () => {
      const startedAt = performance.now();
      const all: Promise<Outcome>[] = [];
      while (performance.now() - startedAt < SECONDS * 1_000) {
        const due = ((performance.now() - startedAt) / 1_000) * 3 * CAPACITY;
        while (all.length < due) all.push(chat());
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      return await Promise.all(all);
    };

    await Promise.all(Array.from({ length: PLACES }, chat));
    const best = await peak();
    const before = stub.ledger();
    const outcomes = await flood();
    const good = outcomes.filter(isGood);
    // Those who were let in and then were late: where the machine is slower than it was a moment ago.
    const late = outcomes.filter(({ answered }) => answered.status === 504);
    const shed = outcomes.filter((outcome) => !isGood(outcome) && !late.includes(outcome));
    const times = (of: readonly Outcome[]) => of.map(({ tookMs }) => tookMs);
    console.log(
      `${what}: peak ${best}, flood of ${outcomes.length}: ${good.length} answered (${(good.length / best).toFixed(2)} of the peak), ` +
        `${late.length} late, ${shed.length} shed; shed p50 ${quantile(times(shed), 0.5).toFixed(1)} ms, p99 ${quantile(times(shed), 0.99).toFixed(1)} ms; ` +
        `answered p50 ${quantile(times(good), 0.5).toFixed(0)} ms, p99 ${quantile(times(good), 0.99).toFixed(0)} ms`,
    );

    expect(shed.filter(({ answered }) => answered.status === 0).map(({ answered }) => answered.text)).toEqual(
      [],
    );
    expect(outcomes.length).toBeGreaterThan(2.5 * CAPACITY * SECONDS);
    expect(shed.length).toBeGreaterThan(outcomes.length / 3);
    for (const { answered } of shed) {
      expect([429, 503], answered.text).toContain(answered.status);
      expect(Number(answered.headers.get('retry-after')), answered.text).toBeGreaterThan(0);
    }
    expect(late.length).toBeLessThan(outcomes.length / 20);
    expect(good.length / best).toBeGreaterThan(0.8);
    // Whoever is shed learns it long before others are answered.
    expect(quantile(times(shed), 0.5)).toBeLessThan(quantile(times(good), 0.1));
    // Nothing was sent beyond the places there are, and nothing was sent in vain.
    expect(stub.ledger().peakInFlight).toBeLessThanOrEqual(PLACES);
    expect(stub.ledger().requests - before.requests).toBeLessThan(good.length + late.length + PLACES);
    // And when the flood is over, everybody is answered at once.
    const after = await Promise.all(Array.from({ length: PLACES }, chat));
    expect(after.every(isGood)).toBe(true);
  });
});
