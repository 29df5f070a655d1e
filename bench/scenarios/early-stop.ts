// A filter by a model under LIMIT: how many questions are paid for until enough rows have passed, where the
// statement can end as soon as it has its rows, and where it has to settle every row before them.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { stubJsonText } from '../../test/stub/answers.ts';
import { runPart } from '../parts.ts';
import { type Figure, promise } from '../report.ts';
import {
  createStubEndpoint,
  openPlace,
  type Place,
  placeIn,
  type Scenario,
  scaled,
  timed,
} from '../scenario.ts';

const LABELS = ['complaint', 'praise', 'question', 'order', 'spam'];
const WANTED = 'spam';
const LIMIT = 5;
const CONCURRENCY = 64;

interface Args {
  readonly place: Place;
  readonly baseUrl: string;
  readonly rows: number;
  readonly sql: string;
}
interface Outcome {
  readonly seconds: number;
  readonly passes: number;
  readonly rows: readonly (readonly [id: number, body: string])[];
}

const CLASSIFIED = `ai_classify(body, [${LABELS.map((label) => `'${label}'`).join(', ')}], endpoint => 'stub')`;
const STATEMENTS: Readonly<Record<string, string>> = {
  'any rows will do': `SELECT id, body FROM t WHERE ${CLASSIFIED} = '${WANTED}' LIMIT ${LIMIT}`,
  'expression in the columns': `SELECT id, lower(body) FROM t WHERE ${CLASSIFIED} = '${WANTED}' LIMIT ${LIMIT}`,
  'OR in the filter': `SELECT id, body FROM t WHERE ${CLASSIFIED} = '${WANTED}' OR id < 0 LIMIT ${LIMIT}`,
};

const bodyOf = (id: number): string => `mail number ${id} of ours`;
const labelOf = (body: string): string => {
  const schema = {
    type: 'object',
    properties: { label: { type: 'string', enum: LABELS } },
    required: ['label'],
  };
  return String((JSON.parse(stubJsonText(schema, body)) as { label: string }).label);
};

export async function select({ place, baseUrl, rows, sql }: Args): Promise<Outcome> {
  const app = await openPlace(place);
  await createStubEndpoint(app, baseUrl, CONCURRENCY);
  const session = await app.openSession();
  await session.run(
    `CREATE TABLE t AS SELECT i AS id, 'mail number ' || i || ' of ours' AS body FROM range(${rows}) t(i)`,
  );
  const { result, seconds } = await timed(session, sql);
  const found = [...result.rows()].map(([id, body]) => [Number(id), String(body)] as const);
  await app.close();
  return { seconds, passes: result.calls.passes, rows: found };
}

export const scenario: Scenario = {
  about: 'WHERE ai_classify(...) = label LIMIT 5 over 500,000 rows with five labels',
  async run(context) {
    const rows = scaled(context, 500_000, 5_000);
    const stub = await context.startStub({ 'latency-ms': 20 });
    const figures: Figure[] = [];
    const promises = [];
    const passes: string[] = [];
    const peakRssMb: Record<string, number> = {};
    const best = { name: `least there can be, ${LIMIT} matches in table order`, value: rowsToRead() };
    for (const [name, sql] of Object.entries(STATEMENTS)) {
      const directory = join(context.directory, String(figures.length));
      await mkdir(directory);
      const place = placeIn(directory);
      const part = await runPart(import.meta.url, select, { place, baseUrl: stub.openaiUrl, rows, sql });
      const { requests } = await stub.resetLedger();
      figures.push({ name: `calls, ${name}`, value: requests, unit: '', against: best });
      figures.push({ name: `time, ${name}`, value: part.value.seconds, unit: 's' });
      const right = part.value.rows.filter(([id, body]) => bodyOf(id) === body && labelOf(body) === WANTED);
      const distinct = new Set(part.value.rows.map(([id]) => id)).size;
      promises.push(
        promise(
          `${name}: ${LIMIT} different rows, each of the wanted label`,
          right.length === LIMIT && distinct === LIMIT,
          `${right.length} right rows`,
        ),
      );
      passes.push(`${name} ${part.value.passes}`);
      peakRssMb[name] = part.peakRssMb;
    }
    return { figures, promises, notes: [`${rows} rows; passes: ${passes.join(', ')}`], peakRssMb };
  },
};

function rowsToRead(): number {
  for (let id = 0, matches = 0; ; id++) {
    if (labelOf(bodyOf(id)) === WANTED && ++matches === LIMIT) return id + 1;
  }
}
