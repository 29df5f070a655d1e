// What the tests of guardrails share: endpoints with rules, a model that answers as it is told, a log that is kept.
import { type AnswerItem, type Call, createCall, type Input, type StreamEvent } from '#core/call.ts';
import { SYSTEM_CLOCK } from '#core/clock.ts';
import type { AiGateway, Endpoint } from '#core/endpoint.ts';
import type { ServingError } from '#core/errors.ts';
import type { AskEndpoint, Guard } from '#core/policies.ts';
import { createGuards, type GuardrailsOptions } from '#governance/guardrails/guardrails.ts';

export type Rules = NonNullable<AiGateway['guardrails']>;
export type Question = Parameters<AskEndpoint>[0];

export function endpointWith(guardrails: Rules, changes: Partial<Endpoint> = {}): Endpoint {
  return {
    id: 'e1',
    name: 'guarded',
    task: 'llm/v1/chat',
    servedEntities: [],
    routes: [],
    configVersion: 1,
    description: '',
    tags: [],
    creator: 'ann',
    createdAtMs: 0,
    updatedAtMs: 0,
    isEmbedded: false,
    aiGateway: { guardrails },
    ...changes,
  };
}

export class KeptLog {
  readonly lines: string[] = [];
  readonly #keep = (fields: object, message: string): void => {
    this.lines.push(`${message} ${JSON.stringify(fields)}`);
  };
  readonly debug = this.#keep;
  readonly info = this.#keep;
  readonly warn = this.#keep;
  readonly error = this.#keep;
}

export interface Setup {
  readonly guard: Guard;
  readonly asked: Question[];
  readonly log: KeptLog;
}

/** `answer`: what the model says to each question of the guardrail, or what it fails with. */
export function guardWith(
  rules: Rules,
  answer: (question: Question) => string | ServingError = () => '{}',
  options: Partial<GuardrailsOptions> & { readonly endpoint?: Partial<Endpoint> } = {},
): Setup {
  const asked: Question[] = [];
  const log = new KeptLog();
  const ask: AskEndpoint = async (question): Promise<AnswerItem> => {
    asked.push(question);
    const said = answer(question);
    if (typeof said !== 'string') return { ok: false, error: said };
    const usage = { inputTokens: 1, outputTokens: 1 };
    return { ok: true, output: { content: said, finishReason: 'stop' }, usage, cached: false };
  };
  const guards = createGuards({ ask, log, clock: SYSTEM_CLOCK, ...options });
  const guard = guards.guardOf(endpointWith(rules, options.endpoint));
  if (!guard) throw new Error('These rules guard nothing.');
  return { guard, asked, log };
}

export const chat = (...contents: string[]): Input => ({
  messages: contents.map((content) => ({ role: 'user', content })),
});

export function callWith(inputs: readonly Input[], changes: Partial<Call> = {}): Call {
  return { ...createCall('guarded', 'llm/v1/chat', inputs), ...changes };
}

/** What becomes of one input. */
export async function passInput(guard: Guard, input: Input): Promise<Input | ServingError> {
  const [verdict] = (await guard.inputs?.(callWith([input]))) ?? [];
  if (!verdict) throw new Error('One input has one verdict.');
  return verdict;
}

export const END: StreamEvent = {
  type: 'end',
  finishReason: 'stop',
  usage: { inputTokens: 3, outputTokens: 4 },
};

export class Source implements AsyncIterable<StreamEvent> {
  isClosed = false;
  readonly #events: readonly (StreamEvent | Error)[];
  constructor(events: readonly (StreamEvent | Error)[]) {
    this.#events = events;
  }
  async *[Symbol.asyncIterator](): AsyncGenerator<StreamEvent> {
    try {
      for (const event of this.#events) {
        if (event instanceof Error) throw event;
        yield event;
      }
    } finally {
      this.isClosed = true;
    }
  }
}

export interface Streamed {
  readonly events: readonly StreamEvent[];
  readonly text: string;
  readonly error: unknown;
}

export async function streamThrough(
  guard: Guard,
  events: AsyncIterable<StreamEvent>,
  call: Call = callWith([chat('hello')]),
): Promise<Streamed> {
  const seen: StreamEvent[] = [];
  let error: unknown;
  try {
    for await (const event of guard.stream?.(call, events) ?? events) seen.push(event);
  } catch (thrown) {
    error = thrown;
  }
  const text = seen.map((event) => (event.type === 'delta' ? event.text : '')).join('');
  return { events: seen, text, error };
}
