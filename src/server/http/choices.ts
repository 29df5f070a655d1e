// Several answers to one question (`n` of the OpenAI API): no engine gives more than one, so the question is asked
// that many times, each time anew. Their streams are one stream here, and one failure is the failure of all.
import type { Answer, Call, StreamEvent } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { HttpDeps } from './deps.ts';

/** The most that OpenAI takes. */
export const MAX_CHOICES = 128;

/** The call itself, or copies that share nothing: no stored answers, other seeds, ids of their own. */
export function repeatCall(call: Call, count: number | null | undefined): readonly Call[] {
  if (count === null || count === undefined || count === 1) return [call];
  const { seed } = call.parameters;
  return Array.from({ length: count }, (_, choice) => ({
    ...call,
    id: choice === 0 ? call.id : `${call.id}-${choice}`,
    cache: 'off' as const,
    parameters: seed === undefined ? call.parameters : { ...call.parameters, seed: seed + choice },
  }));
}

/** Answers in the order of the calls. When one fails, the others are cancelled and its error is thrown. */
export async function invokeAll(
  serving: HttpDeps['serving'],
  calls: readonly Call[],
): Promise<readonly Answer[]> {
  const [only] = calls;
  if (only !== undefined && calls.length === 1) return [await serving.invoke(only)];
  const { bound, cancel } = bindTogether(calls);
  const asked = bound.map((call) => serving.invoke(call).then(refuseFailures));
  try {
    return await Promise.all(asked);
  } catch (thrown) {
    cancel();
    await Promise.allSettled(asked);
    throw thrown;
  }
}

function refuseFailures(answer: Answer): Answer {
  for (const item of answer.items) if (!item.ok) throw item.error;
  return answer;
}

function bindTogether(calls: readonly Call[]): { bound: readonly Call[]; cancel: () => void } {
  const controller = new AbortController();
  const bound = calls.map((call) => ({
    ...call,
    signal: call.signal ? AbortSignal.any([call.signal, controller.signal]) : controller.signal,
  }));
  const reason = () => new ServingError('CANCELLED', 'Another choice of the same request failed.');
  return { bound, cancel: () => controller.abort(reason()) };
}

interface ChoiceEvent {
  readonly choice: number;
  readonly event: StreamEvent;
}
interface Step {
  readonly choice: number;
  readonly result: IteratorResult<StreamEvent>;
}

/** The events of the streams of several calls, as they come. */
export class Choices {
  readonly target: Target;
  readonly #iterators: readonly AsyncIterator<StreamEvent>[];
  /** What each stream gives next; undefined for streams that are over. */
  readonly #coming: (Promise<Step> | undefined)[] | undefined;
  readonly #cancel: () => void;
  #isOver = false;

  private constructor(target: Target, streams: readonly AsyncIterable<StreamEvent>[], cancel: () => void) {
    this.target = target;
    this.#iterators = streams.map((stream) => stream[Symbol.asyncIterator]());
    this.#cancel = cancel;
    if (streams.length > 1) this.#coming = streams.map((_, choice) => this.#advance(choice));
  }

  /** Throws what the first stream that cannot be opened throws; none is left open then. */
  static async open(serving: HttpDeps['serving'], calls: readonly Call[]): Promise<Choices> {
    const [only] = calls;
    if (only !== undefined && calls.length === 1) {
      const { target, events } = await serving.stream(only);
      return new Choices(target, [events], () => {});
    }
    const { bound, cancel } = bindTogether(calls);
    const opening = bound.map((call) => serving.stream(call));
    try {
      const opened = await Promise.all(opening);
      const [first] = opened;
      if (first === undefined) throw new ServingError('INTERNAL', 'No call was given.');
      return new Choices(
        first.target,
        opened.map(({ events }) => events),
        cancel,
      );
    } catch (thrown) {
      cancel();
      for (const outcome of await Promise.allSettled(opening)) {
        if (outcome.status !== 'fulfilled') continue;
        await outcome.value.events[Symbol.asyncIterator]()
          .return?.()
          .catch(() => {});
      }
      throw thrown;
    }
  }

  /** Undefined when all streams are over. After an error it is over, too. */
  async next(): Promise<ChoiceEvent | undefined> {
    try {
      const event = await (this.#coming ? this.#nextOfSeveral(this.#coming) : this.#nextOfOne());
      if (event === undefined) this.#isOver = true;
      return event;
    } catch (thrown) {
      await this.#abandon(this.#coming !== undefined);
      throw thrown;
    }
  }

  /** Lets go of what is still open. */
  async close(): Promise<void> {
    if (!this.#isOver) await this.#abandon(true);
  }

  async #nextOfOne(): Promise<ChoiceEvent | undefined> {
    const result = await this.#iterators[0]?.next();
    return result === undefined || result.done ? undefined : { choice: 0, event: result.value };
  }

  async #nextOfSeveral(coming: (Promise<Step> | undefined)[]): Promise<ChoiceEvent | undefined> {
    for (;;) {
      const open = coming.filter((step) => step !== undefined);
      if (open.length === 0) return undefined;
      const { choice, result } = await Promise.race(open);
      coming[choice] = result.done ? undefined : this.#advance(choice);
      if (!result.done) return { choice, event: result.value };
    }
  }

  #advance(choice: number): Promise<Step> {
    const iterator = this.#iterators[choice];
    if (iterator === undefined) throw new ServingError('INTERNAL', `There is no choice ${choice}.`);
    const step = iterator.next().then((result) => ({ choice, result }));
    // Heard when its turn comes; until then, or when another choice failed first, nobody else may be told.
    step.catch(() => {});
    return step;
  }

  async #abandon(returns: boolean): Promise<void> {
    this.#isOver = true;
    this.#cancel();
    if (!returns) return;
    await Promise.allSettled(this.#iterators.map(async (iterator) => iterator.return?.()));
  }
}
