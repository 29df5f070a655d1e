// Two budgets as one: that of a statement and the meter of governance. A spend is held back by both or by none,
// and settled with both. One object for each pair, so that questions under the same two may travel together.
import type { Budget, Reservation, Spend } from '#core/call.ts';

export const NO_SPEND: Spend = { calls: 0, tokens: 0, cost: 0 };

const combined = new WeakMap<Budget, WeakMap<Budget, Budget>>();

/** The one that is there, or both in this order: first what the caller limits, then what governance does. */
export function combineBudgets(own: Budget | undefined, meter: Budget | undefined): Budget | undefined {
  if (!own || !meter) return own ?? meter;
  let ofOwn = combined.get(own);
  if (!ofOwn) combined.set(own, (ofOwn = new WeakMap()));
  let both = ofOwn.get(meter);
  if (!both) ofOwn.set(meter, (both = combine(own, meter)));
  return both;
}

/** Everybody reserves in this order, so two who wait never wait for each other. */
function combine(own: Budget, meter: Budget): Budget {
  const tryOwn = own.tryReserve?.bind(own);
  const tryMeter = meter.tryReserve?.bind(meter);
  return {
    // Those of a meter change with its rules.
    get limits() {
      return tighter(own.limits, meter.limits);
    },
    async reserve(spend, signal) {
      const first = await own.reserve(spend, signal);
      try {
        return bothOf(first, await meter.reserve(spend, signal));
      } catch (thrown) {
        first.settle(NO_SPEND);
        throw thrown;
      }
    },
    ...(tryOwn &&
      tryMeter && {
        tryReserve(spend: Spend): Reservation | undefined {
          const first = tryOwn(spend);
          if (!first) return undefined;
          let second: Reservation | undefined;
          try {
            second = tryMeter(spend);
            return second && bothOf(first, second);
          } finally {
            if (!second) first.settle(NO_SPEND);
          }
        },
      }),
  };
}

function bothOf(first: Reservation, second: Reservation): Reservation {
  return {
    settle(actual) {
      first.settle(actual);
      second.settle(actual);
    },
  };
}

function tighter(left: Budget['limits'], right: Budget['limits']): Budget['limits'] {
  const limits: { maxCalls?: number; maxTokens?: number; maxCost?: number } = {};
  for (const name of ['maxCalls', 'maxTokens', 'maxCost'] as const) {
    const least = Math.min(left[name] ?? Number.POSITIVE_INFINITY, right[name] ?? Number.POSITIVE_INFINITY);
    if (least !== Number.POSITIVE_INFINITY) limits[name] = least;
  }
  return limits;
}
