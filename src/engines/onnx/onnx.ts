// The ONNX engine: opens text embedding models and tabular models, each with its own runner, loaded when first needed.
import { ServingError } from '#core/errors.ts';
import type { Engine } from '../engine.ts';

export const onnxEngine: Engine = {
  kind: 'onnx',
  async open(target, context) {
    if (target.task === 'llm/v1/embeddings') {
      const { openTextRunner } = await import('./text.ts');
      return openTextRunner(target, context);
    }
    if (target.task === 'predict') {
      const { openTabularRunner } = await import('./tabular.ts');
      return openTabularRunner(target, context);
    }
    throw new ServingError(
      'WRONG_TASK',
      `The model "${target.model}" cannot serve ${target.task}: the ONNX engine has llm/v1/embeddings and predict.`,
      { details: { model: target.model, task: target.task } },
    );
  },
};
