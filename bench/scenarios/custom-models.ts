// Models that Python libraries have trained: rows a second in SQL and over HTTP beside each library's own `predict`
// in one process of Python, and beside `mlflow models serve`. Predictions are compared row by row.
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { runPart } from '../parts.ts';
import { type Figure, type Promised, promise, skipped } from '../report.ts';
import { openPlace, type Place, placeIn, rowsOf, type Scenario, scaled, timed } from '../scenario.ts';
import { type Posted, postAll, type ScoringServer, serveDuckserve, serveMlflow } from '../scoring-servers.ts';

const run = promisify(execFile);
const SCRIPT = fileURLToPath(new URL('./custom_models.py', import.meta.url));
const COLUMNS = ['age', 'sex', 'bmi', 'bp', 's1', 's2', 's3', 's4', 's5', 's6'];
const ROWS_PER_REQUEST = 1_000;
const CALLERS = 4;
const ROUNDS = 2;
const TOLERANCE = 1e-6;

/** Each with the name of its own library's figure, as custom_models.py has it. */
const MODELS = [
  { name: 'forest-onnx', about: 'ONNX, 30 trees of depth 6', engine: 'onnx' },
  { name: 'boosted', about: 'XGBoost, 100 trees of depth 6', engine: 'trees' },
  { name: 'forest', about: 'Python worker, 30 trees of depth 6', engine: 'python' },
  { name: 'linear', about: 'Python worker, linear', engine: 'python' },
] as const;
type Name = (typeof MODELS)[number]['name'];

interface Args {
  readonly place: Place;
  readonly folder: string;
  readonly rows: number;
}
interface SqlRun {
  /** First statement in a process that has just begun; of Python with the start of its process. */
  readonly coldSeconds: number;
  readonly sumSeconds: number;
  readonly tableSeconds: number;
  /** Rows whose prediction is another than the library's. */
  readonly differing: number;
}

const struct = `{${COLUMNS.map((name) => `${name}: ${name}`).join(', ')}}`;

export async function registerModels({ place, folder, rows }: Args): Promise<readonly string[]> {
  const app = await openPlace(place);
  const engines: string[] = [];
  for (const { name } of MODELS) {
    const version = await app.registry.registerModel(name, join(folder, name), { allowCode: true });
    engines.push(version.engine);
  }
  const session = await app.openSession();
  const moved = COLUMNS.map((name) => `${name} + (i % 1009) * 0.0001::DOUBLE AS ${name}`);
  await session.run(`CREATE TABLE features AS
    WITH base AS (SELECT row_number() OVER () - 1 AS n, * FROM read_csv('${join(folder, 'base.csv')}'))
    SELECT i, ${moved.join(', ')} FROM range(${rows}) t(i) JOIN base ON n = i % (SELECT count(*) FROM base) ORDER BY i`);
  await app.close();
  return engines;
}

export async function predictInSql({ name, args }: { name: Name; args: Args }): Promise<SqlRun> {
  const app = await openPlace(args.place);
  const session = await app.openSession();
  // The answer store would give what an earlier round has asked.
  await session.run("SET ai_cache = 'off'");
  const cold = await timed(session, `SELECT predict('${name}', ${struct}) FROM features LIMIT 1`);
  let sumSeconds = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round++) {
    const { seconds } = await timed(
      session,
      `SELECT sum(predict('${name}', ${struct})::DOUBLE) FROM features`,
    );
    sumSeconds = Math.min(sumSeconds, seconds);
  }
  const table = await timed(
    session,
    `CREATE OR REPLACE TABLE predicted AS SELECT i, predict('${name}', ${struct})::DOUBLE AS p FROM features`,
  );
  const bytes = readFileSync(join(args.folder, `${ownName(name)}.f64`));
  const own = new Float64Array(bytes.buffer, bytes.byteOffset, args.rows);
  let differing = 0;
  for (const [i, p] of await rowsOf(session, 'SELECT i, p FROM predicted')) {
    const expected = own[Number(i)] ?? Number.NaN;
    if (!(Math.abs(Number(p) - expected) <= TOLERANCE * Math.max(1, Math.abs(expected)))) differing++;
  }
  await app.close();
  return { coldSeconds: cold.seconds, sumSeconds, tableSeconds: table.seconds, differing };
}

const ownName = (name: Name): string => (name === 'forest-onnx' ? 'forest-onnx, 1 threads, 2048 rows' : name);

/** Bodies of a thousand rows, as a client of MLflow writes them. */
export async function writeBodies({ place, rows }: Args): Promise<readonly string[]> {
  const app = await openPlace(place);
  const table = await rowsOf(
    await app.openSession(),
    `SELECT ${COLUMNS.join(', ')} FROM features ORDER BY i LIMIT ${rows}`,
  );
  await app.close();
  return Array.from({ length: Math.ceil(table.length / ROWS_PER_REQUEST) }, (_, at) => {
    const data = table.slice(at * ROWS_PER_REQUEST, (at + 1) * ROWS_PER_REQUEST);
    return JSON.stringify({ dataframe_split: { columns: COLUMNS, data } });
  });
}

/** All but the first, which opens the model; each is asked once, so that the answer store has none of them. */
async function measureHttp(server: ScoringServer, model: string, bodies: readonly string[]): Promise<Posted> {
  const url = server.invocations(model);
  await postAll(url, bodies.slice(0, 1), 1);
  return await postAll(url, bodies.slice(1), CALLERS);
}

/** The interpreter, or why there is none with the libraries. */
async function findPython(): Promise<
  { readonly path: string; readonly versions: string } | { readonly reason: string }
> {
  const path = process.env.DUCKSERVE_BENCH_PYTHON ?? 'python3';
  try {
    const { stdout } = await run(path, [SCRIPT, 'check']);
    return { path, versions: stdout.trim() };
  } catch (error) {
    const last = (error as Error).message.trim().split('\n').at(-1) ?? '';
    const wanted = 'mlflow, pandas, scikit-learn, skl2onnx, onnxruntime, lightgbm and xgboost';
    return {
      reason: `${path} has not all of ${wanted} (${last}); DUCKSERVE_BENCH_PYTHON names an interpreter.`,
    };
  }
}

export const scenario: Scenario = {
  about: 'predict with an ONNX, an XGBoost and two scikit-learn models over 1,000,000 rows',
  async run(context) {
    const python = await findPython();
    if ('reason' in python) return skipped(python.reason);
    process.env.DUCKSERVE_PYTHON = python.path;
    const rows = scaled(context, 1_000_000, 10 * ROWS_PER_REQUEST);
    const folder = join(context.directory, 'models');
    await mkdir(folder);
    await run(python.path, [SCRIPT, 'make', folder]);
    const threads = availableParallelism();
    const measured = await run(python.path, [SCRIPT, 'measure', folder, String(rows), String(threads)]);
    const own = JSON.parse(measured.stdout.trim().split('\n').at(-1) ?? '') as Readonly<
      Record<string, number>
    >;
    const args: Args = { place: placeIn(context.directory), folder, rows };
    const registered = await runPart(import.meta.url, registerModels, args);

    const figures: Figure[] = [];
    const promises: Promised[] = [
      promise(
        'each model is served by the engine that it should be',
        registered.value.join() === MODELS.map(({ engine }) => engine).join(),
        registered.value.join(', '),
      ),
    ];
    const peakRssMb: Record<string, number> = {};
    const cold: Partial<Record<Name, number>> = {};
    for (const { name, about } of MODELS) {
      const { value, peakRssMb: peak } = await runPart(import.meta.url, predictInSql, { name, args });
      cold[name] = value.coldSeconds;
      peakRssMb[`SQL, ${about}`] = peak;
      const [ownTitle, ownSeconds] = Object.entries(own)
        .filter(([key]) => key.split(',')[0] === name && !key.endsWith('loading'))
        .reduce((best, one) => (one[1] < best[1] ? one : best));
      const against = { name: `own predict in Python (${ownTitle})`, value: rows / ownSeconds };
      figures.push(
        { name: `${about}: SELECT sum(predict)`, value: rows / value.sumSeconds, unit: 'rows/s', against },
        { name: `${about}: CREATE TABLE AS`, value: rows / value.tableSeconds, unit: 'rows/s', against },
      );
      const found = `${value.differing} of ${rows} differ`;
      promises.push(
        promise(`${about}: each row as its library has it, to 1e-6`, value.differing === 0, found),
      );
    }

    const httpRows = Math.min(rows, scaled(context, 100_000, 10 * ROWS_PER_REQUEST));
    const bodies = (await runPart(import.meta.url, writeBodies, { ...args, rows: httpRows })).value;
    const askedRows = httpRows - ROWS_PER_REQUEST;
    const ours: Partial<Record<Name, Posted>> = {};
    const server = await serveDuckserve(python.path, args.place);
    try {
      for (const { name } of MODELS) ours[name] = await measureHttp(server, name, bodies);
    } finally {
      await server.stop();
    }
    for (const { name, about } of MODELS) {
      const refused = ours[name]?.refused ?? 0;
      promises.push(
        promise(`${about}: no request over HTTP is refused`, refused === 0, `${refused} refused`),
      );
      const mlflow = await serveMlflow(python.path, join(folder, name));
      try {
        const firstAt = performance.now();
        await postAll(mlflow.invocations(name), bodies.slice(0, 1), 1);
        const mlflowCold = mlflow.startSeconds + (performance.now() - firstAt) / 1_000;
        const value = askedRows / (await measureHttp(mlflow, name, bodies)).seconds;
        figures.push(
          {
            name: `${about}: HTTP, ${CALLERS} callers, ${ROWS_PER_REQUEST} rows a request`,
            value: askedRows / (ours[name]?.seconds ?? Number.NaN),
            unit: 'rows/s',
            against: { name: '`mlflow models serve`, the same requests', value },
          },
          {
            name: `${about}: first answer of a cold model`,
            value: cold[name] ?? Number.NaN,
            unit: 's',
            against: { name: '`mlflow models serve`, start and first answer', value: mlflowCold },
          },
        );
      } finally {
        await mlflow.stop();
      }
    }
    const shown = Object.entries(own).filter(([title]) => !title.endsWith('loading'));
    return {
      figures,
      promises,
      notes: [
        `${python.versions}`,
        `own predict, rows/s: ${shown.map(([title, seconds]) => `${title}: ${Math.round(rows / seconds)}`).join('; ')}`,
        'in SQL the answer store is off; over HTTP it is on, as it is by itself, and no row is asked twice',
      ],
      peakRssMb,
    };
  },
};
