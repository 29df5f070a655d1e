// Thread of a large ONNX model: loads it and runs it, because both block the thread they happen on. Does one run
// after the other, in the order they arrive. The other side is background-session.ts.

import type { MessagePort } from 'node:worker_threads';
import { parentPort, workerData } from 'node:worker_threads';
import { type ErrorCode, toServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import { readModelFile } from './model-file.ts';
import { openNativeSession } from './native-session.ts';
import type { Feed, ModelFacts, Results } from './session.ts';

export interface SessionData {
  readonly path: string;
  readonly threads: number;
  readonly port: MessagePort;
  /** Counts replies, so that the other side can sleep until there is one. */
  readonly replies: Int32Array;
}
/** To the thread: a run, or null to release the model and end. */
export type SessionJob = {
  readonly id: number;
  readonly feeds: readonly Feed[];
  readonly names: readonly string[];
} | null;
/** From the thread: the model is loaded or cannot be (id 0), then one reply to each run. */
export type SessionReply =
  | { readonly type: 'opened'; readonly id: 0; readonly facts: ModelFacts }
  | { readonly type: 'done'; readonly id: number; readonly results: Results }
  | {
      readonly type: 'failed';
      readonly id: number;
      /** Absent: the runtime refused the values. */
      readonly code?: ErrorCode;
      readonly message: string;
      readonly details: JsonObject;
    };

if (parentPort === null)
  throw new Error('session-worker.ts is a thread of the ONNX engine and is not run by itself');
const { path, threads, port, replies } = workerData as SessionData;

function reply(message: SessionReply): void {
  port.postMessage(message);
  Atomics.add(replies, 0, 1);
  Atomics.notify(replies, 0);
}

function fail(id: number, thrown: unknown): void {
  const { message, details, code } = toServingError(thrown);
  const isOurs = thrown instanceof Error && thrown.name === 'ServingError';
  reply({ type: 'failed', id, message, details, ...(isOurs ? { code } : {}) });
}

try {
  const session = await openNativeSession(await readModelFile(path), threads);
  port.on('message', async (job: SessionJob) => {
    if (job === null) {
      await session.close();
      port.close();
      return;
    }
    const { id, feeds, names } = job;
    try {
      reply({ type: 'done', id, results: await session.run(feeds, names) });
    } catch (thrown) {
      fail(id, thrown);
    }
  });
  const { inputs, outputs, operators, sha256, sizeBytes, hasExternalFiles } = session;
  reply({
    type: 'opened',
    id: 0,
    facts: { inputs, outputs, operators, sha256, sizeBytes, hasExternalFiles },
  });
} catch (thrown) {
  fail(0, thrown);
  port.close();
}
