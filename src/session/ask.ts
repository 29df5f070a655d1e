// The questions of one pass as calls: those of equal endpoint, task and parameters travel together.
import { type Budget, createCall, type Origin, type Principal } from '#core/call.ts';
import type { Price, Target } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { Serving } from '#serving/serving.ts';
import type { ProgressMeter } from './progress.ts';
import type { SheetQuestion } from './sheet.ts';

export interface AskOptions {
  readonly serving: Serving;
  readonly principal: Principal;
  readonly origin: Origin;
  readonly signal: AbortSignal;
  readonly budget: Budget | undefined;
  readonly meter: ProgressMeter;
}

/** Errors that end the statement at once instead of becoming the value of a row. */
const FINAL = new Set(['CANCELLED', 'BUDGET_EXCEEDED']);

/** Groups by scope, in the order in which the scopes first came up. */
export function groupByScope(questions: readonly SheetQuestion[]): readonly (readonly SheetQuestion[])[] {
  const groups = new Map<string, SheetQuestion[]>();
  for (const question of questions) {
    const group = groups.get(question.scope);
    if (group) group.push(question);
    else groups.set(question.scope, [question]);
  }
  return [...groups.values()];
}

/**
 * Fills in `item` of every question. A failure of an input is its item; a failure of a whole call (no such
 * endpoint, cancelled, over budget) is thrown after the other calls have ended, so that their answers are kept.
 */
export async function askAll(questions: readonly SheetQuestion[], options: AskOptions): Promise<void> {
  const ended = await Promise.allSettled(groupByScope(questions).map((group) => askGroup(group, options)));
  const failed = ended.find((outcome) => outcome.status === 'rejected');
  if (failed) throw failed.reason;
  for (const { item } of questions) {
    if (item && !item.ok && FINAL.has(item.error.code)) throw item.error;
  }
}

async function askGroup(group: readonly SheetQuestion[], options: AskOptions): Promise<void> {
  const first = group[0]?.question;
  if (!first) return;
  const price = priceOf(options.serving.describe(first.endpoint, first.task).target);
  const call = createCall(
    first.endpoint,
    first.task,
    group.map((question) => question.question.input),
    {
      parameters: first.parameters,
      cache: first.cache,
      ...(first.isCacheChosen && { isCacheChosen: true }),
      principal: options.principal,
      origin: options.origin,
      signal: options.signal,
      ...(options.budget ? { budget: options.budget } : {}),
      onItem: (_index, item) => options.meter.count(item, price),
    },
  );
  const answer = await options.serving.invoke(call);
  if (answer.items.length !== group.length) {
    throw new ServingError(
      'INTERNAL',
      `Endpoint '${first.endpoint}' gave ${answer.items.length} answers for ${group.length} questions.`,
    );
  }
  group.forEach((question, index) => {
    question.item = answer.items[index];
  });
}

/** Models that run here cost nothing; of an external one the price is known only when it was given. */
function priceOf(target: Target): Price | null {
  if (!target.externalModel) return { inputPerMillion: 0, outputPerMillion: 0 };
  return target.price ?? target.externalModel.price ?? null;
}
