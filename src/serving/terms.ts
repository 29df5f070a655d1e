// Terms: what questions must share to travel in one request (task, parameters, budget), and how their answers
// are checked. Made once per call.
import type { Budget, Call, Parameters, Task } from '#core/call.ts';
import { canonicalJson } from '#core/json.ts';
import { maxSharedTokens } from './inputs.ts';
import { loadOutputCheck, type OutputCheck } from './output-check.ts';

/** Output tokens that are assumed, and under a budget enforced, where a call does not say. */
export const DEFAULT_MAX_TOKENS = 1024;

export interface Terms {
  /** Equal keys may share a request. */
  readonly key: string;
  /** Equal keys ask the same of a model, whoever pays. */
  readonly parametersKey: string;
  readonly task: Task;
  readonly parameters: Parameters;
  readonly budget: Budget | undefined;
  readonly check: OutputCheck;
  /** `maxTokens` was set here and not by the caller: an answer cut off by it is nobody's wish and is not stored. */
  readonly isCapped: boolean;
  /** Upper bound of the tokens that every input carries besides its own. */
  readonly sharedTokens: number;
  readonly maxOutputTokens: number;
}

const budgetIds = new WeakMap<Budget, number>();
let lastBudgetId = 0;

/** Throws UNSUPPORTED_RETURN_TYPE when the answer's schema cannot be used. */
export async function prepareTerms({ task, parameters, budget }: Call): Promise<Terms> {
  const isGenerating = task === 'llm/v1/chat' || task === 'llm/v1/completions';
  const isBounded = budget?.limits.maxTokens !== undefined || budget?.limits.maxCost !== undefined;
  const isCapped = isGenerating && isBounded && parameters.maxTokens === undefined;
  const sent = isCapped ? { ...parameters, maxTokens: DEFAULT_MAX_TOKENS } : parameters;
  const parametersKey = `${task} ${canonicalJson(sent)}`;
  return {
    key: budget ? `${idOf(budget)} ${parametersKey}` : parametersKey,
    parametersKey,
    task,
    parameters: sent,
    budget,
    check: await loadOutputCheck(parameters),
    isCapped,
    sharedTokens: budget ? maxSharedTokens(parameters) : 0,
    maxOutputTokens: isGenerating ? (sent.maxTokens ?? DEFAULT_MAX_TOKENS) : 0,
  };
}

function idOf(budget: Budget): number {
  const known = budgetIds.get(budget);
  if (known !== undefined) return known;
  budgetIds.set(budget, ++lastBudgetId);
  return lastBudgetId;
}
