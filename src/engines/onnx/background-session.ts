// An ONNX model on a thread of its own, as seen from here: runs are sent there, and either awaited or waited for. A
// thread that ends by itself fails its runs, and the session says that it is lost.
import { MessageChannel, type MessagePort, receiveMessageOnPort, type Worker } from 'node:worker_threads';
import { ServingError } from '#core/errors.ts';
import { startWorker } from '#core/worker.ts';
import type { Feed, ModelFacts, Results, TabularSession, TensorInfo } from './session.ts';
import type { SessionData, SessionJob, SessionReply } from './session-worker.ts';

interface Waiting {
  resolve(reply: SessionReply): void;
  reject(error: ServingError): void;
}

const CLOSE_TIMEOUT_MS = 5_000;
/** A DuckDB callback cannot be told to stop; a model that takes longer than this for one chunk fails it. */
const RUN_NOW_TIMEOUT_MS = 10 * 60_000;
const OPENING = 0;

export async function openBackgroundSession(path: string, threads: number): Promise<TabularSession> {
  const session = new BackgroundSession(path, threads);
  await session.opened();
  return session;
}

class BackgroundSession implements TabularSession {
  readonly isBackground = true;
  readonly lost: Promise<ServingError>;
  readonly #path: string;
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #replies = new Int32Array(new SharedArrayBuffer(4));
  readonly #waiting = new Map<number, Waiting>();
  readonly #exited: Promise<void>;
  #facts: ModelFacts | undefined;
  #lastId = OPENING;
  #end: ServingError | undefined;
  #closed: Promise<void> | undefined;

  constructor(path: string, threads: number) {
    const { port1, port2 } = new MessageChannel();
    this.#path = path;
    this.#port = port1;
    const workerData: SessionData = { path, threads, port: port2, replies: this.#replies };
    const url = new URL('./session-worker.ts', import.meta.url);
    this.#worker = startWorker(url, { workerData, transferList: [port2] });
    let reason = 'it ended by itself';
    this.#worker.on('error', (error) => {
      reason = error.message;
    });
    let reportLoss = (_error: ServingError): void => {};
    this.lost = new Promise((resolve) => {
      reportLoss = resolve;
    });
    this.#exited = new Promise((resolve) =>
      this.#worker.once('exit', () => {
        // Replies may still lie in the port.
        this.#drain();
        this.#end ??= new ServingError(
          'MODEL_NOT_AVAILABLE',
          `The thread of the model "${path}" ended: ${reason}.`,
        );
        for (const waiting of this.#waiting.values()) waiting.reject(this.#end);
        this.#waiting.clear();
        port1.close();
        if (this.#closed === undefined) reportLoss(this.#end);
        resolve();
      }),
    );
    port1.on('message', (reply: SessionReply) => this.#hear(reply));
  }

  get #loaded(): ModelFacts {
    if (this.#facts === undefined)
      throw new ServingError('INTERNAL', `The model "${this.#path}" is not loaded yet.`);
    return this.#facts;
  }
  get inputs(): readonly TensorInfo[] {
    return this.#loaded.inputs;
  }
  get outputs(): readonly TensorInfo[] {
    return this.#loaded.outputs;
  }
  get operators(): ReadonlySet<string> {
    return this.#loaded.operators;
  }
  get sha256(): string {
    return this.#loaded.sha256;
  }
  get sizeBytes(): number {
    return this.#loaded.sizeBytes;
  }
  get hasExternalFiles(): boolean {
    return this.#loaded.hasExternalFiles;
  }

  async opened(): Promise<void> {
    try {
      const reply = await this.#replyTo(OPENING);
      if (reply.type === 'opened') this.#facts = reply.facts;
      else throw errorOf(reply);
    } catch (error) {
      // The thread ends by itself. It is never ended by force: within native code that ends the whole process.
      this.#closed ??= this.#exited;
      await this.#closed;
      throw error;
    }
  }

  async run(feeds: readonly Feed[], names: readonly string[]): Promise<Results> {
    const id = this.#send(feeds, names);
    return resultsOf(await this.#replyTo(id));
  }

  readonly runNow = (feeds: readonly Feed[], names: readonly string[]): Results => {
    const id = this.#send(feeds, names);
    const limit = performance.now() + RUN_NOW_TIMEOUT_MS;
    for (;;) {
      const seen = Atomics.load(this.#replies, 0);
      const reply = this.#take();
      if (reply?.id === id) return resultsOf(reply);
      if (reply !== undefined) this.#hear(reply);
      else if (performance.now() > limit) {
        throw new ServingError('TIMEOUT', `The model "${this.#path}" did not answer within ten minutes.`);
      } else Atomics.wait(this.#replies, 0, seen, RUN_NOW_TIMEOUT_MS);
    }
  };

  close(): Promise<void> {
    this.#closed ??= this.#closeNow();
    return this.#closed;
  }

  async #closeNow(): Promise<void> {
    this.#end ??= new ServingError('CANCELLED', 'The model was closed while it was asked.');
    this.#worker.ref();
    this.#port.postMessage(null satisfies SessionJob);
    // A run that takes longer is let go on alone: its thread ends after it, and force would end the process.
    let timer: NodeJS.Timeout | undefined;
    const waited = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_TIMEOUT_MS);
    });
    await Promise.race([this.#exited, waited]);
    clearTimeout(timer);
    this.#worker.unref();
  }

  #send(feeds: readonly Feed[], names: readonly string[]): number {
    if (this.#end !== undefined) throw this.#end;
    const id = ++this.#lastId;
    this.#port.postMessage({ id, feeds: feeds.map(compact), names } satisfies SessionJob);
    return id;
  }

  #replyTo(id: number): Promise<SessionReply> {
    if (this.#end !== undefined) return Promise.reject(this.#end);
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#keepAlive();
    });
  }

  #hear(reply: SessionReply): void {
    this.#waiting.get(reply.id)?.resolve(reply);
    this.#waiting.delete(reply.id);
    this.#keepAlive();
  }

  #take(): SessionReply | undefined {
    return receiveMessageOnPort(this.#port)?.message;
  }

  #drain(): void {
    for (let reply = this.#take(); reply !== undefined; reply = this.#take()) this.#hear(reply);
  }

  /** A thread that loads or works keeps the process alive, an idle one does not. */
  #keepAlive(): void {
    const action = this.#waiting.size > 0 ? 'ref' : 'unref';
    this.#worker[action]();
    this.#port[action]();
  }
}

/** A part of a larger buffer would be sent with all of it. */
function compact(feed: Feed): Feed {
  const { data } = feed;
  if (Array.isArray(data) || data.byteLength === data.buffer.byteLength) return feed;
  return { ...feed, data: data.slice() };
}

function resultsOf(reply: SessionReply): Results {
  if (reply.type === 'done') return reply.results;
  throw errorOf(reply);
}

function errorOf(reply: SessionReply): Error {
  if (reply.type !== 'failed')
    return new ServingError('INTERNAL', `The thread of a model sent "${reply.type}".`);
  const { code, message, details } = reply;
  return code === undefined ? new Error(message) : new ServingError(code, message, { details });
}
