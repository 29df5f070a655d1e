// The program is killed in the middle of a statement and started again: what was answered is not paid for twice.
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stubChatText } from '../../test/stub/answers.ts';
import { runPart } from '../parts.ts';
import { promise } from '../report.ts';
import {
  createStubEndpoint,
  numberOf,
  openPlace,
  type Place,
  placeIn,
  type Scenario,
  scaled,
} from '../scenario.ts';
import type { Stub } from '../stub.ts';

const CONCURRENCY = 64;
const POLL_MS = 5;
const BIN = fileURLToPath(new URL('../../bin/duckserve.cjs', import.meta.url));

interface Args {
  readonly place: Place;
  readonly baseUrl: string;
  readonly rows: number;
}

export async function prepare({ place, baseUrl, rows }: Args): Promise<void> {
  const app = await openPlace(place);
  await createStubEndpoint(app, baseUrl, CONCURRENCY);
  const session = await app.openSession();
  await session.run(`CREATE TABLE t AS SELECT i AS id, 'question ' || i AS body FROM range(${rows}) t(i)`);
  await app.close();
}

/** `duckserve sql`; gives how it ended. */
function runProgram(place: Place, output: string) {
  const sql = "SELECT id, body, ai_query('stub', body) AS answer FROM t ORDER BY id";
  const flags = ['--data', place.dataDir, '--db', place.dbPath, '--format', 'json', '-o', output];
  const child = spawn(process.execPath, [BIN, 'sql', sql, ...flags], { stdio: 'ignore' });
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  return { child, ended };
}

/** Answers that survived on disk. */
export async function countStored({ place }: Args): Promise<number> {
  const app = await openPlace(place);
  const count = await numberOf(await app.openSession(), 'SELECT count(*) FROM duckserve.answers');
  await app.close();
  return count;
}

async function killAfter(stub: Stub, requests: number, place: Place, output: string) {
  const { child, ended } = runProgram(place, output);
  let inFlight = 0;
  for (;;) {
    const ledger = await stub.ledger();
    inFlight = ledger.inFlight;
    if (ledger.requests >= requests || child.exitCode !== null) break;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  child.kill('SIGKILL');
  const { signal } = await ended;
  return { signal, inFlight };
}

export const scenario: Scenario = {
  about: 'kill -9 of `duckserve sql` after half of 5,000 questions, then the same command again',
  async run(context) {
    const rows = scaled(context, 5_000, 200);
    const place = placeIn(context.directory);
    const stub = await context.startStub({ 'latency-ms': 50 });
    const args: Args = { place, baseUrl: stub.openaiUrl, rows };
    const prepared = await runPart(import.meta.url, prepare, args);
    const output = join(context.directory, 'answers.json');
    const { signal, inFlight } = await killAfter(stub, Math.floor(rows / 2), place, output);
    // Requests on their way when the process died reach the stub's books a moment later.
    await new Promise((resolve) => setTimeout(resolve, 300));
    const atKill = await stub.ledger();
    const stored = await runPart(import.meta.url, countStored, args);
    const startedAt = performance.now();
    const { code } = await runProgram(place, output).ended;
    const seconds = (performance.now() - startedAt) / 1_000;
    const total = await stub.ledger();
    const answers = JSON.parse(await readFile(output, 'utf8')) as {
      id: number;
      body: string;
      answer: string;
    }[];
    const right = answers.filter(
      ({ id, body, answer }, index) =>
        id === index && body === `question ${id}` && answer === stubChatText(body),
    );
    const twice = total.requests - rows;
    return {
      figures: [
        {
          name: 'requests of both runs',
          value: total.requests,
          unit: '',
          against: { name: 'texts', value: rows },
        },
        { name: 'requests sent when it was killed', value: atKill.requests, unit: '' },
        { name: 'of them in flight', value: inFlight, unit: '' },
        { name: 'of them stored on disk', value: stored.value, unit: '' },
        {
          name: 'asked twice',
          value: twice,
          unit: '',
          against: { name: 'in flight at the kill', value: inFlight },
        },
        { name: 'second run, with the start of the program', value: seconds, unit: 's' },
      ],
      promises: [
        promise(
          'the first run was killed, the second ended well',
          signal === 'SIGKILL' && code === 0,
          `${signal}, exit code ${code}`,
        ),
        promise(
          'every row has its own answer',
          right.length === rows && answers.length === rows,
          `${right.length} right of ${answers.length} rows`,
        ),
        promise(
          'the second run asks exactly what is not on disk',
          total.requests - atKill.requests === rows - stored.value,
          `${total.requests - atKill.requests} requests, ${stored.value} of ${rows} answers on disk`,
        ),
      ],
      notes: [
        'asked twice = in flight at the kill + answered in the last milliseconds before it and not yet written',
      ],
      peakRssMb: { preparation: prepared.peakRssMb },
    };
  },
};
