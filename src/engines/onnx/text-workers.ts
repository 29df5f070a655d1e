// The threads of a text runner and the queue before them. A job waits here, not in a thread, so that a cancelled one
// is never begun; a thread that dies fails its job only, and the next job starts a new one.
import type { Worker } from 'node:worker_threads';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import type { TextJob, TextReply } from './text-worker.ts';

export interface TextAnswer {
  /** One vector after the other. */
  readonly vectors: Float32Array;
  readonly tokenCounts: Int32Array;
}

interface Job {
  readonly texts: readonly string[];
  resolve(answer: TextAnswer): void;
  reject(error: ServingError): void;
}

interface Thread {
  readonly worker: Worker;
  isReady: boolean;
  job: Job | undefined;
}

const CLOSE_TIMEOUT_MS = 5_000;

export class TextWorkers {
  readonly #start: () => Worker;
  readonly #count: number;
  readonly #threads = new Set<Thread>();
  readonly #queue: Job[] = [];
  #closed: Promise<void> | undefined;

  constructor(count: number, start: () => Worker) {
    this.#count = count;
    this.#start = start;
  }

  /** Vectors in the order of the texts; rejects with CANCELLED when the signal fires, begun or not. */
  run(texts: readonly string[], signal?: AbortSignal): Promise<TextAnswer> {
    throwIfAborted(signal);
    if (this.#closed) throw new ServingError('CANCELLED', 'The model was closed while it was asked.');
    return new Promise((resolve, reject) => {
      const settled = () => signal?.removeEventListener('abort', onAbort);
      const job: Job = {
        texts,
        resolve: (answer) => {
          settled();
          resolve(answer);
        },
        reject: (error) => {
          settled();
          reject(error);
        },
      };
      const onAbort = () => {
        const at = this.#queue.indexOf(job);
        if (at >= 0) this.#queue.splice(at, 1);
        job.reject(new ServingError('CANCELLED', 'The call was cancelled.', { cause: signal?.reason }));
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#queue.push(job);
      this.#dispatch();
    });
  }

  /** Ends all threads; what still waits is cancelled. */
  close(): Promise<void> {
    this.#closed ??= this.#closeAll();
    return this.#closed;
  }

  #dispatch(): void {
    for (const thread of this.#threads) {
      if (!thread.isReady || thread.job) continue;
      const job = this.#queue.shift();
      if (job === undefined) return;
      thread.job = job;
      thread.worker.ref();
      thread.worker.postMessage(job.texts satisfies TextJob);
    }
    const starting = [...this.#threads].filter((thread) => !thread.isReady).length;
    if (this.#queue.length > starting && this.#threads.size < this.#count) this.#startThread();
  }

  #startThread(): void {
    // A thread that loads or works keeps the process alive, an idle one does not.
    const thread: Thread = { worker: this.#start(), isReady: false, job: undefined };
    this.#threads.add(thread);
    let reason = 'its thread ended by itself';
    thread.worker.on('message', (reply: TextReply) => {
      if (reply.type === 'unloadable') {
        reason = reply.reason;
        void thread.worker.terminate();
        return;
      }
      if (reply.type === 'done') thread.job?.resolve(reply);
      if (reply.type === 'failed')
        thread.job?.reject(new ServingError('INTERNAL', `The model failed: ${reply.reason}.`));
      thread.isReady = true;
      thread.job = undefined;
      thread.worker.unref();
      this.#dispatch();
    });
    thread.worker.on('error', (error) => {
      reason = error.message;
    });
    thread.worker.on('exit', () => {
      this.#threads.delete(thread);
      if (thread.isReady) {
        thread.job?.reject(new ServingError('INTERNAL', `The thread of the model ended: ${reason}.`));
        if (!this.#closed) this.#dispatch();
      } else if (this.#threads.size === 0) {
        // Another start would fail the same way.
        const error = new ServingError('MODEL_NOT_AVAILABLE', `The model cannot be loaded: ${reason}.`);
        for (const job of this.#queue.splice(0)) job.reject(error);
      }
    });
    this.#dispatch();
  }

  async #closeAll(): Promise<void> {
    const cancelled = () => new ServingError('CANCELLED', 'The model was closed while it was asked.');
    for (const job of this.#queue.splice(0)) job.reject(cancelled());
    await Promise.all(
      [...this.#threads].map(async ({ worker, job }) => {
        job?.reject(cancelled());
        await endThread(worker);
      }),
    );
  }
}

/**
 * Asks the thread to release the model. One that is still busy after a while is let go on alone and ends after its
 * run: to end a thread by force within native code ends the whole process.
 */
async function endThread(worker: Worker): Promise<void> {
  const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  worker.ref();
  worker.postMessage(null satisfies TextJob);
  let timer: NodeJS.Timeout | undefined;
  const waited = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, CLOSE_TIMEOUT_MS);
  });
  await Promise.race([ended, waited]);
  clearTimeout(timer);
  worker.unref();
}
