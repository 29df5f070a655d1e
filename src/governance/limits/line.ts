// Who waits for room: first come, first served, and nobody for ever. Woken by the turn of the minute and by what
// is settled or given back; never by looking again and again. Knows gauges, not rules.
import type { Reservation, Spend } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import type { Gauge } from './gauge.ts';

/** Whose turn it is tries again; all that wait with one of these are equal but for what they ask. */
export interface Waitable {
  readonly gauges: readonly Gauge[];
  /** The reservation, or the gauges that have no room for it. Throws where waiting does not help. */
  attempt(spend: Spend): Reservation | readonly Gauge[];
  /** Would it take room that somebody who came earlier waits for? */
  isBehind(spend: Spend): boolean;
  /** Keeps room for it in its other gauges, for the moment when those that lack it should have some. */
  claim(spend: Spend, lacking: readonly Gauge[]): void;
  /** Milliseconds until the first of those gauges should have room; Infinity where only others can make room. */
  waitMs(spend: Spend, lacking: readonly Gauge[]): number;
}

interface Waiter {
  readonly order: number;
  readonly spend: Spend;
  readonly grant: (reservation: Reservation) => void;
  readonly refuse: (error: unknown) => void;
  isGone: boolean;
}

const LONGEST_SLEEP_MS = 60 * 60_000;

export class Line {
  readonly #clock: Clock;
  readonly #lanes = new Map<Waitable, Waiter[]>();
  readonly #flagged: Gauge[] = [];
  #order = 0;
  #length = 0;
  #timer: { readonly controller: AbortController; readonly atMs: number } | undefined;
  #isClosed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get length(): number {
    return this.#length;
  }

  async wait(meter: Waitable, spend: Spend, signal: AbortSignal | undefined): Promise<Reservation> {
    throwIfAborted(signal);
    if (this.#isClosed) throw new ServingError('CANCELLED', 'The server is shutting down.');
    return await new Promise((resolve, reject) => {
      const end = () => {
        this.#length -= 1;
        signal?.removeEventListener('abort', onAbort);
      };
      const waiter: Waiter = {
        order: this.#order++,
        spend,
        isGone: false,
        grant: (reservation) => {
          end();
          resolve(reservation);
        },
        refuse: (error) => {
          end();
          reject(error);
        },
      };
      const onAbort = () => {
        waiter.isGone = true;
        waiter.refuse(new ServingError('CANCELLED', 'The call was cancelled.', { cause: signal?.reason }));
        // Those behind may have waited only for this one.
        this.pump();
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#length += 1;
      const lane = this.#lanes.get(meter);
      if (lane) lane.push(waiter);
      else this.#lanes.set(meter, [waiter]);
      this.pump();
    });
  }

  /** Serves whom there is room for, and sets the alarm for the next. */
  pump(): void {
    for (const gauge of this.#flagged.splice(0)) {
      gauge.isLacking = false;
      gauge.claim = undefined;
    }
    let wakeMs = Number.POSITIVE_INFINITY;
    const open = new Set(this.#lanes.keys());
    for (let meter = this.#first(open); meter !== undefined; meter = this.#first(open)) {
      const lane = this.#lanes.get(meter) ?? [];
      const [waiter] = lane;
      if (waiter === undefined || waiter.isGone) {
        lane.shift();
        if (lane.length === 0) this.#lanes.delete(meter);
        if (lane.length === 0) open.delete(meter);
        continue;
      }
      let lacking: readonly Gauge[] = [];
      try {
        const outcome = meter.isBehind(waiter.spend) ? [] : meter.attempt(waiter.spend);
        if ('settle' in outcome) {
          lane.shift();
          for (const gauge of meter.gauges) gauge.isOvertaken = false;
          waiter.grant(outcome);
          continue;
        }
        lacking = outcome;
      } catch (error) {
        lane.shift();
        waiter.refuse(error);
        continue;
      }
      open.delete(meter);
      if (lacking.length === 0) continue;
      for (const gauge of lacking) gauge.isLacking = true;
      // Two busy gauges that never have room at the same moment would let it starve.
      meter.claim(waiter.spend, lacking);
      this.#flagged.push(...meter.gauges);
      wakeMs = Math.min(wakeMs, meter.waitMs(waiter.spend, lacking));
    }
    this.#wakeIn(wakeMs);
  }

  close(): void {
    this.#isClosed = true;
    this.#timer?.controller.abort();
    for (const lane of this.#lanes.values()) {
      for (const waiter of lane) {
        if (!waiter.isGone) waiter.refuse(new ServingError('CANCELLED', 'The server is shutting down.'));
      }
    }
    this.#lanes.clear();
  }

  /** The lane whose first waiter came first. */
  #first(open: ReadonlySet<Waitable>): Waitable | undefined {
    let found: Waitable | undefined;
    let order = Number.POSITIVE_INFINITY;
    for (const meter of open) {
      const first = this.#lanes.get(meter)?.[0];
      if (first === undefined) return meter;
      if (first.order < order) [found, order] = [meter, first.order];
    }
    return found;
  }

  #wakeIn(waitMs: number): void {
    if (this.#isClosed) return;
    const ms = Math.min(LONGEST_SLEEP_MS, Math.max(1, Math.ceil(waitMs)));
    const atMs = this.#clock.now() + ms;
    if (this.#timer !== undefined && Number.isFinite(waitMs) && this.#timer.atMs === atMs) return;
    this.#timer?.controller.abort();
    this.#timer = undefined;
    if (!Number.isFinite(waitMs)) return;
    const controller = new AbortController();
    const timer = { controller, atMs };
    this.#timer = timer;
    this.#clock.sleep(ms, controller.signal).then(
      () => {
        if (this.#timer !== timer) return;
        this.#timer = undefined;
        this.pump();
      },
      () => {},
    );
  }
}
