// The guardrails on the inputs of an endpoint, or those on its outputs, in their order: personal data and keywords
// here, then the judge, then the user's own guardrail. Each stage sees what the one before it made.
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Call, ChatInput, Input, Output, StreamEvent } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint, GuardrailRules } from '#core/endpoint.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { Log } from '#core/log.ts';
import type { AskEndpoint } from '#core/policies.ts';
import { askModel, isGuardrailCall, type PrincipalNamed, unreadable } from './ask-model.ts';
import { customQuestion, parseDecision, sanitizeInput, sanitizeOutput } from './custom-guardrail.ts';
import { GuardedEvents } from './guarded-events.ts';
import { HeldEvents } from './held-events.ts';
import { type JudgeTask, judgeQuestion, parseVerdict } from './judge.ts';
import { type Phase, refuse, toAnonymized } from './refusal.ts';
import { type Counts, Screen, type Screened } from './screen.ts';

export interface GuardrailsOptions {
  readonly ask: AskEndpoint;
  readonly log: Log;
  readonly clock: Clock;
  /** The chat endpoint that judges where the rules name none. May throw what the caller is told. */
  readonly defaultJudge?: () => string | undefined;
  /** Who the creator of an endpoint is; judges are asked in that name. */
  readonly principalNamed?: PrincipalNamed;
}

/** Questions to a judge that one call has in flight. */
const MAX_ASKING = 64;
/** A hundred thousand texts take seconds; nobody else of this process should wait that long. */
const MAX_TURN_MS = 15;
const INPUTS_PER_CLOCK_LOOK = 32;

export class Side {
  readonly #phase: Phase;
  readonly #endpoint: Endpoint;
  readonly #options: GuardrailsOptions;
  readonly #screen: Screen;
  readonly #task: JudgeTask;
  readonly #judge: string | undefined;
  readonly #custom: string | undefined;

  constructor(rules: GuardrailRules, phase: Phase, endpoint: Endpoint, options: GuardrailsOptions) {
    this.#phase = phase;
    this.#endpoint = endpoint;
    this.#options = options;
    this.#screen = new Screen(rules, phase, endpoint.name);
    this.#task = { phase, safety: rules.safety === true, topics: rules.validTopics ?? [] };
    this.#judge = rules.judgeEndpoint;
    this.#custom = rules.customEndpoint;
  }

  get isEmpty(): boolean {
    return this.#screen.isEmpty && !this.#asksModels;
  }

  async inputs(call: Call): Promise<readonly (Input | ServingError)[]> {
    const counts: Record<string, number> = {};
    const guarded: (Input | ServingError)[] = [];
    let turnBeganAt = performance.now();
    for (const [index, input] of call.inputs.entries()) {
      guarded.push(take(this.#screen.input(input), counts));
      if (index % INPUTS_PER_CLOCK_LOOK === 0 && performance.now() - turnBeganAt > MAX_TURN_MS) {
        await nextTurn();
        turnBeganAt = performance.now();
      }
    }
    this.#note(call, counts);
    if (!this.#isAskingFor(call)) return guarded;
    return await mapSome(guarded, MAX_ASKING, (input) =>
      input instanceof ServingError ? input : this.#askModels(call, input),
    );
  }

  async output(call: Call, output: Output): Promise<Output | ServingError> {
    const counts: Record<string, number> = {};
    const guarded = take(this.#screen.output(output), counts);
    this.#note(call, counts);
    if (guarded instanceof ServingError || !this.#isAskingFor(call)) return guarded;
    return await this.#askModels(call, guarded);
  }

  stream(call: Call, events: AsyncIterable<StreamEvent>): AsyncIterable<StreamEvent> {
    if (this.#isAskingFor(call))
      return new HeldEvents(events, call.task, (output) => this.output(call, output));
    if (this.#screen.isEmpty) return events;
    const onFound = (counts: Counts) => this.#note(call, counts);
    return new GuardedEvents({ events, screen: this.#screen, onFound });
  }

  get #asksModels(): boolean {
    return this.#isJudging || this.#custom !== undefined;
  }

  get #isJudging(): boolean {
    return this.#task.safety || this.#task.topics.length > 0;
  }

  /** A question of a guardrail causes no other: a judge may judge its own callers, but not its own questions. */
  #isAskingFor(call: Call): boolean {
    return this.#asksModels && !isGuardrailCall(call);
  }

  async #askModels<T extends Input | Output>(call: Call, value: T): Promise<T | ServingError> {
    try {
      if (this.#isJudging) {
        const refusal = await this.#askJudge(call, value);
        if (refusal) return refusal;
      }
      return this.#custom === undefined ? value : await this.#askCustom(call, value, this.#custom);
    } catch (thrown) {
      return toServingError(thrown);
    }
  }

  async #askJudge(call: Call, value: Input | Output): Promise<ServingError | undefined> {
    const asked = this.#judge ?? this.#options.defaultJudge?.();
    if (asked === undefined) {
      throw new ServingError(
        'MODEL_NOT_AVAILABLE',
        `The guardrails of endpoint '${this.#endpoint.name}' need a chat endpoint that judges, and none is set. Name one as judge_endpoint of its guardrails.`,
      );
    }
    const answer = await this.#ask(call, 'judge', asked, judgeQuestion(asked, this.#task, value));
    const parsed = parseVerdict(answer, this.#task);
    if ('problem' in parsed) throw unreadable('judge', asked, this.#endpoint.name, parsed.problem);
    const { isFlagged, isOnTopic, categories } = parsed.verdict;
    if (isFlagged) {
      const named = categories.length > 0 ? ` (${categories.join(', ')})` : '';
      return this.#refuse(
        value,
        `it was judged unsafe${named}.`,
        categories.length > 0 ? categories : ['unsafe'],
      );
    }
    if (isOnTopic) return undefined;
    const topics = this.#task.topics.join(', ');
    return this.#refuse(value, `it is about none of the topics that are allowed: ${topics}.`, [
      'invalid_topic',
    ]);
  }

  async #askCustom<T extends Input | Output>(call: Call, value: T, asked: string): Promise<T | ServingError> {
    const what = 'custom guardrail';
    const question = customQuestion(this.#phase, this.#endpoint.name, value);
    const decision = parseDecision(await this.#ask(call, what, asked, question));
    if ('problem' in decision) throw unreadable(what, asked, this.#endpoint.name, decision.problem);
    if (decision.decision === 'proceed') return value;
    if (decision.decision === 'reject') {
      const reason = decision.message ?? `'${asked}' rejects it.`;
      return this.#refuse(value, reason, ['custom_guardrail'], decision.response);
    }
    const made =
      this.#phase === 'input'
        ? sanitizeInput(value as Input, decision.texts)
        : sanitizeOutput(value as Output, decision.texts);
    if (!made) throw unreadable(what, asked, this.#endpoint.name, 'its texts do not fit what it was sent');
    // What it wrote is under the rules like anything else.
    const counts: Record<string, number> = {};
    const screened =
      this.#phase === 'input'
        ? take(this.#screen.input(made as Input), counts)
        : take(this.#screen.output(made as Output), counts);
    this.#note(call, counts);
    return screened as T | ServingError;
  }

  #refuse(
    value: Input | Output,
    reason: string,
    categories: readonly string[],
    response?: Json,
  ): ServingError {
    return refuse({
      phase: this.#phase,
      endpoint: this.#endpoint.name,
      reason,
      categories,
      ...(this.#phase === 'input' && { anonymized: toAnonymized(this.#screen.anonymize(value as Input)) }),
      ...(response !== undefined && { response }),
    });
  }

  async #ask(call: Call, what: string, asked: string, input: ChatInput): Promise<string> {
    const { ask, principalNamed = () => undefined, clock, log } = this.#options;
    const startedAtMs = clock.now();
    try {
      return await askModel(ask, principalNamed, {
        what,
        endpoint: this.#endpoint,
        asked,
        input,
        origin: call.origin,
        signal: call.signal,
      });
    } finally {
      const fields = { callId: call.id, endpoint: this.#endpoint.name, asked, phase: this.#phase };
      log.debug({ ...fields, durationMs: clock.now() - startedAtMs }, `asked a ${what}`);
    }
  }

  /** Kinds and numbers; never what was found. */
  #note(call: Call, found: Counts): void {
    if (Object.keys(found).length === 0) return;
    const fields = { callId: call.id, endpoint: this.#endpoint.name, phase: this.#phase };
    this.#options.log.info(
      { ...fields, behavior: this.#screen.pii, found },
      'a guardrail found personal data',
    );
  }
}

function take<T>({ value, error, found }: Screened<T>, counts: Record<string, number>): T | ServingError {
  for (const [entity, count] of Object.entries(found)) counts[entity] = (counts[entity] ?? 0) + count;
  return error ?? value;
}

/** `map` over all items, at most `most` at once. */
async function mapSome<T>(
  items: readonly T[],
  most: number,
  map: (item: T) => T | Promise<T>,
): Promise<readonly T[]> {
  const mapped = [...items];
  const queue = items.entries();
  const work = async () => {
    for (const [index, item] of queue) mapped[index] = await map(item);
  };
  await Promise.all(Array.from({ length: Math.min(most, items.length) }, work));
  return mapped;
}
