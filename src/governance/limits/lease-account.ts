// One lease as its owner keeps it: what was leased is held back in the gauges until it is reported as taken or given
// back, and counts in the minute in which it is reported, which is never before it was used.
import type { MoneyGauge, RateGauge } from './gauge.ts';
import type { Amounts, LeaseReport, LeaseWish } from './lease-messages.ts';
import type { Meter } from './meter.ts';

/** Of what is left, at most this part goes to one lease, so that others find something, too. */
const LARGEST_PART = 1 / 4;

interface RateShare {
  readonly gauge: RateGauge;
  held: number;
  /** Entries of the window that hold what was taken, for refunds. */
  readonly entries: { readonly number: number; amount: number }[];
}

interface MoneyShare {
  readonly gauge: MoneyGauge;
  readonly periodStartMs: number;
  held: number;
}

export class LeaseAccount {
  readonly amounts: Amounts;
  /** Money of a day is not leased beyond it. */
  readonly latestEndMs: number;
  readonly #meter: Meter;
  readonly #rates: RateShare[];
  readonly #money: MoneyShare[];
  #isClosed = false;

  /** Undefined where there is not enough left to lease any of it, or where others wait for it. */
  static open(meter: Meter, { unit, times }: LeaseWish): LeaseAccount | undefined {
    if (meter.gauges.some(({ isLacking, claim }) => isLacking || claim !== undefined)) return undefined;
    let granted = times;
    const narrow = (room: number, each: number) => {
      if (each > 0) granted = Math.min(granted, Math.floor((room * LARGEST_PART) / each));
    };
    const now = meter.steadyMs;
    for (const gauge of meter.rates) narrow(gauge.window.room(now), unit[gauge.counts]);
    for (const gauge of meter.money) {
      gauge.roll(meter.wallMs);
      narrow(gauge.room, unit.nanodollars);
    }
    return granted < 1 ? undefined : new LeaseAccount(meter, unit, granted);
  }

  private constructor(meter: Meter, unit: LeaseWish['unit'], times: number) {
    this.#meter = meter;
    this.#rates = meter.rates.map((gauge) => {
      const held = unit[gauge.counts] * times;
      gauge.open += 1;
      gauge.window.hold(held);
      return { gauge, held, entries: [] };
    });
    this.#money = meter.money.map((gauge) => {
      const held = unit.nanodollars * times;
      gauge.open += 1;
      return { gauge, held, periodStartMs: gauge.hold(held) };
    });
    const counts = (measure: string) => meter.rates.some((gauge) => gauge.counts === measure);
    this.amounts = {
      calls: counts('calls') ? unit.calls * times : null,
      tokens: counts('tokens') ? unit.tokens * times : null,
      nanodollars: meter.money.length > 0 ? unit.nanodollars * times : null,
    };
    this.latestEndMs = Math.min(...meter.money.map(({ period }) => period.endMs));
  }

  report(report: LeaseReport): void {
    const now = this.#meter.steadyMs;
    const {
      takenCalls,
      takenTokens,
      doneTokens,
      doneNanodollars,
      refundedCalls,
      unusedNanodollars,
      isEnded,
      isOver,
    } = report;
    for (const share of this.#rates) {
      const isCalls = share.gauge.counts === 'calls';
      charge(share, now, isCalls ? takenCalls : takenTokens);
      const over = isCalls ? -refundedCalls : doneTokens.actual - doneTokens.taken;
      if (over > 0) share.gauge.window.charge(now, over);
      else if (over < 0) refund(share, -over);
      if (isEnded) {
        share.gauge.window.release(share.held);
        share.held = 0;
      }
    }
    for (const share of this.#money) {
      share.gauge.settle(share.periodStartMs, doneNanodollars.taken, doneNanodollars.actual);
      share.held -= doneNanodollars.taken;
      if (isEnded) this.#giveBack(share, unusedNanodollars, 0);
    }
    if (isOver) this.#close();
    this.#meter.freed();
  }

  /** The worker is gone, and nobody knows what it used: all of it counts. */
  lose(): void {
    if (this.#isClosed) return;
    const now = this.#meter.steadyMs;
    for (const share of this.#rates) charge(share, now, share.held);
    for (const share of this.#money) this.#giveBack(share, share.held, share.held);
    this.#close();
    this.#meter.freed();
  }

  #giveBack(share: MoneyShare, held: number, spent: number): void {
    share.gauge.settle(share.periodStartMs, held, spent);
    share.held -= held;
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const { gauge } of [...this.#rates, ...this.#money]) gauge.open -= 1;
  }
}

function charge(share: RateShare, now: number, amount: number): void {
  if (amount <= 0) return;
  const { window } = share.gauge;
  window.release(amount);
  share.held -= amount;
  share.entries.push({ number: window.charge(now, amount), amount });
}

/** From the oldest entry on: what has left the window is not given back, and it is the first to leave. */
function refund({ gauge, entries }: RateShare, amount: number): void {
  let left = amount;
  for (const entry of entries) {
    const back = Math.min(left, entry.amount);
    gauge.window.refund(entry.number, back);
    entry.amount -= back;
    left -= back;
    if (left <= 0) return;
  }
}
