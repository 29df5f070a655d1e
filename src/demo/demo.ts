// `duckserve demo`: the main job on real data, printed for a person. Mails are embedded, judged, searched and
// sorted into topics; penguins are predicted; a chat model reads a few mails. All through SQL, all through the
// same doors as a user's statements; the second run answers from the answer store.
import { join } from 'node:path';
import type { Io } from '#cli/program.ts';
import { StatusLine } from '#cli/status-line.ts';
import { tableText } from '#cli/table.ts';
import { LOCAL_OWNER } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import { MINILM_ENDPOINT, STATIC_256_ENDPOINT } from '#core/embedded-models.ts';
import { ServingError } from '#core/errors.ts';
import type { StatementResult } from '#session/result.ts';
import type { Session } from '#session/session.ts';
import { packageRoot } from '#storage/package-root.ts';
import type { App } from '../app.ts';
import { openApp } from '../app.ts';
import { prepareChat } from './chat-endpoint.ts';
import { findMails } from './mails.ts';
import * as sql from './statements.ts';

export interface DemoOptions {
  readonly dataDir: string;
  /** False leaves the chat model (and its download) out. */
  readonly chat: boolean;
  readonly io: Io;
}

const QUESTION = 'How do I record a music CD under Linux?';

export async function runDemo({ dataDir, chat, io }: DemoOptions): Promise<void> {
  const status = new StatusLine(io);
  const startedAtMs = SYSTEM_CLOCK.now();
  const dbPath = join(dataDir, 'main.duckdb');
  const feedback = {
    notify: (line: string) => status.say(line),
    onDownloadProgress: (id: string, done: number, total: number) => status.download(id, done, total),
  };
  const app = await openApp({ dataDir, dbPath, ...feedback });
  try {
    const session = await app.openSession({ origin: 'cli' });
    const demo = new Demo(session, io, status, dataDir);
    await demoMails(demo, app, feedback.notify);
    await demoPenguins(demo, app);
    if (chat) await demoChat(demo, app, feedback);
    demo.say(
      `\nDone in ${((SYSTEM_CLOCK.now() - startedAtMs) / 1000).toFixed(1)} s: ${demo.asked} model calls, ${demo.cached} answers from the store.\n` +
        `Everything is still there. Go on with:\n` +
        `  npx duckserve shell --data ${dataDir}     (try: SELECT subject FROM mails WHERE ai_classify(subject, ['travel', 'work']) = 'travel' LIMIT 5;)\n` +
        `  npx duckserve serve --data ${dataDir}     (the same endpoints over HTTP)\n`,
    );
  } finally {
    status.clear();
    await app.close();
  }
}

/** Says, runs and prints. Rows go to standard output like those of every other command. */
class Demo {
  readonly #session: Session;
  readonly #io: Io;
  readonly #status: StatusLine;
  readonly dataDir: string;
  asked = 0;
  cached = 0;

  constructor(session: Session, io: Io, status: StatusLine, dataDir: string) {
    this.dataDir = dataDir;
    this.#session = session;
    this.#io = io;
    this.#status = status;
  }

  say(text: string): void {
    this.#status.clear();
    this.#io.stdout.write(`${text}\n`);
  }

  title(text: string): void {
    this.say(`\n── ${text} ${'─'.repeat(Math.max(0, 90 - text.length))}`);
  }

  async run(statement: string): Promise<StatementResult | undefined> {
    const startedAtMs = SYSTEM_CLOCK.now();
    const results = await this.#session.run(statement, {
      onProgress: (progress) => this.#status.progress(progress),
    });
    const result = results.at(-1);
    this.#status.clear();
    const { asked, cached } = result?.calls ?? { asked: 0, cached: 0 };
    this.asked += asked;
    this.cached += cached;
    if (asked + cached > 0) {
      this.say(
        `   ${asked} model ${asked === 1 ? 'call' : 'calls'}, ${cached} from the answer store, ${((SYSTEM_CLOCK.now() - startedAtMs) / 1000).toFixed(1)} s`,
      );
    }
    return result;
  }

  async show(statement: string): Promise<void> {
    const result = await this.run(statement);
    if (!result) return;
    const view = { width: this.#io.isStdoutTty ? this.#io.columns : 120, hasColor: this.#io.isStdoutTty };
    for (const piece of tableText(result, view)) this.#io.stdout.write(piece);
  }

  /** First column as a heading, second as text: for sentences, which a table would cut. */
  async list(statement: string): Promise<void> {
    const result = await this.run(statement);
    for (const [heading, text] of result?.rows() ?? []) this.say(`   ${heading}\n      → ${text}`);
  }

  async value(statement: string): Promise<readonly unknown[]> {
    const result = await this.run(statement);
    return [...(result?.rows() ?? [])][0] ?? [];
  }
}

/** MiniLM, fetched once; where it cannot be had, the word table that comes with the package. */
async function findEmbedder(app: App, demo: Demo): Promise<sql.Embedder> {
  try {
    await app.serving.openLocal(MINILM_ENDPOINT, 'llm/v1/embeddings', LOCAL_OWNER, 'library');
    return { endpoint: MINILM_ENDPOINT, dimensions: 384 };
  } catch (error) {
    if (!(error instanceof ServingError) || error.code !== 'MODEL_NOT_AVAILABLE') throw error;
    demo.say(
      `all-MiniLM-L6-v2 cannot be had here, so the smaller embedded-static-256 does its work. (${error.message})`,
    );
    return { endpoint: STATIC_256_ENDPOINT, dimensions: 256 };
  }
}

async function demoMails(demo: Demo, app: App, notify: (line: string) => void): Promise<void> {
  const embedder = await findEmbedder(app, demo);
  demo.title('6,046 real e-mails (SpamAssassin public corpus, public domain)');
  await demo.run(sql.loadMails(await findMails(join(demo.dataDir, 'datasets'), notify)));
  await demo.show(sql.countMails);

  demo.title(`Each mail as a vector, by ${embedder.endpoint} on this machine`);
  demo.say(`   ${sql.embedMails(embedder).trim().split('\n').join('\n   ')}`);
  await demo.run(sql.embedMails(embedder));

  demo.title('Spam, found by likeness to 605 labelled examples, beside the truth');
  await demo.run(sql.judgeSpam);
  await demo.show(sql.spamTable);
  const [percent, mails] = await demo.value(sql.accuracy);
  demo.say(`   ${percent} % of ${mails} mails judged right; nothing was trained.`);

  demo.title(`The ten mails nearest to: “${QUESTION}”`);
  await demo.show(sql.similarMails(QUESTION, embedder));

  demo.title('Topics by group: ai_classify with six labels');
  await demo.show(sql.topicsByGroup(embedder));
}

async function demoPenguins(demo: Demo, app: App): Promise<void> {
  demo.title('Penguins: predict() with an ONNX model, on birds it has not seen');
  const directory = join(packageRoot(), 'examples', 'penguins');
  if (!app.registry.listModels().some(({ model }) => model.name === 'penguins')) {
    await app.registry.registerModel('penguins', join(directory, 'penguins.onnx'), { alias: 'champion' });
  }
  await demo.run(sql.loadPenguins(join(directory, 'penguins.csv')));
  await demo.show(sql.predictPenguins);
  const [percent, penguins] = await demo.value(sql.penguinAccuracy);
  demo.say(`   ${percent} % of ${penguins} penguins named right.`);
}

async function demoChat(demo: Demo, app: App, feedback: Parameters<typeof prepareChat>[2]): Promise<void> {
  const prepared = await prepareChat(app, process.env, feedback).catch((error: unknown) => {
    if (!(error instanceof ServingError) || error.code !== 'MODEL_NOT_AVAILABLE') throw error;
    demo.say(`\nNo chat model can be had here, so the last part is left out. (${error.message})`);
  });
  if (!prepared) return;
  const { endpoint, description } = prepared;
  demo.title('A chat model reads three mails');
  demo.say(`   ${endpoint}: ${description}.`);
  await demo.run(sql.pickMails);
  await demo.list(sql.summarize(endpoint));
  demo.title('The same mails as columns: a typed answer is a STRUCT');
  await demo.show(sql.extract(endpoint));
}
