// ai_query over a table with ten equal rows for each text: equal questions are asked once, all of them at once,
// and a second run asks nothing. Against the time that latency and concurrency leave at best, and a bare client.
import { Pool } from 'undici';
import { stubChatText } from '../../test/stub/answers.ts';
import { runPart } from '../parts.ts';
import { promise } from '../report.ts';
import {
  createStubEndpoint,
  openPlace,
  type Place,
  placeIn,
  type Scenario,
  scaled,
  timed,
} from '../scenario.ts';

const LATENCY_MS = 50;
const CONCURRENCY = 256;
const REPEATS = 10;

interface Args {
  readonly place: Place;
  readonly baseUrl: string;
  readonly rows: number;
  readonly distinct: number;
}
interface StatementFigures {
  readonly seconds: number;
  readonly asked: number;
  readonly cached: number;
  readonly passes: number;
  readonly wrongRows: number;
}

const textOf = (number: number, prefix = 'mail'): string =>
  `${prefix} ${number}: the parcel of order ${number * 7919} has not arrived, what now?`;

export async function askBare({ baseUrl, distinct }: Args): Promise<number> {
  const pool = new Pool(new URL(baseUrl).origin, { connections: CONCURRENCY, pipelining: 1 });
  const startedAt = performance.now();
  let next = 0;
  const worker = async () => {
    while (next < distinct) {
      const content = textOf(next++, 'bare');
      const { body } = await pool.request({
        path: '/v1/chat/completions',
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'stub-model', messages: [{ role: 'user', content }] }),
      });
      await body.json();
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  const seconds = (performance.now() - startedAt) / 1_000;
  await pool.close();
  return seconds;
}

export async function askFirst({ place, baseUrl, rows, distinct }: Args): Promise<StatementFigures[]> {
  const app = await openPlace(place);
  await createStubEndpoint(app, baseUrl, CONCURRENCY);
  const session = await app.openSession();
  for (const [table, prefix] of [
    ['mails', 'mail'],
    ['more', 'more'],
  ]) {
    const number = `(i * 7907) % ${distinct}`;
    await session.run(
      `CREATE TABLE ${table} AS SELECT i AS id, '${prefix} ' || (${number}) || ': the parcel of order ' || (${number} * 7919) || ' has not arrived, what now?' AS body FROM range(${rows}) t(i)`,
    );
  }
  const figures: StatementFigures[] = [];
  for (const table of ['mails', 'mails', 'more']) figures.push(await ask(session, table));
  await app.close();
  return figures;
}

export async function askAfterRestart({ place }: Args): Promise<StatementFigures> {
  const app = await openPlace(place);
  const figures = await ask(await app.openSession(), 'mails');
  await app.close();
  return figures;
}

async function ask(session: Parameters<typeof timed>[0], table: string): Promise<StatementFigures> {
  const { result, seconds } = await timed(session, `SELECT body, ai_query('stub', body) FROM ${table}`);
  let wrongRows = 0;
  for (const [body, answer] of result.rows()) if (answer !== stubChatText(String(body))) wrongRows++;
  return { seconds, wrongRows, ...result.calls };
}

export const scenario: Scenario = {
  about: 'ai_query over 100,000 rows with 10,000 distinct texts, 50 ms latency, concurrency 256',
  async run(context) {
    const distinct = scaled(context, 10_000, 256);
    const stub = await context.startStub({ 'latency-ms': LATENCY_MS });
    const args: Args = {
      place: placeIn(context.directory),
      baseUrl: stub.openaiUrl,
      rows: distinct * REPEATS,
      distinct,
    };
    const bare = await runPart(import.meta.url, askBare, args);
    const bareLedger = await stub.resetLedger();
    const first = await runPart(import.meta.url, askFirst, args);
    const firstLedger = await stub.resetLedger();
    const restarted = await runPart(import.meta.url, askAfterRestart, args);
    const restartedLedger = await stub.resetLedger();
    const [cold, again, warm] = first.value as [StatementFigures, StatementFigures, StatementFigures];
    const ideal = {
      name: 'latency x texts / concurrency',
      value: (distinct / CONCURRENCY) * (LATENCY_MS / 1_000),
    };
    const bareClient = { name: 'bare undici loop, distinct texts only', value: bare.value };
    const wrong = cold.wrongRows + again.wrongRows + warm.wrongRows + restarted.value.wrongRows;
    return {
      figures: [
        { name: 'bare undici loop', value: bare.value, unit: 's', against: ideal },
        { name: 'first statement of a process', value: cold.seconds, unit: 's', against: ideal },
        { name: 'first statement of a process', value: cold.seconds, unit: 's', against: bareClient },
        { name: 'other texts, same process', value: warm.seconds, unit: 's', against: ideal },
        { name: 'other texts, same process', value: warm.seconds, unit: 's', against: bareClient },
        {
          name: 'same statement again',
          value: again.seconds,
          unit: 's',
          against: { name: 'first statement', value: cold.seconds },
        },
        {
          name: 'same statement after a restart',
          value: restarted.value.seconds,
          unit: 's',
          against: { name: 'first statement', value: cold.seconds },
        },
        {
          name: 'most requests in flight at the stub',
          value: firstLedger.peakInFlight,
          unit: '',
          against: { name: 'bare loop', value: bareLedger.peakInFlight },
        },
      ],
      promises: [
        promise(
          'each distinct text is asked once',
          firstLedger.requests === 2 * distinct,
          `${firstLedger.requests} requests for 2 x ${distinct} texts`,
        ),
        promise(
          'the same statement again asks nothing',
          again.asked === 0,
          `${again.asked} asked, ${again.cached} from the store`,
        ),
        promise(
          'after a restart it asks nothing',
          restartedLedger.requests === 0,
          `${restartedLedger.requests} requests`,
        ),
        promise('every row has the answer to its own text', wrong === 0, `${wrong} wrong rows`),
      ],
      notes: [
        `passes of the four statements: ${[cold, again, warm, restarted.value].map(({ passes }) => passes).join(', ')}`,
      ],
      peakRssMb: { 'first process': first.peakRssMb, 'after restart': restarted.peakRssMb },
    };
  },
};
