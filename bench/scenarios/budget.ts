// One budget, many askers: however many sessions and calls draw on it at once, no request is sent beyond it.
import { createCall } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import { runPart } from '../parts.ts';
import { type Figure, promise } from '../report.ts';
import { createStubEndpoint, openPlace, type Place, type Scenario, scaled } from '../scenario.ts';

const ASKERS = 64;

interface Args {
  readonly place: Place;
  readonly baseUrl: string;
  readonly maxCalls: number;
  readonly textsEach: number;
  /** Keeps the texts of this round apart from those of the others. */
  readonly round: string;
}
interface Outcome {
  readonly seconds: number;
  readonly answered: number;
  readonly refused: number;
  readonly otherErrors: readonly string[];
}

/** Half of the askers are SQL sessions with one statement each, half are calls through the library. */
export async function spend({ place, baseUrl, maxCalls, textsEach, round }: Args): Promise<Outcome> {
  const app = await openPlace(place);
  await createStubEndpoint(app, baseUrl, 256);
  const budget = app.createBudget({ maxCalls });
  let [answered, refused] = [0, 0];
  const otherErrors: string[] = [];
  const note = (error: unknown) => {
    if (error instanceof ServingError && error.code === 'BUDGET_EXCEEDED') refused++;
    else otherErrors.push(String(error));
  };
  const startedAt = performance.now();
  await Promise.all(
    Array.from({ length: ASKERS }, async (_, asker) => {
      const name = `${round} ${asker}`;
      try {
        if (asker % 2 === 0) {
          const session = await app.openSession();
          const sql = `SELECT ai_query('stub', '${name}: ' || i) FROM range(${textsEach}) t(i)`;
          const [result] = await session.run(sql, { budget });
          answered += result?.rowCount ?? 0;
        } else {
          const inputs = Array.from({ length: textsEach }, (_, index) => {
            return { messages: [{ role: 'user' as const, content: `${name}: ${index}` }] };
          });
          const answer = await app.serving.invoke(createCall('stub', 'llm/v1/chat', inputs, { budget }));
          for (const item of answer.items) {
            if (item.ok) answered++;
            else note(item.error);
          }
        }
      } catch (error) {
        note(error);
      }
    }),
  );
  const seconds = (performance.now() - startedAt) / 1_000;
  await app.close();
  return { seconds, answered, refused, otherErrors: [...new Set(otherErrors)] };
}

export const scenario: Scenario = {
  about: '64 sessions and calls at once draw on one budget of 1,000 calls',
  async run(context) {
    const maxCalls = scaled(context, 1_000, 50);
    const textsEach = Math.max(1, Math.ceil((4 * maxCalls) / ASKERS));
    const figures: Figure[] = [];
    const promises = [];
    const notes: string[] = [];
    const peakRssMb: Record<string, number> = {};
    const behaviours = { 'well-behaved': {}, '10 % refused': { rate429: 0.1, 'retry-after-ms': 20 } };
    for (const [round, behaviour] of Object.entries(behaviours)) {
      const stub = await context.startStub({ 'latency-ms': 20, ...behaviour });
      const place: Place = { dataDir: `${context.directory}/${round.slice(0, 4)}`, dbPath: ':memory:' };
      const { value, ...part } = await runPart(import.meta.url, spend, {
        place,
        baseUrl: stub.openaiUrl,
        maxCalls,
        textsEach,
        round,
      });
      const { requests } = await stub.ledger();
      const limit = { name: 'budget', value: maxCalls };
      figures.push({ name: `requests, ${round} provider`, value: requests, unit: '', against: limit });
      figures.push({ name: `time, ${round} provider`, value: value.seconds, unit: 's' });
      promises.push(
        promise(`${round}: no request beyond the budget`, requests <= maxCalls, `${requests} of ${maxCalls}`),
      );
      promises.push(
        promise(
          `${round}: who went without was told why`,
          value.refused > 0 && value.otherErrors.length === 0,
          value.otherErrors.join('; ') || `${value.refused} times BUDGET_EXCEEDED`,
        ),
      );
      notes.push(
        `${round}: ${ASKERS * textsEach} texts wanted, ${value.answered} answers reached their asker`,
      );
      peakRssMb[round] = part.peakRssMb;
    }
    return { figures, promises, notes, peakRssMb };
  },
};
