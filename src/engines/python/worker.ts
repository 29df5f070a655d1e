// A worker: one process of Python with one model, and the requests it is working on. It starts nothing anew: a
// worker that has died is lost, its requests fail with MODEL_CRASHED, and whoever opened it opens another. Requests
// that were not yet sent to it fail with UPSTREAM_ERROR: they may be asked again, as they cannot have been the reason.
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { Clock } from '#core/clock.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import { agentFailure } from '../module/ask-desk.ts';
import { encodeFrame, type Frame, type FrameKind, FrameReader } from './frames.ts';
import { watchMemory } from './worker-memory.ts';
import { WorkerOutput } from './worker-output.ts';

const SCRIPT = fileURLToPath(new URL('../../../python/run_worker.py', import.meta.url));
/** How long a worker may take to end by itself before it is killed. */
const GRACE_MS = 2_000;

export interface WorkerSpec {
  /** For messages: the name of the model. */
  readonly model: string;
  readonly python: string;
  /** Where it runs: what the model writes beside itself lands there, not among its files. */
  readonly scratch: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Values that must not appear in the log. */
  readonly secrets: readonly string[];
  /** Requests in the process at once; others wait here. */
  readonly maxConcurrency: number;
  readonly memoryMb?: number | undefined;
  readonly log: Log;
  readonly clock: Clock;
}

export interface WorkerRequest {
  readonly header?: JsonObject;
  readonly buffers?: readonly ArrayBufferView[];
  /** The caller hears CANCELLED at once; the worker is told, and its place is free when it has ended the request. */
  readonly signal?: AbortSignal | undefined;
  /** From when the request is sent; then the process is killed. */
  readonly timeoutMs: number;
  /** `event` frames, in order. */
  readonly onEvent?: (event: Frame) => void;
  /** What the model asks while it answers: called for each `ask` frame, gives the `value` of the answer. */
  readonly onAsk?: (question: JsonObject, emit: (event: JsonObject) => void) => Promise<JsonObject>;
}

interface Pending {
  readonly kind: FrameKind;
  readonly request: WorkerRequest;
  readonly resolve: (frame: Frame) => void;
  readonly reject: (error: ServingError) => void;
  readonly stopListening: () => void;
  timer?: NodeJS.Timeout;
}

export class Worker {
  /** Resolves when the process has ended, however that came, with what its requests have failed with. */
  readonly lost: Promise<ServingError>;
  readonly output: WorkerOutput;
  /** Resolves when all that it wrote has been read, which is after its end. */
  readonly drained: Promise<void>;
  readonly #spec: WorkerSpec;
  readonly #child: ChildProcess;
  readonly #socket: Socket;
  readonly #waiting: Pending[] = [];
  readonly #inFlight = new Map<number, Pending>();
  #lastId = 0;
  #end: ServingError | undefined;
  /** Why it was killed, where we did it. */
  #killedFor: ServingError | undefined;
  #stopWatch: (() => void) | undefined;
  #isClosing = false;
  #markLost: (error: ServingError) => void = () => {};

  constructor(spec: WorkerSpec) {
    this.#spec = spec;
    this.lost = new Promise((resolve) => {
      this.#markLost = resolve;
    });
    // Descriptor 3 is a socket that nobody else can connect to. A group of its own: what it starts ends with it.
    this.#child = spawn(spec.python, ['-u', SCRIPT], {
      cwd: spec.scratch,
      env: { ...spec.environment },
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
      detached: true,
    });
    const { pid, stdout, stderr, stdio } = this.#child;
    const fields = { model: spec.model, pid };
    this.output = new WorkerOutput({ log: spec.log, clock: spec.clock, fields, secrets: spec.secrets });
    if (stdout) this.output.read(stdout, 'info');
    if (stderr) this.output.read(stderr, 'warn');
    this.#socket = stdio[3] as Socket;
    const reader = new FrameReader((frame) => this.#receive(frame));
    this.#socket.on('data', (chunk: Buffer) => {
      try {
        reader.push(chunk);
      } catch (thrown) {
        this.kill(toServingError(thrown));
      }
    });
    // The process says how it ended; the socket only that it did.
    this.#socket.on('error', () => {});
    this.#child.on('error', (cause) => this.#ended(`could not be started (${cause.message})`, cause));
    this.drained = new Promise((resolve) => {
      this.#child.on('close', () => resolve());
      this.#child.on('error', () => resolve());
    });
    this.#child.on('exit', (code, signal) => {
      if (pid !== undefined) killGroup(pid);
      this.#ended(signal ? `was ended by ${signal}` : `ended by itself with code ${code}`);
    });
    if (pid !== undefined && spec.memoryMb !== undefined) {
      this.#stopWatch = watchMemory(pid, spec.memoryMb, (seenMb) => {
        const what = `used ${Math.round(seenMb)} MB of memory, and ${spec.memoryMb} MB are allowed (option memoryMb)`;
        this.kill(this.#crashed(`was ended: it ${what}`));
      });
    }
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** The last frame of the answer. Throws MODEL_CRASHED, UPSTREAM_ERROR, CANCELLED, and what an `error` frame says. */
  request(kind: FrameKind, request: WorkerRequest): Promise<Frame> {
    return new Promise((resolve, reject) => {
      if (this.#end) return reject(this.#notSent(this.#end));
      const { signal } = request;
      if (signal?.aborted) return reject(cancelled(signal));
      const abort = () => this.#abandon(pending, signal);
      signal?.addEventListener('abort', abort, { once: true });
      const stopListening = () => signal?.removeEventListener('abort', abort);
      const pending: Pending = { kind, request, resolve, reject, stopListening };
      this.#waiting.push(pending);
      this.#sendNext();
    });
  }

  /** Ends it at once; what is under way fails with `reason`. */
  kill(reason: ServingError): void {
    this.#killedFor ??= reason;
    if (this.pid !== undefined) killGroup(this.pid);
  }

  /** Ends it: politely, then not. Resolves when it is gone. */
  async close(): Promise<void> {
    this.#isClosing = true;
    if (this.#end || this.pid === undefined) return;
    this.#socket.end();
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.kill(closed(this.#spec.model)), GRACE_MS);
    await this.lost;
    clearTimeout(timer);
  }

  #sendNext(): void {
    while (this.#inFlight.size < this.#spec.maxConcurrency) {
      const pending = this.#waiting.shift();
      if (!pending) return;
      const id = ++this.#lastId;
      this.#inFlight.set(id, pending);
      const { header = {}, buffers = [], timeoutMs } = pending.request;
      pending.timer = setTimeout(() => {
        const what = pending.kind === 'load' ? 'loading it took' : 'a request took';
        const option = pending.kind === 'load' ? 'startSeconds' : 'timeoutSeconds';
        this.kill(
          this.#crashed(`was ended: ${what} longer than ${timeoutMs / 1_000} seconds (option ${option})`),
        );
      }, timeoutMs);
      this.#write(encodeFrame(pending.kind, id, header, buffers));
    }
  }

  #write(pieces: readonly Uint8Array[]): void {
    if (this.#socket.destroyed || this.#socket.writableEnded) return;
    this.#socket.cork();
    for (const piece of pieces) this.#socket.write(piece);
    this.#socket.uncork();
  }

  #abandon(pending: Pending, signal: AbortSignal | undefined): void {
    pending.reject(cancelled(signal));
    const at = this.#waiting.indexOf(pending);
    if (at >= 0) this.#waiting.splice(at, 1);
    for (const [id, other] of this.#inFlight)
      if (other === pending) this.#write(encodeFrame('cancel', id, {}));
  }

  #receive(frame: Frame): void {
    const pending = this.#inFlight.get(frame.id);
    if (!pending) return;
    if (frame.kind === 'event') pending.request.onEvent?.(frame);
    else if (frame.kind === 'ask') void this.#answerAsk(frame, pending);
    else {
      this.#inFlight.delete(frame.id);
      clearTimeout(pending.timer);
      pending.stopListening();
      if (frame.kind === 'error') pending.reject(this.#refused(frame, pending.kind));
      else pending.resolve(frame);
      this.#sendNext();
    }
  }

  async #answerAsk({ id, header }: Frame, { request }: Pending): Promise<void> {
    const ask = header.ask ?? 0;
    try {
      if (!request.onAsk) throw new ServingError('NOT_OFFERED', 'This model cannot ask others.');
      const question = header.question as JsonObject;
      const value = await request.onAsk(question, (event) =>
        this.#write(encodeFrame('ask_event', id, { ask, event })),
      );
      this.#write(encodeFrame('answer', id, { ask, value }));
    } catch (thrown) {
      const { code, message, row } = toServingError(thrown);
      this.#write(encodeFrame('answer', id, { ask, error: { code, message, status: row.httpStatus } }));
    }
  }

  #refused({ header }: Frame, kind: FrameKind): ServingError {
    const { type, message, code } = header;
    const { model } = this.#spec;
    if (code === 'CANCELLED') return new ServingError('CANCELLED', 'The call was cancelled.');
    const said = [type, message].filter((part) => typeof part === 'string' && part !== '').join(': ');
    const what = this.output.redact(said);
    if (kind === 'load') {
      return new ServingError('MODEL_NOT_AVAILABLE', `Model "${model}" cannot be loaded by Python: ${what}.`);
    }
    if (kind !== 'predict') return agentFailure(`'${model}'`, what, code);
    return new ServingError('UPSTREAM_REJECTED', `Model "${model}" raised ${what}.`);
  }

  #ended(how: string, cause?: unknown): void {
    if (this.#end) return;
    this.#stopWatch?.();
    const { log, model } = this.#spec;
    const end = this.#isClosing ? closed(model) : (this.#killedFor ?? this.#crashed(how, cause));
    this.#end = end;
    if (!this.#isClosing) log.error({ model, pid: this.pid }, end.message);
    for (const pending of this.#inFlight.values()) {
      clearTimeout(pending.timer);
      pending.stopListening();
      pending.reject(end);
    }
    for (const pending of this.#waiting) {
      pending.stopListening();
      pending.reject(this.#notSent(end));
    }
    this.#inFlight.clear();
    this.#waiting.length = 0;
    this.#socket.destroy();
    this.#markLost(end);
  }

  #notSent(end: ServingError): ServingError {
    if (end.code !== 'MODEL_CRASHED' && end.code !== 'INVALID_RESPONSE') return end;
    const { model } = this.#spec;
    const message = `The process of model "${model}" ended before this request was sent to it: ${end.message}`;
    return new ServingError('UPSTREAM_ERROR', message, { cause: end });
  }

  #crashed(how: string, cause?: unknown): ServingError {
    const advice = 'It is started again; the log has what it wrote last.';
    return new ServingError(
      'MODEL_CRASHED',
      `The process of model "${this.#spec.model}" ${how}. ${advice}`,
      cause === undefined ? {} : { cause },
    );
  }
}

function closed(model: string): ServingError {
  return new ServingError('CANCELLED', `The process of model "${model}" was closed.`);
}

function cancelled(signal: AbortSignal | undefined): ServingError {
  return signal?.reason instanceof ServingError
    ? signal.reason
    : new ServingError('CANCELLED', 'The call was cancelled.');
}

/** The process and what it has started. Where the group is gone already there is nothing to end. */
function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // ESRCH.
  }
}
