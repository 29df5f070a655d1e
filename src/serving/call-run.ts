// A call while it is carried out: which of its inputs are settled, what was spent, who is told. It decides
// nothing; the stages in serving.ts and the carrier do.
import type { Answer, AnswerItem, Call, Output, TokenUsage } from '#core/call.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { isPatientOrigin } from './deadline.ts';
import type { Question } from './question.ts';
import type { Resolution } from './resolver.ts';
import type { Terms } from './terms.ts';
import { Trail } from './trail.ts';
import type { Lane } from './waiting-line.ts';

/** Databricks tries two more at most. */
const MAX_FALLBACKS = 2;
const NO_FALLBACKS: readonly Target[] = [];

export class CallRun {
  readonly startedAtMs: number;
  /** False: somebody waits on a connection for just this. */
  readonly isPatient: boolean;
  readonly trail = new Trail();
  readonly items: (AnswerItem | undefined)[];
  /** Every question this call waits for or has waited for. */
  readonly questions: Question[] = [];
  readonly lanes: Lane[] = [];
  /** Inputs that stand in a usage row already, and those of them for which nothing was sent. */
  recordedInputs = 0;
  recordedCached = 0;
  rowCount = 0;
  readonly spent = { inputTokens: 0, outputTokens: 0 };
  cost: number | null = 0;
  isStreaming = false;
  /** Epoch milliseconds by which it must be over; undefined: as long as it takes. */
  deadlineMs: number | undefined;
  /** Inputs that a guard refused; they are nobody's to see. */
  readonly refusedSlots = new Set<number>();
  /** What a stream had given when it broke off. */
  partial: Output | undefined;
  #call: Call;
  #controller: AbortController | undefined;
  readonly #onFail = new Set<(error: ServingError) => void>();
  #fallbacks: readonly Target[] = NO_FALLBACKS;
  #resolution: Resolution | undefined;
  #terms: Terms | undefined;
  #answeredBy: Target | undefined;
  #pending: number;
  #error: ServingError | undefined;
  #wake: (() => void) | undefined;

  constructor(call: Call, startedAtMs: number) {
    this.#call = call;
    this.isPatient = isPatientOrigin(call.origin);
    this.startedAtMs = startedAtMs;
    this.items = new Array<AnswerItem | undefined>(call.inputs.length).fill(undefined);
    this.#pending = call.inputs.length;
  }

  /** With its inputs as the guard of the endpoint has left them. */
  get call(): Call {
    return this.#call;
  }

  replaceInputs(inputs: Call['inputs']): void {
    this.#call = { ...this.#call, inputs };
  }

  set resolution(resolution: Resolution) {
    this.#resolution = resolution;
    const { endpoint, fallbacks } = resolution;
    if (fallbacks.length > 0 && endpoint.aiGateway?.fallback?.enabled === true) {
      this.#fallbacks = fallbacks.slice(0, MAX_FALLBACKS);
    }
  }

  /** Where the endpoint wants them asked: the other entities, in their order. */
  get fallbacks(): readonly Target[] {
    return this.#fallbacks;
  }

  get resolution(): Resolution {
    return this.#resolution ?? unset('resolution');
  }

  get target(): Target {
    return this.resolution.target;
  }

  /** Whether one of those that may answer looks at who asks. */
  get isPersonal(): boolean {
    return this.target.isPersonal === true || this.#fallbacks.some(({ isPersonal }) => isPersonal);
  }

  /** Undefined while the call is not resolved; a usage row is written all the same. */
  get knownTarget(): Target | undefined {
    return this.#answeredBy ?? this.#resolution?.target;
  }

  get knownResolution(): Resolution | undefined {
    return this.#resolution;
  }

  /** Fires when the call as a whole has failed: cancelled, out of time, refused. */
  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.#error && !this.#controller.signal.aborted) this.#controller.abort(this.#error);
    return this.#controller.signal;
  }

  set terms(terms: Terms) {
    this.#terms = terms;
  }

  get terms(): Terms {
    return this.#terms ?? unset('terms');
  }

  /** Nothing more can happen to its items: all are settled, or the call has failed as a whole. */
  get isSettled(): boolean {
    if (this.#error) return true;
    // A call without inputs is not over: it is about to be refused.
    return this.#pending === 0 && this.items.length > 0;
  }

  get error(): ServingError | undefined {
    return this.#error;
  }

  /** Gives whether this settled the slot; later news of a slot are ignored. */
  settle(slot: number, item: AnswerItem, by?: Target): boolean {
    if (this.isSettled || this.items[slot] !== undefined) return false;
    this.items[slot] = item;
    if (by && item.ok) this.#answeredBy = by;
    this.#pending--;
    this.#tell(slot, item);
    if (this.#pending === 0) this.#wake?.();
    return true;
  }

  #tell(slot: number, item: AnswerItem): void {
    try {
      this.call.onItem?.(slot, item);
    } catch (cause) {
      // It promised not to; the queue and everybody else in it must not suffer.
      this.fail(new ServingError('INTERNAL', 'A listener of answers failed.', { cause }));
    }
  }

  /** The call as a whole has failed. The first failure counts. */
  fail(error: ServingError): ServingError {
    if (!this.isSettled) {
      this.#error = error;
      this.#wake?.();
      for (const tell of this.#onFail) tell(error);
      this.#controller?.abort(error);
    }
    return this.#error ?? error;
  }

  /** Waits for something that may not heed the signal; throws at once when the call fails meanwhile. */
  async whileLive<T>(work: Promise<T>): Promise<T> {
    if (this.#error) {
      work.catch(() => {});
      throw this.#error;
    }
    let tell: (error: ServingError) => void = () => {};
    try {
      return await new Promise<T>((resolve, reject) => {
        tell = reject;
        this.#onFail.add(tell);
        work.then(resolve, reject);
      });
    } finally {
      this.#onFail.delete(tell);
    }
  }

  bill(usage: TokenUsage, cost: number | null): void {
    this.spent.inputTokens += usage.inputTokens;
    this.spent.outputTokens += usage.outputTokens;
    this.cost = this.cost === null || cost === null ? null : this.cost + cost;
  }

  /** Resolves when every input is settled; throws when the call failed as a whole. */
  async settled(): Promise<void> {
    if (!this.isSettled) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#error) throw this.#error;
  }

  /** Usage counts the tokens of all answers, also of stored ones; cost only what was spent now. */
  toAnswer(): Answer {
    let inputTokens = 0;
    let outputTokens = 0;
    const items = this.items.map((item) => {
      if (!item) return unset('answer of an input');
      if (item.ok) {
        inputTokens += item.usage.inputTokens;
        outputTokens += item.usage.outputTokens;
      }
      return item;
    });
    const { servedEntity, model } = this.#answeredBy ?? this.target;
    return { items, usage: { inputTokens, outputTokens }, cost: this.cost, servedEntity, model };
  }
}

function unset(what: string): never {
  throw new ServingError(
    'INTERNAL',
    `The ${what} was used before it was there. This is a defect of duckserve.`,
  );
}
