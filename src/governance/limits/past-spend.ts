// What was spent before a budget was first asked, from the ledger, by the names that gauges have. Read when a
// budget is met that was not there at the last reading; whatever is spent after that goes through the gauges.
import type { Clock } from '#core/clock.ts';
import type { MoneyBudget } from '#core/endpoint.ts';
import { EVERYBODY } from '../access.ts';
import { type GaugeFacts, toNanodollars } from './gauge.ts';
import { periodOf } from './periods.ts';
import { gaugeId } from './rules.ts';

/** What one requester spent at one endpoint. */
export interface SpentRow {
  readonly endpoint: string;
  readonly requester: string;
  /** Groups it counted for when it was spent; absent: not known, and those of today are taken. */
  readonly groups?: readonly string[];
  /** US dollars. */
  readonly cost: number;
}

/** Sums of the ledger over requests that began at `fromMs` (epoch milliseconds) or later. */
export type SpentSince = (fromMs: number) => Promise<readonly SpentRow[]>;

export interface PastSpendOptions {
  readonly clock: Clock;
  readonly spentSince: SpentSince;
  readonly groupsOf: (requester: string) => readonly string[];
}

interface Reading {
  readonly startMs: number;
  /** Nanodollars by id of gauge. */
  readonly spent: ReadonlyMap<string, number>;
}

export class PastSpend {
  readonly #options: PastSpendOptions;
  readonly #readings = new Map<MoneyBudget['renewalPeriod'], Reading>();
  /** Budgets there are, and those among them that were there at the last reading, by endpoint. */
  readonly #known = new Map<string | null, ReadonlySet<string>>();
  readonly #covered = new Map<string | null, ReadonlySet<string>>();

  constructor(options: PastSpendOptions) {
    this.#options = options;
  }

  /** The budgets of an endpoint (null: of the workspace) as they are now. One that comes back is read again. */
  know(endpoint: string | null, budgets: readonly MoneyBudget[]): void {
    const now = new Set(budgets.map(ruleIdOf));
    const covered = [...(this.#covered.get(endpoint) ?? [])].filter((rule) => now.has(rule));
    if (now.size === 0) this.#known.delete(endpoint);
    else this.#known.set(endpoint, now);
    if (covered.length === 0) this.#covered.delete(endpoint);
    else this.#covered.set(endpoint, new Set(covered));
  }

  /** Undefined: has to be read first. Nothing is spent in a period that began after the reading. */
  of({ endpoint, id }: GaugeFacts, rule: MoneyBudget, periodStartMs: number): number | undefined {
    const reading = this.#readings.get(rule.renewalPeriod);
    if (reading === undefined || !this.#covered.get(endpoint)?.has(ruleIdOf(rule))) return undefined;
    return reading.startMs === periodStartMs ? (reading.spent.get(id) ?? 0) : 0;
  }

  async read(): Promise<void> {
    const { clock, spentSince } = this.#options;
    const known = new Map(this.#known);
    for (const renewal of ['month', 'day'] as const) {
      const { startMs } = periodOf(clock.now(), renewal);
      this.#readings.set(renewal, { startMs, spent: this.#sum(await spentSince(startMs), renewal) });
    }
    for (const [endpoint, rules] of known)
      if (this.#known.get(endpoint) === rules) this.#covered.set(endpoint, rules);
  }

  #sum(rows: readonly SpentRow[], renewal: MoneyBudget['renewalPeriod']): Map<string, number> {
    const spent = new Map<string, number>();
    for (const { endpoint, requester, groups, cost } of rows) {
      const amount = toNanodollars(cost);
      for (const scope of [endpoint, null]) {
        const add = (kind: 'principal' | 'group', name: string | null) => {
          const id = gaugeId(scope, `cost_per_${renewal}`, kind, name);
          spent.set(id, (spent.get(id) ?? 0) + amount);
        };
        add('principal', null);
        add('principal', requester);
        add('group', EVERYBODY);
        for (const group of groups ?? this.#options.groupsOf(requester)) {
          if (group !== EVERYBODY) add('group', group);
        }
      }
    }
    return spent;
  }
}

function ruleIdOf({ key, principal, renewalPeriod }: MoneyBudget): string {
  return JSON.stringify([renewalPeriod, key, principal ?? null]);
}
