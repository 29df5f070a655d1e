// The Python engine: MLflow models in a process of their own, with their own environment. Rows of features
// (`predict`) and agents (chat); loaded when first needed.
import { ServingError } from '#core/errors.ts';
import type { Engine } from '../engine.ts';

export const pythonEngine: Engine = {
  kind: 'python',
  async open(target, context) {
    if (target.task === 'predict') {
      const { openPredictRunner } = await import('./predict-runner.ts');
      return openPredictRunner(target, context);
    }
    if (target.task === 'llm/v1/chat') {
      const { openAgentRunner } = await import('./agent-runner.ts');
      return openAgentRunner(target, context);
    }
    throw new ServingError(
      'WRONG_TASK',
      `The model "${target.model}" cannot serve ${target.task}: the Python engine has predict and llm/v1/chat.`,
      { details: { model: target.model, task: target.task } },
    );
  },
};
