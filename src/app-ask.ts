// How models ask other endpoints: through serving like everybody, as the principal whose call they answer. What ties
// the calls together in the usage rows, and where a ring of agents that ask each other ends, is decided here.
import {
  type AnswerItem,
  type Budget,
  type CacheMode,
  type Call,
  createCall,
  type StreamEvent,
} from '#core/call.ts';
import { ServingError, throwIfAborted } from '#core/errors.ts';
import type { AskedByModel, Caller, EngineContext } from '#engines/engine.ts';
import type { Serving } from '#serving/serving.ts';

/** Models that stand between a call and whoever asked first. */
export const DEEPEST_ASK = 8;
/** The interface in the usage rows of what models ask. */
const API_TYPE = 'duckserve/ask';

type AskingServing = Pick<Serving, 'invoke' | 'stream'>;

/** `serving`: asked for only when a model asks, as engines are made before it. */
export function createAsk(serving: () => AskingServing): Required<Pick<EngineContext, 'ask' | 'askStream'>> {
  return {
    async ask(question): Promise<AnswerItem> {
      const { items } = await serving().invoke(toCall(question));
      const [item] = items;
      if (!item) throw new ServingError('INTERNAL', 'A call with one input has one item.');
      return item;
    },
    async askStream(question): Promise<AsyncIterable<StreamEvent>> {
      const { events } = await serving().stream(toCall(question));
      return events;
    },
  };
}

function toCall(question: AskedByModel): Call {
  const { endpoint, task, input, parameters = {}, caller, signal } = question;
  const { principal, origin, clientRequestId, budget } = caller;
  const depth = caller.depth + 1;
  if (depth > DEEPEST_ASK) throw tooDeep(endpoint, caller);
  return createCall(endpoint, task, [input], {
    ...{ principal, origin, parameters, depth },
    cache: question.cache ?? defaultCache(question),
    ...(question.cache !== undefined && { isCacheChosen: true }),
    client: { apiType: API_TYPE },
    usageContext: trailOf(caller),
    ...(signal && { signal }),
    ...(clientRequestId !== undefined && { clientRequestId }),
    ...(budget && { budget: besideAncestors(budget) }),
  });
}

/** As HTTP callers have it: what samples is asked anew each time. */
function defaultCache({ task, parameters }: AskedByModel): CacheMode {
  const isRepeatable = task === 'llm/v1/embeddings' || task === 'predict' || parameters?.temperature === 0;
  return isRepeatable ? 'on' : 'off';
}

/** What the caller wrote, who asked, and the calls that led here: the one before and the first of all. */
function trailOf({ usageContext, callId, endpoint, depth }: Caller): Record<string, string> {
  const root = depth > 0 ? usageContext?.root_call_id : undefined;
  return {
    ...usageContext,
    ...(endpoint !== undefined && { asked_by: endpoint }),
    ...(callId !== undefined && { parent_call_id: callId, root_call_id: root ?? callId }),
  };
}

function tooDeep(endpoint: string, { endpoint: asking, depth }: Caller): ServingError {
  const by = asking === undefined ? 'A model' : `'${asking}'`;
  return new ServingError(
    'INVALID_PARAMETER',
    `${by} asks '${endpoint}' and was asked through ${depth} other models itself; ${DEEPEST_ASK} is the most. Do agents ask each other in a ring, or one itself?`,
  );
}

const beside = new WeakMap<Budget, Budget>();

/**
 * The budget of a statement, for calls inside one that holds a part of it back. Where calls are counted it must not
 * wait: what could be freed is held by those who wait for this very answer.
 */
function besideAncestors(budget: Budget): Budget {
  let known = beside.get(budget);
  if (!known) beside.set(budget, (known = budget.limits.maxCalls === undefined ? budget : unwaiting(budget)));
  return known;
}

function unwaiting(budget: Budget): Budget {
  return {
    limits: budget.limits,
    ...(budget.tryReserve && { tryReserve: (spend) => refuseToWait(budget, budget.tryReserve?.(spend)) }),
    async reserve(spend, signal) {
      throwIfAborted(signal);
      if (!budget.tryReserve) return budget.reserve(spend, signal);
      return refuseToWait(budget, budget.tryReserve(spend));
    },
  };
}

function refuseToWait<T>({ limits }: Budget, reservation: T | undefined): T {
  if (reservation !== undefined) return reservation;
  throw new ServingError(
    'BUDGET_EXCEEDED',
    `The budget is ${limits.maxCalls} calls, and what is left of it is held by the agents that are asking. Raise the limit: what agents ask counts, too.`,
    { details: { limits: { ...limits } } },
  );
}
