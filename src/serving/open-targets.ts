// Targets that are open: one runner and one queue for each distinct model and settings, opened when first needed,
// shared by all endpoints that serve the same, closed when no endpoint resolves to it any more or those are stopped.
import type { Clock } from '#core/clock.ts';
import type { EngineKind, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import { sha256Hex } from '#core/fingerprint.ts';
import { canonicalJson } from '#core/json.ts';
import type { Engine, EngineContext } from '#engines/engine.ts';
import { queueFullError } from './door-keeper.ts';
import type { QueueSink } from './outcomes.ts';
import { ReplicaSet } from './replicas.ts';
import { Admission } from './replicas-admission.ts';
import { planOf, type ReplicaPlan, widestPlan } from './replicas-plan.ts';
import { labelOf, type ReplicaState, ReplicaTallies, stateOfReplicas } from './replicas-state.ts';
import type { Resolver } from './resolver.ts';
import type { RetryPolicy } from './retry.ts';
import { TargetQueue } from './target-queue.ts';

export interface OpenTargetsOptions {
  readonly engines: ReadonlyMap<EngineKind, Engine>;
  readonly engineContext: EngineContext;
  readonly policy: RetryPolicy;
  readonly clock: Clock;
  readonly sink: QueueSink;
  readonly resolver: Resolver;
}

interface Entry {
  readonly opening: Promise<TargetQueue>;
  queue: TargetQueue | undefined;
  /** Endpoint and served entity of everybody who asked for it. */
  readonly users: Map<string, Target>;
  readonly admission: Admission;
}

/** A first opening of which nothing is known yet. */
const LIKELY_START_MS = 1_000;

export class OpenTargets {
  readonly #options: OpenTargetsOptions;
  readonly #entries = new Map<string, Entry>();
  /** Resolving gives the same object until something changes, so the key is mostly not computed. */
  readonly #keys = new WeakMap<Target, string>();
  /** Keys of targets that are made ready for a configuration nobody resolves to yet, and how often. */
  readonly #held = new Map<string, number>();
  readonly #listeners: ((key: string, queue: TargetQueue) => void)[] = [];
  readonly #tallies = new ReplicaTallies();
  #isClosed = false;

  constructor(options: OpenTargetsOptions) {
    this.#options = options;
  }

  /** The queue when it is open already. */
  get(target: Target): TargetQueue | undefined {
    const entry = this.#entries.get(this.#keyOf(target));
    if (entry) this.#noteUser(entry, target);
    return entry?.queue;
  }

  /** Loads what is not loaded; throws MODEL_NOT_AVAILABLE. A failure is forgotten, so that the next call tries anew. */
  open(target: Target): Promise<TargetQueue> {
    const key = this.#keyOf(target);
    const known = this.#entries.get(key);
    if (known) {
      this.#noteUser(known, target);
      return known.opening;
    }
    const entry: Entry = {
      opening: this.#load(target),
      queue: undefined,
      users: new Map([[labelOf(target), target]]),
      admission: new Admission(),
    };
    this.#entries.set(key, entry);
    entry.opening.then(
      (queue) => {
        entry.queue = queue;
        this.#rescale(entry);
        for (const listener of this.#listeners) listener(key, queue);
        // Closed, or no longer resolved to, while it was loading.
        if (this.#isClosed) void queue.close();
        else if (this.#entries.get(key) !== entry) queue.retire();
        // A call that was resolved before a change may open what nobody resolves to: it goes when that call is over.
        else setImmediate(() => this.#retireUnused(key, entry));
      },
      () => {
        if (this.#entries.get(key) === entry) this.#entries.delete(key);
      },
    );
    return entry.opening;
  }

  /**
   * The same for a call, which waits with `count()` inputs; 0 for one that may always wait. Throws QUEUE_FULL where as
   * many wait as may.
   */
  async openFor(target: Target, count: () => number): Promise<TargetQueue> {
    const { policy, clock } = this.#options;
    const opening = this.open(target);
    const entry = this.#entries.get(this.#keyOf(target));
    if (!entry || entry.queue) return await opening;
    const most = planOf(target).maxQueue ?? policy.maxQueue;
    const { waiting } = entry.admission;
    if (count() > 0 && waiting >= most) {
      opening.catch(() => {});
      const { coldStarts, coldStartMs } = this.#tallies.of(labelOf(target));
      const startMs = coldStarts === 0 ? LIKELY_START_MS : coldStartMs / coldStarts;
      throw queueFullError(target, waiting, most, startMs * (0.5 + clock.random() / 2));
    }
    return await entry.admission.wait(opening, count);
  }

  /** The same with a replica that is there now, and not only when somebody asks. */
  async openLoaded(target: Target): Promise<TargetQueue> {
    const queue = await this.open(target);
    await queue.replicas?.awake();
    return queue;
  }

  /** Opens them before anybody resolves to them; they stay open until the function it gives is called. */
  async hold(targets: readonly Target[]): Promise<() => void> {
    const keys = new Set(targets.map((target) => this.#keyOf(target)));
    for (const key of keys) this.#held.set(key, (this.#held.get(key) ?? 0) + 1);
    const release = () => {
      for (const key of keys) {
        const rest = (this.#held.get(key) ?? 1) - 1;
        if (rest > 0) this.#held.set(key, rest);
        else this.#letGo(key);
      }
      keys.clear();
    };
    try {
      // What may be scaled to zero is opened when somebody asks.
      const kept = targets.filter((target) => planOf(target).minReplicas > 0);
      await Promise.all(kept.map((target) => this.openLoaded(target)));
      return release;
    } catch (error) {
      release();
      throw error;
    }
  }

  /** After a change of the registry: what nobody resolves to any more finishes its work and is closed. */
  retireStale(): void {
    for (const [key, entry] of this.#entries) {
      this.#retireUnused(key, entry);
      if (this.#entries.get(key) === entry) this.#rescale(entry);
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
      if (queue) depths.push({ target: labelOf(queue.target), ...queue.depth });
    }
    return depths;
  }

  /** Of a registered model; undefined for an external one. */
  replicasOf(target: Target): ReplicaState | undefined {
    if (!target.modelVersion) return undefined;
    const entry = this.#entries.get(this.#keyOf(target));
    const plan = entry?.queue?.replicas?.plan ?? planOf(target);
    const opening = entry && !entry.queue ? entry.admission.waiting : undefined;
    return stateOfReplicas(plan, this.#tallies.of(labelOf(target)), entry?.queue, opening);
  }

  /** Of all that were ever opened, by endpoint and served entity. */
  *replicas(): Iterable<{ readonly target: string; readonly state: ReplicaState }> {
    const known = new Map<string, Target>();
    for (const { users } of this.#entries.values()) for (const [label, each] of users) known.set(label, each);
    for (const [label, target] of known) {
      const state = this.replicasOf(target);
      if (state) yield { target: label, state };
    }
    for (const label of this.#tallies.labels()) {
      if (known.has(label)) continue;
      yield { target: label, state: stateOfReplicas(GONE, this.#tallies.of(label)) };
    }
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
    const { log } = engineContext;
    const open = () => engine.open(target, engineContext);
    if (!target.modelVersion) {
      return new TargetQueue({ target, runner: await open(), policy, clock, log, sink });
    }
    const tally = this.#tallies.of(labelOf(target));
    const replicas = await ReplicaSet.open({ target, open, plan: planOf(target), clock, log, tally });
    return new TargetQueue({ target, runner: replicas, replicas, policy, clock, log, sink });
  }

  /** Of what is ready now, and served; or of what was made ready in vain. */
  #letGo(key: string): void {
    this.#held.delete(key);
    const entry = this.#entries.get(key);
    if (entry) setImmediate(() => this.#retireUnused(key, entry));
  }

  #noteUser(entry: Entry, target: Target): void {
    const label = labelOf(target);
    if (entry.users.has(label)) return;
    entry.users.set(label, target);
    this.#rescale(entry);
  }

  /** Who is not served any more does not count; where nobody is left, it finishes its work and is closed. */
  #retireUnused(key: string, entry: Entry): void {
    const { queue, users } = entry;
    if (this.#held.has(key) || this.#entries.get(key) !== entry) return;
    for (const [user, target] of users) {
      const now = this.#servedAs(key, target);
      if (now) users.set(user, now);
      else users.delete(user);
    }
    if (users.size > 0) return;
    this.#entries.delete(key);
    queue?.retire();
  }

  /** All who share a model share its replicas, as many as the one of them with the greatest wishes has. */
  #rescale({ queue, users }: Entry): void {
    const [first, ...others] = Array.from(users.values(), (target) => planOf(target));
    if (first && queue?.replicas) queue.replicas.rescale(widestPlan(first, ...others));
  }

  /** The target that the user of an entry resolves to now, if it is still this one. */
  #servedAs(key: string, { endpoint, servedEntity }: Target): Target | undefined {
    try {
      const found = this.#options.resolver.resolve(endpoint, { servedEntity });
      return !found.endpoint.isStopped && this.#keyOf(found.target) === key ? found.target : undefined;
    } catch {
      return undefined;
    }
  }

  /** Everything an engine may look at, but not which endpoint asks, nor which version of its configuration. */
  #keyOf(target: Target): string {
    const known = this.#keys.get(target);
    if (known !== undefined) return known;
    const { engine, task, fingerprint, model, externalModel, modelVersion, environment } = target;
    const told = { engine, task, fingerprint, model, externalModel, modelVersion, environment };
    const key = sha256Hex(canonicalJson(told));
    this.#keys.set(target, key);
    return key;
  }
}

const GONE: ReplicaPlan = planOf({ engine: 'echo', scaling: { minReplicas: 0, maxReplicas: 1 } });
