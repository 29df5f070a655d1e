// The worker's side of limits that several processes share: the same `Meters`, fed by leases of the owner. It knows
// the rules, to see whether any applies; it counts nothing that it was not lent.
import type { Call, Principal } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint } from '#core/endpoint.ts';
import type { Json } from '#core/json.ts';
import type { Meters } from '#core/policies.ts';
import { CallerMeters } from './callers.ts';
import { parseLimits } from './document.ts';
import { NANO } from './gauge.ts';
import { fromJson, type LeaseAnswer, type LeaseNotice, type LeaseRequest, toJson } from './lease-messages.ts';
import { type Lease, LeasedMeter, type WorkerHost } from './leased-meter.ts';
import { applyingRules, NO_RULES, type WorkspaceRules } from './rules.ts';
import type { TokenShare } from './token-share.ts';

/** To the owner. Messages arrive in the order in which they were sent, or not at all. */
export interface LeaseChannel {
  request(message: Json): Promise<Json>;
  notify(message: Json): void;
}

const REPORT_MS = 50;

export class LeasedMeters implements Meters {
  readonly #channel: LeaseChannel;
  readonly #clock: Clock;
  readonly #host: WorkerHost;
  readonly #callers: CallerMeters<LeasedMeter>;
  readonly #changed = new Set<Lease>();
  /** Leases from which may be taken. */
  readonly #open = new Map<Lease, LeasedMeter>();
  readonly #closing = new AbortController();
  #rules: WorkspaceRules = NO_RULES;
  #lastId = 0;
  #isReportDue = false;

  /** `asksAhead`: for who never calls `reserve`, but leaves to the owner what `tryReserve` does not admit. */
  constructor(options: {
    readonly channel: LeaseChannel;
    readonly clock: Clock;
    readonly asksAhead?: boolean;
  }) {
    this.#channel = options.channel;
    this.#clock = options.clock;
    this.#host = {
      asksAhead: options.asksAhead ?? false,
      now: () => this.#clock.now(),
      nextId: () => ++this.#lastId,
      request: async (message: LeaseRequest) =>
        fromJson<LeaseAnswer>(await this.#channel.request(toJson(message))),
      notify: (message: LeaseNotice) => this.#channel.notify(toJson(message)),
      reportSoon: (lease, meter) => this.#reportSoon(lease, meter),
    };
    this.#callers = new CallerMeters({ create: (...asked) => this.#create(...asked) });
  }

  meterOf(call: Pick<Call, 'principal' | 'origin'>, endpoint: Endpoint): LeasedMeter | undefined {
    return this.#callers.of(call, endpoint, this.#rules);
  }

  /** The rules of the workspace, as `formatLimits` writes them; the owner tells when they change. */
  setRules(document: Json): void {
    this.#rules = parseLimits(document);
    this.#callers.forget();
  }

  /** Gives back what is not used. Calls in flight can no longer be settled. */
  close(): void {
    for (const [lease, meter] of [...this.#open]) meter.expire(lease);
    this.#report();
    this.#closing.abort();
  }

  #create(
    endpoint: Endpoint,
    principal: Principal,
    isPatient: boolean,
    share: TokenShare,
  ): LeasedMeter | null {
    const applied = applyingRules(endpoint, principal, this.#rules);
    if (applied.length === 0) return null;
    const amounts = applied.filter(({ budget }) => budget).map(({ limit }) => limit / NANO);
    return new LeasedMeter({
      host: this.#host,
      name: { principal, isPatient, endpoint: endpoint.name },
      share,
      limits: amounts.length > 0 ? { maxCost: Math.min(...amounts) } : {},
    });
  }

  #reportSoon(lease: Lease, meter: LeasedMeter): void {
    this.#changed.add(lease);
    if (!lease.isEnded) this.#open.set(lease, meter);
    this.#wakeSoon();
  }

  #wakeSoon(): void {
    if (this.#isReportDue || this.#closing.signal.aborted) return;
    this.#isReportDue = true;
    this.#clock.sleep(REPORT_MS, this.#closing.signal).then(
      () => {
        this.#isReportDue = false;
        this.#report();
      },
      () => {},
    );
  }

  #report(): void {
    const now = this.#clock.now();
    for (const [lease, meter] of this.#open) {
      if (!lease.isEnded && now < lease.expiresAtMs) continue;
      meter.expire(lease);
      this.#open.delete(lease);
      this.#changed.add(lease);
    }
    if (this.#changed.size > 0) {
      const reports = [...this.#changed].map((lease) => lease.report());
      this.#changed.clear();
      this.#host.notify({ type: 'reports', reports });
    }
    if (this.#open.size > 0) this.#wakeSoon();
  }
}
