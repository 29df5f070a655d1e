// Whether a long AI statement holds up other sessions of the same process: how long small statements take beside
// it, against the same statements alone.
import { runPart } from '../parts.ts';
import { type Figure, promise } from '../report.ts';
import {
  createStubEndpoint,
  openPlace,
  type Place,
  placeIn,
  quantile,
  type Scenario,
  scaled,
  timed,
} from '../scenario.ts';

const CONCURRENCY = 256;
const PAUSE_MS = 5;
const STATEMENTS = {
  'SELECT 42': 'SELECT 42',
  aggregate: 'SELECT g, count(*), avg(x) FROM small GROUP BY g',
} as const;
type Statement = keyof typeof STATEMENTS;

interface Args {
  readonly place: Place;
  readonly baseUrl: string;
  readonly distinct: number;
}
interface Outcome {
  readonly alone: Readonly<Record<Statement, readonly number[]>>;
  readonly beside: Readonly<Record<Statement, readonly number[]>>;
  readonly longSeconds: number;
  readonly asked: number;
}

export async function watch({ place, baseUrl, distinct }: Args): Promise<Outcome> {
  const app = await openPlace(place);
  await createStubEndpoint(app, baseUrl, CONCURRENCY);
  const [long, short] = [await app.openSession(), await app.openSession()];
  await long.run(`CREATE TABLE big AS SELECT 'text ' || (i * 7907) % ${distinct} AS body FROM range(${10 * distinct}) t(i);
    CREATE TABLE small AS SELECT i % 10 AS g, i * 0.5 AS x FROM range(10000) t(i)`);
  const measure = async (isOver: (rounds: number) => boolean) => {
    const times: Record<Statement, number[]> = { 'SELECT 42': [], aggregate: [] };
    for (let rounds = 0; !isOver(rounds); rounds++) {
      for (const name of Object.keys(STATEMENTS) as Statement[]) {
        times[name].push((await timed(short, STATEMENTS[name])).seconds * 1_000);
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    return times;
  };
  await measure((rounds) => rounds === 50);
  const alone = await measure((rounds) => rounds === 300);
  let isOver = false;
  const running = timed(long, "SELECT body, ai_query('stub', body) FROM big").finally(() => {
    isOver = true;
  });
  const beside = await measure(() => isOver);
  const { result, seconds } = await running;
  await app.close();
  return { alone, beside, longSeconds: seconds, asked: result.calls.asked };
}

export const scenario: Scenario = {
  about: 'small statements of one session while another session asks 20,000 questions over 200,000 rows',
  async run(context) {
    const distinct = scaled(context, 20_000, 2_000);
    const stub = await context.startStub({ 'latency-ms': 50 });
    const { value, peakRssMb } = await runPart(import.meta.url, watch, {
      place: placeIn(context.directory),
      baseUrl: stub.openaiUrl,
      distinct,
    });
    const figures: Figure[] = [];
    for (const name of Object.keys(STATEMENTS) as Statement[]) {
      for (const [label, share] of [
        ['p50', 0.5],
        ['p99', 0.99],
        ['longest', 1],
      ] as const) {
        const against = { name: 'alone', value: quantile(value.alone[name], share) };
        figures.push({
          name: `${name}, ${label}`,
          value: quantile(value.beside[name], share),
          unit: 'ms',
          against,
        });
      }
    }
    const { requests } = await stub.ledger();
    return {
      figures,
      promises: [
        promise(
          'the long statement asked each text once',
          requests === distinct,
          `${requests} requests for ${distinct} texts`,
        ),
      ],
      notes: [
        `the long statement took ${value.longSeconds.toFixed(1)} s; ${value.beside['SELECT 42'].length} small statements of each kind ran beside it`,
      ],
      peakRssMb: { process: peakRssMb },
    };
  },
};
