// The shape of what a served entity says about its replicas and about the environment of its model. Values of
// variables may be secrets, so none is ever shown.
import { z } from 'zod';
import type { ServedEntitySpec } from './schemas.ts';

const MOST_REPLICAS = 1_000;
const MOST_REQUESTS = 10_000;
const MOST_WAITING = 10_000_000;
const MOST_IDLE_SECONDS = 30 * 86_400;
const MOST_VARIABLES = 30;
const LONGEST_VALUE = 32_768;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]{0,255}$/;

export const scalingSchema = z
  .strictObject({
    minReplicas: z.int().min(0).max(MOST_REPLICAS).optional(),
    maxReplicas: z.int().min(1).max(MOST_REPLICAS).optional(),
    targetConcurrency: z.int().min(1).max(MOST_REQUESTS).optional(),
    idleSeconds: z.number().min(1).max(MOST_IDLE_SECONDS).optional(),
    maxQueue: z.int().min(1).max(MOST_WAITING).optional(),
  })
  .superRefine(({ minReplicas = 0, maxReplicas }, context) => {
    if (maxReplicas === undefined || minReplicas <= maxReplicas) return;
    context.addIssue({
      code: 'custom',
      path: ['minReplicas'],
      message: `is ${minReplicas}, more than maxReplicas, which is ${maxReplicas}`,
    });
  });

export const environmentSchema = z.record(z.string(), z.unknown()).superRefine((variables, context) => {
  const names = Object.keys(variables);
  const refuse = (path: string[], message: string) =>
    context.addIssue({ code: 'custom', path, message, params: { isSecret: true } });
  if (names.length > MOST_VARIABLES) {
    refuse([], `has ${names.length} variables, and ${MOST_VARIABLES} are the most`);
  }
  for (const [name, value] of Object.entries(variables)) {
    if (!VARIABLE.test(name)) {
      refuse(
        [name.slice(0, 80)],
        'is no name of a variable: letters, digits and _, not beginning with a digit',
      );
    } else if (typeof value !== 'string') {
      refuse([name], 'must be a text, or a reference such as {{secrets/scope/key}}');
    } else if (value.length > LONGEST_VALUE || value.includes('\u0000')) {
      refuse([name], `must be at most ${LONGEST_VALUE} characters and hold no zero byte`);
    }
  }
});

/** What is wrong with them beside an external model; undefined: nothing. */
export function ownFieldProblem(
  entity: Pick<ServedEntitySpec, 'scaling' | 'environment'>,
): { readonly field: 'scaling' | 'environment'; readonly message: string } | undefined {
  if (entity.scaling !== undefined) {
    return {
      field: 'scaling',
      message:
        'is for registered models, of which duckserve runs replicas; the provider scales an external model, and its maxConcurrency bounds the requests at once',
    };
  }
  if (entity.environment !== undefined) {
    return {
      field: 'environment',
      message: 'is for registered models, which run here; an external model runs at its provider',
    };
  }
  return undefined;
}
