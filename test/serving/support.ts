// What serving's tests stand on: stores in memory, a clock that is moved by hand, engines that follow a script.
import {
  type Budget,
  type Call,
  type CallOptions,
  createCall,
  type Input,
  type Reservation,
  type Spend,
  type Task,
} from '#core/call.ts';
import { type Clock, SYSTEM_CLOCK } from '#core/clock.ts';
import type { AiGateway, Endpoint, EngineKind, ExternalModel, Target } from '#core/endpoint.ts';
import { type ErrorCode, ServingError } from '#core/errors.ts';
import { SILENT_LOG } from '#core/log.ts';
import type { AnswerStore, PayloadRow, StoredAnswer, UsageRow, UsageStore } from '#core/stores.ts';
import type {
  Batch,
  BatchAnswer,
  Engine,
  EngineContext,
  LocalRunner,
  RunItem,
  Runner,
  RunnerLimits,
} from '#engines/engine.ts';
import type { Resolution, Resolver } from '#serving/resolver.ts';
import { Serving, type ServingOptions } from '#serving/serving.ts';

export class MemoryAnswers implements AnswerStore {
  readonly map = new Map<string, StoredAnswer>();
  reads = 0;
  get(key: string): StoredAnswer | undefined {
    this.reads++;
    return this.map.get(key);
  }
  put(key: string, answer: StoredAnswer): void {
    this.map.set(key, answer);
  }
  async flush(): Promise<void> {}
  entries(): IterableIterator<readonly [string, StoredAnswer]> {
    return this.map.entries();
  }
  async clear(): Promise<number> {
    const { size } = this.map;
    this.map.clear();
    return size;
  }
  get count(): number {
    return this.map.size;
  }
}

export class MemoryUsage implements UsageStore {
  readonly rows: UsageRow[] = [];
  readonly payloads: PayloadRow[] = [];
  add(row: UsageRow): void {
    this.rows.push(row);
  }
  addPayload(row: PayloadRow): void {
    this.payloads.push(row);
  }
  async flush(): Promise<void> {}
  sum(column: 'inputCount' | 'cachedCount' | 'attempts' | 'inputTokens' | 'outputTokens'): number {
    return this.rows.reduce((sum, row) => sum + row[column], 0);
  }
}

/** Lets everything run that needs no time. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

interface Sleeper {
  readonly atMs: number;
  readonly wake: () => void;
}

export class ManualClock implements Clock {
  nowMs = 1_000_000;
  chance = 0.5;
  #sleepers: Sleeper[] = [];
  now(): number {
    return this.nowMs;
  }
  random(): number {
    return this.chance;
  }
  get sleeping(): number {
    return this.#sleepers.length;
  }
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const sleeper = { atMs: this.nowMs + ms, wake: resolve };
      this.#sleepers.push(sleeper);
      signal?.addEventListener('abort', () => {
        this.#sleepers = this.#sleepers.filter((each) => each !== sleeper);
        reject(signal.reason);
      });
    });
  }
  async advance(ms: number): Promise<void> {
    const untilMs = this.nowMs + ms;
    await settle();
    for (;;) {
      const next = this.#sleepers.toSorted((left, right) => left.atMs - right.atMs)[0];
      if (!next || next.atMs > untilMs) break;
      this.#sleepers = this.#sleepers.filter((each) => each !== next);
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.wake();
      await settle();
    }
    this.nowMs = untilMs;
    await settle();
  }
}

export const DEFAULT_LIMITS: RunnerLimits = {
  maxInputs: 1,
  maxTokens: 1_000_000,
  maxConcurrency: 4,
  isAdaptive: false,
  isPadded: false,
};

export type Script = (batch: Batch, ask: number) => BatchAnswer | Promise<BatchAnswer>;

/** An engine that does what it is told and remembers what it was asked. */
export class ScriptedEngine implements Engine {
  readonly kind: EngineKind;
  readonly batches: Batch[] = [];
  readonly opened: Target[] = [];
  readonly closed: Target[] = [];
  inFlight = 0;
  peak = 0;
  script: Script;
  limits: RunnerLimits;
  stream: Runner['stream'];
  local: LocalRunner | undefined;
  openError: ServingError | undefined;

  constructor(script: Script = answerText, limits: Partial<RunnerLimits> = {}, kind: EngineKind = 'openai') {
    this.kind = kind;
    this.script = script;
    this.limits = { ...DEFAULT_LIMITS, ...limits };
  }

  async open(target: Target): Promise<Runner> {
    this.opened.push(target);
    if (this.openError) throw this.openError;
    const { limits, stream, local } = this;
    return {
      limits,
      ...(stream && { stream }),
      ...(local && { local }),
      countTokens: (input) => textOf(input).length,
      close: async () => void this.closed.push(target),
      invoke: async (batch) => {
        this.batches.push(batch);
        this.peak = Math.max(this.peak, ++this.inFlight);
        try {
          return await this.script(batch, this.batches.length);
        } finally {
          this.inFlight--;
        }
      },
    };
  }

  get askedTexts(): string[] {
    return this.batches.flatMap(({ inputs }) => inputs.map(textOf));
  }
}

export function textOf(input: Input): string {
  if ('text' in input) return input.text;
  if ('prompt' in input) return input.prompt;
  if ('messages' in input) return String(input.messages.at(-1)?.content);
  return JSON.stringify(input.features);
}

/** `text` answers 'text!', ten tokens in and five out. */
export function itemFor(input: Input, text = `${textOf(input)}!`): RunItem {
  const usage = { inputTokens: 10, outputTokens: 5 };
  if ('text' in input) return { ok: true, output: { embedding: Float32Array.of(text.length, 1) }, usage };
  if ('prompt' in input) return { ok: true, output: { text, finishReason: 'stop' }, usage };
  if ('features' in input) return { ok: true, output: { prediction: text }, usage };
  return { ok: true, output: { content: text, finishReason: 'stop' }, usage };
}

export const answerText: Script = ({ inputs }) => ({ items: inputs.map((input) => itemFor(input)) });

export const chat = (text: string): Input => ({ messages: [{ role: 'user', content: text }] });
export const chats = (...texts: string[]): Input[] => texts.map(chat);
export const embeddings = (...texts: string[]): Input[] => texts.map((text) => ({ text }));

export function targetOf(
  name: string,
  options: Partial<Target> = {},
  model: Partial<ExternalModel> = {},
): Target {
  const task = options.task ?? 'llm/v1/chat';
  const engine = options.engine ?? 'openai';
  const isExternal = engine === 'openai' || engine === 'anthropic';
  const base = {
    endpoint: name,
    servedEntity: `${name}-1`,
    fingerprint: `print-${name}`,
    model: `model-${name}`,
  };
  const externalModel: ExternalModel = {
    name: base.model,
    provider: 'openai',
    task: task === 'predict' ? 'llm/v1/chat' : task,
    ...model,
  };
  return { ...base, ...(isExternal && { externalModel }), ...options, task, engine };
}

export function endpointOf({ endpoint, task, servedEntity }: Target): Endpoint {
  return {
    id: endpoint,
    name: endpoint,
    task,
    servedEntities: [{ name: servedEntity }],
    routes: [{ servedEntityName: servedEntity, trafficPercentage: 100 }],
    configVersion: 1,
    description: '',
    tags: [],
    creator: 'test',
    createdAtMs: 0,
    updatedAtMs: 0,
    isEmbedded: false,
  };
}

export class FakeResolver implements Resolver {
  readonly resolutions = new Map<string, Resolution>();
  readonly #listeners: (() => void)[] = [];
  set(target: Target, ...fallbacks: Target[]): void {
    this.resolutions.set(target.endpoint, { endpoint: endpointOf(target), target, fallbacks });
    for (const listener of this.#listeners) listener();
  }
  /** Policies of an endpoint that is set already; another object each time, as the registry does it. */
  govern(name: string, aiGateway: AiGateway, more: Partial<Endpoint> = {}): void {
    const found = this.resolutions.get(name);
    if (!found) throw new Error(`No endpoint ${name}.`);
    this.resolutions.set(name, { ...found, endpoint: { ...found.endpoint, ...more, aiGateway } });
    for (const listener of this.#listeners) listener();
  }
  delete(name: string): void {
    this.resolutions.delete(name);
    for (const listener of this.#listeners) listener();
  }
  resolve(name: string, { task, servedEntity }: { task?: Task; servedEntity?: string }): Resolution {
    const found = this.resolutions.get(name);
    if (!found) throw new ServingError('ENDPOINT_NOT_FOUND', `No endpoint is called '${name}'.`);
    if (task !== undefined && found.target.task !== task)
      throw new ServingError('WRONG_TASK', `Not ${task}.`);
    const all = [found.target, ...found.fallbacks];
    const target = all.find((each) => each.servedEntity === servedEntity) ?? found.target;
    return { ...found, target };
  }
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }
}

export const ENGINE_CONTEXT: EngineContext = {
  log: SILENT_LOG,
  modelCacheDir: '',
  resolveSecret: (reference) => reference,
  allowDownload: () => false,
  notify() {},
};

export interface Bench {
  readonly serving: Serving;
  readonly answers: MemoryAnswers;
  readonly usage: MemoryUsage;
  readonly resolver: FakeResolver;
  readonly call: (inputs: readonly Input[], options?: CallOptions, endpoint?: string) => Call;
}

/** A serving over scripted engines; endpoint `m` is the first target's. */
export function bench(
  engines: readonly Engine[],
  { target = targetOf('m'), ...options }: Partial<ServingOptions> & { readonly target?: Target } = {},
): Bench {
  const answers = new MemoryAnswers();
  const usage = new MemoryUsage();
  const resolver = new FakeResolver();
  resolver.set(target);
  const serving = new Serving({
    resolver,
    engines: new Map(engines.map((engine) => [engine.kind, engine])),
    engineContext: ENGINE_CONTEXT,
    answers,
    usage,
    clock: SYSTEM_CLOCK,
    log: SILENT_LOG,
    authorize: () => {},
    ...options,
  });
  const call = (inputs: readonly Input[], callOptions: CallOptions = {}, endpoint = target.endpoint) =>
    createCall(endpoint, target.task, inputs, callOptions);
  return { serving, answers, usage, resolver, call };
}

export function contents(items: readonly { readonly ok: boolean }[]): unknown[] {
  return (items as readonly RunItem[]).map((item) => {
    if (!item.ok) return item.error.code;
    const { output } = item;
    if ('content' in output) return output.content;
    if ('text' in output) return output.text;
    return 'prediction' in output ? output.prediction : [...output.embedding];
  });
}

/** A promise and its handles. */
export function deferred<T = void>(): {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: unknown) => void;
} {
  let resolve: (value: T) => void = () => {};
  let reject: (error: unknown) => void = () => {};
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

/** A budget that only counts; governance has the real one. */
export class CountingBudget implements Budget {
  readonly limits: Budget['limits'];
  readonly reserved: Spend[] = [];
  readonly settled: Spend[] = [];
  held = 0;
  constructor(limits: Budget['limits']) {
    this.limits = limits;
  }
  get calls(): number {
    return this.settled.reduce((sum, { calls }) => sum + calls, 0);
  }
  async reserve(spend: Spend): Promise<Reservation> {
    const most = this.limits.maxCalls ?? Number.POSITIVE_INFINITY;
    if (this.calls + this.held + spend.calls > most) {
      throw new ServingError('BUDGET_EXCEEDED', `More than ${most} calls.`);
    }
    return this.hold(spend);
  }
  protected hold(spend: Spend): Reservation {
    this.held += spend.calls;
    this.reserved.push(spend);
    let isSettled = false;
    return {
      settle: (actual) => {
        if (isSettled) throw new Error('Settled twice.');
        isSettled = true;
        this.held -= spend.calls;
        this.settled.push(actual);
      },
    };
  }
}

/** A meter of governance that only counts; what it lacks it refuses at once. */
export class CountingMeter extends CountingBudget {
  readonly refusal: ErrorCode;
  constructor(limits: Budget['limits'], refusal: ErrorCode = 'RATE_LIMIT_EXCEEDED') {
    super(limits);
    this.refusal = refusal;
  }
  get open(): number {
    return this.reserved.length - this.settled.length;
  }
  tryReserve(spend: Spend): Reservation | undefined {
    const most = this.limits.maxCalls ?? Number.POSITIVE_INFINITY;
    if (this.calls + this.held + spend.calls > most) throw new ServingError(this.refusal, 'Too often.');
    return this.hold(spend);
  }
  override async reserve(spend: Spend): Promise<Reservation> {
    const reservation = this.tryReserve(spend);
    if (!reservation) throw new Error('It never waits.');
    return reservation;
  }
}

export const meterOf = (budget: Budget | undefined) => ({ meterOf: () => budget });
