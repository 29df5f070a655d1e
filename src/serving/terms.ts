// Terms: what questions must share to travel in one request (task, parameters, budget, guard, patience), and how
// their answers are checked. Made once per call.
import type { Budget, Call, Parameters, Task } from '#core/call.ts';
import type { Endpoint } from '#core/endpoint.ts';
import { canonicalJson } from '#core/json.ts';
import type { Guard } from '#core/policies.ts';
import { combineBudgets } from './combined-budget.ts';
import { isPatientOrigin } from './deadline.ts';
import type { HedgingRules } from './hedging.ts';
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
  /** That of the caller and the meter of governance, as one. */
  readonly budget: Budget | undefined;
  readonly guard: Guard | undefined;
  readonly hedging: HedgingRules | undefined;
  /** Rows of a statement: they wait and try again where a caller on a connection is sent on or refused. */
  readonly isPatient: boolean;
  readonly check: OutputCheck;
  /** `maxTokens` was set here and not by the caller: an answer cut off by it is nobody's wish and is not stored. */
  readonly isCapped: boolean;
  /** Upper bound of the tokens that every input carries besides its own. */
  readonly sharedTokens: number;
  readonly maxOutputTokens: number;
}

/** What governance says of the calls of one principal to one endpoint. */
export interface Policies {
  readonly endpoint: Endpoint;
  readonly meter: Budget | undefined;
  readonly guard: Guard | undefined;
  /** An answer may depend on who asks. */
  readonly isPersonal?: boolean;
}

const ids = new WeakMap<object, number>();
let lastId = 0;

/** Throws UNSUPPORTED_RETURN_TYPE when the answer's schema cannot be used. */
export async function prepareTerms(
  { task, parameters, budget: own, origin, principal, depth = 0 }: Call,
  { endpoint, meter, guard, isPersonal }: Policies,
): Promise<Terms> {
  const budget = combineBudgets(own, meter);
  const isPatient = isPatientOrigin(origin);
  const hedging = task === 'predict' ? undefined : endpoint.aiGateway?.hedging;
  const isGenerating = task === 'llm/v1/chat' || task === 'llm/v1/completions';
  const isBounded = budget?.limits.maxTokens !== undefined || budget?.limits.maxCost !== undefined;
  const isCapped = isGenerating && isBounded && parameters.maxTokens === undefined;
  const sent = isCapped ? { ...parameters, maxTokens: DEFAULT_MAX_TOKENS } : parameters;
  const who = isPersonal ? ` ${JSON.stringify([principal.id, depth])}` : '';
  const parametersKey = `${task} ${canonicalJson(sent)}${who}`;
  return {
    key: `${isPatient ? 'p' : 'i'}${idOf(budget)},${idOf(guard)},${idOf(hedging)} ${parametersKey}`,
    parametersKey,
    task,
    parameters: sent,
    budget,
    guard,
    hedging,
    isPatient,
    check: await loadOutputCheck(parameters),
    isCapped,
    sharedTokens: budget ? maxSharedTokens(parameters) : 0,
    maxOutputTokens: isGenerating ? (sent.maxTokens ?? DEFAULT_MAX_TOKENS) : 0,
  };
}

/** The same object, the same number; 0 for none. */
function idOf(object: object | undefined): number {
  if (!object) return 0;
  const known = ids.get(object);
  if (known !== undefined) return known;
  ids.set(object, ++lastId);
  return lastId;
}
