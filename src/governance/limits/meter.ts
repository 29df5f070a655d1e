// The limits one caller falls under at one endpoint, as one budget: all of them admit a request, or none is
// charged. What is admitted is counted at once, and put right when it is known what it came to.
import type { Budget, Reservation, Spend } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import { type Gauge, MoneyGauge, NANO, type RateGauge, toNanodollars } from './gauge.ts';
import type { Line } from './line.ts';
import type { SteadyTime } from './periods.ts';
import { budgetExceeded, rateLimitExceeded } from './refusals.ts';
import type { TokenShare } from './token-share.ts';

/** What all meters of a process share. */
export interface MeterHost {
  readonly clock: Clock;
  readonly time: SteadyTime;
  readonly line: Line;
  /** Another number whenever gauges have to be looked up again. */
  readonly epoch: number;
  /** A budget whose past is not known was met. */
  readPast(): void;
}

export interface MeterGauges {
  readonly rates: readonly RateGauge[];
  readonly money: readonly MoneyGauge[];
}

export interface MeterOptions {
  readonly host: MeterHost;
  /** Looks the gauges up. */
  readonly compile: () => MeterGauges;
  readonly share: TokenShare;
  /** Waits for the turn of the minute instead of being refused. */
  readonly isPatient: boolean;
}

/** What a request asks of each kind of gauge. */
export interface Ask {
  readonly calls: number;
  readonly tokens: number;
  readonly nanodollars: number;
}

const NEVER = Number.POSITIVE_INFINITY;

export class Meter implements Budget {
  readonly isPatient: boolean;
  readonly #host: MeterHost;
  readonly #compile: () => MeterGauges;
  readonly #share: TokenShare;
  #epoch: number;
  #rates: readonly RateGauge[] = [];
  #money: readonly MoneyGauge[] = [];
  #gauges: readonly Gauge[] = [];
  #limits: Budget['limits'] = {};

  constructor({ host, compile, share, isPatient }: MeterOptions) {
    this.isPatient = isPatient;
    this.#host = host;
    this.#compile = compile;
    this.#share = share;
    this.#epoch = host.epoch - 1;
    this.#refresh();
  }

  /** Only money is promised: tokens are estimates, and what they exceed the limit by is owed. */
  get limits(): Budget['limits'] {
    return this.#limits;
  }

  get gauges(): readonly Gauge[] {
    this.#refresh();
    return this.#gauges;
  }

  get rates(): readonly RateGauge[] {
    return this.#rates;
  }

  get money(): readonly MoneyGauge[] {
    return this.#money;
  }

  async reserve(spend: Spend, signal?: AbortSignal): Promise<Reservation> {
    return this.tryReserve(spend) ?? (await this.#host.line.wait(this, spend, signal));
  }

  tryReserve(spend: Spend): Reservation | undefined {
    const { line, time } = this.#host;
    this.#refresh();
    const ask = this.ask(spend);
    if (line.length > 0 && !this.#mayPass(ask)) return undefined;
    const now = time.now();
    if (this.#fits(now, time.wallMs, ask)) return this.#charge(now, ask, spend.tokens);
    this.#lacking(now, time.wallMs, ask);
    return undefined;
  }

  attempt(spend: Spend): Reservation | readonly Gauge[] {
    const { time } = this.#host;
    this.#refresh();
    const ask = this.ask(spend);
    const now = time.now();
    if (this.#fits(now, time.wallMs, ask)) return this.#charge(now, ask, spend.tokens);
    return this.#lacking(now, time.wallMs, ask);
  }

  isBehind(spend: Spend): boolean {
    return this.#isBehind(this.ask(spend));
  }

  #isBehind(ask: Ask): boolean {
    const now = this.steadyMs;
    for (const gauge of this.#money) if (gauge.isLacking) return true;
    for (const { isLacking, claim, window, counts } of this.#rates) {
      if (isLacking) return true;
      if (claim && !window.leavesRoom(now, ask[counts], claim.atMs, claim.amount)) return true;
    }
    return false;
  }

  claim(spend: Spend, lacking: readonly Gauge[]): void {
    const ask = this.ask(spend);
    const now = this.steadyMs;
    let atMs = now;
    for (const gauge of lacking) {
      atMs =
        gauge instanceof MoneyGauge ? NEVER : Math.max(atMs, gauge.window.fitsAt(now, ask[gauge.counts]));
    }
    if (atMs === NEVER) return;
    for (const gauge of this.#rates) {
      if (!gauge.isLacking) gauge.claim ??= { atMs, amount: ask[gauge.counts] };
    }
  }

  waitMs(spend: Spend, lacking: readonly Gauge[]): number {
    const { time } = this.#host;
    const ask = this.ask(spend);
    const now = time.now();
    let least = NEVER;
    for (const gauge of lacking) {
      const ms =
        gauge instanceof MoneyGauge
          ? gauge.period.endMs - time.wallMs
          : gauge.window.fitsAt(now, ask[gauge.counts]) - now;
      least = Math.min(least, ms);
    }
    return least;
  }

  ask(spend: Spend): Ask {
    return askOf(spend, this.isPatient, this.#share);
  }

  note(askedTokens: number, actual: Spend): void {
    this.#share.note(askedTokens, actual.tokens);
  }

  /** Something has been settled or given back. */
  freed(): void {
    if (this.#host.line.length > 0) this.#host.line.pump();
  }

  get steadyMs(): number {
    return this.#host.time.now();
  }

  get wallMs(): number {
    return this.#host.clock.now();
  }

  #refresh(): void {
    if (this.#epoch === this.#host.epoch) return;
    const { rates, money } = this.#compile();
    // Compiling may have forgotten gauges, which begins another epoch.
    this.#epoch = this.#host.epoch;
    this.#rates = rates;
    this.#money = money;
    this.#gauges = [...rates, ...money];
    const least = Math.min(...money.map(({ limit }) => limit));
    this.#limits = money.length > 0 ? { maxCost: least / NANO } : {};
  }

  #fits(now: number, wallMs: number, ask: Ask): boolean {
    for (const gauge of this.#rates) if (!gauge.window.fits(now, ask[gauge.counts])) return false;
    for (const gauge of this.#money) {
      gauge.roll(wallMs);
      if (!gauge.fits(ask.nanodollars)) return false;
    }
    return true;
  }

  /**
   * Others wait. Who waits too goes behind those whose room it would take. Who does not wait for the turn of the
   * minute may pass them, but not twice in a row.
   */
  #mayPass(ask: Ask): boolean {
    const { line } = this.#host;
    if (this.isPatient) return !this.#isBehind(ask);
    if (this.#gauges.some(({ isLacking, isOvertaken }) => isLacking && isOvertaken)) line.pump();
    for (const gauge of this.#money) if (gauge.isLacking) return false;
    for (const gauge of this.#rates) {
      if (!gauge.isLacking) continue;
      if (gauge.isOvertaken) throw rateLimitExceeded(gauge, this.steadyMs, ask[gauge.counts]);
    }
    return true;
  }

  #charge(now: number, ask: Ask, askedTokens: number): Reservation {
    const marks: number[] = [];
    for (const gauge of this.#rates) {
      gauge.open += 1;
      if (gauge.isLacking) gauge.isOvertaken = true;
      marks.push(gauge.window.charge(now, ask[gauge.counts]));
    }
    for (const gauge of this.#money) {
      gauge.open += 1;
      marks.push(gauge.hold(ask.nanodollars));
    }
    return new MeterReservation(this, this.#rates, this.#money, ask, askedTokens, marks);
  }

  /** Throws where waiting does not help, or where the caller does not wait. */
  #lacking(now: number, wallMs: number, ask: Ask): readonly Gauge[] {
    const lacking: Gauge[] = [];
    for (const gauge of this.#money) {
      if (gauge.fits(ask.nanodollars)) continue;
      if (gauge.failure) {
        const { failure } = gauge;
        gauge.failure = undefined;
        throw failure;
      }
      if (!gauge.couldFit(ask.nanodollars)) throw budgetExceeded(gauge, wallMs, ask.nanodollars);
      if (!gauge.isRead) this.#host.readPast();
      lacking.push(gauge);
    }
    for (const gauge of this.#rates) {
      const asked = ask[gauge.counts];
      if (gauge.window.fits(now, asked)) continue;
      const isNever = gauge.window.limit <= 0;
      const isRefused = !this.isPatient && !gauge.window.couldFit(now, asked);
      if (isNever || isRefused) throw rateLimitExceeded(gauge, now, asked);
      lacking.push(gauge);
    }
    return lacking;
  }
}

/** A row of a statement is a call, also where rows travel together; over HTTP each request to a model is one. */
export function askOf({ calls, tokens, cost }: Spend, isPatient: boolean, share: TokenShare): Ask {
  return {
    calls: isPatient ? calls : Math.min(1, calls),
    tokens: share.estimate(tokens),
    nanodollars: toNanodollars(cost),
  };
}

class MeterReservation implements Reservation {
  readonly #meter: Meter;
  readonly #rates: readonly RateGauge[];
  readonly #money: readonly MoneyGauge[];
  readonly #ask: Ask;
  readonly #askedTokens: number;
  /** Numbers of the entries of rates, then starts of the periods that pay. */
  readonly #marks: readonly number[];
  #isSettled = false;

  constructor(
    meter: Meter,
    rates: readonly RateGauge[],
    money: readonly MoneyGauge[],
    ask: Ask,
    askedTokens: number,
    marks: readonly number[],
  ) {
    this.#meter = meter;
    this.#rates = rates;
    this.#money = money;
    this.#ask = ask;
    this.#askedTokens = askedTokens;
    this.#marks = marks;
  }

  settle(actual: Spend): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    const meter = this.#meter;
    const marks = this.#marks;
    const now = meter.steadyMs;
    const calls = meter.isPatient ? actual.calls : Math.min(1, actual.calls);
    let index = 0;
    for (const gauge of this.#rates) {
      gauge.open -= 1;
      const over = gauge.counts === 'calls' ? calls - this.#ask.calls : actual.tokens - this.#ask.tokens;
      const mark = marks[index++] ?? 0;
      if (over > 0) gauge.window.charge(now, over);
      else if (over < 0) gauge.window.refund(mark, -over);
    }
    const nanodollars = this.#money.length > 0 ? toNanodollars(actual.cost) : 0;
    for (const gauge of this.#money) {
      gauge.open -= 1;
      gauge.settle(marks[index++] ?? 0, this.#ask.nanodollars, nanodollars);
    }
    meter.note(this.#askedTokens, actual);
    meter.freed();
  }
}
