// predict over a table of a million rows, against the bare ONNX runtime on the same features in typed arrays: what
// SQL costs on top of the model itself. Predictions are compared row by row.
import { fileURLToPath } from 'node:url';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { runPart } from '../parts.ts';
import { type Figure, promise } from '../report.ts';
import { openPlace, type Place, placeIn, rowsOf, type Scenario, scaled, timed } from '../scenario.ts';

const MODEL = fileURLToPath(new URL('../../examples/penguins/penguins.onnx', import.meta.url));
const CSV = fileURLToPath(new URL('../../examples/penguins/penguins.csv', import.meta.url));
const CHUNK = 2_048;
const BATCHES = [CHUNK, 8_192, 32_768, 131_072, 1_000_000];
const FEATURES = ['bill_length_mm', 'bill_depth_mm', 'flipper_length_mm', 'body_mass_g'];
const ROUNDS = 2;
const THREADING = [
  { threads: 1, isSpinning: false },
  { threads: 2, isSpinning: false },
  { threads: 2, isSpinning: true },
];

interface Args {
  readonly place: Place;
  readonly rows: number;
}
interface SqlOutcome {
  readonly groupSeconds: number;
  readonly baselineSeconds: number;
  readonly tableSeconds: number;
  readonly counts: Readonly<Record<string, number>>;
}
interface BareRun {
  readonly batch: number;
  readonly threads: number;
  /** Whether idle threads of a run spin, as the runtime does by itself, or sleep, as duckserve has them. */
  readonly isSpinning: boolean;
  readonly seconds: number;
}
interface BareOutcome {
  /** Best seconds by batch size and threads of the session. */
  readonly seconds: readonly BareRun[];
  readonly counts: Readonly<Record<string, number>>;
  /** Rows whose prediction in SQL is another. */
  readonly differing: number;
}

const struct = `{${FEATURES.map((name) => `${name}: ${name}`).join(', ')}}`;

export async function predictInSql({ place, rows }: Args): Promise<SqlOutcome> {
  const app = await openPlace(place);
  await app.registry.registerModel('penguins', MODEL);
  const session = await app.openSession();
  await session.run(`CREATE TABLE penguins AS
    WITH p AS (SELECT row_number() OVER () - 1 AS n, * FROM read_csv('${CSV}'))
    SELECT i AS id, bill_length_mm + (i % 17) * 0.1 AS bill_length_mm, bill_depth_mm + (i % 13) * 0.05 AS bill_depth_mm,
      (flipper_length_mm + i % 7)::DOUBLE AS flipper_length_mm, (body_mass_g + i % 101)::DOUBLE AS body_mass_g
    FROM range(${rows}) t(i) JOIN p ON n = i % (SELECT count(*) FROM p) ORDER BY i`);
  // The model is loaded by the first statement; that is not what is measured.
  await session.run(`SELECT predict('penguins', ${struct}) FROM penguins LIMIT 1`);
  let groupSeconds = Number.POSITIVE_INFINITY;
  let baselineSeconds = Number.POSITIVE_INFINITY;
  const counts: Record<string, number> = {};
  for (let round = 0; round < ROUNDS; round++) {
    const grouped = await timed(
      session,
      `SELECT predict('penguins', ${struct}) AS species, count(*) FROM penguins GROUP BY 1`,
    );
    groupSeconds = Math.min(groupSeconds, grouped.seconds);
    for (const [species, count] of grouped.result.rows()) counts[String(species)] = Number(count);
    const plain = await timed(
      session,
      `SELECT (bill_length_mm + bill_depth_mm + flipper_length_mm + body_mass_g)::INT::VARCHAR AS x, count(*) FROM penguins GROUP BY 1`,
    );
    baselineSeconds = Math.min(baselineSeconds, plain.seconds);
  }
  const table = await timed(
    session,
    `CREATE TABLE predicted AS SELECT id, predict('penguins', ${struct}) AS species FROM penguins`,
  );
  await app.close();
  return { groupSeconds, baselineSeconds, tableSeconds: table.seconds, counts };
}

export async function predictBare({ place, rows }: Args): Promise<BareOutcome> {
  const app = await openPlace(place);
  const sqlSession = await app.openSession();
  const table = await rowsOf(
    sqlSession,
    `SELECT ${FEATURES.join(', ')}, species FROM penguins JOIN predicted USING (id) ORDER BY id`,
  );
  const features = new Float64Array(rows * FEATURES.length);
  const inSql: string[] = [];
  for (const [row, cells] of table.entries()) {
    for (let column = 0; column < FEATURES.length; column++)
      features[row * FEATURES.length + column] = Number(cells[column]);
    inSql.push(String(cells[FEATURES.length]));
  }
  await app.close();
  const seconds: BareRun[] = [];
  const counts: Record<string, number> = {};
  let differing = 0;
  for (const { threads, isSpinning } of THREADING) {
    const session = await InferenceSession.create(MODEL, {
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      extra: { session: { intra_op: { allow_spinning: isSpinning ? '1' : '0' } } },
    });
    const predict = async (batch: number, visit?: (row: number, species: string) => void) => {
      for (let from = 0; from < rows; from += batch) {
        const count = Math.min(batch, rows - from);
        const slice = features.subarray(from * FEATURES.length, (from + count) * FEATURES.length);
        const { species } = await session.run(
          { features: new Tensor('float64', slice, [count, FEATURES.length]) },
          ['species'],
        );
        const names = species?.data as string[];
        if (visit) for (const [at, name] of names.entries()) visit(from + at, name);
      }
    };
    await predict(Math.min(CHUNK, rows));
    for (const batch of new Set(BATCHES.map((size) => Math.min(size, rows)))) {
      let best = Number.POSITIVE_INFINITY;
      for (let round = 0; round < ROUNDS; round++) {
        const startedAt = performance.now();
        await predict(batch);
        best = Math.min(best, (performance.now() - startedAt) / 1_000);
      }
      seconds.push({ batch, threads, isSpinning, seconds: best });
    }
    if (threads === 1) {
      await predict(CHUNK, (row, species) => {
        counts[species] = (counts[species] ?? 0) + 1;
        if (inSql[row] !== species) differing++;
      });
    }
    await session.release();
  }
  return { seconds, counts, differing };
}

const settingText = ({ batch, threads, isSpinning }: BareRun): string =>
  `${batch} rows, ${threads} ${isSpinning ? 'spinning' : 'sleeping'}`;

export const scenario: Scenario = {
  about: "predict('penguins', struct of four columns) over 1,000,000 rows",
  async run(context) {
    const rows = scaled(context, 1_000_000, CHUNK);
    const args: Args = { place: placeIn(context.directory), rows };
    const sql = await runPart(import.meta.url, predictInSql, args);
    const bare = await runPart(import.meta.url, predictBare, args);
    const fastest = (runs: BareOutcome['seconds']) =>
      runs.reduce((best, run) => (run.seconds < best.seconds ? run : best));
    const best = fastest(bare.value.seconds);
    const inChunks = fastest(bare.value.seconds.filter(({ batch }) => batch === Math.min(CHUNK, rows)));
    const rate = (seconds: number) => rows / seconds;
    const bestBare = { name: `bare runtime, best batch (${settingText(best)})`, value: rate(best.seconds) };
    const chunkBare = {
      name: `bare runtime at 2,048 rows (${settingText(inChunks)})`,
      value: rate(inChunks.seconds),
    };
    const figures: Figure[] = [
      {
        name: 'SELECT predict ... GROUP BY',
        value: rate(sql.value.groupSeconds),
        unit: 'rows/s',
        against: bestBare,
      },
      {
        name: 'SELECT predict ... GROUP BY',
        value: rate(sql.value.groupSeconds),
        unit: 'rows/s',
        against: chunkBare,
      },
      {
        name: 'CREATE TABLE AS SELECT predict',
        value: rate(sql.value.tableSeconds),
        unit: 'rows/s',
        against: bestBare,
      },
      {
        name: 'the same GROUP BY over a sum of the columns',
        value: rate(sql.value.baselineSeconds),
        unit: 'rows/s',
      },
    ];
    const same =
      JSON.stringify(Object.entries(sql.value.counts).sort()) ===
      JSON.stringify(Object.entries(bare.value.counts).sort());
    const all = bare.value.seconds.map((run) => `${settingText(run)}: ${Math.round(rate(run.seconds))}`);
    return {
      figures,
      promises: [
        promise(
          'every row is predicted as by the bare runtime',
          bare.value.differing === 0,
          `${bare.value.differing} of ${rows} differ`,
        ),
        promise('the counts by species are the same', same, JSON.stringify(sql.value.counts)),
      ],
      notes: [`bare runtime, rows/s: ${all.join(', ')}`],
      peakRssMb: { 'with duckserve': sql.peakRssMb, 'bare runtime, all rows in memory': bare.peakRssMb },
    };
  },
};
