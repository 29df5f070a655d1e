// The thread of an agent as the server has it: its calls, what they ask, and its end. It starts nothing anew: a thread
// that has died is lost, its calls fail with MODEL_CRASHED, and whoever opened it opens another.
import type { Worker } from 'node:worker_threads';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import type { Caller } from '../engine.ts';
import type { AgentPrincipal, AgentRequest } from './agent-request.ts';
import { AskDesk, agentFailure, tellFailure } from './ask-desk.ts';
import type { FromThread, ToThread } from './messages.ts';

export interface AgentThreadOptions {
  /** For messages. */
  readonly agent: string;
  readonly start: () => Worker;
  /** Strikes out the secrets that the agent was given. */
  readonly redact: (text: string) => string;
  readonly context: ConstructorParameters<typeof AskDesk>[0] & { readonly log: Log };
  readonly startMs: number;
  readonly timeoutMs: number;
  readonly stallMs: number;
}

export interface AgentCall {
  readonly request: AgentRequest;
  readonly principal: AgentPrincipal;
  readonly caller: Caller;
  readonly signal: AbortSignal;
}

type Ending = { readonly done: boolean; readonly values: readonly Json[] };

interface Pending {
  readonly desk: AskDesk;
  readonly streams: Map<number, AsyncGenerator<JsonObject, void>>;
  /** Whoever waits for the next event, or for the whole answer. */
  waiting: { resolve(ending: Ending): void; reject(error: ServingError): void } | undefined;
  /** The call is over for who asked; what the agent still does is in vain. */
  leave(error: ServingError): void;
  failure: ServingError | undefined;
}

export class AgentThread {
  /** Once; never rejects. */
  readonly lost: Promise<ServingError>;
  readonly #options: AgentThreadOptions;
  readonly #worker: Worker;
  readonly #calls = new Map<number, Pending>();
  readonly #ready: Promise<{ readonly streams: boolean }>;
  #tellReady: (ready: { streams: boolean }) => void = () => {};
  #tellUnloadable: (error: ServingError) => void = () => {};
  #markLost: (error: ServingError) => void = () => {};
  #lastId = 0;
  #end: ServingError | undefined;
  /** Why it was ended, where we did it; or what it said last. */
  #reason: ServingError | undefined;
  #watch: NodeJS.Timeout | undefined;
  #pingedAt: number | undefined;

  constructor(options: AgentThreadOptions) {
    this.#options = options;
    this.lost = new Promise((resolve) => {
      this.#markLost = resolve;
    });
    this.#ready = new Promise((resolve, reject) => {
      this.#tellReady = resolve;
      this.#tellUnloadable = reject;
    });
    this.#ready.catch(() => {});
    this.#worker = options.start();
    this.#worker.on('message', (message: FromThread) => this.#hear(message));
    this.#worker.on('messageerror', (error) => this.#endFor(this.#crashed(error.message)));
    this.#worker.on('error', (error) => {
      this.#reason ??= this.#crashed(options.redact(describeDeath(error)));
    });
    this.#worker.on('exit', (code) => {
      this.#over(this.#reason ?? this.#crashed(`it ended by itself with code ${code}`));
    });
  }

  /** When the module is loaded. Throws MODEL_NOT_AVAILABLE. */
  async loaded(): Promise<{ readonly streams: boolean }> {
    const { agent, startMs } = this.#options;
    const slow = new ServingError(
      'MODEL_NOT_AVAILABLE',
      `The agent ${agent} was not loaded within ${startMs / 1_000} seconds (option startSeconds).`,
    );
    const timer = setTimeout(() => this.#endFor(slow), startMs);
    try {
      const ready = await this.#ready;
      // A thread that works keeps the process alive, an idle one does not.
      this.#worker.unref();
      return ready;
    } finally {
      clearTimeout(timer);
    }
  }

  /** All that the agent returned. Throws what it threw, TIMEOUT, CANCELLED, MODEL_CRASHED. */
  async ask(call: AgentCall): Promise<readonly Json[]> {
    const { id, over } = this.#begin(call, false);
    try {
      return (await this.#wait(id)).values;
    } finally {
      over();
    }
  }

  /** What it yields, as it is wanted. */
  async *stream(call: AgentCall): AsyncGenerator<Json, void> {
    const { id, over } = this.#begin(call, true);
    try {
      for (;;) {
        const next = this.#wait(id);
        this.#tell({ type: 'next', id });
        const { done, values } = await next;
        yield* values;
        if (done) return;
      }
    } finally {
      over();
    }
  }

  /** Ends it at once. */
  async close(): Promise<void> {
    this.#reason ??= new ServingError('CANCELLED', `The agent ${this.#options.agent} was closed.`);
    await this.#worker.terminate();
  }

  #begin({ request, principal, caller, signal }: AgentCall, isStream: boolean) {
    throwIfAborted(signal);
    if (this.#end) throw this.#end;
    const { agent, timeoutMs, context } = this.#options;
    const id = ++this.#lastId;
    const controller = new AbortController();
    const pending: Pending = {
      desk: new AskDesk(context, caller, controller.signal),
      streams: new Map(),
      waiting: undefined,
      failure: undefined,
      leave: (error) => {
        if (!this.#calls.delete(id)) return;
        pending.failure = error;
        pending.waiting?.reject(error);
        controller.abort(error);
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        this.#rest();
      },
    };
    const abandon = (error: ServingError) => {
      if (!this.#calls.has(id)) return;
      this.#tell({ type: 'cancel', id, reason: error.message });
      pending.leave(error);
    };
    const onAbort = () => abandon(cancelled(signal));
    const slow = `The agent ${agent} was not done within ${timeoutMs / 1_000} seconds (option timeoutSeconds).`;
    const timer = setTimeout(() => abandon(new ServingError('TIMEOUT', slow)), timeoutMs);
    signal.addEventListener('abort', onAbort, { once: true });
    this.#calls.set(id, pending);
    this.#work();
    this.#tell({ type: 'call', id, isStream, request, principal });
    return { id, over: () => abandon(new ServingError('CANCELLED', 'Nobody reads the answer any more.')) };
  }

  #wait(id: number): Promise<Ending> {
    return new Promise((resolve, reject) => {
      const pending = this.#calls.get(id);
      if (pending) pending.waiting = { resolve, reject };
      else reject(this.#end ?? new ServingError('CANCELLED', 'The call is over.'));
    });
  }

  #hear(message: FromThread): void {
    if (message.type === 'ready') this.#tellReady({ streams: message.streams });
    else if (message.type === 'unloadable') this.#unloadable(message.reason);
    else if (message.type === 'pong') this.#pingedAt = undefined;
    else if (message.type === 'log') this.#log(message);
    else this.#hearOfCall(message);
  }

  #hearOfCall(message: Extract<FromThread, { id: number }>): void {
    const pending = this.#calls.get(message.id);
    if (!pending || message.type === 'log') return;
    if (message.type === 'event') pending.waiting?.resolve({ done: false, values: [message.value] });
    else if (message.type === 'result') {
      pending.waiting?.resolve({ done: true, values: message.values });
      pending.leave(new ServingError('CANCELLED', 'The call is answered.'));
    } else if (message.type === 'failed') {
      const { agent, context, redact } = this.#options;
      const { code, stack = '' } = message;
      const said = redact(message.said);
      context.log.warn({ agent, stack: redact(stack) }, `An agent failed: ${said}`);
      pending.leave(agentFailure(agent, said, code));
    } else this.#hearQuestion(pending, message);
  }

  #hearQuestion(
    { desk, streams }: Pending,
    message: Extract<FromThread, { type: 'ask' | 'ask_next' | 'ask_cancel' }>,
  ): void {
    const { ask } = message;
    if (message.type === 'ask' && message.isStream) streams.set(ask, desk.askStream(message.question));
    else if (message.type === 'ask') {
      desk.ask(message.question).then(
        (value) => this.#tell({ type: 'answer', ask, value }),
        (thrown) => this.#tell({ type: 'refusal', ask, failure: tellFailure(thrown) }),
      );
    } else if (message.type === 'ask_cancel') {
      streams
        .get(ask)
        ?.return()
        .catch(() => {});
      streams.delete(ask);
    } else {
      streams
        .get(ask)
        ?.next()
        .then(
          ({ done, value }) =>
            this.#tell(
              done || !value ? { type: 'answer_end', ask } : { type: 'answer_event', ask, event: value },
            ),
          (thrown) => this.#tell({ type: 'refusal', ask, failure: tellFailure(thrown) }),
        );
    }
  }

  #log({ level, message, fields }: Extract<FromThread, { type: 'log' }>): void {
    const { context, agent, redact } = this.#options;
    const text = JSON.stringify(fields);
    const shown =
      text.length > LONGEST_FIELDS ? { leftOut: `${text.length} characters` } : readBack(redact(text));
    context.log[level]({ ...shown, agent }, redact(message.slice(0, 4_000)));
  }

  #tell(message: ToThread): void {
    if (!this.#end) this.#worker.postMessage(message);
  }

  #unloadable(reason: string): void {
    const { agent, redact } = this.#options;
    const why = `The agent ${agent} cannot be loaded: ${redact(reason)}.`;
    this.#endFor(new ServingError('MODEL_NOT_AVAILABLE', why));
  }

  #endFor(reason: ServingError): void {
    this.#reason ??= reason;
    void this.#worker.terminate();
  }

  #over(error: ServingError): void {
    if (this.#end) return;
    this.#end = error;
    clearTimeout(this.#watch);
    if (error.code !== 'CANCELLED')
      this.#options.context.log.error({ agent: this.#options.agent }, error.message);
    this.#tellUnloadable(error);
    for (const pending of [...this.#calls.values()]) pending.leave(error);
    this.#markLost(error);
  }

  #work(): void {
    this.#worker.ref();
    if (this.#watch) return;
    const everyMs = Math.max(5, this.#options.stallMs / 4);
    this.#watch = setInterval(() => this.#look(), everyMs).unref();
  }

  #rest(): void {
    if (this.#calls.size > 0) return;
    this.#worker.unref();
    clearInterval(this.#watch);
    this.#watch = undefined;
    this.#pingedAt = undefined;
  }

  /** A thread in a loop answers nobody; all its calls would hang with the one that loops. */
  #look(): void {
    const now = performance.now();
    if (this.#pingedAt === undefined) {
      this.#pingedAt = now;
      this.#tell({ type: 'ping' });
      return;
    }
    const silentMs = now - this.#pingedAt;
    if (silentMs < this.#options.stallMs) return;
    const seconds = Number((silentMs / 1_000).toFixed(1));
    this.#endFor(
      this.#crashed(
        `it did nothing but one thing for ${seconds} seconds (option stallSeconds); is it in a loop?`,
      ),
    );
  }

  #crashed(how: string): ServingError {
    return new ServingError(
      'MODEL_CRASHED',
      `The thread of the agent ${this.#options.agent} was lost: ${how}`,
    );
  }
}

const LONGEST_FIELDS = 10_000;

/** Striking out may have hit a number or a name; then the text stands for what it was. */
function readBack(text: string): object {
  try {
    return JSON.parse(text) as object;
  } catch {
    return { fields: text };
  }
}

function describeDeath(error: Error & { readonly code?: string }): string {
  if (error.code === 'ERR_WORKER_OUT_OF_MEMORY') return 'it used up its memory (option memoryMb)';
  return `${error.name}: ${error.message}`.slice(0, 2_000);
}

function cancelled({ reason }: AbortSignal): ServingError {
  if (reason instanceof ServingError) return reason;
  return new ServingError('CANCELLED', 'The call was cancelled.', { cause: reason });
}
