// One caller's limits at one endpoint, in a worker: admits from leases without asking, asks the owner where there is
// none, and takes as much on lease as it has needed lately.
import type { Budget, Reservation, Spend } from '#core/call.ts';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import {
  fromErrorMessage,
  type LeaseAnswer,
  type LeaseGrant,
  type LeaseNotice,
  type LeaseReport,
  type LeaseRequest,
  type LeaseWish,
  type MeterName,
} from './lease-messages.ts';
import { type Ask, askOf } from './meter.ts';
import type { TokenShare } from './token-share.ts';

/** What all meters of a worker share. */
export interface WorkerHost {
  /** Who gets no reservation leaves the request to the owner, so leases are asked for without one. */
  readonly asksAhead: boolean;
  /** Epoch milliseconds. */
  now(): number;
  nextId(): number;
  request(message: LeaseRequest): Promise<LeaseAnswer>;
  notify(message: LeaseNotice): void;
  /** The lease has something to report soon; `expire` is called when its time is over. */
  reportSoon(lease: Lease, meter: LeasedMeter): void;
}

export interface LeasedMeterOptions {
  readonly host: WorkerHost;
  readonly name: MeterName;
  readonly share: TokenShare;
  readonly limits: Budget['limits'];
}

/** Requests that a lease is taken for, at most. */
const MOST_TIMES = 4_096;
/** The part of a lease that is taken when the next one is asked for: the owner may take its time. */
const RENEW_AT = 0.5;
/** Where the owner had none to give, it is not asked for one before this time is over. */
const QUIET_MS = 20;

/** What is left of a lease, and what has to be told of it. */
export class Lease {
  readonly id: number;
  readonly expiresAtMs: number;
  readonly #granted: Ask;
  readonly #left: { calls: number; tokens: number; nanodollars: number };
  readonly #takes: { readonly calls: boolean; readonly tokens: boolean; readonly nanodollars: boolean };
  #inFlight = 0;
  #isEnded = false;
  #isEndReported = false;
  #unreported = nothing();

  constructor({ id, expiresAtMs, calls, tokens, nanodollars }: LeaseGrant) {
    this.id = id;
    this.expiresAtMs = expiresAtMs;
    this.#takes = { calls: calls !== null, tokens: tokens !== null, nanodollars: nanodollars !== null };
    this.#granted = { calls: calls ?? 0, tokens: tokens ?? 0, nanodollars: nanodollars ?? 0 };
    this.#left = { ...this.#granted };
  }

  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** The part that has been taken, by the kind of which most is gone. */
  get takenPart(): number {
    const part = (left: number, granted: number) => (granted > 0 ? 1 - left / granted : 0);
    const [left, granted] = [this.#left, this.#granted];
    return Math.max(
      part(left.calls, granted.calls),
      part(left.tokens, granted.tokens),
      part(left.nanodollars, granted.nanodollars),
    );
  }

  take(now: number, ask: Ask): boolean {
    const [left, takes] = [this.#left, this.#takes];
    if (this.#isEnded || now >= this.expiresAtMs) return false;
    if (takes.calls && ask.calls > left.calls) return false;
    if (takes.tokens && ask.tokens > left.tokens) return false;
    if (takes.nanodollars && ask.nanodollars > left.nanodollars) return false;
    left.calls -= ask.calls;
    left.tokens -= ask.tokens;
    left.nanodollars -= ask.nanodollars;
    this.#inFlight += 1;
    this.#unreported.takenCalls += ask.calls;
    this.#unreported.takenTokens += ask.tokens;
    return true;
  }

  settle(ask: Ask, actual: Ask): void {
    this.#inFlight -= 1;
    const report = this.#unreported;
    report.refundedCalls += Math.max(0, ask.calls - actual.calls);
    report.doneTokens.taken += ask.tokens;
    report.doneTokens.actual += actual.tokens;
    report.doneNanodollars.taken += ask.nanodollars;
    report.doneNanodollars.actual += actual.nanodollars;
  }

  end(): void {
    this.#isEnded = true;
  }

  /** What happened since the last one. */
  report(): LeaseReport {
    const isFirstEnd = this.#isEnded && !this.#isEndReported;
    this.#isEndReported = this.#isEnded;
    const report: LeaseReport = {
      id: this.id,
      ...this.#unreported,
      isEnded: this.#isEnded,
      unusedNanodollars: isFirstEnd ? Math.max(0, this.#left.nanodollars) : 0,
      isOver: this.#isEnded && this.#inFlight === 0,
    };
    this.#unreported = nothing();
    return report;
  }
}

function nothing() {
  return {
    takenCalls: 0,
    takenTokens: 0,
    refundedCalls: 0,
    doneTokens: { taken: 0, actual: 0 },
    doneNanodollars: { taken: 0, actual: 0 },
  };
}

export class LeasedMeter implements Budget {
  readonly limits: Budget['limits'];
  readonly #host: WorkerHost;
  readonly #name: MeterName;
  readonly #share: TokenShare;
  #leases: Lease[] = [];
  /** Requests to lease for next time: doubles when a lease was used up, halves when it was not. */
  #times = 0;
  #lastAskMs = Number.NEGATIVE_INFINITY;
  #isAsking = false;
  #quietUntilMs = Number.NEGATIVE_INFINITY;

  constructor({ host, name, share, limits }: LeasedMeterOptions) {
    this.#host = host;
    this.#name = name;
    this.#share = share;
    this.limits = limits;
  }

  tryReserve(spend: Spend): Reservation | undefined {
    const ask = askOf(spend, this.#name.isPatient, this.#share);
    const now = this.#host.now();
    for (const lease of this.#leases) {
      if (!lease.take(now, ask)) continue;
      this.#host.reportSoon(lease, this);
      if (lease.takenPart > RENEW_AT && this.#leases.length === 1) this.#renew(now, ask);
      return this.#reservationOf(lease, ask, spend.tokens);
    }
    if (this.#host.asksAhead && now >= this.#quietUntilMs) this.#renew(now, ask);
    return undefined;
  }

  async reserve(spend: Spend, signal?: AbortSignal): Promise<Reservation> {
    throwIfAborted(signal);
    const own = this.tryReserve(spend);
    if (own) return own;
    const { now, nextId, request, notify } = this.#host;
    const id = nextId();
    const wish = this.#wish(now(), askOf(spend, this.#name.isPatient, this.#share));
    const asked = request({ type: 'reserve', id, meter: this.#name, spend, ...(wish ? { wish } : {}) });
    const answered = asked.finally(() => {
      if (wish) this.#isAsking = false;
    });
    const onAbort = () => notify({ type: 'cancel', id });
    signal?.addEventListener('abort', onAbort, { once: true });
    const answer = await answered.finally(() => signal?.removeEventListener('abort', onAbort));
    if (answer.lease) this.#add(answer.lease);
    if (answer.error) throw fromErrorMessage(answer.error);
    let isSettled = false;
    const reservation: Reservation = {
      settle: (actual) => {
        if (isSettled) return;
        isSettled = true;
        notify({ type: 'settle', id, actual });
        this.#share.note(spend.tokens, actual.tokens);
      },
    };
    if (!signal?.aborted) return reservation;
    reservation.settle({ calls: 0, tokens: 0, cost: 0 });
    throw new ServingError('CANCELLED', 'The call was cancelled.', { cause: signal.reason });
  }

  /** Its time is over: what is left goes back. */
  expire(lease: Lease): void {
    if (lease.isEnded) return;
    if (lease.takenPart < 0.5) this.#times >>= 1;
    lease.end();
    this.#leases = this.#leases.filter((other) => other !== lease);
  }

  #add(grant: LeaseGrant): void {
    const lease = new Lease(grant);
    this.#leases = this.#leases.filter((other) => other.takenPart < 1 || !this.#drop(other));
    this.#leases.push(lease);
    this.#host.reportSoon(lease, this);
  }

  #drop(lease: Lease): boolean {
    lease.end();
    this.#host.reportSoon(lease, this);
    return true;
  }

  /** How much to lease along with a request that has to ask anyway. */
  #wish(now: number, unit: Ask): LeaseWish | undefined {
    if (this.#isAsking) return undefined;
    const isBusy = now - this.#lastAskMs < 1_000;
    this.#lastAskMs = now;
    this.#times = isBusy ? Math.min(MOST_TIMES, Math.max(1, this.#times * 2)) : this.#times;
    if (this.#times === 0) return undefined;
    this.#isAsking = true;
    return { unit, times: this.#times };
  }

  /** The next lease, before this one is used up. */
  #renew(now: number, unit: Ask): void {
    const wish = this.#wish(now, unit);
    if (!wish) return;
    this.#host.request({ type: 'lease', meter: this.#name, wish }).then(
      ({ lease }) => {
        this.#isAsking = false;
        if (lease) this.#add(lease);
        else this.#quietUntilMs = this.#host.now() + QUIET_MS;
      },
      () => {
        // The channel is gone; the next reservation says so.
        this.#isAsking = false;
      },
    );
  }

  #reservationOf(lease: Lease, ask: Ask, askedTokens: number): Reservation {
    let isSettled = false;
    return {
      settle: (actual) => {
        if (isSettled) return;
        isSettled = true;
        const { calls, nanodollars } = askOf({ ...actual, tokens: 0 }, this.#name.isPatient, this.#share);
        lease.settle(ask, { calls, tokens: actual.tokens, nanodollars });
        this.#share.note(askedTokens, actual.tokens);
        this.#host.reportSoon(lease, this);
      },
    };
  }
}
