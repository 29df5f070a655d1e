// Rate limits and money budgets of endpoints and of the whole workspace. Finds the meter of a caller in memory; the
// rules of endpoints come with the endpoints, those of the workspace are kept here.
import type { Call, Principal } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint } from '#core/endpoint.ts';
import type { Log } from '#core/log.ts';
import type { Meters } from '#core/policies.ts';
import type { RegistryStore } from '#storage/registry-store.ts';
import { CallerMeters, isEqual } from './callers.ts';
import { formatLimits, parseLimits } from './document.ts';
import { type GaugeReading, Gauges } from './gauges.ts';
import { Line } from './line.ts';
import { Meter, type MeterHost } from './meter.ts';
import { PastSpend, type SpentSince } from './past-spend.ts';
import { SteadyTime } from './periods.ts';
import { type Applied, applyingRules, NO_RULES, type WorkspaceRules } from './rules.ts';
import type { TokenShare } from './token-share.ts';

export interface LimitsOptions {
  /** Holds the rules of the workspace, and in which groups' budgets somebody was counted last. */
  readonly store: RegistryStore;
  readonly clock: Clock;
  readonly log: Log;
  readonly spentSince: SpentSince;
}

const KIND = 'limits';
const KEY = 'workspace';
/** Documents by requester: the groups they counted for. The ledger does not know groups. */
const GROUPS_KIND = 'limits_groups';
export async function openLimits(options: LimitsOptions): Promise<Limits> {
  const documents = await options.store.loadAll();
  const found = documents.find(({ kind, key }) => kind === KIND && key === KEY);
  const groups = new Map<string, readonly string[]>();
  for (const { kind, key, document } of documents) {
    if (kind === GROUPS_KIND && Array.isArray(document)) groups.set(key, document.map(String));
  }
  return new Limits(options, found ? parseLimits(found.document) : NO_RULES, groups);
}

export class Limits implements Meters {
  readonly #store: RegistryStore;
  readonly #log: Log;
  readonly #host: MeterHost;
  readonly #gauges: Gauges;
  readonly #past: PastSpend;
  readonly #groups: Map<string, readonly string[]>;
  readonly #callers: CallerMeters<Meter>;
  readonly #listeners = new Set<(rules: WorkspaceRules) => void>();
  #rules: WorkspaceRules;
  #epoch = 0;

  /** Use `openLimits`. */
  constructor(
    { store, clock, log, spentSince }: LimitsOptions,
    rules: WorkspaceRules,
    groups: Map<string, readonly string[]>,
  ) {
    this.#store = store;
    this.#log = log;
    this.#groups = groups;
    this.#past = new PastSpend({ clock, spentSince, groupsOf: (requester) => groups.get(requester) ?? [] });
    this.#gauges = new Gauges(this.#past, log);
    this.#rules = rules;
    this.#past.know(null, rules.budgets);
    this.#callers = new CallerMeters({
      create: (...asked) => this.#create(...asked),
      onEndpoint: (endpoint, isKnown) => {
        this.#past.know(endpoint.name, endpoint.aiGateway?.budgets ?? []);
        if (isKnown) this.#epoch += 1;
      },
    });
    const epoch = () => this.#epoch;
    const readPast = (): void => this.#gauges.readPast(this.#host);
    this.#host = {
      clock,
      time: new SteadyTime(clock),
      line: new Line(clock),
      get epoch() {
        return epoch();
      },
      readPast,
    };
  }

  /** The rules of the workspace; those of endpoints are with the endpoints. */
  get rules(): WorkspaceRules {
    return this.#rules;
  }

  meterOf(call: Pick<Call, 'principal' | 'origin'>, endpoint: Endpoint): Meter | undefined {
    return this.#callers.of(call, endpoint, this.#rules);
  }

  /** Replaces the rules of the workspace: on disk first, then at once for everybody. Throws INVALID_PARAMETER. */
  async setRules(document: unknown): Promise<WorkspaceRules> {
    const rules = parseLimits(document);
    await this.#store.put(KIND, KEY, formatLimits(rules));
    this.#rules = rules;
    this.#past.know(null, rules.budgets);
    this.#epoch += 1;
    this.#callers.forget();
    this.#host.line.pump();
    for (const listener of this.#listeners) listener(rules);
    return rules;
  }

  /** Every limit that was asked for and is not idle, with what is used of it. */
  readings(): readonly GaugeReading[] {
    return this.#gauges.readings(this.#host);
  }

  onChange(listener: (rules: WorkspaceRules) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Who still waits is told that it is over. */
  close(): void {
    this.#host.line.close();
  }

  #create(endpoint: Endpoint, principal: Principal, isPatient: boolean, share: TokenShare): Meter | null {
    if (applyingRules(endpoint, principal, this.#rules).length === 0) return null;
    const compile = () => {
      if (this.#gauges.sweep(this.#host)) this.#epoch += 1;
      // A statement that began before a change of the endpoint goes on under its rules of today.
      const today = this.#callers.endpoint(endpoint.name) ?? endpoint;
      const applied = applyingRules(today, principal, this.#rules);
      this.#rememberGroups(applied, principal);
      return this.#gauges.compile(applied, this.#host);
    };
    return new Meter({ host: this.#host, compile, share, isPatient });
  }

  /** So that after a restart what somebody spent counts for the groups that they were in. */
  #rememberGroups(applied: readonly Applied[], { name, groups = [] }: Principal): void {
    if (!applied.some(({ budget }) => budget?.key === 'user_group')) return;
    if (isEqual(this.#groups.get(name) ?? [], groups)) return;
    this.#groups.set(name, groups);
    this.#store.put(GROUPS_KIND, name, [...groups]).catch((error: unknown) => {
      this.#log.error({ err: error, requester: name }, 'the groups of a requester could not be kept');
    });
  }
}
