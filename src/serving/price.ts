// What tokens cost at a target, and the most that a request can come to. US dollars.
import type { Budget, Input, Spend, TokenUsage } from '#core/call.ts';
import type { Price, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Batch } from './batch.ts';
import { maxInputTokens } from './inputs.ts';
import type { Terms } from './terms.ts';

const FREE: Price = { inputPerMillion: 0, outputPerMillion: 0 };

/** Models on this machine are free; a provider's price is that of the endpoint, or of the price table. */
function priceOf({ price, externalModel }: Target): Price | undefined {
  return price ?? (externalModel ? externalModel.price : FREE);
}

/** Null when the price is not known. */
export function costOf(target: Target, { inputTokens, outputTokens }: TokenUsage): number | null {
  const price = priceOf(target);
  if (!price) return null;
  return (inputTokens * price.inputPerMillion + outputTokens * price.outputPerMillion) / 1e6;
}

/** A limit on cost cannot be kept at an unknown price. */
export function requirePrice(target: Target, budget: Budget | undefined): void {
  if (budget?.limits.maxCost === undefined || priceOf(target)) return;
  throw new ServingError(
    'INVALID_PARAMETER',
    `A limit on cost (${budget.limits.maxCost} US dollars) needs the price of '${target.model}', and endpoint '${target.endpoint}' has none. Set externalModel.price (inputPerMillion, outputPerMillion; --input-price and --output-price on the command line), or limit calls or tokens instead.`,
  );
}

/** Upper bound of one request. A call is one input sent once, so an input that is retried counts again. */
export function maxSpend(target: Target, inputs: readonly Input[], terms: Terms): Spend {
  // Whom it asks reserves out of the same budget meanwhile: what is held back here could be what that waits for.
  if (target.isPersonal) return { calls: inputs.length, tokens: 0, cost: 0 };
  let inputTokens = inputs.length * terms.sharedTokens;
  for (const input of inputs) inputTokens += maxInputTokens(input);
  const outputTokens = inputs.length * terms.maxOutputTokens;
  return {
    calls: inputs.length,
    tokens: inputTokens + outputTokens,
    cost: costOf(target, { inputTokens, outputTokens }) ?? 0,
  };
}

export function maxSpendOf({ target, questions, terms }: Batch): Spend {
  return maxSpend(
    target,
    questions.map(({ input }) => input),
    terms,
  );
}

/** What a request came to. A failed one counts as a call of its inputs. */
export function actualSpend(target: Target, calls: number, usage: TokenUsage): Spend {
  return { calls, tokens: usage.inputTokens + usage.outputTokens, cost: costOf(target, usage) ?? 0 };
}
