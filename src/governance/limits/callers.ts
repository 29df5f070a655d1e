// The meters of callers, found without making anything: by endpoint, principal, and whether they wait. Bounded;
// meters hold no counts, so nothing is lost when they are made again.
import type { Call, Principal } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import type { WorkspaceRules } from './rules.ts';
import { TokenShare } from './token-share.ts';

const MAX_METERS = 50_000;

interface Callers<M> {
  readonly endpoint: Endpoint;
  readonly share: TokenShare;
  readonly byPrincipal: Map<string, Caller<M>>;
}

/** `null`: no limit applies. */
interface Caller<M> {
  readonly principal: Principal;
  patient: M | null | undefined;
  impatient: M | null | undefined;
}

export interface CallerMetersOptions<M> {
  readonly create: (
    endpoint: Endpoint,
    principal: Principal,
    isPatient: boolean,
    share: TokenShare,
  ) => M | null;
  /** An endpoint was met that is new, or has changed since it was met last. */
  readonly onEndpoint?: (endpoint: Endpoint, isKnown: boolean) => void;
}

export class CallerMeters<M> {
  readonly #options: CallerMetersOptions<M>;
  readonly #byEndpoint = new Map<string, Callers<M>>();
  #count = 0;

  constructor(options: CallerMetersOptions<M>) {
    this.#options = options;
  }

  of(
    { principal, origin }: Pick<Call, 'principal' | 'origin'>,
    endpoint: Endpoint,
    rules: WorkspaceRules,
  ): M | undefined {
    const { rateLimits, budgets } = endpoint.aiGateway ?? {};
    if (!hasAny(rateLimits) && !hasAny(budgets) && !hasAny(rules.rateLimits) && !hasAny(rules.budgets)) {
      // Its rules may have gone; should they come back, what was spent meanwhile has to be read.
      if (this.#byEndpoint.size > 0 && this.#byEndpoint.has(endpoint.name)) this.#callersOf(endpoint);
      return undefined;
    }
    const callers = this.#callersOf(endpoint);
    let caller = callers.byPrincipal.get(principal.id);
    if (caller === undefined || !isSame(caller.principal, principal)) {
      if (caller === undefined) this.#makeRoom();
      caller = { principal, patient: undefined, impatient: undefined };
      callers.byPrincipal.set(principal.id, caller);
    }
    const { create } = this.#options;
    if (origin === 'http') {
      if (caller.impatient === undefined)
        caller.impatient = create(endpoint, principal, false, callers.share);
      return caller.impatient ?? undefined;
    }
    if (caller.patient === undefined) caller.patient = create(endpoint, principal, true, callers.share);
    return caller.patient ?? undefined;
  }

  /** As it was met last. */
  endpoint(name: string): Endpoint | undefined {
    return this.#byEndpoint.get(name)?.endpoint;
  }

  /** All meters are made anew when they are asked for. */
  forget(): void {
    for (const { byPrincipal } of this.#byEndpoint.values()) byPrincipal.clear();
    this.#count = this.#byEndpoint.size;
  }

  #callersOf(endpoint: Endpoint): Callers<M> {
    const known = this.#byEndpoint.get(endpoint.name);
    if (known?.endpoint === endpoint) return known;
    if (known === undefined) this.#makeRoom();
    else this.#count -= known.byPrincipal.size;
    const callers = { endpoint, share: known?.share ?? new TokenShare(), byPrincipal: new Map() };
    this.#byEndpoint.set(endpoint.name, callers);
    this.#options.onEndpoint?.(endpoint, known !== undefined);
    return callers;
  }

  #makeRoom(): void {
    this.#count += 1;
    if (this.#count <= MAX_METERS) return;
    if (this.#byEndpoint.size > MAX_METERS / 2) this.#byEndpoint.clear();
    this.forget();
  }
}

function hasAny(rules: readonly unknown[] | undefined): boolean {
  return rules !== undefined && rules.length > 0;
}

function isSame(left: Principal, right: Principal): boolean {
  if (left === right) return true;
  if (left.name !== right.name || left.kind !== right.kind) return false;
  return isEqual(left.groups ?? [], right.groups ?? []);
}

export function isEqual(left: readonly string[], right: readonly string[]): boolean {
  return (
    left === right || (left.length === right.length && left.every((each, index) => each === right[index]))
  );
}
