// When replicas are opened and closed: opened when inputs wait, closed when idle, replaced when lost. One that goes
// finishes its requests. Whether anybody waits is the queue's to know; who is asked what, that of replicas.ts.
import type { Clock } from '#core/clock.ts';
import type { Target } from '#core/endpoint.ts';
import { ServingError, toServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import type { Runner, RunnerLimits } from '#engines/engine.ts';
import { Losses } from './replicas-losses.ts';
import type { ReplicaPlan } from './replicas-plan.ts';
import { Waiting } from './replicas-waiting.ts';

/** Counts that outlive a set; they only grow. */
export interface ReplicaTally {
  opened: number;
  /** Opened while no other was there to answer. */
  coldStarts: number;
  coldStartMs: number;
  lost: number;
}

export interface ReplicaPoolOptions {
  readonly target: Target;
  readonly open: () => Promise<Runner>;
  readonly plan: ReplicaPlan;
  readonly clock: Clock;
  readonly log: Log;
  readonly tally: ReplicaTally;
}

/** The queue in front of the set. */
export interface ReplicaCrowd {
  /** Inputs that wait for a place. */
  waiting(): number;
  /** There are more or fewer places. */
  onPlaces(): void;
  /** There is no replica, and none is tried for a while. */
  onFailing(error: ServingError): void;
}

export interface Replica {
  readonly runner: Runner;
  inFlight: number;
  idleSinceMs: number;
  hasAnswered: boolean;
  /** Only one that is ready is given requests; the others end those they have. */
  state: 'ready' | 'draining' | 'lost' | 'closed';
}

/** Inputs that have waited without a break for so long are worth another replica; a batch that is about to end is not. */
const SCALE_UP_AFTER_MS = 250;

export class ReplicaPool {
  readonly #options: ReplicaPoolOptions;
  readonly #engineLimits: RunnerLimits;
  readonly #replicas: Replica[] = [];
  readonly #waiting = new Waiting<Replica>();
  readonly #losses: Losses;
  readonly #closing = new AbortController();
  #plan: ReplicaPlan;
  #crowd: ReplicaCrowd = { waiting: () => 0, onPlaces() {}, onFailing() {} };
  #starting = 0;
  #startingSinceMs = 0;
  #lastStartMs = 0;
  #holds = 0;
  #lackingSinceMs: number | undefined;
  #isLookDue = false;
  #isRetryDue = false;
  #idleTimer: AbortController | undefined;

  constructor(options: ReplicaPoolOptions, first: Runner, startedAtMs: number) {
    this.#options = options;
    this.#plan = options.plan;
    this.#losses = new Losses(options.clock);
    this.#engineLimits = first.limits;
    this.#add(first, startedAtMs);
    this.#fill();
  }

  /** From now on it is told who waits. */
  attach(crowd: ReplicaCrowd): void {
    this.#crowd = crowd;
    this.#fill();
  }

  /** With as many replicas as there may be. */
  get mostPlaces(): number {
    return this.#plan.maxReplicas * this.#perReplica(this.#engineLimits);
  }

  /** Requests that may be under way now. Those of replicas that go still count, for nobody else has their place. */
  get places(): number {
    let places = 0;
    for (const { state, runner, inFlight } of this.#replicas) {
      places += state === 'ready' ? this.#perReplica(runner.limits) : inFlight;
    }
    return places;
  }

  get plan(): ReplicaPlan {
    return this.#plan;
  }

  get counts(): { readonly ready: number; readonly starting: number; readonly draining: number } {
    const ready = this.#ready;
    return { ready, starting: this.#starting, draining: this.#replicas.length - ready };
  }

  /** Until a replica may be there where none is: as long as the last took, less what has gone by. */
  get startLeftMs(): number {
    if (this.#ready > 0) return 0;
    if (this.#starting === 0) return this.#lastStartMs;
    return Math.max(0, this.#startingSinceMs + this.#lastStartMs - this.#options.clock.now());
  }

  /** Why nobody is answered now; undefined while there is a replica or one may be tried. */
  get failure(): ServingError | undefined {
    if (this.#ready > 0 || this.#starting > 0) return undefined;
    return this.#losses.failureOf(this.#options.target);
  }

  /** At least one replica stays open, once it is, until the function it gives is called. */
  hold(): () => void {
    this.#holds++;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#holds--;
      this.#planIdle();
    };
  }

  rescale(plan: ReplicaPlan): void {
    if (JSON.stringify(this.#plan) === JSON.stringify(plan)) return;
    this.#plan = plan;
    const surplus = this.#readyOnes()
      .sort((left, right) => left.inFlight - right.inFlight)
      .slice(0, Math.max(0, this.#ready - plan.maxReplicas));
    for (const replica of surplus) this.#drain(replica);
    this.#idleTimer?.abort();
    this.#idleTimer = undefined;
    this.#fill();
    this.#planIdle();
    this.#crowd.onPlaces();
  }

  /** As many requests have begun as could; what still waits has no place where `isFull`. */
  noteDemand(isFull: boolean): void {
    if (!isFull || this.#crowd.waiting() === 0) {
      this.#lackingSinceMs = undefined;
      return;
    }
    const { failure } = this;
    if (failure) {
      this.#crowd.onFailing(failure);
      return;
    }
    this.#lackingSinceMs ??= this.#options.clock.now();
    if (this.#ready === 0) this.#fill();
    else this.#lookLater();
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(CLOSED);
    this.#waiting.refuse(CLOSED);
    const open = this.#replicas.filter(({ state }) => state === 'ready' || state === 'draining');
    this.#replicas.length = 0;
    for (const replica of open) replica.state = 'closed';
    await Promise.all(open.map(({ runner }) => runner.close()));
  }

  get #ready(): number {
    let ready = 0;
    for (const { state } of this.#replicas) if (state === 'ready') ready++;
    return ready;
  }

  #readyOnes(): Replica[] {
    return this.#replicas.filter(({ state }) => state === 'ready');
  }

  #perReplica({ maxConcurrency }: Pick<RunnerLimits, 'maxConcurrency'>): number {
    const { targetConcurrency = Number.POSITIVE_INFINITY } = this.#plan;
    return Math.max(1, Math.min(Math.floor(maxConcurrency), targetConcurrency));
  }

  /** Of equals the oldest, so that the youngest become idle when there is less to do. */
  leastBusy(): Replica | undefined {
    let least: Replica | undefined;
    for (const replica of this.#replicas) {
      if (replica.state === 'ready' && (!least || replica.inFlight < least.inFlight)) least = replica;
    }
    return least;
  }

  /** Throws why there is none. */
  async whenReady(signal?: AbortSignal): Promise<Replica> {
    const failure = this.#closing.signal.aborted ? CLOSED : this.failure;
    if (failure) throw failure;
    const ready = this.#waiting.add(signal);
    this.#fill();
    return await ready;
  }

  begin(replica: Replica): void {
    replica.inFlight++;
  }

  /** Asked outside of requests. */
  touch(replica: Replica): void {
    replica.idleSinceMs = this.#options.clock.now();
  }

  answered(replica: Replica): void {
    replica.hasAnswered = true;
    this.#losses.answered();
  }

  end(replica: Replica): void {
    replica.inFlight--;
    replica.idleSinceMs = this.#options.clock.now();
    if (replica.state === 'ready') {
      this.#planIdle();
      return;
    }
    if (replica.inFlight === 0) this.#remove(replica);
    this.#crowd.onPlaces();
  }

  /** The only place that opens replicas: those that are always to be there, and those that inputs wait for. */
  #fill(): void {
    if (this.#closing.signal.aborted) return;
    const ready = this.#ready;
    const { minReplicas, maxReplicas } = this.#plan;
    const wanted = Math.min(maxReplicas, Math.max(minReplicas, this.#needed(ready)));
    const missing = wanted - ready - this.#starting;
    if (missing <= 0) return;
    if (this.#losses.pauseMs > 0) this.#retryLater();
    else for (let at = 0; at < missing; at++) void this.#open();
  }

  #needed(ready: number): number {
    const waiting = Math.max(this.#waiting.size, this.#crowd.waiting());
    if (waiting === 0) return 0;
    const { clock } = this.#options;
    const lackingMs = this.#lackingSinceMs === undefined ? -1 : clock.now() - this.#lackingSinceMs;
    if (ready > 0 && lackingMs < SCALE_UP_AFTER_MS) return ready;
    const perReplica = this.#perReplica(this.#engineLimits) * Math.max(1, this.#engineLimits.maxInputs);
    return ready + Math.ceil(waiting / perReplica);
  }

  async #open(): Promise<void> {
    const { clock, open } = this.#options;
    const startedAtMs = clock.now();
    if (this.#starting++ === 0) this.#startingSinceMs = startedAtMs;
    let runner: Runner;
    try {
      runner = await open();
    } catch (thrown) {
      this.#starting--;
      if (!this.#closing.signal.aborted) this.#failedToOpen(toServingError(thrown));
      return;
    }
    this.#starting--;
    if (this.#closing.signal.aborted || this.#ready >= this.#plan.maxReplicas) this.#closeRunner(runner);
    else this.#add(runner, startedAtMs);
  }

  #add(runner: Runner, startedAtMs: number): void {
    const { clock, tally, log, target } = this.#options;
    const nowMs = clock.now();
    const replica: Replica = { runner, inFlight: 0, idleSinceMs: nowMs, hasAnswered: false, state: 'ready' };
    const isCold = this.#ready === 0;
    this.#replicas.push(replica);
    this.#lastStartMs = nowMs - startedAtMs;
    tally.opened++;
    if (isCold) {
      tally.coldStarts++;
      tally.coldStartMs += this.#lastStartMs;
    }
    log.debug({ ...place(target), replicas: this.#ready, ms: this.#lastStartMs }, 'A replica was opened.');
    void runner.lost?.then((error) => this.#noteLost(replica, error));
    this.#waiting.tell(replica);
    this.#crowd.onPlaces();
    this.#planIdle();
  }

  #noteLost(replica: Replica, error: ServingError): void {
    if (replica.state === 'closed' || this.#closing.signal.aborted) return;
    const { tally, log, target } = this.#options;
    replica.state = 'lost';
    tally.lost++;
    log.warn({ ...place(target), code: error.code, message: error.message }, 'A replica was lost.');
    this.#losses.note(error, replica.hasAnswered, true);
    this.#closeRunner(replica.runner);
    if (replica.inFlight === 0) this.#remove(replica);
    this.#backOff();
  }

  #failedToOpen(error: ServingError): void {
    const { log, target } = this.#options;
    log.warn(
      { ...place(target), code: error.code, message: error.message },
      'A replica could not be opened.',
    );
    this.#losses.note(error, false, false);
    this.#backOff();
  }

  /** With none left and no hope for now, whoever waits is told why; else they wait for the next try. */
  #backOff(): void {
    this.#crowd.onPlaces();
    const { failure } = this;
    if (failure) {
      this.#waiting.refuse(failure);
      this.#crowd.onFailing(failure);
    }
    this.#fill();
  }

  #retryLater(): void {
    if (this.#isRetryDue) return;
    this.#isRetryDue = true;
    const wake = () => {
      this.#isRetryDue = false;
      this.#fill();
    };
    this.#options.clock.sleep(Math.max(1, this.#losses.pauseMs), this.#closing.signal).then(wake, () => {});
  }

  #lookLater(): void {
    if (this.#isLookDue || this.#ready + this.#starting >= this.#plan.maxReplicas) return;
    this.#isLookDue = true;
    const look = () => {
      this.#isLookDue = false;
      if (this.#lackingSinceMs === undefined) return;
      this.#fill();
      this.#lookLater();
    };
    this.#options.clock.sleep(SCALE_UP_AFTER_MS, this.#closing.signal).then(look, () => {});
  }

  get #least(): number {
    return Math.max(this.#plan.minReplicas, this.#holds > 0 ? 1 : 0);
  }

  /** Looks again when the first of them will have been idle for long enough. */
  #planIdle(): void {
    if (this.#idleTimer || this.#closing.signal.aborted || this.#ready <= this.#least) return;
    const { clock } = this.#options;
    const nowMs = clock.now();
    const idleMs = this.#readyOnes().map((each) => (each.inFlight > 0 ? 0 : nowMs - each.idleSinceMs));
    const leftMs = Math.max(1, Math.min(this.#plan.idleMs - Math.max(...idleMs), MAX_TIMER_MS));
    const timer = new AbortController();
    this.#idleTimer = timer;
    const look = () => {
      if (this.#idleTimer !== timer) return;
      this.#idleTimer = undefined;
      this.#closeIdle();
      this.#planIdle();
    };
    clock.sleep(leftMs, AbortSignal.any([timer.signal, this.#closing.signal])).then(look, () => {});
  }

  #closeIdle(): void {
    if (this.#crowd.waiting() > 0) return;
    const sinceMs = this.#options.clock.now() - this.#plan.idleMs;
    const idle = this.#readyOnes()
      .filter(({ inFlight, idleSinceMs }) => inFlight === 0 && idleSinceMs <= sinceMs)
      .sort((left, right) => left.idleSinceMs - right.idleSinceMs);
    for (const replica of idle.slice(0, Math.max(0, this.#ready - this.#least))) this.#drain(replica);
    this.#crowd.onPlaces();
  }

  #drain(replica: Replica): void {
    replica.state = 'draining';
    if (replica.inFlight === 0) this.#remove(replica);
  }

  /** It has nothing more to do. */
  #remove(replica: Replica): void {
    const at = this.#replicas.indexOf(replica);
    if (at >= 0) this.#replicas.splice(at, 1);
    if (replica.state === 'draining') this.#closeRunner(replica.runner);
    replica.state = 'closed';
  }

  #closeRunner(runner: Runner): void {
    const { log } = this.#options;
    runner.close().catch((cause) => log.warn({ err: cause }, 'A replica could not be closed.'));
  }
}

/** Timers of Node end early beyond this. */
const MAX_TIMER_MS = 2 ** 31 - 1;

const CLOSED = new ServingError('CANCELLED', 'The model was closed.');

const place = ({ endpoint, servedEntity, model }: Target) => ({ endpoint, servedEntity, model });
