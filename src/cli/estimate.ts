// What a statement would cost, as a table for people and as JSON for programs.
import type { Estimate } from '#core/estimate.ts';
import type { Json, JsonObject } from '#core/json.ts';
import type { Sheet } from './cells.ts';
import { listSheet } from './context.ts';
import type { StatementEstimate } from './deps.ts';
import { formatCost, formatSeconds, wholeNumber } from './progress.ts';

export function estimateWire(estimate: StatementEstimate): JsonObject {
  return {
    ...numbersOf(estimate),
    unknown: estimate.unknown,
    endpoints: estimate.endpoints.map((part) => ({
      endpoint: part.endpoint,
      model: part.model,
      ...numbersOf(part),
    })),
  };
}

function numbersOf(estimate: Estimate): JsonObject {
  return {
    calls: estimate.calls,
    cached: estimate.cached,
    input_tokens: estimate.inputTokens,
    cost: estimate.cost,
    seconds: estimate.seconds,
  };
}

/** One row an endpoint and, unless there is just one, a row for all. */
export function estimateSheet(estimate: StatementEstimate): Sheet {
  const columns = ['endpoint', 'model', 'calls', 'cached', 'input_tokens', 'cost', 'seconds'].map(
    (name, index) => ({
      name,
      type: '',
      isNumber: index > 1,
    }),
  );
  const rows = estimate.endpoints.map((part) => [part.endpoint, part.model, ...textsOf(part)]);
  if (rows.length !== 1) rows.push(['all', '', ...textsOf(estimate)]);
  return listSheet(columns, rows);
}

function textsOf(estimate: Estimate): Json[] {
  return [
    wholeNumber(estimate.calls),
    wholeNumber(estimate.cached),
    wholeNumber(estimate.inputTokens),
    estimate.cost === null ? 'unknown' : formatCost(estimate.cost),
    estimate.seconds === null ? 'unknown' : formatSeconds(estimate.seconds),
  ];
}
