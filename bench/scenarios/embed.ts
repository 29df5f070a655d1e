// ai_embed over real sentences: MiniLM against the bare ONNX runtime hand-tuned (sorted by length, several batch
// sizes, threads or workers), and the static table against the same table asked directly. Needs MiniLM's weights.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MINILM_ID } from '#core/embedded-models.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { EngineContext } from '#engines/engine.ts';
import { staticEngine } from '#engines/static/static.ts';
import { findMails } from '../../src/demo/mails.ts';
import { type BareResult, embedBare } from '../bare-text.ts';
import { runPart } from '../parts.ts';
import { type Figure, promise, skipped } from '../report.ts';
import { openPlace, type Place, placeIn, type Scenario, scaled, timed } from '../scenario.ts';

const SENTENCES = 5_000;
/** Each bare setting is tried on so many; the best of them then embeds all. */
const TRIED = 500;
const BATCHES = [1, 8, 16, 32];

interface Args {
  readonly place: Place;
  readonly models: string;
  readonly sentences: readonly string[];
}
interface SqlOutcome {
  readonly seconds: number;
  readonly cachedSeconds: number;
  readonly staticSeconds: number;
  readonly vectors: readonly (readonly number[])[];
}

/** Sentences of the SpamAssassin mails, 20 to 300 characters, all different. */
export async function readSentences(count: number): Promise<string[]> {
  const directory = await findMails('', () => {});
  const sentences = new Set<string>();
  for (const group of ['easy-ham-1', 'easy-ham-2', 'hard-ham-1']) {
    const folder = join(directory, group);
    if (!existsSync(folder)) continue;
    for (const file of readdirSync(folder).sort()) {
      if (!file.endsWith('.txt')) continue;
      const mail = readFileSync(join(folder, file), 'latin1');
      const body = mail.split(/\n\n/).slice(1).join(' ').replace(/\s+/g, ' ');
      for (const sentence of body.split(/(?<=[.!?]) (?=[A-Z])/)) {
        if (sentence.length >= 20 && sentence.length <= 300 && /^[\x20-\x7e]+$/.test(sentence))
          sentences.add(sentence);
        if (sentences.size === count) return [...sentences];
      }
    }
  }
  throw new Error(`The mails hold ${sentences.size} sentences; ${count} are needed.`);
}

export async function embedInSql({ place, models, sentences }: Args): Promise<SqlOutcome> {
  process.env.DUCKSERVE_MODELS = models;
  const app = await openPlace(place);
  const session = await app.openSession();
  await session.run(
    'CREATE TABLE sentences AS SELECT i AS id, s FROM (SELECT unnest($1::JSON::VARCHAR[]) AS s, generate_subscripts($1::JSON::VARCHAR[], 1) AS i)',
    {
      parameters: [sentences],
    },
  );
  const embed = (endpoint: string) => `SELECT ai_embed('${endpoint}', s) FROM sentences ORDER BY id`;
  // Both threads load the model before anything is measured.
  await session.run("SELECT ai_embed('embedded-all-minilm-l6-v2', 'warm ' || i) FROM range(128) t(i)");
  await session.run("SELECT ai_embed('embedded-static-256', 'warm')");
  const first = await timed(session, embed('embedded-all-minilm-l6-v2'));
  const again = await timed(session, embed('embedded-all-minilm-l6-v2'));
  const inTable = await timed(session, embed('embedded-static-256'));
  const vectors = [...first.result.rows()].map(([vector]) => vector as number[]);
  await app.close();
  return { seconds: first.seconds, cachedSeconds: again.seconds, staticSeconds: inTable.seconds, vectors };
}

/** Seconds for the table of the static engine, asked directly in chunks of DuckDB's size. */
export async function embedStatic({ sentences }: Args): Promise<number> {
  const context: EngineContext = {
    log: SILENT_LOG,
    modelCacheDir: '',
    resolveSecret: (reference) => reference,
    allowDownload: () => false,
    notify: () => {},
  };
  const runner = await staticEngine.open(
    {
      endpoint: 'static',
      servedEntity: 'static',
      engine: 'static',
      task: 'llm/v1/embeddings',
      fingerprint: '',
      model: 'static',
      modelVersion: {
        model: 'embedded/static-256',
        version: '1',
        engine: 'static',
        task: 'llm/v1/embeddings',
        source: 'embedded:embedded/static-256',
        sha256: '',
        sizeBytes: 0,
        options: {},
        createdAtMs: 0,
      },
    },
    context,
  );
  runner.local?.embed?.(['warm']);
  const startedAt = performance.now();
  for (let from = 0; from < sentences.length; from += 2_048)
    runner.local?.embed?.(sentences.slice(from, from + 2_048));
  return (performance.now() - startedAt) / 1_000;
}

export const scenario: Scenario = {
  about: 'ai_embed with MiniLM and with the static table over 5,000 sentences of mails',
  async run(context) {
    const models =
      process.env.DUCKSERVE_MODELS ?? fileURLToPath(new URL('../../.duckserve/test-models', import.meta.url));
    const weights = join(models, ...MINILM_ID.split('/'));
    if (!existsSync(join(weights, 'model_quantized.onnx'))) {
      return skipped(
        'the weights of MiniLM are not here; set DUCKSERVE_MODELS to a folder that has them, or run test/engines/onnx-text.test.ts, which fetches them',
      );
    }
    const sentences = await readSentences(scaled(context, SENTENCES, 200));
    const args: Args = { place: placeIn(context.directory), models, sentences };
    const sql = await runPart(import.meta.url, embedInSql, args);
    const statically = await runPart(import.meta.url, embedStatic, args);
    const step = Math.max(1, Math.floor(sentences.length / TRIED));
    const sample = sentences.filter((_, index) => index % step === 0);
    const tried: BareResult[] = [];
    for (const setting of [
      { workers: 1, threads: 2 },
      { workers: 2, threads: 1 },
    ]) {
      for (const batch of BATCHES) {
        tried.push(
          (await runPart(BARE_MODULE, embedBare, { weights, sentences: sample, batch, ...setting })).value,
        );
      }
    }
    const perSecond = ({ seconds, count }: { seconds: number; count: number }) => count / seconds;
    const winner = tried.reduce((best, run) => (perSecond(run) > perSecond(best) ? run : best));
    const { workers, threads, batch } = winner;
    const all = await runPart(BARE_MODULE, embedBare, { weights, sentences, batch, workers, threads });
    const alone = await runPart(BARE_MODULE, embedBare, {
      weights,
      sentences: sample,
      batch: 1,
      workers: 1,
      threads: 1,
      keepVectors: true,
    });
    const together = await runPart(BARE_MODULE, embedBare, {
      weights,
      sentences: sample,
      batch: 32,
      workers: 1,
      threads: 1,
      keepVectors: true,
    });
    const own = sql.value.vectors.filter((_, index) => index % step === 0);
    const leastOwn = leastCosine(own, alone.value.vectors);
    const leastTogether = leastCosine(together.value.vectors, alone.value.vectors);
    const count = sentences.length;
    const settingText = (run: BareResult) => `${run.workers} x ${run.threads} threads, batch ${run.batch}`;
    const figures: Figure[] = [
      {
        name: 'ai_embed, MiniLM',
        value: count / sql.value.seconds,
        unit: 'sentences/s',
        against: {
          name: `bare runtime at its best (${settingText(winner)}), all sentences`,
          value: perSecond(all.value),
        },
      },
      {
        name: 'ai_embed, MiniLM',
        value: count / sql.value.seconds,
        unit: 'sentences/s',
        against: {
          name: 'bare runtime, 2 x 1 threads, batch 1',
          value: perSecond(tried.find((run) => run.workers === 2 && run.batch === 1) ?? winner),
        },
      },
      {
        name: 'ai_embed, MiniLM, again from the answer store',
        value: count / sql.value.cachedSeconds,
        unit: 'sentences/s',
      },
      {
        name: 'ai_embed, static table',
        value: count / sql.value.staticSeconds,
        unit: 'sentences/s',
        against: { name: 'the table asked directly', value: count / statically.value },
      },
    ];
    return {
      figures,
      promises: [
        promise(
          'vectors are those of the bare runtime for each text alone',
          leastOwn > 0.99999,
          `least cosine ${leastOwn.toFixed(7)} over ${own.length} sentences`,
        ),
      ],
      notes: [
        `bare runtime on ${sample.length} sentences, sentences/s: ${tried.map((run) => `${settingText(run)}: ${perSecond(run).toFixed(0)}`).join('; ')}`,
        `the engine runs one text a run on purpose: the int8 model scales activations over the whole batch, so vectors would depend on their neighbours (in batches of 32 the bare runtime's vectors fall to a cosine of ${leastTogether.toFixed(4)} with those of the same text alone)`,
      ],
      peakRssMb: { 'with duckserve': sql.peakRssMb, 'bare runtime at its best': all.peakRssMb },
    };
  },
};

const BARE_MODULE = new URL('../bare-text.ts', import.meta.url).href;

function leastCosine(left: readonly (readonly number[])[], right: readonly (readonly number[])[]): number {
  return left.reduce((least, vector, index) => {
    const other = right[index] ?? [];
    const dot = vector.reduce((sum, value, at) => sum + value * (other[at] ?? 0), 0);
    return Math.min(least, dot);
  }, 1);
}
