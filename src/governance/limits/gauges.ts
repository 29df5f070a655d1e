// All gauges of a process by their ids. Bounded: what is not in use and holds nothing is forgotten.

import { toServingError } from '#core/errors.ts';
import type { Log } from '#core/log.ts';
import { type Gauge, MoneyGauge, NANO, RateGauge } from './gauge.ts';
import type { MeterGauges, MeterHost } from './meter.ts';
import type { PastSpend } from './past-spend.ts';
import type { Applied } from './rules.ts';

/** Gauges above which the idle ones are looked for, again whenever their number has doubled. */
const SWEEP_FROM = 4_096;

/** One limit and what is used of it now; amounts in calls, tokens or US dollars. */
export interface GaugeReading {
  readonly endpoint: string | null;
  readonly type: Gauge['facts']['type'];
  readonly key: Gauge['facts']['key'];
  readonly principal: string | null;
  readonly limit: number;
  /** Of rates with what is owed from before, of money what is settled. */
  readonly current: number;
  /** Of calls in flight, and of leases. */
  readonly held: number;
  /** Epoch milliseconds at which money renews. */
  readonly renewsAtMs?: number;
}

export class Gauges {
  readonly #gauges = new Map<string, Gauge>();
  readonly #past: PastSpend;
  readonly #log: Log;
  #sweepAt = SWEEP_FROM;
  #isReading = false;

  constructor(past: PastSpend, log: Log) {
    this.#past = past;
    this.#log = log;
  }

  /** The gauges of some limits. Those there are take the limit's present size. */
  compile(applied: readonly Applied[], host: MeterHost): MeterGauges {
    const rates: RateGauge[] = [];
    const money: MoneyGauge[] = [];
    for (const rule of applied) {
      if (rule.budget) money.push(this.#money(rule, host));
      else rates.push(this.#rate(rule));
    }
    return { rates, money };
  }

  #rate({ facts, limit }: Applied): RateGauge {
    const known = this.#gauges.get(facts.id);
    if (known instanceof RateGauge) {
      known.window.limit = limit;
      return known;
    }
    const gauge = new RateGauge(facts, limit);
    this.#gauges.set(facts.id, gauge);
    return gauge;
  }

  #money(
    { facts, limit, budget }: Applied & { readonly budget: NonNullable<Applied['budget']> },
    host: MeterHost,
  ) {
    const known = this.#gauges.get(facts.id);
    const wallMs = host.clock.now();
    const gauge =
      known instanceof MoneyGauge ? known : new MoneyGauge(facts, limit, budget.renewalPeriod, wallMs);
    gauge.limit = limit;
    gauge.rule = budget;
    gauge.roll(wallMs);
    const spent = this.#past.of(facts, budget, gauge.period.startMs);
    if (spent === undefined) {
      if (gauge.isRead) gauge.forget();
    } else if (!gauge.isRead) gauge.read(spent);
    this.#gauges.set(facts.id, gauge);
    return gauge;
  }

  /** Reads what was spent before, and wakes who waits for it. A failure is told to who asks next. */
  readPast(host: MeterHost): void {
    if (this.#isReading) return;
    this.#isReading = true;
    void this.#read().then(() => {
      this.#isReading = false;
      // Who waits for a budget that came during the reading asks for another one.
      host.line.pump();
    });
  }

  async #read(): Promise<void> {
    try {
      await this.#past.read();
      for (const gauge of this.#unread()) {
        const spent = gauge.rule && this.#past.of(gauge.facts, gauge.rule, gauge.period.startMs);
        if (spent !== undefined) gauge.read(spent);
      }
    } catch (thrown) {
      const failure = toServingError(thrown, 'STORAGE_ERROR');
      this.#log.error({ err: thrown }, 'what was spent could not be read; budgets admit nothing until it is');
      for (const gauge of this.#unread()) gauge.failure = failure;
    }
  }

  #unread(): MoneyGauge[] {
    return [...this.#gauges.values()].filter(
      (gauge): gauge is MoneyGauge => gauge instanceof MoneyGauge && !gauge.isRead,
    );
  }

  /** Forgets what is idle when there is much. True: meters have to look their gauges up again. */
  sweep({ time }: MeterHost): boolean {
    if (this.#gauges.size < this.#sweepAt) return false;
    const before = this.#gauges.size;
    const now = time.now();
    for (const [id, gauge] of this.#gauges) {
      const isIdle = gauge instanceof MoneyGauge ? gauge.isIdle(time.wallMs) : gauge.isIdle(now);
      if (isIdle) this.#gauges.delete(id);
    }
    this.#sweepAt = Math.max(SWEEP_FROM, this.#gauges.size * 2);
    return this.#gauges.size < before;
  }

  readings({ time }: MeterHost): GaugeReading[] {
    const now = time.now();
    return [...this.#gauges.values()].map((gauge) => {
      const { endpoint, type, key, principal } = gauge.facts;
      if (gauge instanceof RateGauge) {
        const { window } = gauge;
        const current = window.used(now) + window.debt;
        return { endpoint, type, key, principal, limit: window.limit, current, held: window.held };
      }
      gauge.roll(time.wallMs);
      const [limit, current, held] = [gauge.limit / NANO, gauge.settled / NANO, gauge.held / NANO];
      return { endpoint, type, key, principal, limit, current, held, renewsAtMs: gauge.period.endMs };
    });
  }
}
