// What an MLflow model directory is: the engine that serves it, its task, signature and options. Runs nothing of the
// model, and refuses those that would have to be run unless that was allowed.
import { access } from 'node:fs/promises';
import type { EngineKind, ModelInspection, Signature } from '#core/endpoint.ts';
import { ServingError } from '#core/errors.ts';
import type { JsonObject } from '#core/json.ts';
import type { EngineContext } from '../engine.ts';
import {
  agentKind,
  codeIn,
  dataPath,
  type FlavourChoice,
  flavourChoices,
  PYTHON_FLAVOUR,
} from './flavour.ts';
import { type MlModel, toSignature } from './mlmodel.ts';

export interface InspectOptions {
  /** Instead of the one that would be chosen. */
  readonly engine?: EngineKind;
  /** Models that are programs (Python, pickles, modules) are taken. */
  readonly allowCode?: boolean;
  /** As the version will have them, e.g. `python`, its interpreter. */
  readonly options?: JsonObject;
  readonly context?: Pick<EngineContext, 'python' | 'environmentsDir' | 'notify' | 'log'>;
}

/** Throws INVALID_PARAMETER, or MODEL_NOT_AVAILABLE where the model needs Python and there is none. */
export async function inspectMlModel(model: MlModel, options: InspectOptions): Promise<ModelInspection> {
  const choices = flavourChoices(model, options.engine);
  const notes: string[] = [];
  for (const [index, choice] of choices.entries()) {
    try {
      const found = await inspectChoice(model, choice, options);
      return { ...found, flavour: choice.flavour, notes: [...notes, ...(found.notes ?? [])] };
    } catch (error) {
      const isLast = index === choices.length - 1;
      if (isLast || !(error instanceof ServingError) || error.code !== 'INVALID_PARAMETER') throw error;
      // What cannot be read without Python may be served with it, where that is allowed.
      if (options.allowCode !== true) throw withHint(error);
      notes.push(`flavour ${choice.flavour} is passed over: ${error.message}`);
    }
  }
  throw new ServingError('INTERNAL', 'A model has no flavours.');
}

async function inspectChoice(
  model: MlModel,
  choice: FlavourChoice,
  options: InspectOptions,
): Promise<ModelInspection> {
  if (choice.engine === 'python') return await inspectPython(model, options);
  const path = dataPath(model, choice);
  await access(path).catch(() => {
    throw new ServingError(
      'INVALID_PARAMETER',
      `MLmodel in ${model.folder} says flavors.${choice.flavour}.data: ${JSON.stringify(choice.mainFile)}, and there is no such file.`,
    );
  });
  if (choice.engine === 'onnx') {
    const { inspectTabularModel } = await import('../onnx/tabular.ts');
    const { signature, options: found } = await inspectTabularModel(path);
    return { engine: 'onnx', task: 'predict', signature, options: found, mainFile: choice.mainFile };
  }
  const { inspectTrees } = await import('../trees/inspect.ts');
  const found = await inspectTrees(model.folder);
  if (found !== undefined) return { mainFile: choice.mainFile, ...found };
  throw new ServingError('INVALID_PARAMETER', `${path} is a model that only its own library can run.`);
}

async function inspectPython(model: MlModel, options: InspectOptions): Promise<ModelInspection> {
  if (options.allowCode !== true) throw codeRefused(model);
  const { findPython } = await import('../python/interpreter.ts');
  const { readRequirements } = await import('../python/requirements.ts');
  const wanted = (await readRequirements(model.folder))?.pythonVersion;
  if (
    options.options?.python === undefined &&
    (await findPython(options.context ?? {}, wanted)) === undefined
  ) {
    const { noPython } = await import('../python/environments.ts');
    throw noPython(model.folder, wanted);
  }
  const loaderModule = model.flavors[PYTHON_FLAVOUR]?.loader_module;
  const loader = typeof loaderModule === 'string' ? { loaderModule } : {};
  const agent = agentKind(model);
  if (agent !== undefined)
    return { engine: 'python', task: 'llm/v1/chat', options: { ...loader, agent }, mainFile: 'MLmodel' };
  const signature: Signature | undefined = toSignature(model);
  return {
    engine: 'python',
    task: 'predict',
    options: loader,
    mainFile: 'MLmodel',
    ...(signature === undefined ? {} : { signature }),
  };
}

function codeRefused(model: MlModel): ServingError {
  const parts = [...codeIn(model), 'the packages that its requirements name, which would be installed'];
  return new ServingError(
    'INVALID_PARAMETER',
    `The MLflow model in ${model.folder} is served by Python, and that would run what is in it: ${parts.join('; ')}. ` +
      'If you trust where it comes from, allow it: models register ... --allow-code, or allow_code := true in SQL.',
    { details: { code: parts } },
  );
}

function withHint(error: ServingError): ServingError {
  return new ServingError(
    error.code,
    `${error.message} The model could be served by Python instead: --engine python --allow-code, if you trust where it comes from.`,
    { cause: error, details: error.details },
  );
}
