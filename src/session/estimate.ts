// What a statement would ask, before anything is spent: its first pass without the asking.
import { createCall, type Principal } from '#core/call.ts';
import type { Estimate } from '#core/estimate.ts';
import { FUNCTION_DOCS } from '#functions/functions.ts';
import type { Serving } from '#serving/serving.ts';
import { groupByScope } from './ask.ts';
import { closingIndex, type Token } from './lexer.ts';
import { type StatementResult, tableResult } from './result.ts';
import type { AnswerSheet } from './sheet.ts';
import type { Statement } from './statement.ts';

export interface EndpointEstimate extends Estimate {
  readonly endpoint: string;
  readonly model: string;
}

export interface StatementEstimate extends Estimate {
  /** A sentence about what cannot be known before answers are there; null when the numbers are the whole of it. */
  readonly unknown: string | null;
  readonly endpoints: readonly EndpointEstimate[];
}

export const NOTHING_TO_ASK: StatementEstimate = {
  calls: 0,
  cached: 0,
  inputTokens: 0,
  cost: 0,
  seconds: 0,
  unknown: null,
  endpoints: [],
};

export async function estimateSheet(
  sheet: AnswerSheet,
  statement: Statement,
  serving: Serving,
  principal: Principal,
): Promise<StatementEstimate> {
  const byEndpoint = new Map<string, EndpointEstimate>();
  for (const group of groupByScope(sheet.fresh)) {
    const question = group[0]?.question;
    if (!question) continue;
    const inputs = group.map((asked) => asked.question.input);
    const { endpoint, task, parameters, cache } = question;
    const call = createCall(endpoint, task, inputs, { parameters, cache, principal, origin: 'sql' });
    const part = await serving.estimate(call);
    const known = byEndpoint.get(endpoint);
    const model = serving.describe(endpoint, task).target.model;
    byEndpoint.set(endpoint, { ...(known ? add(known, part) : part), endpoint, model });
  }
  const endpoints = [...byEndpoint.values()];
  const total = endpoints.reduce<Estimate>(add, NOTHING_TO_ASK);
  return { ...total, unknown: unknownOf(statement), endpoints };
}

/** Sums; time is the longest, as endpoints work side by side. */
export function add(left: Estimate, right: Estimate): Estimate {
  return {
    calls: left.calls + right.calls,
    cached: left.cached + right.cached,
    inputTokens: left.inputTokens + right.inputTokens,
    cost: left.cost === null || right.cost === null ? null : left.cost + right.cost,
    seconds: left.seconds === null || right.seconds === null ? null : Math.max(left.seconds, right.seconds),
  };
}

const FUNCTION_NAMES = new Set(FUNCTION_DOCS.map((doc) => doc.name));
const QUERIES = new Set(['select', 'from', 'with', 'values']);
const FILTERS = new Set(['where', 'on', 'having', 'qualify']);

/** Calls inside calls, calls beside a filter that is itself a call, and calls over the answers of a subquery depend on answers. */
function unknownOf(statement: Statement): string | null {
  const { tokens } = statement;
  let calls = 0;
  let isDependent = false;
  let clause = '';
  let innermostEnd = -1;
  const depths = queryDepths(tokens);
  const seen = new Set<number>();
  tokens.forEach((token: Token, index) => {
    if (token.kind !== 'word') return;
    if (FILTERS.has(token.value) || token.value === 'select' || token.value === 'from') clause = token.value;
    if (!FUNCTION_NAMES.has(token.value) || tokens[index + 1]?.text !== '(') return;
    calls++;
    seen.add(depths[index] ?? 0);
    if (index < innermostEnd || FILTERS.has(clause)) isDependent = true;
    innermostEnd = Math.max(innermostEnd, closingIndex(tokens, index + 1));
  });
  const sentences = [
    ...(calls > 1 && (isDependent || seen.size > 1)
      ? [
          'Calls that depend on the answers of other calls are not counted: they are known only when those are answered.',
        ]
      : []),
    ...(statement.mayStopEarly
      ? ['The statement may stop early (LIMIT, EXISTS): this is the most it can ask.']
      : []),
  ];
  return sentences.length > 0 ? sentences.join(' ') : null;
}

/** For each token, in how many subqueries it stands. */
function queryDepths(tokens: readonly Token[]): readonly number[] {
  const ends: number[] = [];
  return tokens.map((token, index) => {
    while (ends.length > 0 && index > (ends.at(-1) ?? 0)) ends.pop();
    const inner = tokens[index + 1];
    if (token.text === '(' && inner?.kind === 'word' && QUERIES.has(inner.value))
      ends.push(closingIndex(tokens, index));
    return ends.length;
  });
}

/** As the rows of an ESTIMATE statement: one an endpoint, and the total. */
export function estimateTable(estimate: StatementEstimate): StatementResult {
  const row = (name: string, model: string | null, part: Estimate) => [
    name,
    model,
    part.calls,
    part.cached,
    part.inputTokens,
    part.cost,
    part.seconds,
  ];
  return tableResult(
    [
      { name: 'endpoint', type: 'VARCHAR' },
      { name: 'model', type: 'VARCHAR' },
      { name: 'calls', type: 'BIGINT' },
      { name: 'cached', type: 'BIGINT' },
      { name: 'input_tokens', type: 'BIGINT' },
      { name: 'cost', type: 'DOUBLE' },
      { name: 'seconds', type: 'DOUBLE' },
      { name: 'unknown', type: 'VARCHAR' },
    ],
    [
      ...estimate.endpoints.map((part) => [...row(part.endpoint, part.model, part), null]),
      [...row('total', null, estimate), estimate.unknown],
    ],
  );
}
