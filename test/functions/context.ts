// A context to plan rows of AI functions in, and answers to finish them with: no DuckDB, no model.
import type { AnswerItem, Output, Task } from '#core/call.ts';
import { ServingError } from '#core/errors.ts';
import type { Json } from '#core/json.ts';
import type { AiFunction, Plan, PlanContext, SqlValue } from '#functions/function.ts';

export function contextOf(
  tasks: Readonly<Record<string, Task>>,
  defaults: Partial<Record<'chat' | 'embedding' | 'classify', string>> = {},
): PlanContext {
  return {
    cache: 'on',
    describe: (endpoint) => {
      const task = tasks[endpoint];
      if (!task) throw new ServingError('ENDPOINT_NOT_FOUND', `There is no endpoint '${endpoint}'.`);
      return {
        task,
        model: endpoint,
        sha256: '',
        dimensions: null,
        fingerprint: endpoint,
        signature: undefined,
      };
    },
    defaultEndpoint: (use) => {
      const name = defaults[use];
      if (name === undefined)
        throw new ServingError('MODEL_NOT_AVAILABLE', `There is no default endpoint for ${use}.`);
      return name;
    },
  };
}

/** The plan of a row that needs a model. */
export function planOf(called: AiFunction, args: readonly Json[], context: PlanContext): Plan {
  const plan = called.plan(args, context);
  if (!('questions' in plan))
    throw new Error(`${called.name} asked nothing and gave ${JSON.stringify(plan.value)}`);
  return plan;
}

export const answered = (output: Output): AnswerItem => ({
  ok: true,
  output,
  usage: { inputTokens: 1, outputTokens: 1 },
  cached: false,
});
export const said = (content: string | null): AnswerItem => answered({ content, finishReason: 'stop' });
export const embedded = (...embedding: number[]): AnswerItem =>
  answered({ embedding: new Float32Array(embedding) });
export const predicted = (prediction: Json): AnswerItem => answered({ prediction });
export const failed = (error: ServingError): AnswerItem => ({ ok: false, error });

export function finish(
  called: AiFunction,
  args: readonly Json[],
  context: PlanContext,
  ...items: AnswerItem[]
): SqlValue {
  return planOf(called, args, context).finish(items);
}
