// What an agent gets beside its request: how to ask others, who asks it, when to stop, where to write. Lives in the
// agent's thread, one for each call.
import type { Json, JsonObject } from '#core/json.ts';
import type { AgentPrincipal } from './agent-request.ts';
import type { FromThread, ToThread } from './messages.ts';

export interface AskPort {
  readonly callId: number;
  tell(message: FromThread): void;
}

/** The failure of an endpoint that was asked. One that the agent does not catch is the failure of its own call. */
export class AskError extends Error {
  readonly code: string;
  /** HTTP status that belongs to the code. */
  readonly status: number;

  constructor({ code, message, status }: { code: string; message: string; status: number }) {
    super(message);
    this.name = 'AskError';
    this.code = code;
    this.status = status;
  }
}

interface Waiting {
  resolve(result: IteratorResult<JsonObject, undefined>): void;
  reject(error: Error): void;
}

let lastAsk = 0;

export class AgentContext {
  /** What the agent sees. */
  readonly face: object;
  readonly #port: AskPort;
  readonly #controller = new AbortController();
  readonly #asks = new Map<number, Waiting[]>();

  constructor(port: AskPort, principal: AgentPrincipal) {
    this.#port = port;
    const say =
      (level: 'debug' | 'info' | 'warn' | 'error') =>
      (message: unknown, fields: JsonObject = {}): void =>
        port.tell({ type: 'log', id: port.callId, level, message: String(message), fields: plain(fields) });
    this.face = Object.freeze({
      principal: Object.freeze(principal),
      signal: this.#controller.signal,
      ask: (question: unknown) => this.#askWhole(question),
      askStream: (question: unknown) => this.#askStream(question),
      log: Object.freeze({ debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error') }),
    });
  }

  /** Gives whether the message belonged to this call. */
  hear(message: ToThread): boolean {
    if (!('ask' in message)) return false;
    const waiting = this.#asks.get(message.ask);
    if (!waiting) return false;
    const next = waiting.shift();
    if (message.type === 'refusal') {
      this.#asks.delete(message.ask);
      next?.reject(new AskError(message.failure));
    } else if (message.type === 'answer_end') {
      this.#asks.delete(message.ask);
      next?.resolve({ done: true, value: undefined });
    } else if (message.type === 'answer') {
      this.#asks.delete(message.ask);
      next?.resolve({ done: false, value: message.value });
    } else next?.resolve({ done: false, value: message.event });
    return true;
  }

  /** The call is over: what it still waits for will not come. */
  end(reason: Error): void {
    this.#controller.abort(reason);
    for (const waiting of this.#asks.values()) for (const each of waiting) each.reject(reason);
    this.#asks.clear();
  }

  async #askWhole(question: unknown): Promise<JsonObject> {
    const ask = this.#begin(question, false);
    const { value } = await this.#await(ask);
    return value ?? {};
  }

  #askStream(question: unknown): AsyncGenerator<JsonObject, void> {
    // Begun at once, not at the first `next`: a question that cannot be put is told where it is written.
    const ask = this.#begin(question, true);
    const { tell, callId: id } = this.#port;
    const next = () => {
      tell({ type: 'ask_next', id, ask });
      return this.#await(ask);
    };
    const leave = () => {
      if (this.#asks.delete(ask)) tell({ type: 'ask_cancel', id, ask });
    };
    return (async function* () {
      try {
        for (;;) {
          const { done, value } = await next();
          if (done || value === undefined) return;
          yield value;
        }
      } finally {
        leave();
      }
    })();
  }

  #begin(question: unknown, isStream: boolean): number {
    this.#controller.signal.throwIfAborted();
    const ask = ++lastAsk;
    this.#asks.set(ask, []);
    const { tell, callId: id } = this.#port;
    tell({ type: 'ask', id, ask, question: plain(question), isStream });
    return ask;
  }

  #await(ask: number): Promise<IteratorResult<JsonObject, undefined>> {
    return new Promise((resolve, reject) => {
      const waiting = this.#asks.get(ask);
      if (waiting) waiting.push({ resolve, reject });
      else if (this.#controller.signal.aborted) reject(this.#controller.signal.reason);
      else resolve({ done: true, value: undefined });
    });
  }
}

function plain<T extends Json>(value: unknown): T {
  const text = JSON.stringify(value);
  return (text === undefined ? null : JSON.parse(text)) as T;
}
