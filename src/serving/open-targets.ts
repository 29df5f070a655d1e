// Targets that are open: one runner and one queue for each distinct model and settings, opened when first needed,
// shared by all endpoints that serve the same, closed when no endpoint resolves to it any more.
import type { Clock } from '#core/clock.ts';
import type { EngineKind, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { canonicalJson } from '#core/json.ts';
import type { Engine, EngineContext } from '#engines/engine.ts';
import type { QueueSink } from './outcomes.ts';
import type { Resolver } from './resolver.ts';
import type { RetryPolicy } from './retry.ts';
import { TargetQueue } from './target-queue.ts';

export interface OpenTargetsOptions {
  readonly engines: ReadonlyMap<EngineKind, Engine>;
  readonly engineContext: EngineContext;
  readonly policy: RetryPolicy;
  readonly clock: Clock;
  readonly sink: QueueSink;
}

interface Entry {
  readonly opening: Promise<TargetQueue>;
  queue: TargetQueue | undefined;
  /** Endpoint and served entity of everybody who asked for it. */
  readonly users: Map<string, Target>;
}

export class OpenTargets {
  readonly #options: OpenTargetsOptions;
  readonly #entries = new Map<string, Entry>();
  /** Resolving gives the same object until something changes, so the key is mostly not computed. */
  readonly #keys = new WeakMap<Target, string>();
  /** Keys of targets that are made ready for a configuration nobody resolves to yet, and how often. */
  readonly #held = new Map<string, number>();
  readonly #listeners: ((key: string, queue: TargetQueue) => void)[] = [];
  #isClosed = false;

  constructor(options: OpenTargetsOptions) {
    this.#options = options;
  }

  /** The queue when it is open already. */
  get(target: Target): TargetQueue | undefined {
    const entry = this.#entries.get(this.#keyOf(target));
    if (entry) noteUser(entry, target);
    return entry?.queue;
  }

  /** Loads what is not loaded; throws MODEL_NOT_AVAILABLE. A failure is forgotten, so that the next call tries anew. */
  open(target: Target): Promise<TargetQueue> {
    const key = this.#keyOf(target);
    const known = this.#entries.get(key);
    if (known) {
      noteUser(known, target);
      return known.opening;
    }
    const entry: Entry = { opening: this.#load(target), queue: undefined, users: new Map() };
    noteUser(entry, target);
    this.#entries.set(key, entry);
    entry.opening.then(
      (queue) => {
        entry.queue = queue;
        for (const listener of this.#listeners) listener(key, queue);
        // Closed, or no longer resolved to, while it was loading.
        if (this.#isClosed) void queue.close();
        else if (this.#entries.get(key) !== entry) queue.retire();
      },
      () => {
        if (this.#entries.get(key) === entry) this.#entries.delete(key);
      },
    );
    return entry.opening;
  }

  /** Opens them before anybody resolves to them; they stay open until the function it gives is called. */
  async hold(targets: readonly Target[]): Promise<() => void> {
    const keys = new Set(targets.map((target) => this.#keyOf(target)));
    for (const key of keys) this.#held.set(key, (this.#held.get(key) ?? 0) + 1);
    const release = () => {
      for (const key of keys) {
        const rest = (this.#held.get(key) ?? 1) - 1;
        if (rest === 0) this.#held.delete(key);
        else this.#held.set(key, rest);
      }
      keys.clear();
    };
    try {
      await Promise.all(targets.map((target) => this.open(target)));
      return release;
    } catch (error) {
      release();
      throw error;
    }
  }

  /** After a change of the registry: what nobody resolves to any more finishes its work and is closed. */
  retireStale(resolver: Resolver): void {
    for (const [key, { queue, users }] of this.#entries) {
      if (this.#held.has(key)) continue;
      for (const [user, target] of users) if (!this.#isServed(resolver, key, target)) users.delete(user);
      if (users.size > 0) continue;
      this.#entries.delete(key);
      queue?.retire();
    }
  }

  /** Heard of each target that is open, now or later, before anybody asks it. `key`: equal for equal targets. */
  onOpen(listener: (key: string, queue: TargetQueue) => void): void {
    this.#listeners.push(listener);
    for (const [key, { queue }] of this.#entries) if (queue) listener(key, queue);
  }

  depths(): { target: string; waiting: number; inFlight: number; limit: number }[] {
    const depths = [];
    for (const { queue } of this.#entries.values()) {
      if (queue)
        depths.push({ target: `${queue.target.endpoint}/${queue.target.servedEntity}`, ...queue.depth });
    }
    return depths;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    const closing = Array.from(this.#entries.values(), async ({ queue }) => queue?.close());
    this.#entries.clear();
    await Promise.all(closing);
  }

  async #load(target: Target): Promise<TargetQueue> {
    const { engines, engineContext, policy, clock, sink } = this.#options;
    if (this.#isClosed) throw new ServingError('CANCELLED', 'The server is shutting down.');
    const engine = engines.get(target.engine);
    if (!engine) {
      throw new ServingError(
        'MODEL_NOT_AVAILABLE',
        `Endpoint '${target.endpoint}' needs the engine '${target.engine}', and this build has ${[...engines.keys()].join(', ')}.`,
      );
    }
    const runner = await engine.open(target, engineContext);
    return new TargetQueue({ target, runner, policy, clock, log: engineContext.log, sink });
  }

  #isServed(resolver: Resolver, key: string, { endpoint, servedEntity }: Target): boolean {
    try {
      return this.#keyOf(resolver.resolve(endpoint, { servedEntity }).target) === key;
    } catch {
      return false;
    }
  }

  /** Everything an engine may look at, but not which endpoint asks, nor which version of its configuration. */
  #keyOf(target: Target): string {
    const known = this.#keys.get(target);
    if (known !== undefined) return known;
    const { engine, task, fingerprint, model, externalModel, modelVersion } = target;
    const key = sha256Hex(canonicalJson({ engine, task, fingerprint, model, externalModel, modelVersion }));
    this.#keys.set(target, key);
    return key;
  }
}

function noteUser({ users }: Entry, target: Target): void {
  const user = `${target.endpoint}/${target.servedEntity}`;
  if (!users.has(user)) users.set(user, target);
}
