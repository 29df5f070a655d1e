// Whose tokens go into the next batch of a llama.cpp context. Prompts are evaluated alone, in blocks; tokens that are
// generated travel together. Which sequence holds what is not known here.
import type { BatchingOptions } from 'node-llama-cpp';

type Strategy = Exclude<NonNullable<BatchingOptions['itemPrioritizationStrategy']>, string>;

/**
 * Takes turns: one block of a prompt, then one token of everybody who generates. So a long prompt does not hold up
 * the answers of others for longer than a block, and the numbers in a block are those it would have without
 * neighbours: how llama.cpp rounds depends on how many tokens of a sequence it computes at once. Of several prompts
 * the one that waits longest and the one that is done soonest take turns.
 */
export function takeTurns(blockTokens: number): Strategy {
  let wasPrompt = false;
  let wasOldest = false;
  return ({ items, size }) => {
    const prompts = items.filter(({ tokens }) => tokens.length > 1);
    const generating = items.filter(({ tokens }) => tokens.length === 1);
    wasPrompt = prompts.length > 0 && (!wasPrompt || generating.length === 0);
    if (!wasPrompt) return generating.slice(0, size).map((item) => ({ item, processAmount: 1 }));
    wasOldest = !wasOldest;
    const item = prompts.reduce((best, each) =>
      wasOldest || each.tokens.length >= best.tokens.length ? best : each,
    );
    return [{ item, processAmount: Math.min(blockTokens, size, item.tokens.length) }];
  };
}
