// Where one call of an agent asks other endpoints: in the name of its caller, and no longer than the call lasts. The
// same for agents in JavaScript and in Python. Not here: how a question travels to it.
import { ERRORS, type ErrorCode, ServingError, toServingError } from '#core/errors.ts';
import type { Json, JsonObject } from '#core/json.ts';
import type { Caller, EngineContext } from '../engine.ts';
import { formatAnswer, formatEvent, readQuestion, withCaller } from './asked-question.ts';

type Askable = Pick<EngineContext, 'ask' | 'askStream'>;

/** How a failure is told to an agent, and how it comes back when the agent does not catch it. */
export interface ToldFailure extends JsonObject {
  readonly code: string;
  readonly message: string;
  /** HTTP status of the code. */
  readonly status: number;
}

export class AskDesk {
  readonly #context: Askable;
  readonly #caller: Caller;
  readonly #signal: AbortSignal;

  /** `signal`: the call is over. */
  constructor(context: Askable, caller: Caller, signal: AbortSignal) {
    this.#context = context;
    this.#caller = caller;
    this.#signal = signal;
  }

  /** Throws what serving throws, and the failure of the input. */
  async ask(question: Json | undefined): Promise<JsonObject> {
    const { ask } = this.#context;
    if (!ask) throw nobodyToAsk();
    const asked = withCaller(readQuestion(question), this.#caller, this.#signal);
    return formatAnswer(await ask(asked));
  }

  async *askStream(question: Json | undefined): AsyncGenerator<JsonObject, void> {
    const { askStream } = this.#context;
    if (!askStream) throw nobodyToAsk();
    const asked = withCaller(readQuestion(question), this.#caller, this.#signal);
    for await (const event of await askStream(asked)) yield formatEvent(event);
  }
}

export function tellFailure(thrown: unknown): ToldFailure {
  const { code, message, row } = toServingError(thrown);
  return { code, message, status: row.httpStatus };
}

/**
 * What an agent threw as an error of its call. A code of duckserve is kept: that of an endpoint it asked, or one it
 * chose itself. `said`: type and text of what was thrown.
 */
export function agentFailure(agent: string, said: string, code: unknown): ServingError {
  const known = typeof code === 'string' && Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : undefined;
  const isOurs = known !== undefined && known !== 'INTERNAL' && known !== 'STORAGE_ERROR';
  return new ServingError(
    isOurs ? known : 'UPSTREAM_REJECTED',
    `The agent ${agent} failed: ${said.slice(0, 4_000)}`,
  );
}

function nobodyToAsk(): ServingError {
  return new ServingError('NOT_OFFERED', 'This agent runs where it can ask no endpoints.');
}
