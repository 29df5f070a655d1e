// The short way for calls that need nothing but to be passed on: the same stages in the same order as in serving.ts,
// without a promise, for the sunny day alone. Whatever is not plain is refused here and carried out the long way.
import type { Task } from '#core/call.ts';
import type { Clock } from '#core/clock.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Authorize, Guards, Meters } from '#core/policies.ts';
import { refusalOf } from './door-keeper.ts';
import type { Ledger } from './ledger.ts';
import type { OpenTargets } from './open-targets.ts';
import { requirePrice } from './price.ts';
import { isPassable } from './relay-body.ts';
import { type RelayCall, type RelayReader, RelayRun } from './relay-run.ts';
import type { Resolver } from './resolver.ts';
import type { RetryPolicy } from './retry.ts';

export interface RelayOptions {
  readonly resolver: Resolver;
  readonly authorize: Authorize;
  readonly meters?: Meters | undefined;
  readonly guards?: Guards | undefined;
  readonly targets: OpenTargets;
  readonly ledger: Ledger;
  readonly clock: Clock;
  readonly policy: RetryPolicy;
  /** Rows must be on disk before an answer is given, so every call takes the long way. */
  readonly isDurable: boolean;
}

export class Relay {
  readonly #options: RelayOptions;

  constructor(options: RelayOptions) {
    this.#options = options;
  }

  /** Undefined: not a call for the short way. Never throws; who refuses a call says so on the long one. */
  start(call: RelayCall, reader: RelayReader): RelayRun | undefined {
    return this.#start(call, reader, false);
  }

  /**
   * For a process that leaves to another one what it does not start: a target that is not open is opened for the calls
   * after this one, and nobody waits here for a place, as the other one may have some.
   */
  startOrOpen(call: RelayCall, reader: RelayReader): RelayRun | undefined {
    return this.#start(call, reader, true);
  }

  /** A draw that is declined here would be drawn again on the long way, and that would shift the shares of a split. */
  #relaysAll({ name, routes }: Endpoint, task: Task): boolean {
    const { resolver, targets } = this.#options;
    return routes.every(({ servedEntityName: servedEntity, trafficPercentage }) => {
      if (trafficPercentage === 0) return true;
      const { target } = resolver.resolve(name, { task, servedEntity });
      return targets.get(target)?.runner.relay !== undefined;
    });
  }

  #start(call: RelayCall, reader: RelayReader, opensTargets: boolean): RelayRun | undefined {
    const { isDurable, resolver, authorize, meters, guards, targets, clock, ledger, policy } = this.#options;
    if (isDurable) return undefined;
    const { task, servedEntity, body } = call;
    let run: RelayRun | undefined;
    let isAdmitting = false;
    try {
      const options = { task, random: clock.random(), ...(servedEntity !== undefined && { servedEntity }) };
      const { endpoint, target, fallbacks } = resolver.resolve(call.endpoint, options);
      authorize(call.principal, endpoint, 'query');
      if (!isPlain(endpoint) || guards?.guardOf(endpoint)) return undefined;
      const isSplit = servedEntity === undefined && endpoint.routes.length > 1;
      if (isSplit && !opensTargets && !this.#relaysAll(endpoint, task)) return undefined;
      const queue = targets.get(target);
      if (!queue && opensTargets) targets.open(target).catch(() => {});
      const relay = queue?.runner.relay;
      if (!queue || queue.isClosed || queue.isSick || !relay || !isPassable(body, relay)) return undefined;
      const hasFallback = fallbacks.length > 0 && endpoint.aiGateway?.fallback?.enabled === true;
      run = new RelayRun({ call, target, endpoint, queue, relay, reader, ledger, clock });
      const meter = meters?.meterOf(call, endpoint);
      if (meter) {
        requirePrice(target, meter);
        isAdmitting = !hasFallback;
        if (!run.reserve(meter)) return undefined;
      }
      const release = queue.tryAcquire(body.isStream);
      if (release) {
        run.begin(release);
        return run;
      }
      if (opensTargets) {
        run.withdraw();
        return undefined;
      }
      const who = { isPatient: false, deadlineMs: run.deadlineMs };
      const refusal = refusalOf(queue, who, hasFallback, policy, clock.now());
      if (refusal && hasFallback) {
        run.withdraw();
        return undefined;
      }
      if (refusal) run.refuse(refusal);
      else run.wait(hasFallback);
      return run;
    } catch (thrown) {
      if (isAdmitting && run && thrown instanceof ServingError && REFUSALS.has(thrown.code)) {
        run.refuse(thrown);
        return run;
      }
      run?.withdraw();
      return undefined;
    }
  }
}

/** Of limits: said at once, for whoever is over one asks often. */
const REFUSALS: ReadonlySet<string> = new Set(['RATE_LIMIT_EXCEEDED', 'BUDGET_EXCEEDED']);

/** Nothing is configured that would have to see inputs, answers, or more than one try. */
export function isPlain({ isStopped, aiGateway }: Endpoint): boolean {
  return !isStopped && aiGateway?.inferenceTable?.enabled !== true && aiGateway?.hedging === undefined;
}
